"""The verifier: may the drafted words be spoken, and how many of them?

After RelayS2S (arXiv 2603.23346, "prefix verifier"): hidden states of the drafted tokens, gated by how sure the draft
model was of each (entropy, log-probability, top-2 margin) and how sure the recogniser is of what was said, pooled by
one query. Beside the commit logit a second head says how many words to keep. What the logit means is calibrated on
held-out drafts, and the threshold is chosen there; both are stored with the weights. `host_verifier.py` is the same
network without torch, and judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from relay_models.drafting import Drafted
from relay_models.host_verifier import SCALARS, VerifierConfig, scalars_of
from relay_models.loading import read_config
from relay_models.state import valid_positions
from relay_models.stored import load_weights, read_tensors, save_model

__all__ = [
    "DraftBatch",
    "Verifier",
    "VerifierConfig",
    "count_loss",
    "load_verifier",
    "regret_loss",
    "save_verifier",
]


@dataclass(frozen=True, slots=True)
class DraftBatch:
    """Drafts, padded.

    Attributes:
        hidden: [batch, tokens, hidden_size] float32.
        scalars: [batch, tokens, 4] float32, see `SCALARS`.
        counts: [batch] int64, tokens of each.
        words: [batch] int64, words of each.
    """

    hidden: Tensor
    scalars: Tensor
    counts: Tensor
    words: Tensor

    @classmethod
    def join(cls, drafts: Sequence[Drafted], confidences: Sequence[float]) -> DraftBatch:
        """Drafts and how sure the recogniser was of what each answers, 0 to 1; 0 where nobody knows.

        Raises:
            ValueError: There is no draft, or one is empty.
        """
        if not drafts or not all(draft.tokens for draft in drafts):
            raise ValueError("an empty draft cannot be judged")
        width = max(len(draft.tokens) for draft in drafts)

        def padded(x: NDArray[np.float32]) -> Tensor:
            return functional.pad(torch.from_numpy(x), (0, 0, 0, width - len(x)))

        return cls(
            hidden=torch.stack([padded(draft.hidden) for draft in drafts]),
            scalars=torch.stack(
                [padded(scalars_of(draft, sure)) for draft, sure in zip(drafts, confidences, strict=True)]
            ),
            counts=torch.tensor([len(draft.tokens) for draft in drafts]),
            words=torch.tensor([len(draft.word_ends) for draft in drafts]),
        )


class Verifier(nn.Module):
    """The network.

    Args:
        config: Sizes.
        dropout: In training, of the projected states and inside the feed-forward.
    """

    def __init__(self, config: VerifierConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        size = config.size
        self.project = nn.Linear(config.hidden_size, size)
        self.project_norm = nn.LayerNorm(size)
        self.gate = nn.Linear(SCALARS, size)
        self.shift = nn.Linear(SCALARS, size, bias=False)
        self.positions = nn.Embedding(config.max_tokens, size)
        self.norm = nn.LayerNorm(size)
        self.feed_forward = nn.Sequential(
            nn.Linear(size, 2 * size), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * size, size)
        )
        self.pool_norm = nn.LayerNorm(size)
        self.query = nn.Parameter(torch.randn(size) * size**-0.5)
        self.key = nn.Linear(size, size, bias=False)
        self.value = nn.Linear(size, size)
        self.commit = nn.Linear(size, 1)
        self.count = nn.Linear(size, config.max_words + 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch: DraftBatch) -> tuple[Tensor, Tensor]:
        """Commit logits [batch] and logits of how many words are good [batch, max_words + 1].

        Numbers of words that a draft does not have are minus infinity.
        """
        x = self.dropout(functional.gelu(self.project_norm(self.project(batch.hidden))))
        x = x * torch.sigmoid(self.gate(batch.scalars)) + self.shift(batch.scalars)
        x = x + self.positions.weight[: x.shape[1]]
        x = x + self.feed_forward(self.norm(x))
        x = self.pool_norm(x)
        scores = self.key(x) @ self.query * len(self.query) ** -0.5
        valid = valid_positions(batch.counts, x.shape[1])
        weights = scores.masked_fill(~valid, -torch.inf).softmax(-1)
        pooled = (weights[:, None] @ self.value(x))[:, 0]
        numbers = torch.arange(self.config.max_words + 1, device=x.device)
        counts = self.count(pooled).masked_fill(numbers > batch.words[:, None], -torch.inf)
        return self.commit(pooled)[:, 0], counts

    def judge(self, batch: DraftBatch) -> tuple[Tensor, Tensor]:
        """`HostVerifier.judge` of every draft, without a look at any on the host; empty ones are of no words.

        Returns:
            Probabilities [batch] float32, and how many words may be spoken [batch] int64.
        """
        said = batch.counts > 0
        logits, numbers = self(replace(batch, counts=batch.counts.clamp(min=1)))  # a mean over nothing would be nan
        probability = torch.sigmoid(self.config.scale * logits.float() + self.config.shift) * said
        return probability, numbers.argmax(-1) * (said & (probability >= self.config.threshold))


def regret_loss(logits: Tensor, regrets: Tensor, tolerance: float, *, softness: float) -> Tensor:
    """Mean cross entropy of commit logits [batch] with soft labels: how surely a draft is good.

    A draft that regrets just the tolerance is as good as bad; one that regrets `softness` nats less is good with odds
    of e to one. So drafts near the border, which might as well be on its other side, teach little.
    RelayS2S has hard labels and a focal loss, which told good from bad less well here (`training/LOG.md`).

    Args:
        logits: [batch].
        regrets: [batch], the worst of each draft's beginnings, in nats a token.
        tolerance: Regret that is just good enough, likewise.
        softness: In nats a token.
    """
    return functional.binary_cross_entropy_with_logits(logits, torch.sigmoid((tolerance - regrets) / softness))


def count_loss(logits: Tensor, words: Tensor) -> Tensor:
    """Cross entropy of the number of good words: logits [batch, max_words + 1], words [batch] int64."""
    return functional.cross_entropy(logits, words)


def save_verifier(model: Verifier, folder: Path) -> None:
    """See `stored.save_model`."""
    save_model(model, model.config.to_dict(), folder)


def load_verifier(folder: Path) -> Verifier:
    """Reads what `save_verifier` wrote, in evaluation mode. Raises WeightsError."""
    model = Verifier(VerifierConfig.from_dict(read_config(folder)))
    load_weights(model, read_tensors(folder))
    return model.eval()

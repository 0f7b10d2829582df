"""What the user says, as a second thing for the draft model to tell while it is trained.

Replies alone teach a model little about how to hear. So the words of the user's turns are read off a lower layer with
CTC (Graves et al. 2006), its symbols the rows of the decoder's own embedding, silence being the blank: the layers
below learn to put words where the brain's layers above know to find them. What does the reading is not kept.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from relay_models.draft import DraftModel, Special
from relay_models.layers import RMSNorm
from relay_models.training.draft_batches import UserTurns


class WordReader(nn.Module):
    """Reads words off what leaves a layer.

    Args:
        size: Width of the decoder.
        epsilon: Of the norm.
    """

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.norm = RMSNorm(size, epsilon)
        self.linear = nn.Linear(size, size)

    def forward(self, model: DraftModel, layer: Tensor, turns: UserTurns, switched_off: Tensor) -> Tensor:
        """Mean loss of the words of the turns, in nats a token.

        Args:
            model: Whose embedding is read by.
            layer: [rows, frames, size], what leaves the layer.
            turns: Where users speak, and what they say.
            switched_off: [rows, frames] bool, frames that were not heard; turns with any of them are left out.
        """
        counts, token_counts = turns.counts.to(layer.device), turns.token_counts.to(layer.device)
        numbers = torch.arange(int(turns.counts.max()), device=layer.device)
        frames = (turns.firsts[:, None] + numbers).clamp(max=layer.shape[1] - 1)
        inside = numbers < counts[:, None]
        heard = ~(switched_off[turns.rows[:, None], frames] & inside).any(1)
        logits = model.logits(self.linear(self.norm(layer[turns.rows[:, None], frames])))
        loss = functional.ctc_loss(
            logits.float().log_softmax(-1).transpose(0, 1),
            turns.tokens,
            turns.counts,
            turns.token_counts,
            blank=model.config.token(Special.SIL),
            reduction="none",
            zero_infinity=True,
        )
        return (loss * heard).sum() / (token_counts * heard).sum().clamp(min=1)

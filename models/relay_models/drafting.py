"""Drafts: the first words of a reply, decoded greedily on a copy of a listening stream's state.

The copy hears nothing more: its speech side is switched off, and it runs as fast as the machine allows, while the
stream it was taken from goes on frame by frame (RelayS2S, arXiv 2603.23346, "forked" drafting).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from relay_models.draft import DraftModel, Special
from relay_models.state import StreamState
from relay_models.tokenizer import ChatTokenizer

MAX_TOKENS = 15
MAX_WORDS = 7


@dataclass(frozen=True, slots=True)
class Drafted:
    """The beginning of a reply, and how sure the model was of each token of it.

    Attributes:
        tokens: Tokens of its text; whole words only.
        word_ends: Number of tokens up to the end of each word.
        complete: The model would end its turn here.
        hidden: [tokens, hidden_size] float32, the states that the tokens were drawn from.
        log_probability: [tokens] float32, of each token, in nats.
        entropy: [tokens] float32, of each distribution, in nats.
        margin: [tokens] float32, probability of the likeliest token less that of the second.
    """

    tokens: tuple[int, ...]
    word_ends: tuple[int, ...]
    complete: bool
    hidden: Tensor
    log_probability: Tensor
    entropy: Tensor
    margin: Tensor

    @property
    def scalars(self) -> Tensor:
        """[tokens, 3] float32: entropy, log-probability, margin."""
        return torch.stack((self.entropy, self.log_probability, self.margin), dim=1)


class Drafter:
    """Drafts replies.

    Args:
        model: The model, in evaluation mode.
        tokenizer: Of its text.

    Raises:
        ValueError: The tokenizer is another model's.
    """

    def __init__(self, model: DraftModel, tokenizer: ChatTokenizer) -> None:
        if tokenizer.size != model.config.text_tokens:
            raise ValueError(
                f"a tokenizer of {tokenizer.size} tokens; the draft model has {model.config.text_tokens} tokens of text"
            )
        self._model = model
        self._tokenizer = tokenizer
        config = model.config
        banned = torch.zeros(config.decoder.vocab_size, dtype=torch.bool)
        banned[[getattr(tokenizer, name) for name in ("end", "system", "user", "assistant")]] = True
        banned[config.text_tokens :] = True
        banned[config.token(Special.EOS)] = False
        begins = torch.zeros_like(banned)
        begins[[token for token in range(tokenizer.size) if begins_word(token, tokenizer)]] = True
        device = model.decoder.lm_head.weight.device
        self._banned, self._begins = banned.to(device), begins.to(device)

    @torch.no_grad()
    def draft(
        self, state: StreamState, rows: Sequence[int], *, max_tokens: int = MAX_TOKENS, max_words: int = MAX_WORDS
    ) -> list[Drafted]:
        """What the model would say if these streams' turns had ended now. The state is not changed.

        Args:
            state: Of `DraftModel.fresh_state`, or one that holds its tensors among others.
            rows: Streams to draft for; not empty.
            max_tokens: Bound of a draft's tokens.
            max_words: Bound of its words.
        """
        model, config = self._model, self._model.config
        names = model.fresh_tensors(1)
        fork = StreamState({name: state[name][list(rows)].clone() for name in names})
        previous = fork["draft.entries"].new_full((len(rows),), config.token(Special.BOS))
        active = torch.ones_like(previous, dtype=torch.bool)
        words = torch.ones_like(previous)
        end = config.token(Special.EOS)
        steps: list[tuple[Tensor, ...]] = []
        for _ in range(max_tokens + 1):  # one more, to see whether it ends there
            hidden, _ = model.decode(previous, fork, active)
            log_probabilities = model.logits(hidden).float().log_softmax(-1)
            probabilities = log_probabilities.exp()
            first, second = probabilities.topk(2, dim=-1).values.unbind(-1)
            token = log_probabilities.masked_fill(self._banned, -torch.inf).argmax(-1)
            score = log_probabilities.gather(1, token[:, None])[:, 0]
            entropy = -(probabilities * log_probabilities).sum(-1)
            words += self._begins[token].long() if steps else 0
            steps.append((token, hidden.float(), score, entropy, first - second))
            # One word more than is wanted shows that the last one is whole.
            active = active & (token != end) & (words <= max_words)
            previous = token
            if not active.any():
                break
        tokens, hidden, score, entropy, margin = (torch.stack(parts, dim=1).cpu() for parts in zip(*steps, strict=True))
        drafts = []
        for row, said in enumerate(tokens.tolist()):
            ended = end in said
            ends = word_ends(said[: said.index(end)] if ended else said, self._tokenizer)
            kept = [at for at in (ends if ended else ends[:-1])[:max_words] if at <= max_tokens]
            part = slice(0, kept[-1] if kept else 0)
            drafts.append(
                Drafted(
                    tokens=tuple(said[part]),
                    word_ends=tuple(kept),
                    complete=ended and kept == ends,
                    hidden=hidden[row, part],
                    log_probability=score[row, part],
                    entropy=entropy[row, part],
                    margin=margin[row, part],
                )
            )
        return drafts


def begins_word(token: int, tokenizer: ChatTokenizer) -> bool:
    """Whether a token has a space before it: it begins a word wherever it stands."""
    return tokenizer.token_bytes(token)[:1].isspace()


def word_ends(tokens: Sequence[int], tokenizer: ChatTokenizer) -> list[int]:
    """Number of tokens up to the end of each word; the last may not be whole."""
    ends = [place for place, token in enumerate(tokens) if place and begins_word(token, tokenizer)]
    return [*ends, len(tokens)] if tokens else []

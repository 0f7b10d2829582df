"""Drafts: the first words of a reply, decoded greedily on a copy of a listening stream's state.

The copy hears nothing more: its speech side is switched off, and it runs as fast as the machine allows, while the
stream it was taken from goes on frame by frame (RelayS2S, arXiv 2603.23346, "forked" drafting). No torch: every runner
brings the step of its own copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from relay_models.draft_config import DraftConfig, Special
from relay_models.tokenizer import ChatTokenizer

MAX_TOKENS = 15
MAX_WORDS = 7

Floats: TypeAlias = NDArray[np.float32]
Integers: TypeAlias = NDArray[np.int64]


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
    hidden: Floats
    log_probability: Floats
    entropy: Floats
    margin: Floats

    @property
    def scalars(self) -> Floats:
        """[tokens, 3] float32: entropy, log-probability, margin."""
        return np.stack((self.entropy, self.log_probability, self.margin), axis=1)


class Chosen(NamedTuple):
    """The tokens that each row of a fork says next: one, or several that followed one another without being asked for.

    Attributes:
        token: [rows, tokens] int64.
        hidden: [rows, tokens, hidden_size] float32, the states they were drawn from.
        log_probability, entropy, margin: [rows, tokens] float32, see `Drafted`.
    """

    token: Integers
    hidden: Floats
    log_probability: Floats
    entropy: Floats
    margin: Floats


class Drafting:
    """What may be said in a draft, and when it is long enough.

    Args:
        config: Of the model.
        tokenizer: Of its text.

    Attributes:
        banned: [vocabulary] bool, tokens that no draft says.
        begins: [vocabulary] bool, tokens that begin a word wherever they stand.
        end: The token with which a turn ends.

    Raises:
        ValueError: The tokenizer is another model's.
    """

    def __init__(self, config: DraftConfig, tokenizer: ChatTokenizer) -> None:
        if tokenizer.size != config.text_tokens:
            raise ValueError(
                f"a tokenizer of {tokenizer.size} tokens; the draft model has {config.text_tokens} tokens of text"
            )
        self._tokenizer = tokenizer
        self._begin, self.end = config.token(Special.BOS), config.token(Special.EOS)
        self.banned = np.zeros(config.decoder.vocab_size, dtype=np.bool_)
        self.banned[[getattr(tokenizer, name) for name in ("end", "system", "user", "assistant")]] = True
        self.banned[config.text_tokens :] = True
        self.banned[self.end] = False
        self.begins = np.zeros_like(self.banned)
        self.begins[[token for token in range(tokenizer.size) if begins_word(token, tokenizer)]] = True

    def run(
        self,
        step: Callable[[Integers], Chosen],
        rows: int,
        *,
        max_tokens: int = MAX_TOKENS,
        max_words: int = MAX_WORDS,
    ) -> list[Drafted]:
        """Drafts until every row has its words.

        Args:
            step: Takes the token before, [rows] int64, and gives the next ones, none of `banned`; advances forks.
            rows: Number of forks, at least one.
            max_tokens: Bound of a draft's tokens.
            max_words: Bound of its words.
        """
        previous = np.full(rows, self._begin)
        active, words = np.ones(rows, dtype=np.bool_), np.ones(rows, dtype=np.int64)
        blocks: list[Chosen] = []
        count = 0
        while active.any() and count <= max_tokens:  # one more, to see whether it ends there
            blocks.append(step(previous))
            for previous in blocks[-1].token.T[: max_tokens + 1 - count]:
                words += self.begins[previous] if count else 0
                count += 1
                # One word more than is wanted shows that the last one is whole.
                active &= (previous != self.end) & (words <= max_words)
                if not active.any():
                    break
        whole = Chosen(*(np.concatenate(parts, axis=1)[:, :count] for parts in zip(*blocks, strict=True)))
        return [self._cut(Chosen(*(part[row] for part in whole)), max_tokens, max_words) for row in range(rows)]

    def _cut(self, said: Chosen, max_tokens: int, max_words: int) -> Drafted:
        """The whole words of what one row said, [steps, ...] each; what follows its end has no meaning."""
        tokens = said.token.tolist()
        ended = self.end in tokens
        ends = word_ends(tokens[: tokens.index(self.end)] if ended else tokens, self._tokenizer)
        kept = [at for at in (ends if ended else ends[:-1])[:max_words] if at <= max_tokens]
        part = slice(0, kept[-1] if kept else 0)
        return Drafted(
            tokens=tuple(tokens[part]),
            word_ends=tuple(kept),
            complete=ended and kept == ends,
            hidden=said.hidden[part],
            log_probability=said.log_probability[part],
            entropy=said.entropy[part],
            margin=said.margin[part],
        )


def begins_word(token: int, tokenizer: ChatTokenizer) -> bool:
    """Whether a token has a space before it: it begins a word wherever it stands."""
    return tokenizer.token_bytes(token)[:1].isspace()


def word_ends(tokens: Sequence[int], tokenizer: ChatTokenizer) -> list[int]:
    """Number of tokens up to the end of each word; the last may not be whole."""
    ends = [place for place, token in enumerate(tokens) if place and begins_word(token, tokenizer)]
    return [*ends, len(tokens)] if tokens else []

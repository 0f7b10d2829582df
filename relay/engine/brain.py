"""What goes into a language model engine and what comes out of it, and how a token is drawn."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
_FEW = 128
_POINTS = 4096


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn.

    Attributes:
        temperature: Divides the logits; 0 takes the likeliest token.
        top_p: Only the likeliest tokens that together hold this probability are drawn (nucleus sampling, Holtzman et
            al. 2019, arXiv 1904.09751).
        seed: The draw depends on the seed, the position and the distribution only, so that a reply can be repeated.
    """

    temperature: float = 0.5
    top_p: float = 0.9
    seed: int = 0


@dataclass(frozen=True, slots=True)
class BrainInput:
    """The whole context of one slot; the runner finds out itself how much of it is in the slot's cache.

    Attributes:
        tokens: Everything before the token that is asked for, at least one token. A context that shares its first
            tokens with the slot's last one costs only the rest: appending, rolling back and starting anew are one call.
        sampling: How the next token is drawn.
        banned: Tokens that may not be drawn now.
        watched: Tokens whose probability is asked for.
    """

    tokens: Sequence[int]
    sampling: Sampling = Sampling()
    banned: Sequence[int] = ()
    watched: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class BrainOutput:
    """The next token, with the model's own view of it before temperature, top-p and bans.

    Attributes:
        token: The drawn token; None when a long context was read in part only: step again with the same input.
        logprob: Natural logarithm of its probability.
        entropy: Entropy of the distribution, in nats.
        margin: Probability of the likeliest token less that of the second.
        watched: Probability of the watched tokens, together.
    """

    token: int | None
    logprob: float = 0.0
    entropy: float = 0.0
    margin: float = 0.0
    watched: float = 0.0


READING = BrainOutput(token=None)
"""The answer to a step that has read a part of the context."""


def common_prefix(cached: Sequence[int], tokens: Sequence[int]) -> int:
    """How many first tokens two sequences share."""
    shared = min(len(cached), len(tokens))
    if list(cached[:shared]) == list(tokens[:shared]):  # mostly so, and compared at once
        return shared
    return next(index for index, (one, other) in enumerate(zip(cached, tokens, strict=False)) if one != other)


def draw(logits: FloatArray, x: BrainInput) -> BrainOutput:
    """Draws the next token.

    Args:
        logits: [vocabulary] float32 for the token after `x.tokens`.
        x: The input that gave them.
    """
    logprobs = logits - logits.max()
    logprobs -= np.log(np.exp(logprobs).sum())
    probabilities = np.exp(logprobs)
    entropy = float(-(probabilities * logprobs).sum())
    second, first = np.partition(probabilities, -2)[-2:]
    # The weights are those of the logits themselves: so no rounding of the logarithm above can reorder near ties.
    open_logits = logits.copy()
    open_logits[list(x.banned)] = -np.inf
    sampling = x.sampling
    if sampling.temperature <= 0:
        token = int(open_logits.argmax())
    else:
        order, nucleus = _nucleus((open_logits - open_logits.max()) / sampling.temperature, sampling.top_p)
        point = _point(sampling.seed, len(x.tokens)) * nucleus[-1]
        token = int(order[min(int(np.searchsorted(nucleus, point, side="right")), len(nucleus) - 1)])
    watched = min(1.0, float(probabilities[list(set(x.watched))].sum()))
    return BrainOutput(token, float(logprobs[token]), entropy, float(first - second), watched)


@lru_cache(maxsize=_POINTS)
def _point(seed: int, position: int) -> float:
    """Where, from 0 to 1, a draw falls. Dialogues mostly share their seed; a generator costs more than one number."""
    return float(np.random.default_rng((seed, position)).random())


def pack_draws(xs: Sequence[BrainInput], vocabulary: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
    """What a device needs to draw like `draw`, a row an input.

    Returns:
        sampling [rows, 3] float64 and sets [rows, 2, (vocabulary + 7) // 8] uint8, as
        `relay_models.token_draw.draw_tokens` takes them.
    """
    sampling = np.empty((len(xs), 3))
    sets = np.zeros((len(xs), 2, -(-vocabulary // 8)), dtype=np.uint8)
    for x, row, packed in zip(xs, sampling, sets, strict=True):
        asked = x.sampling
        if asked.temperature > 0:
            row[:] = asked.temperature, asked.top_p, _point(asked.seed, len(x.tokens))
        else:
            row[:] = 1.0, 0.0, 0.0  # a nucleus of one: the likeliest
        for index, tokens in enumerate((x.banned, x.watched)):
            if tokens:
                members = np.zeros(vocabulary, dtype=np.bool_)
                members[list(tokens)] = True
                packed[index] = np.packbits(members, bitorder="little")
    return sampling, sets


def _nucleus(scaled: FloatArray, top_p: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Tokens by falling logit, equal ones by number, and the cumulated shares of those that are drawn from.

    Most distributions need a few tokens: then only these are sorted, to the same end as if all were.

    Args:
        scaled: [vocabulary] logits over the temperature, less the greatest.
        top_p: The share of probability that is drawn from.
    """
    weights = np.exp(scaled, dtype=np.float64)
    total = weights.sum()
    if len(scaled) > _FEW:
        few = np.sort(np.argpartition(scaled, -_FEW)[-_FEW:])
        order = few[np.argsort(-scaled[few], kind="stable")]
        cumulated = np.cumsum(weights[order] / total)
        count = int(np.searchsorted(cumulated, top_p)) + 1
        # Those left out are not likelier than the least likely of these, and may be its equals.
        if count < _FEW and scaled[order[count - 1]] > scaled[order[-1]]:
            return order, cumulated[:count]
    order = np.argsort(-scaled, kind="stable")
    cumulated = np.cumsum(weights[order] / total)
    return order, cumulated[: int(np.searchsorted(cumulated, top_p)) + 1]


class Rows:
    """Which slot's cache lies in which row of a fixed pool, and what tokens it holds. Pure bookkeeping.

    There may be more slots than rows: a slot that has no row takes that of the slot stepped longest ago, whose context
    is read again when it is stepped next. So idle dialogues cost nothing beyond the pool.

    Args:
        rows: Size of the pool.
    """

    def __init__(self, rows: int) -> None:
        self._rows: OrderedDict[int, int] = OrderedDict()  # slot -> row, the longest unused first
        self._free = list(range(rows - 1, -1, -1))
        self._tokens: list[list[int]] = [[] for _ in range(rows)]

    def plan(self, slot: int, x: BrainInput, *, chunk: int) -> Plan:
        """Where and what a slot has to read next: its tokens past the cached ones, at most `chunk` of them.

        Raises:
            ValueError: There is no token.
        """
        if not x.tokens:
            raise ValueError("a context needs at least one token")
        row = self._rows.pop(slot, None)
        if row is None:
            row = self._free.pop() if self._free else self._rows.popitem(last=False)[1]
            self._tokens[row] = []
        self._rows[slot] = row
        # The last token is read again even when it is cached: the logits after it are what is asked for.
        start = min(common_prefix(self._tokens[row], x.tokens), len(x.tokens) - 1)
        tokens = list(x.tokens[start : start + chunk])
        self._tokens[row] = [*x.tokens[:start], *tokens]
        return Plan(row=row, start=start, tokens=tokens, complete=start + len(tokens) == len(x.tokens))

    def drop(self, slot: int) -> None:
        """Frees a slot's row, if it has one."""
        row = self._rows.pop(slot, None)
        if row is not None:
            self._free.append(row)
            self._tokens[row] = []


@dataclass(frozen=True, slots=True)
class Plan:
    """One slot's share of a step.

    Attributes:
        row: Row of the pool.
        start: How many of the row's entries stay valid; the new ones are written from here.
        tokens: What to read.
        complete: Nothing of the context is left after it: draw a token.
    """

    row: int
    start: int
    tokens: list[int]
    complete: bool

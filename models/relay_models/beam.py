"""Beam search over a transducer on the host, a language model fused in. NumPy only: every runner uses it.

Decoding takes the encoder's frames chunk by chunk; how they are split makes no difference. What all hypotheses agree on
is stable and never taken back; what the best one says beyond that is a guess.

Many streams are decoded side by side: their hypotheses share one product of each network per round, and what follows a
history is kept for the next who come to it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from relay_models.host_transducer import Floats, HostTransducer, Memory
from relay_models.lm import Lm
from relay_models.words import Token

_SLACK = 1e-6  # candidates are looked for with a margin for rounding, and compared exactly afterwards


@dataclass(frozen=True, slots=True)
class BeamOutput:
    """What one step of decoding gave.

    Attributes:
        stable: Tokens that have become final, after those of earlier steps.
        unstable: What the best hypothesis says after all stable ones; the next step may replace it.
    """

    stable: tuple[Token, ...]
    unstable: tuple[Token, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Future:
    """What may follow a history. Never written to: hypotheses share it.

    Attributes:
        memory: Of the prediction network.
        output: Of the prediction network, [joint].
        bonus: What is fused in for each next token, [vocabulary without blank].
        lm_state: Of the language model.
        history: All that the prediction network knows of the past, where that is a few tokens; empty otherwise.
    """

    memory: Memory
    output: Floats
    bonus: Floats
    lm_state: int
    history: tuple[int, ...]


class Hypothesis(NamedTuple):
    """One guess at what was said.

    Attributes:
        score: Log-probability of all its alignments with what was fused in, up to a constant common to the beam.
        tokens: What it says after the stable tokens.
        key: The same without times: tells hypotheses apart.
        future: What may follow.
    """

    score: float
    tokens: tuple[Token, ...]
    key: tuple[int, ...]
    future: Future


_Left = dict[tuple[int, ...], Hypothesis]


@dataclass(slots=True)
class BeamState:
    """One stream's decoding.

    Attributes:
        hypotheses: Live ones, the best first.
        position: Frames taken.
    """

    hypotheses: tuple[Hypothesis, ...]
    position: int = 0

    def copy(self) -> BeamState:
        """An independent copy."""
        return replace(self)


class BeamDecoder:
    """Time-synchronous beam search with merging of hypotheses that say the same.

    At each frame every hypothesis may say blank, and so leave the frame, or another token and stay. After each such
    round the `beam` best of all, left or not, go on, if they are near the best (as in adaptive expansion search, Kim et
    al. 2020, IEEE Signal Processing Letters 27); those that say the same add their probabilities (Graves 2012, arXiv
    1211.3711, section 2.5). With a beam of one and nothing fused in, it is greedy decoding.

    Fused in, at tokens other than blank only: `lm_weight` x the language model's log-probability - `ilm_weight` x the
    transducer's own expectation (`HostTransducer.internal`) + `reward`.

    Args:
        transducer: The networks.
        beam: Hypotheses at most.
        lm: The language model, if any.
        lm_weight: Its weight.
        ilm_weight: Weight of what the transducer itself expects, to be taken away.
        reward: For each token, against deletions.
        gap: Hypotheses that are worse than the best by more are dropped, in nats.
        patience_frames: A hypothesis is dropped when its first difference from the best one is as old as this: so long
            a token stays unstable at most.
        kept_futures: What follows so many histories is kept, those asked for last; 3.4 kB each with 512 pieces and a
            joint network of 320.

    Raises:
        ValueError: The beam, the gap or the patience is below what makes sense, or the language model is missing or of
            another vocabulary.
    """

    def __init__(
        self,
        transducer: HostTransducer,
        *,
        beam: int = 1,
        lm: Lm | None = None,
        lm_weight: float = 0.0,
        ilm_weight: float = 0.0,
        reward: float = 0.0,
        gap: float = 8.0,
        patience_frames: int = 12,
        kept_futures: int = 1024,
    ) -> None:
        if beam < 1 or gap <= 0 or patience_frames < 1:
            raise ValueError("a beam search needs a beam, a gap and a patience above zero")
        if lm_weight and lm is None:
            raise ValueError("a weight is given for a language model, but no language model")
        if lm and len(lm.scores(lm.start())) != transducer.config.blank:
            raise ValueError("the language model knows other pieces than the transducer")
        self._transducer = transducer
        self._beam = beam
        self._lm = lm
        self._lm_weight = lm_weight
        self._ilm_weight = ilm_weight
        self._reward = reward
        self._gap = gap
        self._patience_frames = patience_frames
        self._kept_futures = kept_futures
        self._kept: OrderedDict[tuple[tuple[int, ...], int, int], Future] = OrderedDict()
        memory, output = transducer.start()
        (self._beginning,) = self._futures([memory], output[None], [lm.start() if lm else 0])

    def open(self) -> BeamState:
        """State of a stream that has not begun."""
        return BeamState((Hypothesis(0.0, (), (), self._beginning),))

    def step(self, state: BeamState, frames: Floats) -> BeamOutput:
        """Some frames more.

        Args:
            state: Advanced in place.
            frames: [time, size] of the encoder, any number.

        Raises:
            ArithmeticError: The networks give what is no number.
        """
        (output,) = self.step_all([state], [frames])
        if isinstance(output, ArithmeticError):
            raise output
        return output

    def step_all(self, states: Sequence[BeamState], frames: Sequence[Floats]) -> list[BeamOutput | ArithmeticError]:
        """Some frames more of several streams, as `step` of each but for rounding.

        Args:
            states: Advanced in place; all different.
            frames: [time, size] for each state, not necessarily as many.

        Returns:
            What each gave; the error where the networks give what is no number, which ends that stream only.
        """
        stable: list[list[Token]] = [[] for _ in states]
        broken: dict[int, ArithmeticError] = {}
        for index in range(max(map(len, frames), default=0)):
            # Frame by frame, so that rounding is the same however the frames were split.
            rows = [row for row, own in enumerate(frames) if index < len(own) and row not in broken]
            if not rows:
                break
            heard = self._transducer.hear(np.stack([frames[row][index] for row in rows]))
            for row, live in zip(rows, self._frame([states[row] for row in rows], heard), strict=True):
                if live:
                    stable[row] += self._settle(states[row], live)
                else:
                    broken[row] = ArithmeticError("the recogniser's networks gave what is no number")
        return [
            broken.get(row) or BeamOutput(tuple(said), state.hypotheses[0].tokens)
            for row, (state, said) in enumerate(zip(states, stable, strict=True))
        ]

    def finish(self, state: BeamState) -> BeamOutput:
        """The utterance has ended: what the best hypothesis says is stable. Decoding may go on from there."""
        best = state.hypotheses[0]
        state.hypotheses = (Hypothesis(0.0, (), (), best.future),)
        return BeamOutput(best.tokens, ())

    def _frame(self, states: Sequence[BeamState], heard: Floats) -> list[list[Hypothesis]]:
        """Each stream's hypotheses after one frame [streams, joint], the best first; none where they are no numbers."""
        blank = self._transducer.config.blank
        lefts: list[_Left] = [{} for _ in states]
        staying = {number: list(state.hypotheses) for number, state in enumerate(states)}
        for turn in range(self._transducer.config.max_symbols):
            flat = [h.future for group in staying.values() for h in group]
            owners = [number for number, group in staying.items() for _ in group]
            log_probabilities = self._transducer.log_probabilities(heard[owners], np.stack([f.output for f in flat]))
            gains = log_probabilities[:, :blank] + np.stack([f.bonus for f in flat])
            blank_gains = log_probabilities[:, blank].tolist()
            rows: list[Hypothesis] = []
            floors: list[float] = []
            for number, group in staying.items():
                first = len(rows)
                if turn == 0 and len(group) > 1:
                    group = _merge_prefixes(group, gains[first : first + len(group)])
                left = lefts[number]
                for h, gain in zip(group, blank_gains[first : first + len(group)], strict=True):
                    _join(left, Hypothesis(h.score + gain, h.tokens, h.key, h.future))
                floor = self._floor(left)
                floors += [floor - h.score for h in group]
                rows += group
            chosen = self._choose(lefts, owners, rows, gains, np.array(floors))
            if not chosen:
                staying = {}
                break
            staying = self._extend(states, owners, rows, chosen, log_probabilities)
        for number, group in staying.items():
            for h in group:
                _join(lefts[number], h)
        return [self._ranked(left) for left in lefts]

    def _floor(self, left: _Left) -> float:
        """What others must score at least to go on beside those that have left the frame."""
        scores = sorted([h.score for h in left.values()], reverse=True)
        floor = scores[0] - self._gap
        return max(floor, scores[self._beam - 1]) if len(scores) >= self._beam else floor

    def _ranked(self, left: _Left) -> list[Hypothesis]:
        """What goes on to the next frame, the best first; nothing where the scores are no numbers."""
        ranked = sorted(left.values(), key=_by_score)[: self._beam]
        return [h for h in ranked if h.score >= ranked[0].score - self._gap]

    def _choose(
        self, lefts: Sequence[_Left], owners: Sequence[int], rows: Sequence[Hypothesis], gains: Floats,
        floors: NDArray[np.float64],
    ) -> list[tuple[int, int, float]]:  # fmt: skip
        """Which rows go on with which token, as (row, token, score), each stream's best first.

        Drops from `lefts` what is not among the best of its stream then.

        Args:
            lefts: Of each stream.
            owners: [rows] the stream of each.
            rows: The hypotheses that may say another token.
            gains: [rows, tokens] what each would gain by each.
            floors: [rows] least gain that is worth a look.
        """
        floors = floors - _SLACK
        near = (gains.max(axis=1) >= floors).nonzero()[0]
        if not len(near):
            return []
        part = gains[near]
        places, tokens = (part >= floors[near, None]).nonzero()
        found: dict[int, list[tuple[int, int, float]]] = {}
        for row, token, gain in zip(near[places].tolist(), tokens.tolist(), part[places, tokens].tolist(), strict=True):
            found.setdefault(owners[row], []).append((row, token, rows[row].score + gain))
        chosen: list[tuple[int, int, float]] = []
        for number, candidates in found.items():
            left = lefts[number]
            # Those that have left come first, and win over equals.
            entries = [(h.score, key, None) for key, h in left.items()] + [(c[2], (), c) for c in candidates]
            entries.sort(key=lambda entry: -entry[0])
            floor = entries[0][0] - self._gap
            kept = [entry for entry in entries[: self._beam] if entry[0] >= floor]
            going = [candidate for _, _, candidate in kept if candidate is not None]
            keys = {key for _, key, candidate in kept if candidate is None}
            for key in left.keys() - keys:
                del left[key]
            chosen += going
        return chosen

    def _extend(
        self, states: Sequence[BeamState], owners: Sequence[int], rows: Sequence[Hypothesis],
        chosen: Sequence[tuple[int, int, float]], log_probabilities: Floats,
    ) -> dict[int, list[Hypothesis]]:  # fmt: skip
        """Hypotheses one token longer, by stream."""
        longer: dict[int, list[Hypothesis]] = {}
        futures = self._follow([rows[row].future for row, _, _ in chosen], [token for _, token, _ in chosen])
        for (row, token, score), future in zip(chosen, futures, strict=True):
            parent, number = rows[row], owners[row]
            said = Token(token, states[number].position, float(log_probabilities[row, token]))
            new = Hypothesis(score, (*parent.tokens, said), (*parent.key, token), future)
            longer.setdefault(number, []).append(new)
        return longer

    def _follow(self, parents: Sequence[Future], tokens: Sequence[int]) -> list[Future]:
        """What follows one token later."""
        if self._transducer.config.layers:  # the whole past matters: no two histories are alike
            return self._advance(parents, tokens)
        keys = [(parent.history, parent.lm_state, token) for parent, token in zip(parents, tokens, strict=True)]
        fresh = [at for at, key in enumerate(keys) if key not in self._kept]
        if fresh:
            made = self._advance([parents[at] for at in fresh], [tokens[at] for at in fresh])
            self._kept |= {keys[at]: future for at, future in zip(fresh, made, strict=True)}
        found = [self._kept[key] for key in keys]
        for key in keys:
            self._kept.move_to_end(key)
        while len(self._kept) > self._kept_futures:
            self._kept.popitem(last=False)
        return found

    def _advance(self, parents: Sequence[Future], tokens: Sequence[int]) -> list[Future]:
        memories, outputs = self._transducer.advance([parent.memory for parent in parents], tokens)
        states = [parent.lm_state for parent in parents]
        if self._lm:
            states = [self._lm.advance(state, token) for state, token in zip(states, tokens, strict=True)]
        return self._futures(memories, outputs, states)

    def _futures(self, memories: Sequence[Memory], outputs: Floats, lm_states: Sequence[int]) -> list[Future]:
        """By history, what may follow each; `outputs`: [histories, joint]."""
        bonuses = np.full((len(memories), self._transducer.config.blank), self._reward, np.float32)
        if self._lm and self._lm_weight:
            bonuses += np.float32(self._lm_weight) * np.stack([self._lm.scores(state) for state in lm_states])
        if self._ilm_weight:
            bonuses -= np.float32(self._ilm_weight) * self._transducer.internal(outputs)
        futures = []
        for memory, output, bonus, lm_state in zip(memories, outputs, bonuses, lm_states, strict=True):
            # Rows of its own: one that is kept would keep all that were made beside it.
            own: Memory = tuple([part.copy() for part in memory])
            history = () if self._transducer.config.layers else tuple(memory[0].tolist())
            futures.append(Future(own, output.copy(), bonus.copy(), lm_state, history))
        return futures

    def _settle(self, state: BeamState, ranked: list[Hypothesis]) -> tuple[Token, ...]:
        """Goes on with these hypotheses, without those that have differed from the best for too long.

        Returns the tokens that all who are left agree on, which they say no more.
        """
        best, *others = ranked
        if others:
            newest = state.position - self._patience_frames
            ranked = [best, *(h for h in others if _parting_frame(best, h) > newest)]
        count = _common([h.key for h in ranked])
        state.hypotheses = tuple(
            [Hypothesis(h.score - best.score, h.tokens[count:], h.key[count:], h.future) for h in ranked]
        )
        state.position += 1
        return best.tokens[:count]


def _by_score(hypothesis: Hypothesis) -> float:
    return -hypothesis.score


def _join(hypotheses: _Left, new: Hypothesis) -> None:
    """Adds one, merged with what says the same; the likelier one's times are kept."""
    if (old := hypotheses.get(new.key)) is not None:
        better = old if old.score >= new.score else new
        new = better._replace(score=_add(old.score, new.score))
    hypotheses[new.key] = new


def _merge_prefixes(hypotheses: Sequence[Hypothesis], gains: Floats) -> list[Hypothesis]:
    """Where one is another with a token more, gives it what the shorter would by saying that token now.

    Args:
        hypotheses: All different.
        gains: [hypotheses, tokens]; what was given is -infinity afterwards.
    """
    found = list(hypotheses)
    rows = {h.key: row for row, h in enumerate(found)}
    for key in sorted(rows, key=len):
        if key and (shorter := rows.get(key[:-1])) is not None:
            row, token = rows[key], key[-1]
            gained = found[shorter].score + float(gains[shorter, token])
            found[row] = found[row]._replace(score=_add(found[row].score, gained))
            gains[shorter, token] = -np.inf
    return found


def _add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    high, low = (a, b) if a >= b else (b, a)
    return high + math.log1p(math.exp(low - high))


def _common(keys: Sequence[tuple[int, ...]]) -> int:
    """Number of tokens at the beginning that all agree on."""
    if len(keys) == 1:
        return len(keys[0])
    # Whatever all begin with, the least and the greatest begin with.
    count = 0
    for one, other in zip(min(keys), max(keys), strict=False):
        if one != other:
            break
        count += 1
    return count


def _parting_frame(one: Hypothesis, other: Hypothesis) -> float:
    """Frame of the first token in which two differ, of the earlier one; infinite when they say the same."""
    count = _common((one.key, other.key))
    frames = [h.tokens[count].frame for h in (one, other) if len(h.tokens) > count]
    return min(frames, default=math.inf)

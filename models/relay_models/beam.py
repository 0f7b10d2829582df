"""Beam search over a transducer on the host, a language model fused in. NumPy only: every runner uses it.

Decoding takes the encoder's frames chunk by chunk; how they are split makes no difference. What all hypotheses agree on
is stable and never taken back; what the best one says beyond that is a guess.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from relay_models.lm import Lm
from relay_models.loading import WeightsError
from relay_models.transducer_config import TransducerConfig
from relay_models.words import Token

Floats = NDArray[np.float32]
Memory = tuple[NDArray[np.generic], ...]
"""What the prediction network keeps of one history: its last tokens [context], or hidden and cell [layers, size]."""


class HostTransducer:
    """The prediction and joint networks of `relay_models.transducer`, in float32.

    Made by `from_tensors`.
    """

    def __init__(self, config: TransducerConfig, weights: Mapping[str, Floats]) -> None:
        self.config = config
        self._embedding = weights["predictor.embedding.weight"]
        self._lstm = [
            (
                weights[f"predictor.lstm.weight_ih_l{layer}"].T.copy(),
                weights[f"predictor.lstm.weight_hh_l{layer}"].T.copy(),
                weights[f"predictor.lstm.bias_ih_l{layer}"] + weights[f"predictor.lstm.bias_hh_l{layer}"],
            )
            for layer in range(config.layers)
        ]
        if not config.layers:
            self._taps = weights["predictor.convolution.weight"][:, 0].T.copy()
            self._tap_bias = weights["predictor.convolution.bias"]
        self._projection = weights["predictor.projection.weight"].T.copy(), weights["predictor.projection.bias"]
        self._hearing = weights["joint.frame_projection.weight"].T.copy(), weights["joint.frame_projection.bias"]
        self._head = weights["joint.head.weight"].T.copy(), weights["joint.head.bias"]

    @classmethod
    def from_tensors(cls, config: TransducerConfig, tensors: Mapping[str, NDArray[np.floating]]) -> HostTransducer:
        """From the tensors of a recogniser, named as in its `state_dict`; others are ignored.

        Raises:
            WeightsError: A tensor is missing or has another shape than the config asks for.
        """
        width, joint, vocabulary = config.size, config.joint, config.vocabulary
        frame_projection = tensors.get("joint.frame_projection.weight")
        frame_size = frame_projection.shape[-1] if frame_projection is not None and frame_projection.ndim else 0
        shapes: dict[str, tuple[int, ...]] = {
            "predictor.embedding.weight": (vocabulary, width),
            "predictor.projection.weight": (joint, width),
            "predictor.projection.bias": (joint,),
            "joint.frame_projection.weight": (joint, frame_size),
            "joint.frame_projection.bias": (joint,),
            "joint.head.weight": (vocabulary, joint),
            "joint.head.bias": (vocabulary,),
        }
        for layer in range(config.layers):
            for kind in ("ih", "hh"):
                shapes[f"predictor.lstm.weight_{kind}_l{layer}"] = (4 * width, width)
                shapes[f"predictor.lstm.bias_{kind}_l{layer}"] = (4 * width,)
        if not config.layers:
            shapes["predictor.convolution.weight"] = (width, 1, config.context)
            shapes["predictor.convolution.bias"] = (width,)
        for name, shape in shapes.items():
            if name not in tensors or tensors[name].shape != shape:
                found = tensors[name].shape if name in tensors else "missing"
                raise WeightsError(f"the transducer's tensor {name} should be {shape}, and is {found}")
        return cls(config, {name: np.ascontiguousarray(tensors[name], np.float32) for name in shapes})

    def hear(self, frames: Floats) -> Floats:
        """Frames of the encoder [..., size] -> what the joint network adds up [..., joint]."""
        weight, bias = self._hearing
        heard: Floats = frames @ weight + bias
        return heard

    def start(self) -> tuple[Memory, Floats]:
        """Memory of the empty history, and what may follow it [joint]."""
        config, empty = self.config, self.config.blank
        memory: Memory = (np.full(config.context, empty),)
        if config.layers:
            zeros = np.zeros((config.layers, config.size), np.float32)
            memory = (zeros, zeros)
        memories, outputs = self.advance([memory], [empty])
        return memories[0], outputs[0]

    def advance(self, memories: Sequence[Memory], tokens: Sequence[int]) -> tuple[list[Memory], Floats]:
        """One more token for each of several histories: their new memories, and what may follow [histories, joint]."""
        batch = [np.stack(part) for part in zip(*memories, strict=True)]
        if self._lstm:
            y: Floats = self._embedding[list(tokens)]
            hidden, cell = (part.astype(np.float32) for part in batch)
            for layer, (w_in, w_back, bias) in enumerate(self._lstm):
                gates = y @ w_in + hidden[:, layer] @ w_back + bias
                enter, forget, value, leave = np.split(gates, 4, axis=1)
                kept = _sigmoid(forget) * cell[:, layer] + _sigmoid(enter) * np.tanh(value)
                y = _sigmoid(leave) * np.tanh(kept)
                hidden[:, layer], cell[:, layer] = y, kept
            after: list[Memory] = list(zip(hidden, cell, strict=True))
        else:
            history = np.concatenate((batch[0][:, 1:], np.array(tokens)[:, None]), axis=1)
            y = np.maximum((self._embedding[history] * self._taps).sum(axis=1) + self._tap_bias, 0)
            after = [(row,) for row in history]
        weight, bias = self._projection
        return after, y @ weight + bias

    def log_probabilities(self, heard: Floats, outputs: Floats) -> Floats:
        """Of each symbol after each history at one frame: [joint] and [histories, joint] -> [histories, vocabulary]."""
        return _log_softmax(self._combine(heard, outputs))

    def internal(self, outputs: Floats) -> Floats:
        """What the transducer expects next when it hears nothing: [histories, joint] -> [histories, without blank].

        The encoder's frame is taken as zero, and blank as impossible (Variani et al. 2020, HAT, arXiv 2003.07705;
        Meng et al. 2021, arXiv 2011.01991).
        """
        return _log_softmax(self._combine(self._hearing[1], outputs)[:, : self.config.blank])

    def _combine(self, heard: Floats, outputs: Floats) -> Floats:
        weight, bias = self._head
        together: Floats = heard + outputs
        active = np.tanh(together) if self.config.activation == "tanh" else np.maximum(together, 0)
        logits: Floats = active @ weight + bias
        return logits


def _sigmoid(x: Floats) -> Floats:
    y: Floats = 0.5 * (1 + np.tanh(0.5 * x))  # exp(-x) would overflow
    return y


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    y: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return y


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
class Hypothesis:
    """One guess at what was said. Its parts are never written to, so that copies may share them.

    Attributes:
        score: Log-probability of all its alignments with what was fused in, up to a constant common to the beam.
        tokens: What it says after the stable tokens.
        memory: Of the prediction network.
        output: Of the prediction network, [joint].
        bonus: What is fused in for each next token, [vocabulary without blank].
        lm_state: Of the language model.
    """

    score: float
    tokens: tuple[Token, ...]
    memory: Memory
    output: Floats
    bonus: Floats
    lm_state: int

    @property
    def key(self) -> tuple[int, ...]:
        """Tells hypotheses apart: the tokens without their times."""
        return tuple(token.number for token in self.tokens)


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

    def open(self) -> BeamState:
        """State of a stream that has not begun."""
        memory, output = self._transducer.start()
        lm_state = self._lm.start() if self._lm else 0
        bonus = self._bonuses(output[None], [lm_state])[0]
        return BeamState((Hypothesis(0.0, (), memory, output, bonus, lm_state),))

    def step(self, state: BeamState, frames: Floats) -> BeamOutput:
        """Some frames more.

        Args:
            state: Advanced in place.
            frames: [time, size] of the encoder, any number.
        """
        stable: list[Token] = []
        for frame in frames:
            # One by one, so that rounding is the same however the frames were split.
            live = self._frame(state.hypotheses, self._transducer.hear(frame), state.position)
            live = self._agree(live, state.position)
            count = _common(live)
            stable += live[0].tokens[:count]
            top = live[0].score
            state.hypotheses = tuple(replace(h, score=h.score - top, tokens=h.tokens[count:]) for h in live)
            state.position += 1
        return BeamOutput(tuple(stable), state.hypotheses[0].tokens)

    def finish(self, state: BeamState) -> BeamOutput:
        """The utterance has ended: what the best hypothesis says is stable. Decoding may go on from there."""
        best = state.hypotheses[0]
        state.hypotheses = (replace(best, score=0.0, tokens=()),)
        return BeamOutput(best.tokens, ())

    def _frame(self, live: Sequence[Hypothesis], heard: Floats, number: int) -> list[Hypothesis]:
        """Hypotheses after one frame, the best first."""
        blank = self._transducer.config.blank
        left: dict[tuple[int, ...], Hypothesis] = {}
        staying = list(live)
        for turn in range(self._transducer.config.max_symbols):
            log_probabilities = self._transducer.log_probabilities(heard, np.stack([h.output for h in staying]))
            gains = log_probabilities[:, :blank] + np.stack([h.bonus for h in staying])
            if turn == 0:
                staying = _merge_prefixes(staying, gains)
            for hypothesis, gain in zip(staying, log_probabilities[:, blank].tolist(), strict=True):
                _join(left, replace(hypothesis, score=hypothesis.score + gain))
            scores = np.array([h.score for h in staying])[:, None] + gains.astype(np.float64)
            chosen = self._prune(left, scores)
            staying = self._extend(staying, chosen, scores, log_probabilities, number)
            if not staying:
                break
        for hypothesis in staying:
            _join(left, hypothesis)
        ranked = sorted(left.values(), key=lambda h: -h.score)[: self._beam]
        return [h for h in ranked if h.score >= ranked[0].score - self._gap]

    def _prune(self, left: dict[tuple[int, ...], Hypothesis], scores: NDArray[np.float64]) -> list[tuple[int, int]]:
        """Drops from `left` what is not among the best of all; gives those of `scores` that are, as (row, token)."""
        flat = scores.ravel()
        count = min(self._beam, len(flat))
        best = np.argpartition(flat, len(flat) - count)[len(flat) - count :]
        # Those that have left come first, and win over equals.
        ranked = sorted(
            [(h.score, key, -1) for key, h in left.items()] + [(float(flat[i]), (), int(i)) for i in best],
            key=lambda entry: -entry[0],
        )
        floor = ranked[0][0] - self._gap
        kept = [entry for entry in ranked[: self._beam] if entry[0] >= floor]
        keys = {key for _, key, place in kept if place < 0}
        for key in left.keys() - keys:
            del left[key]
        width = scores.shape[1]
        return [divmod(place, width) for _, _, place in kept if place >= 0]

    def _extend(
        self,
        parents: Sequence[Hypothesis],
        chosen: Sequence[tuple[int, int]],
        scores: NDArray[np.float64],
        log_probabilities: Floats,
        number: int,
    ) -> list[Hypothesis]:
        """Hypotheses one token longer, for (row, token) of each."""
        if not chosen:
            return []
        rows, tokens = zip(*chosen, strict=True)
        memories, outputs = self._transducer.advance([parents[row].memory for row in rows], tokens)
        lm_states = [0] * len(chosen)
        if self._lm:
            lm_states = [self._lm.advance(parents[row].lm_state, token) for row, token in chosen]
        bonuses = self._bonuses(outputs, lm_states)
        return [
            Hypothesis(
                score=float(scores[row, token]),
                tokens=(*parents[row].tokens, Token(token, number, float(log_probabilities[row, token]))),
                memory=memory,
                output=output,
                bonus=bonus,
                lm_state=lm_state,
            )
            for (row, token), memory, output, bonus, lm_state in zip(
                chosen, memories, outputs, bonuses, lm_states, strict=True
            )
        ]

    def _bonuses(self, outputs: Floats, lm_states: Sequence[int]) -> Floats:
        """What is fused in for each next token: [histories, vocabulary without blank]."""
        bonuses = np.full((len(outputs), self._transducer.config.blank), self._reward, np.float32)
        if self._lm and self._lm_weight:
            bonuses += np.float32(self._lm_weight) * np.stack([self._lm.scores(state) for state in lm_states])
        if self._ilm_weight:
            bonuses -= np.float32(self._ilm_weight) * self._transducer.internal(outputs)
        return bonuses

    def _agree(self, ranked: list[Hypothesis], number: int) -> list[Hypothesis]:
        """Drops those that have differed from the best for too long."""
        best, others = ranked[0], ranked[1:]
        newest = number - self._patience_frames
        return [best, *(h for h in others if _parting_frame(best, h) > newest)]


def _join(hypotheses: dict[tuple[int, ...], Hypothesis], new: Hypothesis) -> None:
    """Adds one, merged with what says the same; the likelier one's times are kept."""
    key = new.key
    if (old := hypotheses.get(key)) is not None:
        better = old if old.score >= new.score else new
        new = replace(better, score=_add(old.score, new.score))
    hypotheses[key] = new


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
            found[row] = replace(found[row], score=_add(found[row].score, gained))
            gains[shorter, token] = -np.inf
    return found


def _add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    high, low = max(a, b), min(a, b)
    return high + math.log1p(math.exp(low - high))


def _common(hypotheses: Sequence[Hypothesis]) -> int:
    """Number of tokens at the beginning that all agree on."""
    count = 0
    for column in zip(*(h.key for h in hypotheses), strict=False):
        if len(set(column)) > 1:
            break
        count += 1
    return count


def _parting_frame(one: Hypothesis, other: Hypothesis) -> float:
    """Frame of the first token in which two differ, of the earlier one; infinite when they say the same."""
    count = _common((one, other))
    frames = [h.tokens[count].frame for h in (one, other) if len(h.tokens) > count]
    return min(frames, default=math.inf)

"""The duplex draft model behind the engine contract: what is common to its runners.

Audio waits until it fills a frame of 160 ms; frames of several slots are heard together. What is said on our side is
told to the model token by token, at the pace of its frames. A draft is made on a fork of the slot's state, and a
runner with the verifier beside it judges it at once.

The model hears through an encoder pass of its own, though a recogniser with the same weights may run beside it. To
share the recogniser's frames, three things would have to change, none of them here alone:

- `LearnedEars` encodes utterances, from a fresh state and only while somebody speaks; the draft model hears one endless
  stream. Its encoder would have to run always, and utterances would be cut out of its frames (the beam begins anew, the
  encoder does not), for which the recogniser would have to be trained, as it is trained on utterances from silence.
- Frames depend on the look-ahead: the draft model is trained with one of 80 ms, and the recogniser by default runs with
  more. Only `--lookahead-ms 80` gives the same ones.
- Frames would leave the ears' engine beside its words (`EarsOutput.frames`, with the number of the first), and the
  session would hand them on to `DraftInput` in place of sound; `_listen` would begin with them. Both engines would
  compare a hash of the tensors `encoder.*` and `features.*` when they load, and share only where these are equal.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from relay.audio import Int16Array
from relay.engine.draft import DRAFT_FRAME_SAMPLES, Draft, DraftInput, DraftOutput, Judgement, Signals
from relay_models.draft_config import DraftConfig, Special
from relay_models.drafting import MAX_TOKENS, Drafted
from relay_models.framing import LEAD_IN_SAMPLES
from relay_models.tokenizer import ChatTokenizer

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Forked: TypeAlias = tuple[Drafted, Judgement | None]
"""A draft, and what the verifier thinks of it where the runner has asked it."""

_TOKENS_A_WORD = 3  # the bound of a long draft


@dataclass(slots=True)
class _Slot:
    """What of a slot is not in the model's state.

    Attributes:
        waiting: Samples that do not fill a frame yet.
        previous: Token said at the frame before.
        to_say: Tokens of a reply of ours that are still to be said, one a frame.
        in_turn: A reply has begun and not ended.
        until_sample: Where the audio that was given ends on the session's clock.
        signals: Of the newest frame.
    """

    waiting: Int16Array
    previous: int
    to_say: deque[int] = field(default_factory=deque)
    in_turn: bool = False
    until_sample: int = 0
    signals: Signals | None = None


class LearnedDraft(ABC):
    """Runner[DraftInput, DraftOutput] without its networks.

    Args:
        ears: Folder of the recogniser whose encoder it hears through.
        draft: Folder of the model.
        tokenizer: tokenizer.json of its text.
        max_slots: How many sessions may be followed.
        max_batch: How many are stepped at once.
    """

    def __init__(self, ears: Path, draft: Path, tokenizer: Path, *, max_slots: int, max_batch: int) -> None:
        self.max_slots = max_slots
        self.max_batch = max_batch
        self._ears_folder, self._draft_folder, self._tokenizer_path = ears, draft, tokenizer
        self._slots: dict[int, _Slot] = {}
        self._config: DraftConfig
        self._tokenizer: ChatTokenizer

    @abstractmethod
    def load(self) -> None:
        """Sets `_config` and `_tokenizer` and prepares the networks. Raises EngineUnavailable or WeightsError."""

    @abstractmethod
    def unload(self) -> None:
        """Frees everything."""

    @abstractmethod
    def _reset(self, slot: int) -> None:
        """Gives a slot fresh state."""

    @abstractmethod
    def _release(self, slot: int) -> None:
        """Drops a slot's state."""

    @abstractmethod
    def _listen(self, slots: Sequence[int], pcm: Floats, previous: Integers) -> Floats:
        """One frame of each of these slots, whose state it advances.

        Args:
            slots: Which, each once.
            pcm: [slots, DRAFT_FRAME_SAMPLES] at 16 kHz, full scale 1.
            previous: [slots], the token said at the frame before.

        Returns:
            [slots, 5], the probability of each `Special`.
        """

    @abstractmethod
    def _fork(self, slots: Sequence[int], confidences: Floats, max_tokens: int, max_words: int) -> list[Forked]:
        """Drafts on forks of these slots, whose state stays; see `relay_models.drafting`.

        Args:
            slots: Which, each once.
            confidences: [slots], see `DraftInput`; for the verifier, where it is asked here.
            max_tokens, max_words: Bounds of a draft.
        """

    def open(self, slot: int) -> None:
        """Gives a slot fresh state."""
        self._reset(slot)
        self._slots[slot] = _Slot(np.zeros(LEAD_IN_SAMPLES, np.int16), self._config.token(Special.SIL))

    def close(self, slot: int) -> None:
        """Drops a slot."""
        self._release(slot)
        del self._slots[slot]

    def step(self, slots: Sequence[int], xs: Sequence[DraftInput]) -> Sequence[DraftOutput | BaseException]:
        """See `DraftInput`."""
        for slot, x in zip(slots, xs, strict=True):
            state = self._slots[slot]
            if len(x.pcm):
                state.waiting, state.until_sample = np.concatenate((state.waiting, x.pcm)), x.until_sample
        # One frame of each at a time, so that slots that stand at different places share batches.
        while hearing := [slot for slot in slots if len(self._slots[slot].waiting) >= DRAFT_FRAME_SAMPLES]:
            self._hear(hearing)
        for slot, x in zip(slots, xs, strict=True):
            self._say(self._slots[slot], x)
        drafts = self._draft({slot: x for slot, x in zip(slots, xs, strict=True) if x.draft_words})
        return [DraftOutput(self._slots[slot].signals, drafts.get(slot)) for slot in slots]

    def _hear(self, slots: Sequence[int]) -> None:
        """One frame of each of these slots."""
        rows = [self._slots[slot] for slot in slots]
        pcm = np.stack([row.waiting[:DRAFT_FRAME_SAMPLES] for row in rows]).astype(np.float32) * np.float32(1 / 32768)
        specials = self._listen(slots, pcm, np.array([row.previous for row in rows], dtype=np.int64))
        for row, probabilities in zip(rows, specials.tolist(), strict=True):
            row.waiting = row.waiting[DRAFT_FRAME_SAMPLES:]
            row.previous = row.to_say.popleft() if row.to_say else self._config.token(Special.SIL)
            row.signals = self._signals(row.until_sample - len(row.waiting), probabilities)

    def _signals(self, until_sample: int, probabilities: Sequence[float]) -> Signals:
        begin, backchannel, stop = (probabilities[each] for each in (Special.BOS, Special.BOC, Special.STP))
        ends, stops = self._config.turn_ends.evidence(begin), self._config.stops.evidence(stop)
        return Signals(until_sample, begin, backchannel, stop, ends, stops)

    def _say(self, row: _Slot, x: DraftInput) -> None:
        """What is said on our side becomes the model's history, one token a frame, whatever it would have said."""
        token = self._config.token
        if x.words:
            row.to_say.extend([] if row.in_turn else [token(Special.BOS)])
            row.to_say.extend(self._tokenizer.encode(f" {x.words}" if row.in_turn else x.words))
            row.in_turn = True
        if x.ended == "whole" and row.in_turn:
            row.to_say.append(token(Special.EOS))
        if x.ended == "broken" and (row.in_turn or row.to_say):
            row.to_say.clear()
            row.to_say.append(token(Special.STP))
        if x.ended:
            row.in_turn = False

    def _draft(self, asked: dict[int, DraftInput]) -> dict[int, Draft]:
        drafts: dict[int, Draft] = {}
        for wanted in {x.draft_words for x in asked.values()}:
            slots = [slot for slot, x in asked.items() if x.draft_words == wanted]
            sure = np.array([asked[slot].confidence for slot in slots], dtype=np.float32)
            bound = max(MAX_TOKENS, _TOKENS_A_WORD * wanted) if wanted > MAX_TOKENS else MAX_TOKENS
            for slot, (made, judged) in zip(slots, self._fork(slots, sure, bound, wanted), strict=True):
                drafts[slot] = Draft(self._words(made), made.complete, made, judged)
        return drafts

    def _words(self, made: Drafted) -> tuple[str, ...]:
        ends = (0, *made.word_ends)
        parts = [self._tokenizer.decode(made.tokens[a:b]).strip() for a, b in pairwise(ends)]
        return tuple(part or "-" for part in parts)

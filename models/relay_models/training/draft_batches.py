"""What the draft model is trained on, on the device: encoder frames of the dialogues, computed once, and batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from relay_models.draft import SPEECH_FRAMES, DraftConfig, Special
from relay_models.draft_stream import RIGHT
from relay_models.ears import Ears
from relay_models.tokenizer import ChatTokenizer
from relay_models.training.conversations import USER
from relay_models.training.draft_data import Spoken, Turn
from relay_models.training.ears_data import words

PADDING = -100
"""Label of frames that do not exist."""
LONGEST_READ = 64
"""Frames of the longest turn whose words are told."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A dialogue as the draft model hears it.

    Attributes:
        speech: [2 frames, speech_size] float16, on the device.
        labels: [frames] int64, likewise.
        turns, pauses: See `draft_data.Spoken`.
    """

    speech: Tensor
    labels: Tensor
    turns: Sequence[Turn]
    pauses: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class UserTurns:
    """Turns of users that lie inside pieces of dialogues, and their words.

    Attributes:
        rows, firsts: [turns] int64: piece, and first frame in it.
        tokens: [turns, most] int64, padded with zeros.
        counts, token_counts: [turns] int64, frames and tokens of each; on the CPU, where the loss wants them.
    """

    rows: Tensor
    firsts: Tensor
    tokens: Tensor
    counts: Tensor
    token_counts: Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """Pieces of dialogues, one after the other where one is shorter than a piece.

    Attributes:
        speech: [rows, 2 frames, speech_size].
        previous: [rows, frames] int64, token of the frame before.
        labels: [rows, frames] int64, token to say; `PADDING` where there is no frame.
        switched_off: [rows, frames] bool, frames without speech, as in a draft.
        turns: What users say in them; None where there is no turn, or no tokenizer.
    """

    speech: Tensor
    previous: Tensor
    labels: Tensor
    switched_off: Tensor
    turns: UserTurns | None = None


@torch.no_grad()
def hear(ears: Ears, dialogues: Sequence[Spoken], *, rows: int = 16) -> list[Heard]:
    """What the recogniser's frozen encoder makes of dialogues, `rows` of them at once, on its device."""
    device = next(ears.parameters()).device
    order = sorted(range(len(dialogues)), key=lambda number: len(dialogues[number].pcm))
    found: dict[int, Heard] = {}
    for start in range(0, len(order), rows):
        part = order[start : start + rows]
        lengths = torch.tensor([len(dialogues[number].pcm) for number in part])
        pcm = np.zeros((len(part), int(lengths.max())), np.int16)
        for row, number in enumerate(part):
            pcm[row, : lengths[row]] = dialogues[number].pcm
        samples = torch.from_numpy(pcm).to(device).float() / 32768
        features, mels = ears.features(samples, lengths.to(device))  # in float32, as when the model listens
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            encoded = ears.encoder(features, mels, RIGHT)
        for row, number in enumerate(part):
            one = dialogues[number]
            frames = min(int(encoded.lengths[row]) // SPEECH_FRAMES, len(one.labels))
            found[number] = Heard(
                encoded.frames[row, : SPEECH_FRAMES * frames].half().clone(),
                torch.tensor(one.labels[:frames], device=device),
                one.turns,
                one.pauses,
            )
    return [found[number] for number in range(len(dialogues))]


def text_frames(labels: Tensor, config: DraftConfig) -> Tensor:
    """Number of the reply, from 1, whose text is said at each frame, its `EOS` included; 0 elsewhere.

    These are the frames that a draft decodes: those after a `BOS` up to the `EOS`, or up to what breaks it off.

    Args:
        labels: [frames] int64.
        config: Of the model.
    """
    begin, end = config.token(Special.BOS), config.token(Special.EOS)
    numbers = torch.zeros_like(labels)
    number, inside = 0, False
    for frame, token in enumerate(labels.tolist()):
        if inside and (token == end or 0 <= token < config.text_tokens):
            numbers[frame] = number
            inside = token != end
        elif token == begin:
            number, inside = number + 1, True
        else:
            inside = False
    return numbers


class Growing:
    """A tensor on a device that rows are added to; room is doubled when there is none left."""

    def __init__(self) -> None:
        self._room: Tensor | None = None
        self._used = 0

    def add(self, x: Tensor) -> None:
        """Appends rows."""
        wanted = self._used + len(x)
        if self._room is None or wanted > len(self._room):
            room = x.new_empty((max(wanted, 2 * self._used), *x.shape[1:]))
            if self._room is not None:
                room[: self._used] = self._room[: self._used]
            self._room = room
        self._room[self._used : wanted] = x
        self._used = wanted

    @property
    def rows(self) -> Tensor:
        """All rows there are."""
        if self._room is None:
            raise ValueError("nothing was added yet")
        return self._room[: self._used]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a dialogue lies in the store, and what its user says: (first frame, last frame, tokens) of each turn."""

    first: int
    frames: int
    said: Sequence[tuple[int, int, list[int]]]


class Batches:
    """Dialogues on the device; batches that depend on the seed, the step and the dialogues alone.

    Args:
        config: Of the model.
        seed: Of the batches.
        tokenizer: Makes tokens of what users say; None leaves their words out.
    """

    def __init__(self, config: DraftConfig, seed: int, tokenizer: ChatTokenizer | None = None) -> None:
        self._config = config
        self._seed = seed
        self._tokenizer = tokenizer
        self._places: list[_Place] = []
        self._speech, self._labels, self._numbers = Growing(), Growing(), Growing()
        self.frames = 0
        """Frames of all dialogues."""

    def __len__(self) -> int:
        return len(self._places)

    def add(self, dialogues: Sequence[Heard]) -> None:
        """Takes more dialogues."""
        if not dialogues:
            return
        labels = torch.cat([heard.labels for heard in dialogues])
        numbers = [text_frames(part, self._config) for part in labels.cpu().split([len(h.labels) for h in dialogues])]
        self._labels.add(labels)
        self._numbers.add(torch.cat(numbers).to(labels.device))
        speech = torch.cat([heard.speech for heard in dialogues])
        self._speech.add(speech.reshape(len(labels), SPEECH_FRAMES * self._config.speech_size))
        for heard in dialogues:
            self._places.append(_Place(self.frames, len(heard.labels), self._said(heard)))
            self.frames += len(heard.labels)

    def _said(self, heard: Heard) -> list[tuple[int, int, list[int]]]:
        if self._tokenizer is None:
            return []
        return [
            (turn.first, turn.last, self._tokenizer.encode(words(turn.text)))
            for turn in heard.turns
            if turn.speaker == USER
        ]

    def draw(self, step: int, rows: int, frames: int, *, switched_off: float) -> Batch:
        """A batch of pieces of `frames` frames, fewer only at the end of the store.

        Args:
            step: Decides what is drawn, with the seed.
            rows: Number of pieces.
            frames: Length of the batch.
            switched_off: Share of replies whose speech is switched off while their text is said.
        """
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        picked = torch.randint(len(self._places), (rows,), generator=generator).tolist()
        chances = torch.rand(rows, 2, generator=generator)
        # The dialogues that follow in the store fill the row: no frame is padding, and streams do not end with a talk.
        firsts, skipped = [], []
        for number, share in zip(picked, chances[:, 0].tolist(), strict=True):
            place = self._places[number]
            skipped.append(int(share * (max(0, place.frames - frames) + 1)))
            firsts.append(place.first + skipped[-1])
        lengths = [min(frames, self.frames - first) for first in firsts]
        device = self._labels.rows.device
        # Gathered on the device from flat stores: a handful of kernels, however many rows there are.
        table = torch.tensor([firsts, lengths, skipped]).to(device)
        numbers = torch.arange(frames, device=device)
        real = numbers < table[1][:, None]
        at = torch.where(real, table[0][:, None] + numbers, table[0][:, None])
        labels = self._labels.rows[at]
        begins = (numbers == 0) & (table[2][:, None] == 0)
        previous = self._labels.rows[(at - 1).clamp(min=0)]
        previous = previous.masked_fill(begins | ~real, self._config.token(Special.SIL))
        replies = self._numbers.rows[at]
        # Each reply has a chance of its own, spread evenly by its number.
        chance = (replies * 0.618_034 + chances[:, 1:].to(device)) % 1
        speech = self._speech.rows[at].masked_fill(~real[..., None], 0).float()
        return Batch(
            speech=speech.reshape(rows, SPEECH_FRAMES * frames, self._config.speech_size),
            previous=previous,
            labels=labels.masked_fill(~real, PADDING),
            switched_off=real & (replies > 0) & (chance < switched_off),
            turns=self._user_turns(picked, firsts, lengths, device),
        )

    def _user_turns(
        self, picked: Sequence[int], firsts: Sequence[int], lengths: Sequence[int], device: torch.device
    ) -> UserTurns | None:
        """The turns that lie in the pieces whole, with one frame more for the last word, and have frames enough."""
        found: list[tuple[int, int, int]] = []
        texts: list[list[int]] = []
        for row, (number, start, length) in enumerate(zip(picked, firsts, lengths, strict=True)):
            while number < len(self._places) and self._places[number].first < start + length:
                place = self._places[number]
                number += 1
                for first, last, tokens in place.said:
                    begin, count = place.first + first - start, last + 2 - first
                    inside = begin >= 0 and begin + count <= length and last + 2 <= place.frames
                    if inside and 0 < len(tokens) <= count <= LONGEST_READ:
                        found.append((row, begin, count))
                        texts.append(tokens)
        if not found:
            return None
        most = max(map(len, texts))
        padded = torch.tensor([text + [0] * (most - len(text)) for text in texts])
        rows, begins, counts = torch.tensor(found).T.contiguous()
        token_counts = torch.tensor([len(text) for text in texts])
        return UserTurns(rows.to(device), begins.to(device), padded.to(device), counts, token_counts)

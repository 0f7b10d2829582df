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
from relay_models.training.draft_data import Spoken, Turn

PADDING = -100
"""Label of frames that do not exist."""


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
class Batch:
    """Pieces of dialogues.

    Attributes:
        speech: [rows, 2 frames, speech_size].
        previous: [rows, frames] int64, token of the frame before.
        labels: [rows, frames] int64, token to say; `PADDING` where there is no frame.
        switched_off: [rows, frames] bool, frames without speech, as in a draft.
    """

    speech: Tensor
    previous: Tensor
    labels: Tensor
    switched_off: Tensor


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


class Batches:
    """Dialogues on the device; batches that depend on the seed, the step and the dialogues alone.

    Args:
        config: Of the model.
        seed: Of the batches.
    """

    def __init__(self, config: DraftConfig, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._dialogues: list[tuple[Heard, Tensor]] = []

    def __len__(self) -> int:
        return len(self._dialogues)

    @property
    def frames(self) -> int:
        """Frames of all dialogues."""
        return sum(len(heard.labels) for heard, _ in self._dialogues)

    def add(self, dialogues: Sequence[Heard]) -> None:
        """Takes more dialogues."""
        for heard in dialogues:
            numbers = text_frames(heard.labels.cpu(), self._config).to(heard.labels.device)
            self._dialogues.append((heard, numbers))

    def draw(self, step: int, rows: int, frames: int, *, switched_off: float) -> Batch:
        """A batch of pieces of at most `frames` frames.

        Args:
            step: Decides what is drawn, with the seed.
            rows: Number of pieces.
            frames: Length of the batch.
            switched_off: Share of replies whose speech is switched off while their text is said.
        """
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + step)
        picked = torch.randint(len(self._dialogues), (rows,), generator=generator).tolist()
        chances = torch.rand(rows, 2, generator=generator).tolist()
        silence = self._config.token(Special.SIL)
        like = self._dialogues[0][0].labels
        speech = self._dialogues[0][0].speech.new_zeros(rows, SPEECH_FRAMES * frames, self._config.speech_size)
        previous = like.new_full((rows, frames), silence)
        labels = like.new_full((rows, frames), PADDING)
        off = torch.zeros(rows, frames, dtype=torch.bool, device=like.device)
        for row, (number, (place, other)) in enumerate(zip(picked, chances, strict=True)):
            heard, numbers = self._dialogues[number]
            count = len(heard.labels)
            first = int(place * (max(0, count - frames) + 1))
            length = min(frames, count - first)
            part = slice(first, first + length)
            speech[row, : SPEECH_FRAMES * length] = heard.speech[SPEECH_FRAMES * first : SPEECH_FRAMES * part.stop]
            labels[row, :length] = heard.labels[part]
            previous[row, 1:length] = heard.labels[first : part.stop - 1]
            if first:
                previous[row, 0] = heard.labels[first - 1]
            # Each reply has a chance of its own, spread evenly by its number.
            chance = (numbers[part] * 0.618_034 + other) % 1
            off[row, :length] = (numbers[part] > 0) & (chance < switched_off)
        return Batch(speech.float(), previous, labels, off)

"""Batches for the voice: all audio and all features on the device, windows and places planned on the CPU.

What a batch holds is a function of seed and step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from relay_models.phonemes import END_ID, PAD_ID
from relay_models.state import valid_positions
from relay_models.training.voice_data import Recordings
from relay_models.training.voice_features import energy, log_mel, pitch
from relay_models.vocoder import FEATURES, MEL_BINS
from relay_models.vocoder_source import HOP_SAMPLES
from relay_models.voice_plan import window_of
from relay_models.voice_text import PROSODY

Ints = NDArray[np.int64]

_MEASURED_FRAMES = {"cuda": 160_000, "cpu": 20_000}
"""Frames measured at a time; one takes 90 kB."""
_NEIGHBOURS = 6
"""A batch of whole clips is drawn from so many times its number of clips, of like lengths."""


@dataclass(frozen=True, slots=True)
class Spelled:
    """A clip's symbols and windows.

    Attributes:
        words: Symbol ids of each word, without the end.
        ids: [symbols] with the end.
        window_ids, window_places: [words, widest window].
        picks: [symbols] position of each symbol in its own word's window, flattened over windows.
    """

    words: Sequence[Sequence[int]]
    ids: Ints
    window_ids: Ints
    window_places: Ints
    picks: Ints


def spelled(words: Sequence[Sequence[int]]) -> Spelled:
    """Windows of a clip's words and of the end."""
    shown = [*words, (END_ID,)]
    windows = [window_of(shown, number) for number in range(len(shown))]
    width = max(len(window.ids) for window in windows)
    ids, places = np.full((len(windows), width), PAD_ID, np.int64), np.zeros((len(windows), width), np.int64)
    picks = []
    for row, window in enumerate(windows):
        ids[row, : len(window.ids)], places[row, : len(window.ids)] = window.ids, window.places
        picks.append(row * width + np.arange(window.begin, window.end))
    flat = np.concatenate([np.array(word, np.int64) for word in shown])
    return Spelled(words, flat, ids, places, np.concatenate(picks))


class Corpus:
    """Clips on the device, measured.

    Args:
        recordings: All clips.
        device: Where audio and features lie.

    Attributes:
        audio: [hops * HOP_SAMPLES] int16.
        features: [hops, FEATURES] float16, log-mel, pitch, voicing.
        starts, hops: [clips] first hop and number of hops of each clip.
        speakers: Speaker of each clip.
        texts: Symbols of each clip; None where its text is not known.
    """

    def __init__(self, recordings: Sequence[Recordings], device: torch.device) -> None:
        self.device = device
        self.audio = torch.cat([torch.from_numpy(r.audio) for r in recordings]).to(device)
        self.hops = np.array([h for r in recordings for h in r.hops], np.int64)
        self.starts = np.cumsum(self.hops) - self.hops
        self.speakers = [s for r in recordings for s in r.speakers]
        self.names = [n for r in recordings for n in r.names]
        self.texts = [spelled(w) if w else None for r in recordings for w in r.words]
        self._mine = {name: np.array([name == other for other in self.speakers]) for name in set(self.speakers)}
        self.features = self._measure()
        self.lengths: dict[int, Tensor] = {}

    def _measure(self) -> Tensor:
        found = torch.zeros(int(self.hops.sum()), FEATURES, dtype=torch.float16, device=self.device)
        order = np.argsort(self.hops, kind="stable")
        while len(order):
            size = max(1, _MEASURED_FRAMES[self.device.type] // int(self.hops[order[-1]]))
            clips, order = order[-size:], order[:-size]
            audio, hops = self.clips_audio(clips)
            mel = log_mel(audio)
            tone, voicing = pitch(audio, hops)
            features = torch.cat((mel, tone[:, :, None], voicing[:, :, None]), dim=2)
            inside = valid_positions(hops, audio.shape[1] // HOP_SAMPLES)
            found[self._frames(clips, int(hops.max()))[inside]] = features[inside].half()
        return found

    def _frames(self, clips: Ints, width: int) -> Tensor:
        """Numbers of the clips' frames [clips, width]; of the clip's last one where it is over."""
        first = torch.from_numpy(self.starts[clips]).to(self.device)[:, None]
        last = torch.from_numpy(self.starts[clips] + self.hops[clips] - 1).to(self.device)[:, None]
        return torch.minimum(first + torch.arange(width, device=self.device), last)

    def clips_audio(self, clips: Ints) -> tuple[Tensor, Tensor]:
        """Whole clips: audio [clips, samples], full scale 1 and 0 behind the end, and their hops [clips]."""
        hops = torch.from_numpy(self.hops[clips]).to(self.device)
        width = int(self.hops[clips].max())
        first = torch.from_numpy(self.starts[clips] * HOP_SAMPLES).to(self.device)
        numbers = torch.arange(width * HOP_SAMPLES, device=self.device)
        inside = numbers < hops[:, None] * HOP_SAMPLES
        at = (first[:, None] + numbers).clamp(max=len(self.audio) - 1)
        return self.audio[at].float() / 32768 * inside, hops

    def clips_features(self, clips: Ints) -> tuple[Tensor, Tensor]:
        """Whole clips: features [clips, frames, FEATURES] float32 and their frames [clips]; behind the end the last."""
        width = int(self.hops[clips].max())
        frames = torch.from_numpy(self.hops[clips]).to(self.device)
        return self.features[self._frames(clips, width)].float(), frames

    def excerpts(self, first: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """Audio [rows, frames * HOP_SAMPLES] and features [rows, frames, FEATURES] from frame numbers [rows] on."""
        at = first[:, None] + torch.arange(frames, device=self.device)
        samples = first[:, None] * HOP_SAMPLES + torch.arange(frames * HOP_SAMPLES, device=self.device)
        return self.audio[samples].float() / 32768, self.features[at].float()

    def choose_excerpts(
        self, shares: Mapping[str, float], rows: int, frames: int, chance: np.random.Generator
    ) -> Tensor:
        """First frames of `rows` excerpts, uniform over the audio of each speaker; shares by speaker."""
        room = np.maximum(0, self.hops - frames + 1)
        weights = np.zeros(len(room))
        for name, mine in self._mine.items():
            weights += shares.get(name, 0.0) * mine * room / max(1, room[mine].sum())
        clips = chance.choice(len(weights), rows, p=weights / weights.sum())
        first = self.starts[clips] + (chance.random(rows) * room[clips]).astype(np.int64)
        return torch.from_numpy(first).to(self.device)

    def choose_clips(
        self, shares: Mapping[str, float], rows: int, chance: np.random.Generator, *, shortest: int = 1
    ) -> Ints:
        """Clips with texts of at least `shortest` hops, of like lengths, by speakers' shares.

        Raises ValueError when there is none.
        """
        known = np.array([text is not None for text in self.texts])
        weights = np.zeros(len(known))
        for name, mine in self._mine.items():
            usable = mine & known & (self.hops >= shortest)
            weights += shares.get(name, 0.0) * usable / max(1, usable.sum())
        if not weights.any():
            raise ValueError(f"no clip with a text, of {shortest} hops or more, of {', '.join(shares)}")
        many = min(rows * _NEIGHBOURS, int((weights > 0).sum()))
        drawn = chance.choice(len(weights), many, p=weights / weights.sum(), replace=False)
        drawn = drawn[np.argsort(self.hops[drawn], kind="stable")]
        begin = int(chance.integers(0, max(1, len(drawn) - rows + 1)))
        found: Ints = drawn[begin : begin + rows]
        return found


@dataclass(frozen=True, slots=True)
class TextBatch:
    """Whole clips with their texts, on the device.

    Attributes:
        ids, counts: [clips, symbols] and [clips].
        window_ids, window_places: [windows, width].
        window_clips: [windows] clip of each window.
        picks: [clips, symbols] position of each symbol in the flattened windows.
        speakers: [clips] numbers.
    """

    ids: Tensor
    counts: Tensor
    window_ids: Tensor
    window_places: Tensor
    window_clips: Tensor
    picks: Tensor
    speakers: Tensor


def text_batch(corpus: Corpus, clips: Ints, speakers: Sequence[str]) -> TextBatch:
    """Symbols and windows of clips, which must have texts."""
    texts = [text for clip in clips if (text := corpus.texts[clip]) is not None]
    counts = np.array([len(text.ids) for text in texts])
    width = max(text.window_ids.shape[1] for text in texts)
    windows = sum(len(text.window_ids) for text in texts)
    ids, picks = np.full((len(texts), counts.max()), PAD_ID, np.int64), np.zeros((len(texts), counts.max()), np.int64)
    window_ids, places = np.full((windows, width), PAD_ID, np.int64), np.zeros((windows, width), np.int64)
    row, owners = 0, []
    for number, text in enumerate(texts):
        rows, mine = text.window_ids.shape
        ids[number, : len(text.ids)] = text.ids
        window_ids[row : row + rows, :mine] = text.window_ids
        places[row : row + rows, :mine] = text.window_places
        picks[number, : len(text.ids)] = (text.picks // mine + row) * width + text.picks % mine
        owners.append(np.full(rows, number))
        row += rows
    numbers = np.array([speakers.index(corpus.speakers[clip]) for clip in clips])

    def put(array: Ints) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(corpus.device, non_blocking=True) if corpus.device.type == "cuda" else tensor

    return TextBatch(
        put(ids), put(counts), put(window_ids), put(places), put(np.concatenate(owners)), put(picks), put(numbers)
    )


def frame_symbols(lengths: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Which symbol each frame belongs to.

    Args:
        lengths: [clips, symbols] int64, frames of each symbol.
        width: Most frames.

    Returns:
        Numbers [clips, width] int64, of the last symbol behind the end, and positions [clips, width, 3] as
        `voice_plan.positions_of` gives them.
    """
    ends = lengths.cumsum(1)
    frames = torch.arange(width, device=lengths.device).expand(len(lengths), -1).contiguous()
    numbers = torch.searchsorted(ends, frames, right=True).clamp(max=lengths.shape[1] - 1)
    whole = lengths.gather(1, numbers)
    inside = frames - (ends.gather(1, numbers) - whole)
    columns = (
        (inside + 0.5) / whole.clamp(min=1),
        inside.clamp(0, 20) / 10,
        (whole - 1 - inside).clamp(0, 20) / 10,
    )
    return numbers, torch.stack(columns, dim=2)


def prosody_of(features: Tensor, frames: Tensor, lengths: Tensor) -> Tensor:
    """What the text encoder is to predict: [clips, symbols, PROSODY].

    Pitch is a mean over voiced frames, and over all where none is voiced.

    Args:
        features: [clips, frames, FEATURES].
        frames: [clips] int64.
        lengths: [clips, symbols] int64.
    """
    clips, width, _ = features.shape
    numbers, _ = frame_symbols(lengths, width)
    inside = valid_positions(frames, width).float()
    tone, voicing = features[:, :, MEL_BINS], features[:, :, MEL_BINS + 1] * inside
    columns = (inside, voicing, tone * voicing, tone * inside, energy(features[:, :, :MEL_BINS]) * inside)
    sums = features.new_zeros(clips, lengths.shape[1], len(columns))
    sums.scatter_add_(1, numbers[:, :, None].expand(-1, -1, len(columns)), torch.stack(columns, dim=2))
    count, spoken = sums[:, :, 0].clamp(min=1), sums[:, :, 1]
    pitched = torch.where(spoken > 0.5, sums[:, :, 2] / spoken.clamp(min=1), sums[:, :, 3] / count)
    parts = (lengths.clamp(min=1).float().log(), pitched, spoken / count, sums[:, :, 4] / count)
    assert len(parts) == PROSODY
    return torch.stack(parts, dim=2)

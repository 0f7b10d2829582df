"""The steps of the voice's training: vocoder, alignment, text and decoder, and all but the text together.

1. `VocoderStage`: real recordings of all speakers, from their own features; spectra first, then judges as well.
2. `AlignStage`: which frames belong to which symbol, for all clips with texts; `align` reads the answer off.
3. `AcousticStage`: text encoder and decoder, given true lengths, pitch and energy.
4. `JointStage`: decoder and vocoder against the judges, on the one speaker, from decoded features.

What a step does is a function of seed and step. AdamW; bfloat16 on CUDA; averaged weights are what a stage leaves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from relay_models.state import valid_positions
from relay_models.training.voice_adversary import Adversary, judging_loss, pleasing_losses, spectral_distance
from relay_models.training.voice_align import Aligner, alignment_loss, best_path, diagonal_prior
from relay_models.training.voice_batches import Corpus, frame_symbols, prosody_of, text_batch
from relay_models.training.voice_data import KATHLEEN, SPEAKERS, STRANGERS
from relay_models.vocoder import DELAY_FRAMES, MEL_BINS, MEL_GUARD, MEL_OFFSET, MEL_SCALE
from relay_models.vocoder_source import CYCLE, HOP_SAMPLES
from relay_models.voice import Voice
from relay_models.voice_text import ENERGY, LENGTH, PITCH, VOICING

_LEAD_FRAMES = 32
"""Frames before an excerpt that the vocoder hears and nobody judges."""
_SILENCE = (math.log(MEL_GUARD) + MEL_OFFSET) * MEL_SCALE


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything a run depends on, apart from data and model.

    Attributes:
        rows, frames: Excerpts in a batch and their length, where waveforms are judged.
        clips: Whole clips in a batch, where features are.
        rate, judge_rate, acoustic_rate, align_rate: Highest learning rates.
        warm_up: Steps up to it, in every stage.
        judged_from: Step of the vocoder's stage from which on it meets the judges.
        prior_steps: Steps with a prior along the diagonal.
        spectral, adversarial, matching: Weights of the vocoder's losses.
        average: Decay of the averaged weights; less in the beginning.
        clip: Largest norm of a gradient.
        real: Shares of speakers for the vocoder.
        texts: Shares of speakers with texts.
        seed: Of weights and batches.
    """

    rows: int = 32
    frames: int = 64
    clips: int = 48
    rate: float = 5e-4
    judge_rate: float = 3e-4
    acoustic_rate: float = 6e-4
    align_rate: float = 1e-3
    warm_up: int = 200
    judged_from: int = 1500
    prior_steps: int = 600
    spectral: float = 15.0
    adversarial: float = 1.0
    matching: float = 3.0
    average: float = 0.999
    clip: float = 5.0
    real: Mapping[str, float] = field(default_factory=lambda: {KATHLEEN: 0.65, STRANGERS: 0.35})
    texts: Mapping[str, float] = field(default_factory=lambda: {KATHLEEN: 0.5, "rms": 0.3, "awb": 0.2})
    seed: int = 0


class Stage(Protocol):
    """A kind of step."""

    step: int

    def train_step(self, rate: float) -> dict[str, Tensor]:
        """One step at `rate` times the highest learning rate; losses, on the device."""

    def finish(self) -> None:
        """Puts averaged weights in the place of the last ones."""


class Learner:
    """Optimiser and average of some modules' weights.

    Args:
        modules: What is trained.
        rate: Highest learning rate.
        recipe: The rest.
        averaged: Whether to keep an average.
    """

    def __init__(self, modules: nn.Module, rate: float, recipe: Recipe, *, averaged: bool = True) -> None:
        self._parameters = list(modules.parameters())
        self._rate, self._recipe, self._steps = rate, recipe, 0
        self._average = [p.detach().clone() for p in self._parameters] if averaged else []
        self._optimizer = torch.optim.AdamW(self._parameters, lr=rate, betas=(0.8, 0.98), weight_decay=0.01, fused=True)

    def update(self, loss: Tensor, rate: float) -> Tensor:
        """One step down a loss, none where the gradient is not finite; returns the norm of the gradient."""
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._parameters, self._recipe.clip, foreach=True)
        self._optimizer.found_inf = (~torch.isfinite(norm)).float()  # type: ignore[attr-defined]
        warm = min(1.0, (self._steps + 1) / self._recipe.warm_up)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * rate * warm
        self._optimizer.step()
        self._steps += 1
        if self._average:
            decay = min(self._recipe.average, (1 + self._steps) / (20 + self._steps))
            torch._foreach_lerp_(self._average, [p.detach() for p in self._parameters], 1 - decay)
        return norm.detach()

    @torch.no_grad()
    def settle(self) -> None:
        """Puts the average in the place of the weights."""
        for parameter, average in zip(self._parameters, self._average, strict=True):
            parameter.copy_(average)


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 on CUDA, nothing elsewhere."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


class Duel:
    """A vocoder's losses with and against the judges, and the judges' own step.

    Args:
        adversary: The judges.
        recipe: Weights of the losses.
    """

    def __init__(self, adversary: Adversary, recipe: Recipe) -> None:
        self._adversary, self._recipe = adversary, recipe
        self._learner = Learner(adversary, recipe.judge_rate, recipe, averaged=False)

    def losses(self, real: Tensor, made: Tensor, rate: float, *, judged: bool) -> dict[str, Tensor]:
        """Losses of audio [rows, samples] that was made, weighted; steps the judges first when they are asked."""
        recipe = self._recipe
        found = {"spectral": recipe.spectral * spectral_distance(real, made)}
        if not judged:
            return found
        with autocast(real.device):
            judging = judging_loss(self._adversary(torch.cat((real, made.detach()))))
        self._learner.update(judging, rate)
        self._adversary.requires_grad_(False)
        with autocast(real.device):
            with torch.no_grad():
                maps = self._adversary(real)
            pleasing = pleasing_losses(maps, self._adversary(made))
        self._adversary.requires_grad_(True)
        found["adversarial"] = recipe.adversarial * pleasing["adversarial"]
        found["matching"] = recipe.matching * pleasing["matching"]
        return found | {"judging": judging.detach()}


def _total(losses: Mapping[str, Tensor]) -> Tensor:
    """Sum of those that have a gradient."""
    return torch.stack([loss for loss in losses.values() if loss.requires_grad]).sum()


def _random_places(rows: int, chance: np.random.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
    """Phases and first frames of excerpts."""
    drawn = chance.integers(0, CYCLE, (2, rows))
    return torch.from_numpy(drawn[0]).to(device), torch.from_numpy(drawn[1] % 100_000).to(device)


class VocoderStage:
    """Features of recordings -> their audio.

    Args:
        corpus: The recordings.
        voice: Whose vocoder is trained.
        adversary: The judges.
        recipe: How.
    """

    def __init__(self, corpus: Corpus, voice: Voice, adversary: Adversary, recipe: Recipe) -> None:
        self.step = 0
        self._corpus, self._vocoder, self._recipe = corpus, voice.vocoder, recipe
        self._duel = Duel(adversary, recipe)
        self._learner = Learner(voice.vocoder, recipe.rate, recipe)

    def train_step(self, rate: float) -> dict[str, Tensor]:
        """See `Stage`."""
        recipe, corpus = self._recipe, self._corpus
        chance = np.random.default_rng((recipe.seed, 1, self.step))
        whole = _LEAD_FRAMES + recipe.frames + DELAY_FRAMES
        first = corpus.choose_excerpts(recipe.real, recipe.rows, whole, chance)
        audio, features = corpus.excerpts(first, whole)
        gain = torch.from_numpy(chance.uniform(-0.7, 0.4, (recipe.rows, 1)).astype(np.float32)).to(corpus.device)
        audio = audio * gain.exp()
        mel = (features[:, :, :MEL_BINS] + gain[:, :, None] * MEL_SCALE).clamp(min=_SILENCE)
        phase, number = _random_places(recipe.rows, chance, corpus.device)
        with autocast(corpus.device):
            made = self._vocoder(torch.cat((mel, features[:, :, MEL_BINS:]), dim=2), phase=phase, first=number)
        judged = slice(_LEAD_FRAMES * HOP_SAMPLES, (_LEAD_FRAMES + recipe.frames) * HOP_SAMPLES)
        losses = self._duel.losses(audio[:, judged], made[:, judged], rate, judged=self.step >= recipe.judged_from)
        norm = self._learner.update(_total(losses), rate)
        self.step += 1
        return {name: loss.detach() for name, loss in losses.items()} | {"norm": norm}

    def finish(self) -> None:
        """See `Stage`."""
        self._learner.settle()


class AlignStage:
    """Trains the aligner.

    Args:
        corpus: Clips with texts.
        aligner: Fresh or not.
        recipe: How.
    """

    def __init__(self, corpus: Corpus, aligner: Aligner, recipe: Recipe) -> None:
        self.step = 0
        self._corpus, self._aligner, self._recipe = corpus, aligner, recipe
        self._learner = Learner(aligner, recipe.align_rate, recipe)

    def train_step(self, rate: float) -> dict[str, Tensor]:
        """See `Stage`."""
        recipe, corpus = self._recipe, self._corpus
        chance = np.random.default_rng((recipe.seed, 2, self.step))
        clips = corpus.choose_clips(recipe.texts, recipe.clips, chance)
        features, frames = corpus.clips_features(clips)
        batch = text_batch(corpus, clips, SPEAKERS)
        score = self._aligner(features[:, :, :MEL_BINS], frames, batch.ids, batch.counts, batch.speakers)
        prior = None
        if self.step < recipe.prior_steps:
            prior = diagonal_prior(frames, batch.counts, features.shape[1], batch.ids.shape[1])
        loss = alignment_loss(score, frames, batch.counts, prior)
        norm = self._learner.update(loss, rate)
        self.step += 1
        return {"alignment": loss.detach(), "norm": norm}

    def finish(self) -> None:
        """See `Stage`."""
        self._learner.settle()


@torch.no_grad()
def align(corpus: Corpus, aligner: Aligner, *, at_once: int = 256) -> None:
    """Finds the frames of every symbol of every clip whose text fits into it; the others lose their text."""
    for clip, text in enumerate(corpus.texts):
        if text is not None and len(text.ids) > corpus.hops[clip]:
            corpus.texts[clip] = None
    known = np.array([clip for clip, text in enumerate(corpus.texts) if text is not None], np.int64)
    known = known[np.argsort(corpus.hops[known], kind="stable")]
    for begin in range(0, len(known), at_once):
        clips = known[begin : begin + at_once]
        features, frames = corpus.clips_features(clips)
        batch = text_batch(corpus, clips, SPEAKERS)
        score = aligner(features[:, :, :MEL_BINS], frames, batch.ids, batch.counts, batch.speakers)
        for clip, lengths in zip(clips.tolist(), best_path(score, frames, batch.counts).cpu(), strict=True):
            corpus.lengths[clip] = lengths


class AcousticStage:
    """Texts -> features.

    Args:
        corpus: Clips with texts, aligned.
        voice: Whose text encoder and decoder are trained.
        recipe: How.
    """

    def __init__(self, corpus: Corpus, voice: Voice, recipe: Recipe) -> None:
        self.step = 0
        self._corpus, self._voice, self._recipe = corpus, voice, recipe
        self._learner = Learner(
            nn.ModuleList((voice.speakers, voice.text, voice.decoder)), recipe.acoustic_rate, recipe
        )

    def train_step(self, rate: float) -> dict[str, Tensor]:
        """See `Stage`."""
        recipe, corpus = self._recipe, self._corpus
        clips = corpus.choose_clips(recipe.texts, recipe.clips, np.random.default_rng((recipe.seed, 3, self.step)))
        torch.manual_seed(recipe.seed * 1_000_003 + self.step)  # dropout
        with autocast(corpus.device):
            read = read_clips(corpus, self._voice, clips)
        losses = read.losses()
        norm = self._learner.update(_total(losses), rate)
        self.step += 1
        return {name: loss.detach() for name, loss in losses.items()} | {"norm": norm}

    def finish(self) -> None:
        """See `Stage`."""
        self._learner.settle()


@dataclass(frozen=True, slots=True)
class Read:
    """What a voice makes of clips' texts, beside what it should.

    Attributes:
        decoded, features: [clips, frames, FEATURES], voicing of the first as a logit.
        frames: [clips] int64.
        prosody, target: [clips, symbols, PROSODY].
        counts: [clips] int64, symbols.
    """

    decoded: Tensor
    features: Tensor
    frames: Tensor
    prosody: Tensor
    target: Tensor
    counts: Tensor

    def losses(self) -> dict[str, Tensor]:
        """Means over symbols (`length`, `tone`: pitch, voicing and energy) and frames (`mel`, `pitch`, `voicing`)."""
        symbols = valid_positions(self.counts, self.target.shape[1]).float()
        inside = valid_positions(self.frames, self.features.shape[1]).float()
        wrong = (self.prosody.float() - self.target).abs() * symbols[:, :, None] / symbols.sum()
        decoded, voicing = self.decoded.float(), self.features[:, :, MEL_BINS + 1]
        mel = (decoded[:, :, :MEL_BINS] - self.features[:, :, :MEL_BINS]).abs().mean(2)
        # Between voiced stretches the pitch only has to run on.
        pitch = (decoded[:, :, MEL_BINS] - self.features[:, :, MEL_BINS]).abs() * (0.1 + 0.9 * voicing)
        entropy = functional.binary_cross_entropy_with_logits(decoded[:, :, MEL_BINS + 1], voicing, reduction="none")
        spoken = wrong[:, :, PITCH] * (0.1 + 0.9 * self.target[:, :, VOICING])
        return {
            "length": wrong[:, :, LENGTH].sum(),
            "tone": 2 * spoken.sum() + 0.5 * (wrong[:, :, VOICING] + wrong[:, :, ENERGY]).sum(),
            "mel": 3 * (mel * inside).sum() / inside.sum(),
            "pitch": 4 * (pitch * inside).sum() / inside.sum(),
            "voicing": 0.3 * (entropy * inside).sum() / inside.sum(),
        }


def read_clips(corpus: Corpus, voice: Voice, clips: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Read:
    """Reads clips' texts at their true lengths, pitch, voicing and energy."""
    features, frames = corpus.clips_features(clips)
    batch = text_batch(corpus, clips, SPEAKERS)
    lengths = nn.utils.rnn.pad_sequence([corpus.lengths[clip][: len(t.ids)] for clip in clips.tolist()
                                         if (t := corpus.texts[clip]) is not None], batch_first=True)  # fmt: skip
    lengths = lengths.to(corpus.device)
    target = prosody_of(features, frames, lengths)
    states, prosody = voice.text(
        batch.window_ids, batch.window_places, voice.speakers(batch.speakers[batch.window_clips])
    )
    own = states.flatten(0, 1)[batch.picks]
    vectors = voice.text.vectors(own, target)
    numbers, positions = frame_symbols(lengths, features.shape[1])
    spread = vectors.gather(1, numbers[:, :, None].expand(-1, -1, vectors.shape[2]))
    decoded = voice.decoder(spread, positions)
    return Read(decoded, features, frames, prosody.flatten(0, 1)[batch.picks], target, batch.counts)


class JointStage:
    """Decoder and vocoder together, on the voice that ships: the vocoder learns what the decoder makes.

    Args:
        corpus: Clips with texts, aligned.
        voice: All of it but the text encoder is trained.
        adversary: The judges.
        recipe: How; `texts` is not used.
    """

    def __init__(self, corpus: Corpus, voice: Voice, adversary: Adversary, recipe: Recipe) -> None:
        self.step = 0
        self._corpus, self._voice, self._recipe = corpus, voice, recipe
        self._duel = Duel(adversary, recipe)
        self._learner = Learner(nn.ModuleList((voice.decoder, voice.vocoder)), recipe.rate / 2, recipe)

    def train_step(self, rate: float) -> dict[str, Tensor]:
        """See `Stage`."""
        recipe, corpus = self._recipe, self._corpus
        chance = np.random.default_rng((recipe.seed, 4, self.step))
        whole = _LEAD_FRAMES + recipe.frames + DELAY_FRAMES
        clips = corpus.choose_clips({KATHLEEN: 1.0}, recipe.rows, chance, shortest=whole)
        torch.manual_seed(recipe.seed * 1_000_003 + self.step)  # dropout
        first = torch.from_numpy((chance.random(len(clips)) * (corpus.hops[clips] - whole + 1)).astype(np.int64))
        starts = torch.from_numpy(corpus.starts[clips])
        audio, true = corpus.excerpts((starts + first).to(corpus.device), whole)
        phase, number = _random_places(len(clips), chance, corpus.device)
        with autocast(corpus.device):
            read = read_clips(corpus, self._voice, clips)
            at = (first[:, None] + torch.arange(whole)).to(corpus.device)
            decoded = read.decoded.gather(1, at[:, :, None].expand(-1, -1, read.decoded.shape[2])).float()
            # The pulses keep the true pitch, or spectra could not be compared.
            parts = (decoded[:, :, :MEL_BINS], true[:, :, MEL_BINS, None], decoded[:, :, MEL_BINS + 1 :].sigmoid())
            made = self._voice.vocoder(torch.cat(parts, dim=2), phase=phase, first=number)
        judged = slice(_LEAD_FRAMES * HOP_SAMPLES, (_LEAD_FRAMES + recipe.frames) * HOP_SAMPLES)
        losses = self._duel.losses(audio[:, judged], made[:, judged], rate, judged=True)
        features = {name: loss for name, loss in read.losses().items() if name in ("mel", "pitch", "voicing")}
        norm = self._learner.update(_total(losses | features), rate)
        self.step += 1
        return {name: loss.detach() for name, loss in (losses | features).items()} | {"norm": norm}

    def finish(self) -> None:
        """See `Stage`."""
        self._learner.settle()

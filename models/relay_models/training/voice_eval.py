"""How good a voice is, by figures that need no listener, on recordings left out of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from relay_models.state import valid_positions
from relay_models.training.voice_adversary import spectral_distance
from relay_models.training.voice_batches import Corpus
from relay_models.training.voice_data import SPEAKERS
from relay_models.training.voice_trainer import read_clips
from relay_models.vocoder import MEL_BINS, MEL_SCALE
from relay_models.vocoder_source import HOP_SAMPLES, RATE_HZ
from relay_models.voice import Voice, voiced
from relay_models.voice_text import LENGTH, PITCH, VOICING

_NEPER_DB = 8.686


@torch.no_grad()
def judge(corpus: Corpus, voice: Voice, *, most: int = 48) -> dict[str, float]:
    """Judges a voice by a corpus, aligned where it has texts.

    Returns:
        `copy_db`: mean distance of log-mel spectra (several resolutions) between recordings and what the vocoder makes
        of their features. With aligned texts also, at true lengths, pitch and energy: `mel_db`, distance of decoded
        mel; `spoken_db`, as `copy_db` from decoded features; and errors of what is predicted from text:
        `length_error`, mean error of logarithms of symbols' lengths, and `pitch_semitones`, over voiced symbols.
    """
    voice = voice.eval()
    clips = np.arange(min(most, len(corpus.hops)))
    audio, hops = corpus.clips_audio(clips)
    features, _ = corpus.clips_features(clips)
    found = {"copy_db": _distance(audio, voice.vocoder(features), hops)}
    aligned = np.array([clip for clip in clips.tolist() if clip in corpus.lengths], np.int64)
    if len(aligned):
        read = read_clips(corpus, voice, aligned)
        audio, hops = corpus.clips_audio(aligned)
        inside = valid_positions(hops, read.features.shape[1]).float()
        mel = (read.decoded - read.features)[:, :, :MEL_BINS].abs().mean(2) / MEL_SCALE * _NEPER_DB
        symbols = valid_positions(read.counts, read.target.shape[1]).float()
        wrong = (read.prosody - read.target).abs() * symbols[:, :, None]
        sounding = symbols * read.target[:, :, VOICING]
        found |= {
            "mel_db": float((mel * inside).sum() / inside.sum()),
            "spoken_db": _distance(audio, voice.vocoder(voiced(read.decoded)), hops),
            "length_error": float(wrong[:, :, LENGTH].sum() / symbols.sum()),
            "pitch_semitones": float(
                (wrong[:, :, PITCH] * sounding).sum() / sounding.sum().clamp(min=1) * 12 / np.log(2)
            ),
        }
    return found


def _distance(real: Tensor, made: Tensor, hops: Tensor) -> float:
    """In decibels, over clips of different lengths."""
    distances = [
        spectral_distance(real[row : row + 1, :end], made[row : row + 1, :end])
        for row, end in enumerate((hops * HOP_SAMPLES).tolist())
    ]
    return float(torch.stack(distances).mean()) * _NEPER_DB


def save_samples(corpus: Corpus, voice: Voice, folder: Path, clips: Sequence[int]) -> None:
    """Writes, for each clip, the recording, the vocoder's copy, and its text spoken by the voice that ships."""
    folder.mkdir(parents=True, exist_ok=True)
    voice = voice.eval()
    for clip in clips:
        one = np.array([clip], np.int64)
        audio, _ = corpus.clips_audio(one)
        features, _ = corpus.clips_features(one)
        with torch.no_grad():
            pieces = [audio[0], voice.vocoder(features)[0]]
        text = corpus.texts[clip]
        if text is not None:
            pieces.append(voice(text.words, speaker=SPEAKERS.index(corpus.speakers[clip])).samples)
        silence = audio.new_zeros(RATE_HZ // 2)
        joined = torch.cat([part for piece in pieces for part in (piece, silence)])
        samples = joined.clamp(-1, 1).cpu().numpy()
        soundfile.write(folder / f"{corpus.names[clip]}.ogg", samples, RATE_HZ, format="OGG", subtype="OPUS")

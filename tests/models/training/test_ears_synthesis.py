from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from relay_models.training.ears_data import RATE_HZ
from relay_models.training.ears_synthesis import (
    HELD_OUT_VARIANTS,
    VARIANTS,
    Espeak,
    SynthesisError,
    finish,
    open_synthesiser,
    read_shard,
    synthesise,
    write_shard,
)

espeakng_loader = pytest.importorskip("espeakng_loader")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tts")
    (folder / "libespeak-ng.so").symlink_to(espeakng_loader.get_library_path())
    (folder / "espeak-ng-data").symlink_to(espeakng_loader.get_data_path())
    return folder


def test_what_is_said_follows_from_seed_worker_and_index(root: Path) -> None:
    texts = ["Good morning, how are you?", "The cat sat on the mat.", "It rains."]
    espeak = Espeak(root)
    whole = synthesise(espeak, texts, seed=3, worker=1, first=0, count=6)
    later = synthesise(espeak, texts, seed=3, worker=1, first=3, count=3)
    other = synthesise(espeak, texts, seed=3, worker=2, first=0, count=6)
    assert sorted(whole.texts[:3]) == ["good morning how are you", "it rains", "the cat sat on the mat"]
    assert (later.texts, later.names) == (whole.texts[3:], whole.names[3:])
    assert np.allclose(later.lengths, whole.lengths[3:], atol=RATE_HZ // 50)
    assert other.lengths != whole.lengths
    assert all(0.3 < length / RATE_HZ < 6 for length in whole.lengths)


def test_no_voice_is_trained_on_and_judged_by(root: Path) -> None:
    assert not set(VARIANTS) & set(HELD_OUT_VARIANTS)
    judge = open_synthesiser("espeak-held-out", root)
    voices = {judge.say("yes", np.random.default_rng(seed))[2].partition("+")[2] for seed in range(40)}
    assert voices <= set(HELD_OUT_VARIANTS)
    assert len(voices) > 3


def test_a_finished_clip_is_trimmed_and_levelled() -> None:
    tone = (3000 * np.sin(np.arange(22_050) / 5)).astype(np.int16)
    quiet = np.zeros(22_050, np.int16)
    clip = finish(np.concatenate((quiet, tone, quiet)), 22_050)
    assert clip is not None
    assert abs(len(clip) - 1.25 * RATE_HZ) < 20
    assert np.abs(clip).max() == 16_000


@pytest.mark.parametrize(("samples", "level"), [(16_000, 0), (100, 900), (16_000 * 20, 900)])
def test_clips_of_no_use_are_dropped(samples: int, level: int) -> None:
    assert finish(np.full(samples, level, np.int16), RATE_HZ) is None


def test_shards_come_back_as_they_were(root: Path, tmp_path: Path) -> None:
    clips = synthesise(Espeak(root), ["Hello there."], seed=0, worker=0, first=0, count=2)
    write_shard(clips, tmp_path, "espeak-00-0000")
    assert not list(tmp_path.glob("*.part"))
    read = read_shard(tmp_path / "espeak-00-0000.json")
    assert np.array_equal(read.audio, clips.audio)
    assert (read.lengths, read.texts, read.names) == (clips.lengths, clips.texts, clips.names)


def test_missing_libraries_are_named(tmp_path: Path) -> None:
    with pytest.raises(SynthesisError, match="eSpeak NG cannot be loaded"):
        open_synthesiser("espeak", tmp_path)
    with pytest.raises(SynthesisError, match="Flite cannot be loaded"):
        open_synthesiser("awb", tmp_path)

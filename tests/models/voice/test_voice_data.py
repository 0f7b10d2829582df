"""From a folder of speech and text to what travels, and on to synthetic speech and the packed voice."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from relay_models.loading import WeightsError
from relay_models.phonemes import to_symbols
from relay_models.training import voice_data, voice_ship, voice_synthesis
from relay_models.training.ears_data import Guard, held_out_prompt
from relay_models.training.voice import keep
from relay_models.training.voice_data import KATHLEEN, SPEAKERS, Recordings, load_texts, save_texts, spell
from relay_models.vocoder_source import RATE_HZ
from relay_models.voice import Voice
from tests.models.voice.small_lexicon import small_frontend
from tests.models.voice.tiny import config


def test_texts_are_spelled_with_boundaries_and_pauses() -> None:
    words = spell(small_frontend(), "The cat, the zoo.")
    assert [" ".join(to_symbols(word)) for word in words] == ["DH AH0  ", "K AE1 T ,", "DH AH0  ", "N AA1 T ."]


def test_a_folder_is_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    chance = np.random.default_rng(0)
    ids = [f"arctic_a{number:04}" for number in range(1, 30)]
    held = [name for name in ids if held_out_prompt(name)]
    assert held
    for folder, rate_hz in (("kathleen", 24_000), ("librispeech_tc100_251spk", 16_000)):
        (data / "speech" / folder).mkdir(parents=True)
        rows = ids if folder == "kathleen" else ["one", "two"]
        for name in rows:
            soundfile.write(data / "speech" / folder / f"{name}.flac", chance.normal(size=rate_hz) * 0.05, rate_hz)
        columns = "file\tprompt_id\ttext" if folder == "kathleen" else "file\tspeaker_id"
        lines = [f"{name}.flac\t{name}\tthe cat want {number}" for number, name in enumerate(rows)]
        (data / "speech" / folder / "metadata.tsv").write_text("\n".join([columns, *lines]) + "\n")
    (data / "text").mkdir()
    secret = f"the cat want {ids.index(held[0])}"
    prompts = ["slurp\tthe quick cat", "user_sgd\tnot this quick cat", f"slurp\t{secret}", "slurp\tbake the quick zoo"]
    (data / "text/prompts.txt.gz").write_bytes(gzip.compress("\n".join(prompts).encode()))
    monkeypatch.setattr(voice_data, "load_lexicon", lambda _folder: None)
    monkeypatch.setattr(voice_data, "Frontend", lambda _lexicon: small_frontend())
    monkeypatch.setattr(sys, "argv", ["voice_data", str(data), str(out)])
    voice_data.main()
    assert len(Recordings.load(out / KATHLEEN)) == len(ids) - len(held)
    assert Recordings.load(out / f"{KATHLEEN}_held_out").names == held
    assert Recordings.load(out / "strangers").words == [[], []]
    assert sorted(text for text, _ in load_texts(out / "texts.json.xz")) == ["bake the quick zoo", "the quick cat"]


def test_held_out_texts_are_not_said(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    lines = "slurp\tthe cat want a church\nslurp\tthe quick cat stop"
    (tmp_path / "text/prompts.txt.gz").write_bytes(gzip.compress(lines.encode()))
    guard = Guard(["The cat want a church."])
    chosen = voice_data.collect_texts(tmp_path, guard, small_frontend(), count=9)
    assert [text for text, _ in chosen] == ["the quick cat stop"]


class Beeper:
    """Says every text as noise as long as it has letters."""

    def say(self, text: str, chance: np.random.Generator) -> tuple[NDArray[np.int16], int, str]:
        return (chance.normal(size=1600 * len(text)) * 1000).astype(np.int16), 16_000, "beep"


def test_workers_share_the_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_texts([("word " * (n + 1), [[n + 1]]) for n in range(7)], tmp_path / "texts.json.xz")
    monkeypatch.setattr(voice_synthesis, "open_synthesiser", lambda _kind, _root: Beeper())
    for worker in range(2):
        monkeypatch.setattr(
            sys, "argv",
            ["synthesis", str(tmp_path), str(tmp_path), "--kind", "rms", "--worker", str(worker), "--workers", "2"],
        )  # fmt: skip
        voice_synthesis.main()
    made = [Recordings.load_raw(tmp_path / f"rms-0{worker}") for worker in range(2)]
    assert sorted(name for clips in made for name in clips.names) == [str(n) for n in range(7)]
    for clips in made:
        assert set(clips.speakers) == {"rms"}
        for name, words, hops in zip(clips.names, clips.words, clips.hops, strict=True):
            assert words == [[int(name) + 1]]
            assert hops * 240 == pytest.approx(RATE_HZ * 0.5 * (int(name) + 1), rel=0.05)


def test_the_trained_speaker_is_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = {key: value for key, value in config(speakers=len(SPEAKERS)).to_dict().items() if key != "model_type"}
    torch.manual_seed(1)
    trained = Voice(config(speakers=len(SPEAKERS)))
    keep({"voice": trained}, tmp_path / "out")
    packed: list[Voice] = []
    monkeypatch.setattr(voice_ship, "export_voice", lambda model, _folder: packed.append(model))
    monkeypatch.setattr(sys, "argv", ["ship", str(tmp_path / "out"), str(tmp_path), "--config", json.dumps(shape)])
    voice_ship.main()
    expected = trained.speakers.weight[SPEAKERS.index(KATHLEEN)]
    torch.testing.assert_close(packed[0].speakers.weight[0], expected, atol=2e-3, rtol=1e-3)
    monkeypatch.setattr(sys, "argv", ["ship", str(tmp_path), str(tmp_path), "--config", json.dumps(shape)])
    with pytest.raises(WeightsError, match="holds no trained voice"):
        voice_ship.main()

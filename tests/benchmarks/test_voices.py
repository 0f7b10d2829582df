"""The benchmark of voices on one whose delays are known, and the whole suite on eSpeak as its own speaker."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relay.audio import VOICE_RATE_HZ
from relay.cli import run
from relay.client.files import write_wav
from relay.engine.espeak_voice import EspeakRunner
from relay.engine.voice import SpokenWord, VoiceInput, VoiceOutput
from relay_benchmarks import voice_quality
from relay_benchmarks.quality_set import Recording
from relay_benchmarks.voice_quality import Said
from relay_benchmarks.voices import CHUNK_MS, alone, crowd, speak

CHUNK = round(CHUNK_MS * VOICE_RATE_HZ / 1000)
TEXT = "She put the old letters back into the wooden box."


class Scripted:
    """Runner[VoiceInput, VoiceOutput]: a chunk for every word, once it has the one after it too."""

    max_slots = 8
    max_batch = 4

    def __init__(self) -> None:
        self.words: dict[int, list[str]] = {}
        self.said: Counter[int] = Counter()
        self.ended: set[int] = set()
        self.batches: list[int] = []
        self.opened = 0

    def load(self) -> None:
        pass

    def unload(self) -> None:
        pass

    def open(self, slot: int) -> None:
        assert slot not in self.words
        self.opened += 1
        self.words[slot] = []

    def close(self, slot: int) -> None:
        del self.words[slot]
        self.said.pop(slot, None)
        self.ended.discard(slot)

    def step(self, slots: Sequence[int], xs: Sequence[VoiceInput]) -> list[VoiceOutput | BaseException]:
        self.batches.append(len(slots))
        return [self.one(slot, x) for slot, x in zip(slots, xs, strict=True)]

    def one(self, slot: int, x: VoiceInput) -> VoiceOutput | BaseException:
        if "bad" in x.text:
            return ValueError("broken")
        words = self.words[slot]
        words += x.text.split()
        if x.final:
            self.ended.add(slot)
        at = self.said[slot]
        if at + 1 < len(words) or (slot in self.ended and at < len(words)):
            self.said[slot] += 1
            pcm = np.full(CHUNK, at + 1, np.int16)
            spoken = (SpokenWord(words[at], at * CHUNK, (at + 1) * CHUNK),)
        else:
            pcm, spoken = np.empty(0, np.int16), ()
        final = slot in self.ended and self.said[slot] == len(words)
        if final:
            self.close(slot)
            self.words[slot] = []
        return VoiceOutput(pcm, spoken, final)


def test_words_are_given_when_there_is_nothing_to_play() -> None:
    voice = Scripted()
    speech = speak(voice, "one two three")
    np.testing.assert_array_equal(speech.pcm, np.repeat([1, 2, 3], CHUNK))
    assert [word.text for word in speech.words] == ["one", "two", "three"]
    assert speech.first_audio_words == 2
    assert speech.first_audio_ms is not None
    assert 0 < speech.first_audio_ms <= speech.step_s * 1000
    assert speech.audio_s == 3 * CHUNK / VOICE_RATE_HZ
    assert speak(voice, "one two three", at_once=True).first_audio_words == 1
    assert not voice.words


def test_nothing_to_say() -> None:
    speech = speak(Scripted(), "")
    assert (len(speech.pcm), speech.first_audio_ms, speech.words) == (0, None, [])


def test_a_failing_voice_is_no_result_and_its_slots_are_closed() -> None:
    voice = Scripted()
    with pytest.raises(ValueError, match="broken"):
        speak(voice, "so bad")
    assert not voice.words


def test_a_crowd_speaks_all_the_time_in_batches_that_the_voice_can_take() -> None:
    voice = Scripted()
    found = crowd(voice, 6, seconds=8, warm_up_s=1)
    assert (found.voices, found.steps) == (6, 100)
    assert voice.batches[-2:] == [4, 2]
    assert found.step_ms["p50"] <= found.step_ms["p99"] <= found.step_ms["max"]
    assert found.audio_s_per_s > 0
    assert found.in_real_time == (found.step_ms["p99"] <= CHUNK_MS)
    assert not voice.words


def test_a_crowd_too_large() -> None:
    with pytest.raises(ValueError, match="8 replies at most, not 9"):
        crowd(Scripted(), 9)


def test_one_reply_at_a_time() -> None:
    found = alone(Scripted(), rounds=1)
    assert found["first_audio_words"] == 2
    assert found["rtf"] > 0


@pytest.fixture(scope="module")
def espeak() -> EspeakRunner:
    runner = EspeakRunner()
    runner.load()
    return runner


def test_word_starts_are_held_against_the_aligner(espeak: EspeakRunner) -> None:
    def errors(shift_ms: int) -> list[float]:
        speech = speak(espeak, TEXT)
        moved = shift_ms * VOICE_RATE_HZ // 1000
        speech.words = [replace(word, start_sample=word.start_sample + moved) for word in speech.words]
        said = Said(Recording(TEXT, TEXT, voice_quality.NO_SOUND), speech)
        voice_quality.time_words([said])
        return said.start_errors_ms

    right, late = errors(0), errors(100)
    assert len(right) == len(TEXT.split())
    assert np.median(np.abs(right)) < 40
    np.testing.assert_allclose(np.array(late) - np.array(right), 100, atol=0.1)


def test_what_cannot_be_aligned_is_left_out(espeak: EspeakRunner) -> None:
    text = "The xqzvb sat."
    said = Said(Recording(text, text, voice_quality.NO_SOUND), speak(espeak, text))
    voice_quality.time_words([said])
    assert said.start_errors_ms == []


def test_a_sentence_cut_in_two_replies_is_longer_and_one_given_by_words_is_not(espeak: EspeakRunner) -> None:
    seams = voice_quality.seams(espeak, TEXT, speak(espeak, TEXT))
    assert seams is not None
    assert seams.equal
    assert seams.longer_ms != 0
    assert voice_quality.seams(espeak, "Too short.", speak(espeak, "Too short.")) is None


def test_a_voice_that_is_the_speaker(tmp_path: Path, espeak: EspeakRunner, capsys: pytest.CaptureFixture[str]) -> None:
    """The recordings are the voice's own: no distance, the same pitch, the same words understood."""
    texts = [TEXT, "Nobody knew <why> the lights had gone out so early & late."]
    lines = []
    for number, text in enumerate(texts):
        write_wav(tmp_path / f"{number}.wav", speak(espeak, text).pcm, VOICE_RATE_HZ)
        lines.append(json.dumps({"wav": f"{number}.wav", "text": text}))
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    report_file, page = tmp_path / "report.json", tmp_path / "page"
    asked = ["--manifest", str(tmp_path), "--json", str(report_file), "--page", str(page)]
    assert run(["bench", "quality", "--part", "voice", "--voice", "espeak", *asked], {}) == 0
    report: dict[str, Any] = json.loads(report_file.read_text())
    (result,) = report["results"]
    (real,) = report["real"]
    assert (result["engine"], result["sentences"], result["words"]) == ("espeak", 2, real["words"])
    assert result["wer"] == real["wer"]
    assert result["wer_to_real"] in (1, None)
    assert result["mel_cepstral_distance_db"] == pytest.approx(0, abs=0.01)
    assert result["pitch_correlation"] == pytest.approx(1, abs=0.01)
    assert result["length_ratio"] == 1
    assert result["seams"]["given_by_words_equal"] == 1
    assert result["first_audio_words"]["mean"] == 3.5  # eSpeak waits for three words with sound, and `<why>` has none
    assert 0 < result["rtf"] < 1
    out = capsys.readouterr().out
    assert "espeak" in out
    assert "the speaker's recordings" in out
    html = (page / "index.html").read_text()
    assert "Nobody knew &lt;why&gt; the lights" in html
    for number in range(2):
        for sound in (f"{number:03}-recording.wav", f"{number:03}-voice0.wav"):
            assert f'src="{sound}"' in html
            assert (page / sound).stat().st_size > 44


def test_built_in_sentences_have_no_speaker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page"
    asked = ["bench", "quality", "--part", "voice", "--voice", "baseline", "--recordings", "1", "--page", str(page)]
    assert run([*asked, "--json", "-"], {}) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["real"] == []
    assert report["results"][0]["mel_cepstral_distance_db"] is None
    assert "recording" not in (page / "index.html").read_text()


def test_one_speaker_at_a_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "quality", "--part", "voice", "--manifest", "a", "--manifest", "b"], {}) == 2
    assert "one --manifest" in capsys.readouterr().err

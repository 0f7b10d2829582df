"""The voice's training at toy size: what is measured, aligned and batched, and that every loss falls."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from relay_models.loading import WeightsError
from relay_models.phonemes import BOUNDARY_ID, END_ID, PAD_ID, SYMBOLS
from relay_models.training import voice as cli
from relay_models.training.voice_adversary import Adversary, judging_loss, pleasing_losses, spectral_distance
from relay_models.training.voice_align import Aligner, best_path, diagonal_prior, posteriors
from relay_models.training.voice_batches import Corpus, frame_symbols, prosody_of, spelled, text_batch
from relay_models.training.voice_data import KATHLEEN, SPEAKERS, STRANGERS, Recordings, load_texts, save_texts, tidy
from relay_models.training.voice_eval import judge
from relay_models.training.voice_features import energy, log_mel, pitch, run_on
from relay_models.training.voice_trainer import (
    AcousticStage,
    AlignStage,
    JointStage,
    Recipe,
    Stage,
    VocoderStage,
    align,
)
from relay_models.vocoder import MEL_BINS, PITCH_HZ, VocoderConfig
from relay_models.vocoder_source import HOP_SAMPLES, RATE_HZ
from relay_models.voice import Voice, VoiceConfig
from relay_models.voice_plan import positions_of
from relay_models.voice_text import LENGTH, PITCH, VOICING

torch.set_num_threads(1)

SYMBOL_HZ = {1: 130.0, 2: 310.0, 3: 0.0}
"""A language of three sounds: a low tone, a high one, and noise."""
TINY = VoiceConfig(
    speakers=len(SPEAKERS), text_size=16, text_inner=32, text_heads=2, text_layers=1, size=24, inner=32, layers=1,
    dropout=0.0, vocoder=VocoderConfig(size=24, inner=32, layers=1),
)  # fmt: skip
RECIPE = Recipe(rows=2, frames=24, clips=4, warm_up=5, prior_steps=15, average=0.8, align_rate=5e-3)


def sound(symbol: int, hops: int, generator: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    count = hops * HOP_SAMPLES
    if not SYMBOL_HZ.get(symbol):
        return generator.normal(size=count) * (0.05 if symbol in SYMBOL_HZ else 0.0005)
    phase = 2 * np.pi * SYMBOL_HZ[symbol] * np.arange(count) / RATE_HZ
    return 0.08 * sum(np.cos(k * phase) / k for k in range(1, 12)) + generator.normal(size=count) * 5e-4


def recordings(clips: int, speaker: str = KATHLEEN, seed: int = 0) -> tuple[Recordings, list[list[int]]]:
    """Clips of the language, 15 hops a sound, 5 a boundary, 6 the end; and their true lengths."""
    generator = np.random.default_rng(seed)
    parts, lengths = [], []
    for number in range(clips):
        words = [[*generator.integers(1, 4, 2).tolist(), BOUNDARY_ID] for _ in range(3)]
        ids = [i for word in words for i in word] + [END_ID]
        mine = [{BOUNDARY_ID: 5, END_ID: 6}.get(i, 15) for i in ids]
        audio = np.concatenate([sound(i, hops, generator) for i, hops in zip(ids, mine, strict=True)])
        parts.append((np.rint(audio * 32767).astype(np.int16), words, speaker, str(number)))
        lengths.append(mine)
    return Recordings.join(parts), lengths


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    clips, lengths = recordings(6)
    made = Corpus([clips], torch.device("cpu"))
    made.lengths = {clip: torch.tensor(mine) for clip, mine in enumerate(lengths)}
    return made


@pytest.mark.parametrize("hertz", [82.0, 130.0, 217.0, 420.0])
def test_pitch_of_a_tone(hertz: float) -> None:
    time = torch.arange(60 * HOP_SAMPLES) / RATE_HZ
    audio = sum(0.05 / k * torch.sin(2 * torch.pi * hertz * k * time) for k in range(1, 15))
    assert isinstance(audio, Tensor)
    audio[40 * HOP_SAMPLES :] = 0.02 * torch.randn(20 * HOP_SAMPLES, generator=torch.Generator().manual_seed(0))
    tone, voicing = pitch(audio[None], torch.tensor([60]))
    assert voicing[0, 4:36].all()
    assert not voicing[0, 44:].any()
    torch.testing.assert_close(PITCH_HZ * tone[0, 4:36].exp(), torch.full((32,), hertz), rtol=0.003, atol=0)


def test_pitch_runs_on_between_voiced_stretches() -> None:
    values = torch.tensor([[9.0, 1.0, 9.0, 9.0, 4.0, 9.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    known = torch.tensor([[False, True, False, False, True, False], [False] * 6])
    torch.testing.assert_close(run_on(values, known), torch.tensor([[1.0, 1.0, 2.0, 3.0, 4.0, 4.0], [0.0] * 6]))


def test_louder_is_more_energy() -> None:
    audio = torch.randn(1, 20 * HOP_SAMPLES, generator=torch.Generator().manual_seed(0)) * 0.05
    quiet, loud = energy(log_mel(audio)), energy(log_mel(audio * 4))
    torch.testing.assert_close((loud - quiet).mean().item(), np.log(4) / 2, rtol=0.02, atol=0)


def test_clips_are_cut_and_levelled() -> None:
    generator = np.random.default_rng(0)
    quiet = generator.normal(size=(2, 24_000)) * 1e-4
    speech = generator.normal(size=36_000) * 0.02
    clip = tidy(np.concatenate((quiet[0], speech, quiet[1])), RATE_HZ)
    assert clip is not None
    assert len(clip) % HOP_SAMPLES == 0
    assert abs(len(clip) - 36_000 - 12 * HOP_SAMPLES) <= 2 * HOP_SAMPLES
    assert tidy(quiet[0] * 0, RATE_HZ) is None
    assert tidy(np.tile(speech, 8), RATE_HZ) is None
    halved = tidy(speech[::2], 12_000)
    assert halved is not None
    assert abs(len(halved) - 36_000) < 3 * HOP_SAMPLES


def test_recordings_and_texts_travel(tmp_path: Path) -> None:
    clips, _ = recordings(2)
    clips.save(tmp_path / "a", compression=0.7)
    again = Recordings.load(tmp_path / "a")
    assert (again.hops, again.words, again.speakers, again.names) == (
        clips.hops, clips.words, clips.speakers, clips.names,
    )  # fmt: skip
    clips.save_raw(tmp_path / "b")
    assert np.array_equal(Recordings.load_raw(tmp_path / "b").audio, clips.audio)
    save_texts([("one", [[1, 2], [3]])], tmp_path / "t")
    assert load_texts(tmp_path / "t") == [("one", [[1, 2], [3]])]
    Recordings.join([(clips.audio[:240], [[1]], "x", "y")]).save(tmp_path / "c", compression=0.7)
    (tmp_path / "a.ogg").write_bytes((tmp_path / "c.ogg").read_bytes())
    with pytest.raises(ValueError, match="does not fit its index"):
        Recordings.load(tmp_path / "a")


def test_windows_of_a_batch_lead_back_to_the_symbols(corpus: Corpus) -> None:
    batch = text_batch(corpus, np.array([4, 1]), SPEAKERS)
    text = corpus.texts[4]
    assert text is not None
    assert batch.ids[0, : batch.counts[0]].tolist() == text.ids.tolist()
    picked = batch.window_ids.flatten()[batch.picks]
    assert torch.equal(picked[0, : batch.counts[0]], batch.ids[0, : batch.counts[0]])
    assert torch.equal(picked[1, : batch.counts[1]], batch.ids[1, : batch.counts[1]])
    assert batch.window_clips.tolist() == [0] * 4 + [1] * 4
    assert spelled([[1], [2, 3]]).window_ids.tolist() == [[1] + [PAD_ID] * 3, [1, 2, 3, END_ID], [1, 2, 3, END_ID]]


def test_frames_know_their_symbols() -> None:
    lengths = torch.tensor([[2, 3, 1], [4, 1, 0]])
    numbers, positions = frame_symbols(lengths, 6)
    assert numbers.tolist() == [[0, 0, 1, 1, 1, 2], [0, 0, 0, 0, 1, 2]]
    np.testing.assert_allclose(positions[0].numpy(), positions_of(np.array([2, 3, 1])), rtol=1e-6)


def test_prosody_is_measured(corpus: Corpus) -> None:
    clips = np.arange(3)
    features, frames = corpus.clips_features(clips)
    lengths = torch.stack([corpus.lengths[clip] for clip in range(3)])
    prosody = prosody_of(features, frames, lengths)
    for clip in range(3):
        text = corpus.texts[clip]
        assert text is not None
        for symbol, row in zip(text.ids.tolist(), prosody[clip], strict=True):
            assert row[LENGTH].exp().item() == pytest.approx({BOUNDARY_ID: 5, END_ID: 6}.get(symbol, 15))
            if SYMBOL_HZ.get(symbol):
                assert row[VOICING] > 0.8
                assert PITCH_HZ * row[PITCH].exp().item() == pytest.approx(SYMBOL_HZ[symbol], rel=0.03)
            elif symbol == 3:
                assert row[VOICING] < 0.5


def test_excerpts_are_cuts_of_clips(corpus: Corpus) -> None:
    first = corpus.choose_excerpts({KATHLEEN: 1.0}, 20, 30, np.random.default_rng(0))
    audio, features = corpus.excerpts(first, 30)
    assert audio.shape == (20, 30 * HOP_SAMPLES)
    for place, row, mel in zip(first.tolist(), audio, features, strict=True):
        clip = int(np.searchsorted(corpus.starts, place, side="right")) - 1
        assert place + 30 <= corpus.starts[clip] + corpus.hops[clip]
        torch.testing.assert_close(log_mel(row[None])[0, 2:-2], mel[2:-2, :MEL_BINS], atol=2e-3, rtol=0)


def test_clips_are_chosen_by_speaker_and_length(corpus: Corpus) -> None:
    chance = np.random.default_rng(0)
    assert set(corpus.choose_clips({KATHLEEN: 1.0}, 6, chance).tolist()) == set(range(6))
    with pytest.raises(ValueError, match="no clip with a text, of 9000 hops or more, of kathleen"):
        corpus.choose_clips({KATHLEEN: 1.0}, 6, chance, shortest=9000)
    with pytest.raises(ValueError, match="of rms"):
        corpus.choose_clips({"rms": 1.0}, 6, chance)


def brute_force(score: Tensor) -> tuple[float, list[int]]:
    """Best monotonic path by trying all: its score and lengths."""
    frames, symbols = score.shape
    best: tuple[float, list[int]] = (-np.inf, [])
    for cuts in range(1 << (frames - 1)):
        moves = [cuts >> t & 1 for t in range(frames - 1)]
        if sum(moves) == symbols - 1:
            path = np.concatenate(([0], np.cumsum(moves)))
            total = float(score[torch.arange(frames), torch.from_numpy(path)].sum())
            best = max(best, (total, np.bincount(path, minlength=symbols).tolist()))
    return best


def test_the_best_path_is_the_best_path() -> None:
    score = torch.randn(4, 8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    frames, counts = torch.tensor([8, 6, 5, 8]), torch.tensor([5, 3, 5, 1])
    for row, count in enumerate(counts.tolist()):
        score[row, :, count:] = -1e4
    lengths = best_path(score, frames, counts)
    for row, (end, count) in enumerate(zip(frames.tolist(), counts.tolist(), strict=True)):
        _, expected = brute_force(score[row, :end, :count])
        assert lengths[row].tolist() == expected + [0] * (5 - count)


def test_posteriors_count_all_paths() -> None:
    score = torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    frames, counts = torch.tensor([7, 5]), torch.tensor([4, 3])
    score[1, :, 3:] = -1e4
    found = posteriors(score, frames, counts)
    for row, (end, count) in enumerate(((7, 4), (5, 3))):
        expected = torch.zeros(end, count, dtype=torch.float64)
        for cuts in itertools.combinations(range(1, end), count - 1):
            path = torch.tensor(np.searchsorted(cuts, np.arange(end), side="right"))
            weight = score[row, torch.arange(end), path].sum().exp()
            expected[torch.arange(end), path] += weight
        torch.testing.assert_close(found[row, :end, :count], expected / expected.sum(1, keepdim=True))
        assert not found[row, end:].any()


def test_the_prior_is_a_distribution_along_the_diagonal() -> None:
    prior = diagonal_prior(torch.tensor([20]), torch.tensor([6]), 20, 6)[0].exp()
    torch.testing.assert_close(prior.sum(1), torch.ones(20), rtol=1e-4, atol=0)
    assert prior[0].argmax() == 0
    assert prior[10].argmax() in (2, 3)
    assert prior[19].argmax() == 5


def test_alignment_is_learned() -> None:
    """Eight sounds, each a bump in the spectrum, in words of three, and silence at the end."""
    generator = np.random.default_rng(1)
    bumps = np.repeat(np.eye(9), 9, axis=1)[:, :MEL_BINS]
    bumps = 2 * np.pad(bumps, ((0, 0), (0, MEL_BINS - bumps.shape[1])))
    parts, truth, mels = [], [], []
    for number in range(24):
        ids = (generator.permutation(8)[:6] + 1).tolist()
        lengths = generator.integers(5, 16, 6).tolist()
        heard = [(i - 1, hops) for i, hops in zip(ids, lengths, strict=True)]
        mels += [np.tile(bumps[sound_], (hops, 1)) for sound_, hops in [*heard, (8, 10)]]
        words = [[*ids[:3], BOUNDARY_ID], [*ids[3:], BOUNDARY_ID]]
        parts.append((np.zeros((sum(lengths) + 10) * HOP_SAMPLES, np.int16), words, KATHLEEN, str(number)))
        ends = np.cumsum(lengths)
        truth.append([*ends[:3], ends[2], *ends[3:], ends[5], ends[5] + 10])
    corpus = Corpus([Recordings.join(parts)], torch.device("cpu"))
    noise = generator.normal(size=(len(corpus.features), MEL_BINS)) * 0.2
    corpus.features[:, :MEL_BINS] = torch.from_numpy(np.concatenate(mels) + noise).half()
    torch.manual_seed(0)
    aligner = Aligner(len(SYMBOLS), len(SPEAKERS), size=32)
    stage = AlignStage(corpus, aligner, replace(RECIPE, prior_steps=50))
    losses = [stage.train_step(1.0)["alignment"].item() for _ in range(100)]
    stage.finish()
    assert losses[-1] < 0.8 * losses[0]
    align(corpus, aligner)
    found = torch.stack([corpus.lengths[clip] for clip in range(24)]).cumsum(1)
    wrong = (found - torch.from_numpy(np.array(truth))).abs()
    assert (wrong <= 5).float().mean() > 0.9


def test_judges_learn_to_tell_and_made_sound_learns_to_please() -> None:
    torch.manual_seed(0)
    adversary = Adversary(channels=2)
    real = torch.sin(torch.arange(8192) / 9)[None] * 0.3
    made = torch.nn.Parameter(0.1 * torch.randn(1, 8192))
    judges = torch.optim.Adam(adversary.parameters(), 1e-2)
    first = last = 0.0
    for step in range(25):
        loss = judging_loss(adversary(torch.cat((real, made.detach()))))
        judges.zero_grad()
        loss.backward()
        judges.step()
        first, last = (loss.item(), last) if step == 0 else (first, loss.item())
    assert last < 0.7 * first
    sound_ = torch.optim.Adam([made], 5e-3)
    pleased = []
    for _ in range(8):
        found = pleasing_losses(adversary(real), adversary(made))
        sound_.zero_grad()
        (found["adversarial"] + found["matching"]).backward()
        sound_.step()
        pleased.append(found["adversarial"].item() + found["matching"].item())
    assert pleased[-1] < pleased[0]


def test_spectral_distance_is_one_of_loudness() -> None:
    audio = 0.3 * torch.randn(1, 8192, generator=torch.Generator().manual_seed(0))
    assert spectral_distance(audio, audio).item() == 0
    assert spectral_distance(audio, 2 * audio).item() == pytest.approx(np.log(2), rel=0.05)


STAGES: dict[str, tuple[Callable[[Corpus, Voice], Stage], str, int]] = {
    "vocoder": (
        lambda corpus, voice: VocoderStage(corpus, voice, Adversary(2), replace(RECIPE, rate=4e-3, judged_from=38)),
        "spectral", 40,
    ),
    "acoustic": (lambda corpus, voice: AcousticStage(corpus, voice, replace(RECIPE, acoustic_rate=5e-3)), "mel", 30),
    "joint": (lambda corpus, voice: JointStage(corpus, voice, Adversary(2), replace(RECIPE, rate=4e-3)), "spectral", 8),
}  # fmt: skip


@pytest.mark.parametrize("name", STAGES)
def test_losses_fall(corpus: Corpus, name: str) -> None:
    make, watched, steps = STAGES[name]
    torch.manual_seed(0)
    voice = Voice(TINY)
    stage = make(corpus, voice)
    losses = [stage.train_step(1.0) for _ in range(steps)]
    stage.finish()
    assert stage.step == steps
    assert all(torch.isfinite(loss) for step in losses for loss in step.values())
    falling = [step[watched].item() for step in losses]
    assert np.mean(falling[-4:]) < 0.95 * np.mean(falling[:4])
    if name == "vocoder":
        assert "adversarial" not in losses[0]
    if name != "acoustic":
        assert {"adversarial", "matching", "judging"} <= set(losses[-1])
    figures = judge(corpus, voice)
    assert set(figures) == {"copy_db", "mel_db", "spoken_db", "length_error", "pitch_semitones"}
    assert all(np.isfinite(value) for value in figures.values())


def test_a_run_goes_on_where_it_was_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, shards, out = tmp_path / "root", tmp_path / "shards", tmp_path / "out"
    shards.mkdir()
    recordings(3)[0].save(root / KATHLEEN, compression=0.7)
    recordings(2, seed=1)[0].save(root / f"{KATHLEEN}_held_out", compression=0.7)
    strangers = recordings(1, STRANGERS, seed=2)[0]
    strangers.words = [[]]
    strangers.save(root / STRANGERS, compression=0.7)
    recordings(3, "rms", seed=4)[0].save_raw(shards / "rms-00")
    shape = {key: value for key, value in TINY.to_dict().items() if key != "model_type"}
    base = ["voice", str(root), str(out), "--shards", str(shards), "--device", "cpu", "--rows", "2", "--clips", "2",
            "--steps", "2", "--config", json.dumps(shape), "--stages"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", [*base, "vocoder=60", "align=60"])
    cli.main()
    monkeypatch.setattr(sys, "argv", [*base, "acoustic=60", "joint=60"])
    cli.main()
    log = (out / "log.txt").read_text()
    assert "going on with []" in log
    assert "going on with ['voice', 'adversary', 'aligner']" in log
    assert set(json.loads((out / "figures.json").read_text())) == {"acoustic", "joint"}
    assert len(list((out / "samples").iterdir())) == 2
    voice = Voice(TINY)
    assert cli.take_up({"voice": voice}, out) == ["voice"]
    assert cli.take_up({"voice": voice}, tmp_path) == []


def test_runs_of_the_vocoder_and_of_the_text_are_put_together(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sound, text = Voice(TINY), Voice(TINY)
    aligner = Aligner(len(SYMBOLS), len(SPEAKERS))
    cli.keep({"voice": sound, "adversary": Adversary()}, tmp_path / "sound")
    with pytest.raises(WeightsError, match="text does not hold"):
        cli.join(tmp_path / "sound", tmp_path / "text", tmp_path / "both", TINY)
    cli.keep({"voice": text, "aligner": aligner}, tmp_path / "text")
    cli.join(tmp_path / "sound", tmp_path / "text", tmp_path / "both", TINY)
    both = Voice(TINY)
    modules = {"voice": both, "adversary": Adversary(), "aligner": Aligner(len(SYMBOLS), len(SPEAKERS))}
    assert cli.take_up(modules, tmp_path / "both") == list(modules)
    for name, parameter in both.named_parameters():
        source = sound if name.startswith("vocoder.") else text
        torch.testing.assert_close(parameter, source.get_parameter(name), rtol=1e-3, atol=1e-3)


def test_stages_are_named() -> None:
    assert cli.parse_stages(["vocoder=3", "joint=0.5"]) == [("vocoder", 3.0), ("joint", 0.5)]
    with pytest.raises(ValueError, match="no stage"):
        cli.parse_stages(["vocal=3"])
    assert cli.cosine(0) == 1
    assert cli.cosine(2) == pytest.approx(0.05)

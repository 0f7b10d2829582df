from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from relay_models.ears import Ears, EarsConfig
from relay_models.ears_export import pack_ears
from relay_models.encoder import EncoderConfig
from relay_models.features import FeatureConfig
from relay_models.loading import WeightsError
from relay_models.stored import save_packed
from relay_models.training.ears import cosine
from relay_models.training.ears_augment import Dice, simulated_rooms
from relay_models.training.ears_batches import (
    BUCKETS_S,
    Mix,
    MixSchedule,
    Planner,
    ShardReader,
    Store,
    carry_out,
    plan_batch,
)
from relay_models.training.ears_checkpoint import load_state, save_state, state_of_model
from relay_models.training.ears_data import Clips, train_pieces
from relay_models.training.ears_eval import evaluate, word_errors
from relay_models.training.ears_synthesis import write_shard
from relay_models.training.ears_trainer import Hearing, Recipe, Trainer, end_targets, settle
from relay_models.transducer import TransducerConfig

CPU = torch.device("cpu")
SHARES = {"espeak": 0.7, "flite": 0.3}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Models this small are slowed by threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tokenizer() -> Tokenizer:
    return train_pieces(["one two three four five six seven eight nine ten"] * 5, 48)


def clips(count: int, seed: int = 0, longest_s: float = 4.0) -> Clips:
    chance = np.random.default_rng(seed)
    parts = []
    for index in range(count):
        samples = int(chance.uniform(1.2, longest_s) * 16_000)
        tone = 9000 * np.sin(np.arange(samples) * 2 * np.pi * (150 + 40 * (index % 10)) / 16_000)
        parts.append((tone.astype(np.int16), ["one two", "three", "seven ten"][index % 3], f"clip {index}"))
    return Clips.join(parts)


def store() -> Store:
    filled = Store(16_000 * 400, tokenizer(), CPU)
    assert filled.add(clips(30), "espeak")
    assert filled.add(clips(12, seed=1, longest_s=9.0), "flite")
    return filled


def config(pieces: int) -> EarsConfig:
    return EarsConfig(
        features=FeatureConfig(mel_bins=16),
        encoder=EncoderConfig(mel_bins=16, channels=8, size=16, layers=2, heads=2, inner=16, kernel=3),
        transducer=TransducerConfig(vocabulary=pieces + 1, size=8, layers=0, joint=8),
        middle=1,
    )


def trainer() -> Trainer:
    torch.manual_seed(0)
    model = Ears(config(tokenizer().get_vocab_size()))
    styles = torch.stack((torch.full((2, 16), -8.0), torch.full((2, 16), 3.0)), dim=1)
    hearing = Hearing(model.config.features, simulated_rooms(2, Dice(0, CPU)), styles, CPU)
    recipe = Recipe(batch_s=8.0, warm_up=3, clean_steps=2, ramp_steps=2, transducer_from=3)
    return Trainer(model, recipe, hearing)


def step(runner: Trainer, filled: Store) -> dict[str, float]:
    plan = plan_batch(filled, Mix(5.0, SHARES, only=runner.step % 2), 0, runner.step)
    return {name: value.item() for name, value in runner.train_step(carry_out(plan, filled), 1.0).items()}


@given(st.integers(0, 10_000), st.sampled_from(range(len(BUCKETS_S))))
def test_every_plan_fits_its_rows(seed: int, bucket: int) -> None:
    filled = STORE
    plan = plan_batch(filled, Mix(40.0, SHARES, only=bucket), seed, 5)
    row, first, count, start = plan.places.T
    assert plan.samples == BUCKETS_S[bucket] * 16_000
    assert (first >= 0).all()
    assert (first + count <= plan.samples).all()
    assert (plan.lengths <= plan.samples).all()
    assert (start + count * plan.rates[:, 0] <= filled.used + 1).all()
    for number in range(len(plan.lengths)):
        mine = row == number
        order = np.argsort(first[mine])
        ends = (first + count)[mine][order]
        assert (first[mine][order][1:] >= ends[:-1]).all()  # pieces of a row never overlap
        said = sum(len(filled.tokens[np.flatnonzero(filled.starts == s)[0]]) for s in start[mine])
        assert said == plan.token_counts[number]


STORE = store()


def test_audio_in_a_row_is_the_clip_at_its_speed() -> None:
    plan = plan_batch(STORE, Mix(8.0, SHARES, only=1), 0, 0)
    batch = carry_out(plan, STORE)
    row, first, count, start = plan.places[0]
    rate, gain = plan.rates[0]
    heard = batch.audio[row, first : first + count].numpy()
    at = np.arange(count) * rate + start
    original = np.interp(at, np.arange(len(STORE.audio)), STORE.audio.numpy()) * gain / 32768
    assert np.abs(heard - original).max() < 2e-3
    assert batch.audio[row, :first].abs().max() == 0


def test_a_full_store_takes_nothing_more() -> None:
    small = Store(16_000 * 5, tokenizer(), CPU)
    assert not small.add(clips(30), "espeak")
    assert small.used == 0
    with pytest.raises(ValueError, match="no clips"):
        plan_batch(small, Mix(8.0, SHARES), 0, 0)


def test_shards_are_taken_in_as_they_appear(tmp_path: Path) -> None:
    filled = Store(16_000 * 400, tokenizer(), CPU)
    reader = ShardReader(filled, tmp_path)
    write_shard(clips(5), tmp_path, "rms-00-0000")
    assert reader.read_new() == 1
    write_shard(clips(5), tmp_path, "espeak-01-0000")
    assert reader.read_new() == 1
    assert reader.read_new() == 0
    assert filled.groups == ["flite", "espeak"]


def test_the_mix_begins_with_short_rows_and_ends_with_other_shares() -> None:
    mix = Mix(8.0, {"flite": 1.0})
    schedule = MixSchedule(mix, 2, {"espeak": 1.0}, 5)
    assert [schedule(step).buckets for step in (0, 1, 2, 9)] == [3, 3, mix.buckets, mix.buckets]
    assert [next(iter(schedule(step).shares)) for step in (1, 4, 5, 9)] == ["flite", "flite", "espeak", "espeak"]
    assert schedule(5).seconds == mix.seconds


def test_the_planner_hands_plans_out_in_order() -> None:
    schedule = MixSchedule(Mix(8.0, SHARES), 2)
    planner = Planner(STORE, schedule, 0, 1)
    planner.start()
    plans = [planner.next() for _ in range(3)]
    planner.close()
    for number, plan in enumerate(plans, start=1):
        expected = plan_batch(STORE, schedule(number), 0, number)
        assert np.array_equal(plan.places, expected.places)


def test_the_planner_hands_faults_on() -> None:
    planner = Planner(Store(10, tokenizer(), CPU), MixSchedule(Mix(8.0, SHARES), 0), 0, 0)
    planner.start()
    with pytest.raises(ValueError, match="no clips"):
        planner.next()
    planner.close()


def test_a_resumed_run_does_the_very_steps_it_would_have_done(tmp_path: Path) -> None:
    whole = trainer()
    for _ in range(5):
        step(whole, STORE)
    save_state(whole.state(), tmp_path, compact=False)
    expected = [step(whole, STORE) for _ in range(2)]
    resumed = trainer()
    resumed.restore(load_state(tmp_path))
    assert [step(resumed, STORE) for _ in range(2)] == expected
    assert {"transducer", "ctc", "middle", "end", "norm"} == set(expected[0])
    assert all(torch.equal(a, b) for a, b in zip(whole.average.values(), resumed.average.values(), strict=True))


def test_a_compact_checkpoint_is_an_eighth_and_can_be_gone_on_from(tmp_path: Path) -> None:
    runner = trainer()
    step(runner, STORE)
    save_state(runner.state(), tmp_path / "exact", compact=False)
    save_state(runner.state(), tmp_path / "compact", compact=True)
    sizes = [sum(p.stat().st_size for p in (tmp_path / name).glob("*.safetensors")) for name in ("exact", "compact")]
    assert sizes[1] < sizes[0] / 4
    resumed = trainer()
    resumed.restore(load_state(tmp_path / "compact"))
    assert resumed.step == 1
    before = {name: p.detach().clone() for name, p in resumed.model.named_parameters()}
    step(resumed, STORE)
    moved = max((p - before[name]).abs().max().item() for name, p in resumed.model.named_parameters())
    assert 0 < moved < 2e-4  # the learning rate warms up again


def test_a_finished_model_can_be_gone_on_from(tmp_path: Path) -> None:
    finished = trainer().model
    config = replace(finished.config, ctc=False, middle=0)
    save_packed(pack_ears(finished.eval()), config.to_dict(), tmp_path / "shipped")
    resumed = trainer()
    with torch.no_grad():
        for parameter in resumed.model.parameters():
            parameter.add_(1.0)
    resumed.restore(state_of_model(tmp_path / "shipped", resumed.model, 40))
    assert resumed.step == 40
    for (name, one), other in zip(finished.named_parameters(), resumed.model.parameters(), strict=True):
        difference = (one - other).abs().max().item()
        assert (difference > 0.5) if name.startswith("ctc.") else (difference <= 0.02 * one.abs().max().item() + 1e-3)
    step(resumed, STORE)
    other = Ears(
        replace(
            finished.config, transducer=replace(finished.config.transducer, joint=finished.config.transducer.joint + 1)
        )
    )
    with pytest.raises(WeightsError, match="another shape"):
        state_of_model(tmp_path / "shipped", other, 0)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    save_state(trainer().state(), tmp_path, compact=True)
    (tmp_path / "state-00.safetensors").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_state(tmp_path)


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    runner = trainer()
    batch = carry_out(plan_batch(STORE, Mix(8.0, SHARES), 0, 0), STORE)
    before = [p.detach().clone() for p in runner.model.parameters()]
    batch.audio[0, :] = float("nan")
    runner.train_step(batch, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, runner.model.parameters(), strict=True))


def test_settled_subsampling_gives_unit_signals() -> None:
    runner = trainer()
    batch = carry_out(plan_batch(STORE, Mix(40.0, SHARES, only=1), 0, 0), STORE)
    features, counts = runner._hearing(batch, 0.0, 0)
    settle(runner.model, features, counts)
    entering = runner.model.encoder.subsampling(features, counts).flatten(0, 1)
    assert entering.mean(0).abs().max() < 1e-3
    assert (entering.std(0) - 1).abs().max() < 1e-2


def test_a_few_steps_bring_the_loss_down() -> None:
    runner = trainer()
    runner.recipe = Recipe(batch_s=8.0, learning_rate=6e-3, warm_up=2, clean_steps=100, transducer_from=100)
    losses = [step(runner, STORE)["ctc"] for _ in range(16)]
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])


def test_end_targets_follow_the_last_word() -> None:
    targets = end_targets(torch.tensor([2560, 0]), torch.tensor([4, 2]), 5)
    assert targets.tolist() == [[0, 0, 1, 1, -1], [1, 1, -1, -1, -1]]


def test_the_rate_falls_along_a_cosine() -> None:
    assert cosine(0) == cosine(-1) == 1
    assert cosine(0.5) == pytest.approx(0.505)
    assert cosine(1) == cosine(2) == pytest.approx(0.01)


@given(st.lists(st.sampled_from("abc"), max_size=7), st.lists(st.sampled_from("abc"), max_size=7))
def test_word_errors_are_those_of_the_definition(reference: list[str], heard: list[str]) -> None:
    table = np.zeros((len(reference) + 1, len(heard) + 1), int)
    table[:, 0], table[0] = range(len(reference) + 1), range(len(heard) + 1)
    for i, a in enumerate(reference, 1):
        for j, b in enumerate(heard, 1):
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a != b))
    assert word_errors(reference, heard) == table[-1, -1]


def test_evaluation_covers_sets_heads_and_look_aheads() -> None:
    runner = trainer()
    rates = evaluate(runner.model, tokenizer(), {"tones": clips(4)}, rights=(0, 6), transducer=True, rows=3)
    assert set(rates["tones"]) == {"ctc@0", "ctc@6", "rnnt@0", "rnnt@6"}
    assert runner.model.training

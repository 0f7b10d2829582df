"""The recipe learns on a CPU: it overfits a handful of dialogues, goes on exactly, and scores rightly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from relay_models.draft import RESERVED, DraftConfig, DraftModel, Special
from relay_models.draft_stream import Drafter
from relay_models.training.draft import Recipe, Run, Shards, loss_of, rate_at, train
from relay_models.training.draft_batches import PADDING, Batches, Heard, hear, text_frames
from relay_models.training.draft_data import write_shard
from relay_models.training.draft_eval import evaluate, matches
from relay_models.training.draft_words import WordReader
from relay_models.training.ears_data import words
from relay_models.training.ears_peers import Peers
from tests.models.draft.test_draft_data import TOKENIZER, dialogue
from tests.models.draft.tiny_draft import draft_config
from tests.models.ears.tiny import ears

EARS = ears()
SPEECH = EARS.config.encoder.size


def config() -> DraftConfig:
    base = draft_config(window=128, speech_size=SPEECH).decoder
    values = {name: getattr(base, name) for name in base.__slots__}
    values |= {"vocab_size": TOKENIZER.size + RESERVED, "hidden_size": 48, "intermediate_size": 96}
    return DraftConfig(type(base)(**values), SPEECH, 128)


CONFIG = config()


def fresh(seed: int = 0) -> DraftModel:
    torch.manual_seed(seed)
    model = DraftModel(CONFIG)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.08)
    return model


@pytest.fixture(scope="module")
def heard() -> list[Heard]:
    return hear(EARS, [dialogue(seed) for seed in range(4)], rows=3)


def test_hearing_a_batch_gives_what_hearing_one_gives(heard: list[Heard]) -> None:
    for seed, together in enumerate(heard):
        (alone,) = hear(EARS, [dialogue(seed)])
        torch.testing.assert_close(alone.speech, together.speech, atol=2e-3, rtol=2e-3)
        assert torch.equal(alone.labels, together.labels)
        assert abs(len(together.labels) - len(dialogue(seed).labels)) <= 1
        assert len(together.speech) == 2 * len(together.labels)


def test_batches_are_pieces_of_the_dialogues(heard: list[Heard]) -> None:
    batches = Batches(CONFIG, seed=3)
    batches.add(heard)
    begin, end = CONFIG.token(Special.BOS), CONFIG.token(Special.EOS)
    seen_off = 0
    for step in range(12):
        batch = batches.draw(step, 3, 40, switched_off=0.5)
        again = batches.draw(step, 3, 40, switched_off=0.5)
        assert all(torch.equal(getattr(batch, n), getattr(again, n)) for n in ("speech", "labels", "switched_off"))
        for row in range(3):
            length = int((batch.labels[row] != PADDING).sum())
            said = batch.labels[row, :length]
            assert torch.equal(batch.previous[row, 1:length], said[:-1])
            source = next(
                h
                for h in heard
                for first in range(len(h.labels) - length + 1)
                if torch.equal(h.labels[first : first + length], said)
                and torch.equal(h.speech[2 * first : 2 * (first + length)].float(), batch.speech[row, : 2 * length])
            )
            assert source is not None
            for frame in torch.nonzero(batch.switched_off[row])[:, 0].tolist():
                seen_off += 1
                token = int(said[frame])
                assert token == end or token < CONFIG.text_tokens
                before = int(batch.previous[row, frame])
                assert before == begin or before < CONFIG.text_tokens
    assert seen_off
    assert not batches.draw(0, 3, 40, switched_off=0.0).switched_off.any()


def test_the_users_turns_lie_where_they_are_heard(heard: list[Heard]) -> None:
    batches = Batches(CONFIG, seed=3, tokenizer=TOKENIZER)
    batches.add(heard)
    seen = 0
    for step in range(12):
        batch = batches.draw(step, 3, 60, switched_off=0.5)
        if batch.turns is None:
            continue
        turns = batch.turns
        for number, row in enumerate(turns.rows.tolist()):
            first, count = int(turns.firsts[number]), int(turns.counts[number])
            part = batch.labels[row, first : first + count]
            assert len(part) == count
            assert (part != PADDING).all()
            said = TOKENIZER.decode(turns.tokens[number, : turns.token_counts[number]].tolist())
            speech = batch.speech[row, 2 * first : 2 * (first + count)]
            found = [
                turn
                for one in heard
                for turn in one.turns
                if turn.speaker == 0 and words(turn.text) == said and turn.last + 2 - turn.first == count
                if torch.equal(one.speech[2 * turn.first : 2 * (turn.last + 2)].float(), speech)
            ]
            assert found
            seen += 1
    assert seen >= 5


def test_the_users_words_are_learnt_below_the_replies(heard: list[Heard]) -> None:
    batches = Batches(CONFIG, seed=0, tokenizer=TOKENIZER)
    batches.add(heard)
    # The layers above the one that is read learn nothing from it, and turns that were not heard teach nothing.
    batch = batches.draw(0, 4, 110, switched_off=0.0)
    assert batch.turns is not None
    model, reader = fresh(), WordReader(CONFIG.decoder.hidden_size, 1e-6)
    first = model.by_layer(batch.speech, batch.previous, batch.switched_off)[0]
    loss = reader(model, first, batch.turns, batch.switched_off)
    loss.backward()
    upper = [p.grad for p in model.layers()[1].parameters()]
    assert all(grad is None for grad in upper)
    assert model.adapter.outer.weight.grad is not None
    assert reader(model, first, batch.turns, torch.ones_like(batch.switched_off)).item() == 0.0
    recipe = Recipe(steps=80, warm_up=10, learning_rate=4e-3, adapter_rate=4e-3, dropout=0.0)
    run = Run(fresh(), recipe, None)
    words_losses = []
    for step in range(80):
        run.train_step(batches.draw(step, 4, 110, switched_off=0.0), step / 80)
        words_losses.append(run.losses()[1])
    assert sum(words_losses[-5:]) / 5 < 0.5 * words_losses[0]


def test_each_process_takes_shards_of_its_own_up_to_its_share(tmp_path: Path) -> None:
    for number in range(6):
        write_shard([dialogue(number)], tmp_path, f"s{number}")
    alone = sum(len(dialogues) for dialogues in Shards(tmp_path, EARS).new())
    peers = [Peers(), Peers()]
    for rank, each in enumerate(peers):
        each.rank, each.count = rank, 2
    both = [sum(len(dialogues) for dialogues in Shards(tmp_path, EARS, each).new()) for each in peers]
    assert alone == 6 == sum(both)
    some = Shards(tmp_path, EARS)
    assert sum(1 for _ in some.new(most=2)) == 2
    assert sum(1 for _ in some.new()) == 4
    assert not list(Shards(tmp_path, EARS, hours=0.0).new())


def test_what_travels_is_enough_to_go_on(heard: list[Heard], tmp_path: Path) -> None:
    recipe = Recipe(steps=6, rows=2, frames=30, warm_up=2, dropout=0.0)
    batches = Batches(CONFIG, seed=0)
    batches.add(heard)
    first = Run(fresh(), recipe, tmp_path / "a")
    first.train_step(batches.draw(0, 2, 30, switched_off=0.5), 0.0)
    first.checkpoint()
    second = Run(fresh(seed=9), recipe, tmp_path / "b", resume=tmp_path / "a/travel")
    assert second.step == 1
    for (name, mine), its in zip(second.averaged().named_parameters(), first.averaged().parameters(), strict=True):
        torch.testing.assert_close(mine, its, atol=1e-3, rtol=1e-3, msg=name)
    second.train_step(batches.draw(1, 2, 30, switched_off=0.5), 0.2)


def test_text_frames_number_the_replies() -> None:
    sil, bos, eos, boc, stp = (CONFIG.token(each) for each in Special)
    labels = torch.tensor([sil, bos, 5, 6, eos, sil, boc, 7, eos, bos, 8, stp, sil, bos, 9])
    assert text_frames(labels, CONFIG).tolist() == [0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3]


def test_silence_weighs_less(heard: list[Heard]) -> None:
    batches = Batches(CONFIG, seed=0)
    batches.add(heard)
    batch, model = batches.draw(0, 4, 60, switched_off=0.0), fresh().eval()
    with torch.no_grad():
        logits = model.logits(model(batch.speech, batch.previous, batch.switched_off))
        each = -logits.log_softmax(-1).gather(-1, batch.labels.clamp(min=0)[..., None])[..., 0]
        real = batch.labels != PADDING
        silent = batch.labels == CONFIG.token(Special.SIL)
        weight = real * torch.where(silent, 0.2, 1.0)
        expected = (each * weight).sum() / weight.sum()
        found = loss_of(logits, batch.labels, CONFIG.token(Special.SIL), 0.2)
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert silent.any()


def test_a_handful_of_dialogues_is_learnt_by_heart(heard: list[Heard], tmp_path: Path) -> None:
    write_shard([dialogue(seed) for seed in range(4)], tmp_path / "shards", "a")
    recipe = Recipe(
        steps=220, rows=4, frames=110, learning_rate=4e-3, adapter_rate=4e-3, warm_up=20, dropout=0.0, ema=0.9
    )
    before = evaluate(fresh().eval(), heard)
    batches = Batches(CONFIG, seed=0, tokenizer=TOKENIZER)
    trained = train(Run(fresh(), recipe, None), batches, Shards(tmp_path / "shards", EARS), heard)
    assert len(batches) == 4
    after = evaluate(trained, heard)
    assert after["perplexity"] < 1.6 < 50 < before["perplexity"]
    assert before["prefix_4"] <= before["prefix_1"] < 0.5
    assert 0.8 < after["prefix_4"] <= after["prefix_1"]
    assert after["f1_bos"] > 0.8
    assert after["takeover_rate"] <= 0.25
    # And the drafts made by fork are the replies that were learnt.
    drafter, right, wanted = Drafter(trained, TOKENIZER), 0, 0
    for one in heard:
        state = trained.fresh_state(1)
        previous = CONFIG.token(Special.SIL)
        for frame, token in enumerate(one.labels.tolist()):
            trained.listen(
                one.speech[None, 2 * frame : 2 * frame + 2].float(),
                torch.tensor([previous]),
                state,
                torch.tensor([True]),
            )
            previous = token
            if token == CONFIG.token(Special.BOS):
                (draft,) = drafter.draft(state, [0])
                text = TOKENIZER.decode(draft.tokens)
                wanted += 1
                right += any(text and turn.text.startswith(text) for turn in one.turns if turn.speaker == 1) or any(
                    text.startswith(turn.text) for turn in one.turns if turn.first == frame and turn.text
                )
    assert wanted >= 6
    assert right >= 0.75 * wanted


def test_a_run_goes_on_as_if_nothing_had_been(heard: list[Heard], tmp_path: Path) -> None:
    recipe = Recipe(steps=6, rows=2, frames=30, warm_up=2, dropout=0.0)
    batches = Batches(CONFIG, seed=0)
    batches.add(heard)
    whole = train(Run(fresh(), recipe, None), batches, None, [])
    first = Run(fresh(), recipe, tmp_path)
    for step in range(3):
        batch = batches.draw(step, recipe.rows, recipe.frames, switched_off=recipe.switched_off)
        first.train_step(batch, step / recipe.steps)
    first.checkpoint()
    second = Run(fresh(seed=9), recipe, tmp_path)
    assert second.step == 3
    again = train(second, batches, None, [])
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, atol=1e-6, rtol=1e-5)


def test_the_rate_rises_and_falls() -> None:
    recipe = Recipe(steps=100, warm_up=10)
    rates = [rate_at(step, step / recipe.steps, recipe) for step in range(101)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[0] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rate_at(10_000, 0.5, recipe) == pytest.approx(0.525)
    assert rates[100] == pytest.approx(0.05)


@given(st.sets(st.integers(0, 15), max_size=5), st.sets(st.integers(0, 15), max_size=5), st.integers(0, 2))
def test_matches_pair_as_many_as_can_be_paired(found: set[int], true: set[int], tolerance: int) -> None:
    def most(found: frozenset[int], true: tuple[int, ...]) -> int:
        if not true:
            return 0
        options = [most(found, true[1:])]
        options += [1 + most(found - {f}, true[1:]) for f in found if abs(f - true[0]) <= tolerance]
        return max(options)

    assert matches(found, true, tolerance=tolerance) == most(frozenset(found), tuple(sorted(true)))

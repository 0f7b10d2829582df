"""Labels by the slow model, and a verifier that learns them: likely words are good, others are not."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from relay_models.decoder import Decoder
from relay_models.draft import DraftModel, Special
from relay_models.draft_stream import Drafter
from relay_models.drafting import Drafted
from relay_models.training.draft_batches import hear
from relay_models.training.draft_data import Turn, write_shard
from relay_models.training.drafts import (
    EXAMPLE_COLUMNS,
    confidences,
    context_of,
    drafts_at,
    gather,
    part_of,
    questions_of,
    write_examples,
    written_questions,
)
from relay_models.training.rated import read_rated, write_rated
from relay_models.training.rating import (
    Example,
    Question,
    best_scores,
    examples_of,
    regrets,
    running_scores,
    tolerance_of,
)
from relay_models.training.verifier import Recipe, calibrated, fit, report
from relay_models.training.verifier_check import agreement
from relay_models.verifier import VerifierConfig
from tests.models.draft.test_draft_data import TOKENIZER, dialogue
from tests.models.draft.test_draft_training import CONFIG, EARS, fresh
from tests.models.draft.tiny_draft import decoder_config

BRAIN = Decoder(decoder_config(TOKENIZER.size)).eval()
for parameter in BRAIN.parameters():
    torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(parameter.numel()))
CONTEXTS = [[5, 9, 11, TOKENIZER.assistant], [7, TOKENIZER.assistant], [8] * 30]


def slow_score(context: list[int], text: list[int]) -> float:
    with torch.no_grad():
        scores = BRAIN(torch.tensor([context + text]))[0].log_softmax(-1)
    return sum(float(scores[len(context) + place - 1, token]) for place, token in enumerate(text))


def test_running_scores_are_those_of_the_whole_sequence() -> None:
    texts = [[20, 21, 22], [30], [40, 41]]
    for context, text, scores in zip(CONTEXTS, texts, running_scores(BRAIN, CONTEXTS, texts), strict=True):
        assert scores == pytest.approx([slow_score(context, text[: n + 1]) for n in range(len(text))], abs=1e-3)


def test_the_best_start_is_greedy_and_ends() -> None:
    context = CONTEXTS[0]
    said: list[int] = []
    for _ in range(4):
        with torch.no_grad():
            said.append(int(BRAIN(torch.tensor([context + said]))[0, -1].argmax()))
    wanted = [slow_score(context, said[: n + 1]) for n in range(4)]
    assert best_scores(BRAIN, [context], 4, stop=-1)[0] == pytest.approx(wanted, abs=1e-3)
    stopped = best_scores(BRAIN, [context], 4, stop=said[0])[0]
    assert stopped == pytest.approx([wanted[0]] * 4, abs=1e-3)
    assert regrets(BRAIN, [context], [said], stop=-1)[0] == pytest.approx([0.0] * 4, abs=1e-3)
    (other,) = regrets(BRAIN, [context], [[said[0], (said[1] + 1) % 200]], stop=-1)
    assert other[0] == pytest.approx(0.0, abs=1e-3)
    assert other[1] > 0.01


def question(part: str = "train", reply: list[int] | None = None, confidence: float = 0.5) -> Question:
    return Question(CONTEXTS[0], reply or [20, 21], confidence, part, "what now")


def drafted(tokens: list[int], hidden: torch.Tensor | None = None) -> Drafted:
    count = len(tokens)
    zeros = torch.zeros(count)
    states = torch.zeros(count, 10) if hidden is None else hidden
    return Drafted(
        tuple(tokens), tuple(range(1, count + 1)), False, states.numpy(), zeros.numpy(), zeros.numpy(), zeros.numpy()
    )


def test_good_words_end_where_regret_begins() -> None:
    example = Example(drafted([1, 2, 3, 4]), question(), (0.1, 0.4, 0.2, 0.9))
    assert [example.good_words(t) for t in (0.0, 0.1, 0.3, 0.4, 0.8, 0.9)] == [0, 1, 1, 3, 3, 4]
    assert not example.is_good(0.8)
    assert example.is_good(0.9)


def test_the_tolerance_separates_true_replies_from_others() -> None:
    generator = torch.Generator().manual_seed(0)
    questions = []
    for _ in range(30):
        context = torch.randint(4, 200, (5,), generator=generator).tolist()
        reply: list[int] = []
        for _ in range(4):
            with torch.no_grad():
                reply.append(int(BRAIN(torch.tensor([context + reply]))[0, -1].argmax()))
        questions.append(Question(context, reply, 0.5, "train", ""))
    found = tolerance_of(questions, BRAIN, stop=-1, rows=7)
    assert found.true_kept == 1.0, "the brain's own best replies regret nothing"
    assert found.others_kept < 0.5
    assert found.area > 0.8
    others = [
        max(regrets(BRAIN, [q.context], [other.reply], -1)[0])
        for q, other in zip(questions, [*questions[1:], questions[0]], strict=True)
    ]
    assert sum(each <= found.nats + 1e-6 for each in others) / 30 == pytest.approx(found.others_kept, abs=0.05)
    with pytest.raises(ValueError, match="two true replies"):
        tolerance_of(questions[:1], BRAIN, stop=-1)


def test_questions_follow_the_dialogue() -> None:
    one = dialogue(1)
    (heard,) = hear(EARS, [one])
    model = fresh().eval()
    questions = questions_of(heard, [0.1 * n for n in range(len(one.turns))], TOKENIZER, model)
    replies = [(n, turn) for n, turn in enumerate(one.turns) if turn.speaker == 1 and turn.kind == "turn"]
    assert len(questions) == len(replies)
    for (frame, asked), (number, turn) in zip(questions.items(), replies, strict=True):
        assert int(heard.labels[frame]) == CONFIG.token(Special.BOS)
        assert TOKENIZER.decode(asked.reply) == turn.text
        assert asked.context[-1] == TOKENIZER.assistant
        assert asked.asked == [t for t in one.turns[:number] if t.speaker == 0 and t.kind != "backchannel"][-1].text
        assert TOKENIZER.decode(asked.context).endswith(asked.asked)
    backchannel = Turn(0, "mm-hm", 1, 2, "backchannel")
    assert context_of([backchannel, Turn(0, "hello", 3, 4, "turn")], 2, TOKENIZER) == [
        *TOKENIZER.turn("user", "hello"),
        TOKENIZER.assistant,
    ]


def test_drafts_are_those_of_the_stream_at_that_frame() -> None:
    model = fresh().eval()
    drafter = Drafter(model, TOKENIZER)
    heard = hear(EARS, [dialogue(1), dialogue(2)])
    frames = [{3, 17}, {9}]
    together = drafts_at(model, drafter, heard, frames)
    for row, wanted in enumerate(frames):
        (alone,) = drafts_at(model, drafter, [heard[row]], [wanted])
        assert set(alone) == set(together[row]) == wanted
        for frame in wanted:
            assert alone[frame].tokens == together[row][frame].tokens
            state = model.fresh_state(1)
            previous = [CONFIG.token(Special.SIL), *heard[row].labels.tolist()]
            for at in range(frame + 1):
                speech = heard[row].speech[None, 2 * at : 2 * at + 2].float()
                model.listen(speech, torch.tensor([previous[at]]), state, torch.tensor([True]))
            assert drafter.draft(state, [0])[0].tokens == alone[frame].tokens


def rated(count: int, seed: int) -> list[Example]:
    """Examples whose first hidden number says how good their words are, with some noise."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for number in range(count):
        length = 2 + number % 5
        bad_from = (
            length if torch.rand(1, generator=generator) < 0.7 else int(length * torch.rand(1, generator=generator))
        )
        hidden = torch.randn(length, 10, generator=generator)
        values = torch.tensor([-1.5 if place >= bad_from else 1.5 for place in range(length)])
        hidden[:, 0] = values + 0.7 * torch.randn(length, generator=generator)
        made.append(
            Example(
                drafted([1] * length, hidden), question(), tuple(2.0 if p >= bad_from else 0.1 for p in range(length))
            )
        )
    return made


def test_it_learns_and_is_calibrated(tmp_path: Path) -> None:
    recipe = Recipe(steps=400, rows=64, learning_rate=3e-3)
    config = VerifierConfig(hidden_size=10, size=32)
    model = calibrated(fit(rated(400, 0), rated(400, 1), config, 0.5, recipe), rated(400, 1), 0.5)
    scores = report(model, rated(400, 2), 0.5)
    assert scores["good_kept"] > 0.9
    assert scores["bad_caught"] > 0.6
    assert scores["auc"] > 0.9
    assert scores["calibration_error"] < 0.1
    assert scores["words_right"] > 0.6
    # What is let through may still be cut before its bad words; what is rejected is silent.
    assert scores["bad_heard"] <= 1 - scores["bad_caught"]
    assert scores["good_silent"] >= 1 - scores["good_kept"]
    for few in ([e for e in rated(50, 0) if e.is_good(0.5)], []):
        with pytest.raises(ValueError, match="only one kind"):
            fit(few, rated(50, 1), config, 0.5, recipe)
        with pytest.raises(ValueError, match="only one kind"):
            fit(rated(50, 1), few, config, 0.5, recipe)
    with pytest.raises(ValueError, match="say more dialogues"):
        calibrated(model, [e for e in rated(50, 0) if e.is_good(0.5)], 0.5)


def test_rated_drafts_come_back_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay_models.training.rated._TOKENS_A_FILE", 50)
    written = [*rated(20, 0), *rated(15, 1)]
    write_rated(written[:20], tmp_path / "a")
    write_rated(written[20:], tmp_path / "b")
    assert len(list((tmp_path / "a").iterdir())) > 1
    read = read_rated([tmp_path / "a", tmp_path / "b"])
    assert len(read) == len(written)
    for mine, other in zip(read, written, strict=True):
        assert mine.regrets == pytest.approx(other.regrets)
        assert (mine.question.part, mine.question.confidence) == (other.question.part, other.question.confidence)
        same = ("tokens", "word_ends", "complete")
        assert [getattr(mine.drafted, n) for n in same] == [getattr(other.drafted, n) for n in same]
        np.testing.assert_allclose(mine.drafted.scalars, other.drafted.scalars)
        largest = np.abs(other.drafted.hidden).max(1, keepdims=True)
        assert (np.abs(mine.drafted.hidden - other.drafted.hidden) <= largest / 254 + 1e-6).all()


def test_labels_are_checked_by_hand(tmp_path: Path) -> None:
    examples, path = rated(40, 0), tmp_path / "examples.tsv"
    write_examples(examples, [TOKENIZER.encode("you are there")] * 40, 0.5, TOKENIZER, path)
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["good"] for row in rows] == [str(example.is_good(0.5)) for example in examples]
    assert {row["slow path"] for row in rows} == {"you are there"}
    with pytest.raises(ValueError, match="no row is checked"):
        agreement(path)
    for number, row in enumerate(rows):
        row["by hand"] = "?" if number < 10 else "y" if row["good"] == "True" else "n"
    wrong = next(row for row in rows[10:] if row["good"] == "False")
    wrong["by hand"] = "Y"

    def save() -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, EXAMPLE_COLUMNS, delimiter="\t")
            table.writeheader()
            table.writerows(rows)

    save()
    bad = sum(row["good"] == "False" for row in rows[10:])
    assert agreement(path) == {
        "checked": 30,
        "unsure": 10,
        "agree": pytest.approx(29 / 30),
        "called_good": 1.0,
        "called_bad": pytest.approx((bad - 1) / bad),
    }
    rows[0]["by hand"] = "maybe"
    save()
    with pytest.raises(ValueError, match="line 2"):
        agreement(path)


def test_written_dialogues_have_questions() -> None:
    dialogue_ = [(0, "hello"), (1, "you are there"), (0, "what time is it"), (1, "the time is noon")]
    questions = written_questions([dialogue_, [(1, "hello there")]], TOKENIZER, 10)
    assert [TOKENIZER.decode(each.reply) for each in questions] == ["you are there", "the time is noon"]
    assert [each.asked for each in questions] == ["hello", "what time is it"]
    assert TOKENIZER.decode(questions[1].context) == "helloyou are therewhat time is it"
    assert len(written_questions([dialogue_], TOKENIZER, 1)) == 1


def test_confidences_are_those_of_each_turn_alone_or_among_others() -> None:
    dialogues = [dialogue(1), dialogue(2)]
    together = confidences(EARS, dialogues)
    for one, sure in zip(dialogues, together, strict=True):
        assert len(sure) == len(one.turns)
        assert all(0 <= each <= 1 for each in sure)
        assert confidences(EARS, [one])[0] == pytest.approx(sure, abs=1e-3)


def test_from_shards_to_examples(tmp_path: Path) -> None:
    write_shard([dialogue(1), dialogue(2)], tmp_path, "a")
    model: DraftModel = fresh().eval()
    pairs = list(gather([tmp_path / "a.json"], EARS, model, TOKENIZER))
    assert len(pairs) >= 3
    assert all(0 <= asked.confidence <= 1 for asked, _ in pairs)
    assert {asked.part for asked, _ in pairs} <= {"train", "calibrate", "judge"}
    assert part_of(dialogue(1).turns) == next(iter(pairs))[0].part
    write_shard([dialogue(3)], tmp_path, "b")
    both = [tmp_path / "a.json", tmp_path / "b.json"]
    counts = [len(list(gather(both, EARS, model, TOKENIZER, rows=rows))) for rows in (1, 2, 8)]
    assert counts[0] == counts[1] == counts[2] == len(pairs) + len(list(gather(both[1:], EARS, model, TOKENIZER)))
    examples = examples_of(pairs, BRAIN, TOKENIZER.end, rows=2)
    assert len(examples) == sum(bool(drafted.tokens) for _, drafted in pairs)
    for example in examples:
        assert len(example.regrets) == len(example.drafted.word_ends)
        assert all(math.isfinite(regret) for regret in example.regrets)

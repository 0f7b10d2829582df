"""Replies that a draft began, rated: with a draft model and a verifier of random weights and the shipped brain."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from relay.cli import run
from relay.errors import UsageError
from relay_benchmarks.relay_quality import Answer, Commitment, answer, compare, read_dialogues, word_overlap
from relay_models import loading
from relay_models.decoder import load_packed_decoder
from relay_models.draft import RESERVED, DraftModel, save_draft
from relay_models.ears import save_ears
from relay_models.loading import WEIGHTS_DIR
from relay_models.tokenizer import ChatTokenizer
from relay_models.training.conversations import ASSISTANT, USER
from relay_models.training.rating import Question, best_scores, likeliest, running_scores
from relay_models.verifier import Verifier, VerifierConfig, save_verifier
from tests.models.draft.tiny_draft import draft_config
from tests.models.ears.tiny import ears

BRAIN = WEIGHTS_DIR / "brain"
TOKENIZER = ChatTokenizer.load(BRAIN / "tokenizer.json")
DIALOGUES = (
    (("user", "Hello there."), ("assistant", "Hi, how can I help you?"), ("user", "A taxi."), ("assistant", "Sure.")),
    (("user", "Is it going to rain today?"), ("assistant", "I do not know, sorry.")),
)


def question(asked: str, reply: str) -> Question:
    context = [*TOKENIZER.turn("user", asked), TOKENIZER.assistant]
    return Question(context, TOKENIZER.encode(reply), 1.0, "judge", asked)


QUESTIONS = [question("Hello.", "Hi, how can I help you?"), question("Is it raining?", "I do not know, sorry.")]


def write(path: Path) -> Path:
    lines = [{"turns": [{"role": role, "text": text} for role, text in turns]} for turns in DIALOGUES]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return path


@given(st.lists(st.sampled_from(["yes", "no", "well", "two"]), max_size=8))
def test_word_overlap_looks_at_words_and_nothing_else(words: list[str]) -> None:
    text = ", ".join(words).upper() + "!"
    assert word_overlap(text, " ".join(words)) == (1.0 if words else 0.0)
    assert word_overlap(text, "entirely other") == 0.0
    if words:
        half = word_overlap(" ".join(words), " ".join([*words, *["other"] * len(words)]))
        assert half == pytest.approx(2 / 3)


def test_dialogues_are_read_and_what_is_none_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "dialogues.jsonl")
    read = read_dialogues(path)
    assert [len(turns) for turns in read] == [4, 2]
    assert read[1] == [(USER, "Is it going to rain today?"), (ASSISTANT, "I do not know, sorry.")]
    assert len(read_dialogues(path, most=1)) == 1
    with pytest.raises(UsageError, match=r"none\.jsonl"):
        read_dialogues(tmp_path / "none.jsonl")
    for bad in ("no json", "[]", '{"turns": [{"role": "robot", "text": "hi"}]}', '{"turns": [{"role": "user"}]}'):
        path.write_text(bad, encoding="utf-8")
        with pytest.raises(UsageError, match="line 1 is no dialogue"):
            read_dialogues(path)


def test_the_likeliest_text_is_the_one_with_the_best_score() -> None:
    torch.set_num_threads(1)
    brain = load_packed_decoder(BRAIN)
    contexts = [each.context for each in QUESTIONS]
    texts = likeliest(brain, contexts, 12, TOKENIZER.end)
    assert all(texts)
    assert likeliest(brain, contexts[1:], 12, TOKENIZER.end) == texts[1:]  # a row does not see the others
    best = best_scores(brain, contexts, 12, TOKENIZER.end)
    for scores, tops in zip(running_scores(brain, contexts, texts), best, strict=True):
        assert scores == pytest.approx(tops[: len(scores)], abs=1e-3)


def test_a_reply_that_the_brain_would_give_anyway_costs_nothing_and_a_bad_beginning_does() -> None:
    torch.set_num_threads(1)
    brain = load_packed_decoder(BRAIN)
    own = likeliest(brain, [each.context for each in QUESTIONS], 60, TOKENIZER.end)
    same = answer(QUESTIONS, [Commitment(own[0][:2], 0.0), Commitment([], None)], brain, TOKENIZER.end)
    assert [each.relay for each in same] == own == [each.cascade for each in same]
    fine = compare(same, brain, TOKENIZER, tolerance=1.0)
    assert (fine["commit_rate"], fine["bad_commit_rate"]) == (0.5, 0.0)
    assert fine["ratings"]["all"]["relay"] == fine["ratings"]["all"]["cascade"]
    assert fine["ratings"]["all"]["true"]["word_overlap"] == 1.0
    wrong = TOKENIZER.encode("Madonna the airport twist")
    worse: list[Answer] = answer(QUESTIONS, [Commitment(wrong, 5.0), Commitment(wrong, 0.5)], brain, TOKENIZER.end)
    found = compare(worse, brain, TOKENIZER, tolerance=1.0)
    assert (found["commit_rate"], found["bad_commit_rate"]) == (1.0, 0.5)
    assert found["ratings"]["all"]["relay"]["nats_a_token"] < fine["ratings"]["all"]["cascade"]["nats_a_token"]
    assert compare(same[1:], brain, TOKENIZER, tolerance=1.0)["bad_commit_rate"] is None


def test_dialogues_are_said_drafted_judged_and_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    models, recogniser = tmp_path / "models", ears()
    config = draft_config(64, recogniser.config.encoder.size)
    config = replace(config, decoder=replace(config.decoder, vocab_size=TOKENIZER.size + RESERVED))
    generator = torch.Generator().manual_seed(2)
    model = DraftModel(config).eval()
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    save_ears(recogniser, models / "ears")
    save_draft(model, models / "draft")
    verifier = Verifier(VerifierConfig(hidden_size=config.decoder.hidden_size, size=16, threshold=0.0))
    save_verifier(verifier, models / "verifier")
    manifest = write(tmp_path / "dialogues.jsonl")
    flags = ["bench", "quality", "--part", "relay", "--manifest", str(manifest), "--json", "-"]
    assert run(flags, {"RELAY_HOME": str(tmp_path)}) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert result["replies"] == result["drafts"] == 3
    assert 0 <= result["commit_rate"] <= 1
    assert result["tolerance"]["nats"] > 0
    for kind in ("relay", "cascade", "true"):
        assert np.isfinite(result["ratings"]["all"][kind]["nats_a_token"])
    assert result["verifier"]["examples"] == 3 - result["empty_drafts"]
    ends = result["turn_ends"]
    assert ends["ends"] == 3
    assert ends["words"] == ends["words_and_draft"], "its file says nothing of trust"
    assert 200 <= ends["words"]["end_ms"]["p50"] <= ends["words"]["end_ms"]["p95"] <= 1200


def test_without_weights_it_is_said_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "read_manifest", lambda *_, **__: {})
    manifest = write(tmp_path / "dialogues.jsonl")
    flags = ["bench", "quality", "--part", "relay", "--manifest", str(manifest)]
    assert run(flags, {"RELAY_HOME": str(tmp_path)}) == 2
    error = capsys.readouterr().err
    assert "the path relay needs the weights of the draft" in error
    assert error.count("\n") == 1

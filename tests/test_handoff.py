"""The hand-off: who comes first answers, committed words are continued and not repeated, failures end gracefully."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.engine.draft import Judgement
from relay.errors import BrainUnavailable
from relay.events import Message, Piece, ReplyEnd, Tool, ToolOffer
from relay.handoff import LATE_S, LOST, Handoff, continuation
from relay.metrics import StageClock
from relay.services import Fast
from relay.stages.draft import follow, open_inbox
from relay.stages.think import WordSplitter
from tests.drafters import ScriptedDrafter, ScriptedVerifier
from tests.fakes import FakeBrain, FakeDialogue
from tests.virtual_time import run

QUESTION = [Message("user", "what is the time")]
Script = list[Any]


@dataclass
class PrefixBrain(FakeBrain):
    """Has scripts of its own for continuing what was said, and remembers what that was."""

    continuations: list[Script] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    bounds: list[int | None] = field(default_factory=list)


class PrefixDialogue(FakeDialogue):
    def __init__(self, brain: PrefixBrain) -> None:
        super().__init__(brain)
        self._own = brain

    def reply(
        self,
        messages: Sequence[Message],
        *,
        prefix: str = "",
        max_tokens: int | None = None,
        tools: ToolOffer | None = None,
    ) -> AsyncIterator[Piece]:
        self._own.prefixes.append(prefix)
        self._own.bounds.append(max_tokens)
        if prefix:
            self._own.scripts.insert(0, self._own.continuations.pop(0))
        return super().reply(messages, prefix=prefix, max_tokens=max_tokens, tools=tools)


@dataclass
class Outcome:
    """What became of a hand-off."""

    pieces: list[Piece]
    times: list[float]
    error: Exception | None
    path: str
    reports: list[dict[str, Any]]
    counts: list[str]
    stages: set[str]

    @property
    def text(self) -> str:
        splitter = WordSplitter()
        words = [word for piece in self.pieces if isinstance(piece, str) for word in splitter.push(piece)]
        return "".join([*words, *splitter.end()])

    @property
    def only_report(self) -> dict[str, Any]:
        (report,) = self.reports
        return report


async def hand_off(
    brain: PrefixBrain,
    drafter: ScriptedDrafter,
    verifier: ScriptedVerifier | None = None,
    *,
    path: Any = "relay",
    hold_s: float | None = None,
    take: int | None = None,
    **asked: Any,
) -> Outcome:
    """Runs one; `hold_s` after its beginning the hold is used up; after `take` pieces it is closed."""
    inbox = open_inbox()
    following = asyncio.create_task(follow(inbox, drafter))
    reports: list[dict[str, Any]] = []
    counts: list[str] = []
    clock = StageClock()
    loop = asyncio.get_running_loop()
    fast = Fast(drafter, verifier or ScriptedVerifier(), path)
    handoff = Handoff(PrefixDialogue(brain), fast, inbox, 0.8, counts.append)
    handoff.attach(reports.append, clock)
    if hold_s is not None:
        loop.call_later(hold_s, handoff.give_up)
    pieces: list[Piece] = []
    times: list[float] = []
    error: Exception | None = None
    try:
        async with aclosing(handoff.reply(QUESTION, **asked)) as stream:
            async for piece in stream:
                pieces.append(piece)
                times.append(loop.time())
                if take is not None and len(pieces) >= take:
                    break
    except Exception as raised:
        error = raised
    following.cancel()
    await asyncio.wait([following])
    assert brain.running == drafter.open_slots == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}, "nothing is left behind"
    assert not handoff.is_waiting
    return Outcome(pieces, times, error, handoff.path, reports, counts, set(clock.stages_ms))


def slow(*, first_s: float = 1.0, continuation: Script | None = None) -> PrefixBrain:
    """A brain that takes a while, alone or continuing."""
    more = [first_s, "it is ", "noon."] if continuation is None else continuation
    return PrefixBrain([[first_s, "Noon ", "it is."]], continuations=[more])


def test_committed_words_begin_the_reply_and_the_brain_continues_them() -> None:
    async def main() -> None:
        brain = slow()
        outcome = await hand_off(brain, ScriptedDrafter([(0.05, "Well you see")]))
        assert outcome.text == "Well you see it is noon."
        assert outcome.times[0] == pytest.approx(0.05)
        assert outcome.times[1] == pytest.approx(1.05)
        assert outcome.path == "relay"
        assert brain.prefixes == ["", "Well you see "]
        assert outcome.only_report == {
            "prefix": "Well you see", "probability": 0.9, "committed": True, "reason": None,
        }  # fmt: skip
        assert outcome.counts == ["committed"]
        assert outcome.stages == {"draft", "verify"}

    run(main())


def test_only_the_words_that_the_verifier_keeps_are_spoken() -> None:
    async def main() -> None:
        brain = slow()
        verifier = ScriptedVerifier([(0.0, Judgement(0.9, 1))])
        drafter = ScriptedDrafter()
        outcome = await hand_off(brain, drafter, verifier)
        assert outcome.text == "Well it is noon."
        assert brain.prefixes[-1] == "Well "
        assert outcome.only_report["prefix"] == "Well"
        assert (drafter.confidences, verifier.confidences) == ([0.8], [0.8])

    run(main())


def test_a_draft_that_its_engine_has_judged_is_committed_by_that() -> None:
    async def main() -> None:
        brain = slow()
        verifier = ScriptedVerifier([(0.0, RuntimeError("nobody asks it"))])
        outcome = await hand_off(brain, ScriptedDrafter(judgement=Judgement(0.7, 2)), verifier)
        assert outcome.text == "Well you it is noon."
        assert outcome.only_report["probability"] == 0.7
        assert outcome.stages == {"draft", "verify"}
        assert verifier.confidences == []

    run(main())


@pytest.mark.parametrize(
    ("drafter", "verifier", "reason", "prefix", "probability"),
    [
        (ScriptedDrafter([(9.0, "Well")]), None, "late", None, None),
        (ScriptedDrafter([(0.1, "Well")]), ScriptedVerifier([(9.0, Judgement(0.9, 7))]), "late", None, None),
        (ScriptedDrafter([(0.1, "Well no")]), ScriptedVerifier([(0.1, Judgement(0.2, 0))]), "doubtful", "Well no", 0.2),
        (ScriptedDrafter([(0.1, "")]), None, "empty", None, None),
        (ScriptedDrafter([(0.1, None)]), None, "failed", None, None),
        (ScriptedDrafter([(0.1, RuntimeError("odd"))]), None, "failed", None, None),
        (ScriptedDrafter([(0.1, "Well")]), ScriptedVerifier([(0.1, RuntimeError("odd"))]), "failed", "Well", None),
        (ScriptedDrafter(busy=True), None, "failed", None, None),
    ],
)
def test_whatever_is_wrong_with_the_draft_the_brain_answers(
    drafter: ScriptedDrafter,
    verifier: ScriptedVerifier | None,
    reason: str,
    prefix: str | None,
    probability: float | None,
) -> None:
    async def main() -> None:
        brain = slow()
        outcome = await hand_off(brain, drafter, verifier)
        assert outcome.text == "Noon it is."
        assert outcome.times[0] == pytest.approx(1.0), "it has lost no time by it"
        assert (outcome.path, outcome.error, brain.prefixes) == ("cascade", None, [""])
        assert outcome.only_report == {
            "prefix": prefix, "probability": probability, "committed": False, "reason": reason,
        }  # fmt: skip
        assert outcome.counts == [reason]

    run(main())


def test_of_two_that_come_at_once_the_brain_is_believed() -> None:
    async def main() -> None:
        brain = slow(first_s=0.25)
        outcome = await hand_off(brain, ScriptedDrafter([(0.25, "Well")]))
        assert outcome.text == "Noon it is."
        assert (outcome.path, outcome.only_report["reason"], outcome.only_report["committed"]) == (
            "cascade",
            "late",
            False,
        )

    run(main())


@pytest.mark.parametrize(
    ("script", "hold_s", "spoken", "error"),
    [
        ([0.5, BrainUnavailable("gone")], None, f"Well you see {LOST}", "gone"),
        ([0.5, ValueError("odd")], None, f"Well you see {LOST}", "odd"),
        ([0.1, "it ", "is ", BrainUnavailable("gone")], None, f"Well you see it is {LOST}", "gone"),
        ([90.0, "never"], 2.0, f"Well you see {LOST}", "did not continue in time"),
        ([90.0, "never"], None, f"Well you see {LOST}", "did not continue in time"),
        ([1.0, "it is.", 90.0, "never"], 2.0, None, None),
    ],
)
def test_a_brain_that_fails_after_the_commit_ends_the_sentence_and_is_reported(
    script: Script, hold_s: float | None, spoken: str | None, error: str | None
) -> None:
    async def main() -> None:
        outcome = await hand_off(slow(continuation=script), ScriptedDrafter(), hold_s=hold_s)
        if spoken is None:  # a continuation that has begun is not given up
            assert outcome.times[-1] == pytest.approx(91, abs=0.1)
            assert outcome.error is None
            return
        assert outcome.text == spoken
        assert error is not None
        assert error in str(outcome.error)
        assert outcome.path == "relay"
        assert outcome.times[-1] <= (hold_s or LATE_S) + 0.02

    run(main())


def test_a_brain_that_fails_before_the_commit_fails_as_ever() -> None:
    async def main() -> None:
        brain = PrefixBrain([[0.1, BrainUnavailable("gone")]])
        outcome = await hand_off(brain, ScriptedDrafter([(0.5, "Well")]))
        assert (outcome.pieces, str(outcome.error), outcome.path) == ([], "gone", "cascade")

    run(main())


def test_a_reply_may_be_complete_with_the_draft() -> None:
    async def main() -> None:
        end = ReplyEnd("stop", 5, 0, 1)
        outcome = await hand_off(slow(continuation=[0.1, end]), ScriptedDrafter([(0.0, "Noon.")]))
        assert (outcome.text, outcome.pieces[-1], outcome.error) == ("Noon.", end, None)

    run(main())


def test_tools_and_prefixes_are_for_the_brain_alone() -> None:
    async def main() -> None:
        for asked in ({"tools": ToolOffer((Tool("f"),))}, {"prefix": "Noon "}):
            brain = PrefixBrain([["it is."]], continuations=[["it is."]])
            drafter = ScriptedDrafter()
            outcome = await hand_off(brain, drafter, **asked)
            assert (outcome.text, drafter.asked, outcome.reports) == ("it is.", [], [])

    run(main())


def test_the_bound_on_tokens_holds_for_both_together() -> None:
    async def main() -> None:
        brain = slow()
        await hand_off(brain, ScriptedDrafter([(0.05, "Well you see")]), max_tokens=10)
        assert brain.bounds == [10, 7]

    run(main())


@pytest.mark.parametrize("fails", [False, True])
def test_the_draft_alone(fails: bool) -> None:
    async def main() -> None:
        text = "Noon is when the sun stands highest and that is now I think"
        drafter = ScriptedDrafter([(0.3, RuntimeError("odd") if fails else text)])
        brain = slow(first_s=0.1)
        outcome = await hand_off(brain, drafter, path="draft")
        assert outcome.text == ("Noon it is." if fails else text)
        assert outcome.path == ("cascade" if fails else "draft")
        assert outcome.only_report["committed"] == (not fails)
        assert len(brain.asked) == fails
        assert outcome.stages == (set() if fails else {"draft"})

    run(main())


def test_what_was_settled_in_the_pause_is_told_when_the_reply_begins() -> None:
    async def main() -> None:
        inbox = open_inbox()
        drafter = ScriptedDrafter()
        following = asyncio.create_task(follow(inbox, drafter))
        handoff = Handoff(PrefixDialogue(slow()), Fast(drafter, ScriptedVerifier()), inbox, 0.5, lambda outcome: None)
        async with aclosing(handoff.reply(QUESTION)) as stream:
            assert await anext(stream) == "Well you see "
            reports: list[dict[str, Any]] = []
            clock = StageClock()
            handoff.attach(reports.append, clock)
            assert [report["prefix"] for report in reports] == ["Well you see"]
            assert set(clock.stages_ms) == {"draft", "verify"}
            assert await anext(stream) == "it is "
        assert len(reports) == 1
        following.cancel()
        await asyncio.wait([following])

    run(main())


WORDS = st.lists(st.sampled_from(["we", "can", "do", "it", "well,", "so."]), min_size=1, max_size=5)
MARKS = st.text(st.sampled_from(" ,.;:!?…-–\n"), max_size=4)


@given(MARKS, WORDS)
def test_a_continuation_begins_with_a_word(marks: str, words: list[str]) -> None:
    text = " ".join(words)
    assert continuation(marks + text) == text
    assert continuation(marks) == ""
    assert continuation(f"'{text}") == f"'{text}"


def faults(*more: Any) -> Any:
    return st.sampled_from([None, RuntimeError("odd"), *more])


SCRIPTS = st.lists(
    st.sampled_from([0.01, 0.3, 3.0, 30.0, "one ", "two ", ", and", "three", "", BrainUnavailable("x"), KeyError("y")]),
    max_size=6,
).map(lambda script: [*script[:-1], *[piece for piece in script[-1:] if piece != ""]])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    SCRIPTS,
    SCRIPTS,
    st.tuples(st.sampled_from([0.0, 0.05, 0.5, 60.0]), faults("", "Well", "Well you see what I mean is that")),
    st.tuples(
        st.sampled_from([0.0, 0.05, 60.0]),
        st.sampled_from(
            [Judgement(0.9, 7), Judgement(0.97, 2), Judgement(0.1, 0), RuntimeError("odd"), Judgement(9, 9)]
        ),
    ),
    st.sampled_from([None, 0.2, 2.0]),
    st.sampled_from([None, 1, 2, 3]),
    st.sampled_from(["relay", "draft"]),
)
def test_whatever_fails_the_stream_is_one_of_two(
    alone: Script, more: Script, drafted: Any, judged: Any, hold_s: float | None, take: int | None, path: str
) -> None:
    """Nothing that was committed is lost or said twice, one report says what happened, and no work is left behind."""

    async def main() -> None:
        brain = PrefixBrain([list(alone)], continuations=[list(more)])
        outcome = await hand_off(
            brain, ScriptedDrafter([drafted]), ScriptedVerifier([judged]), path=path, hold_s=hold_s, take=take
        )
        if take is not None and len(outcome.pieces) >= take:
            assert outcome.error is None
        report = outcome.reports[-1] if outcome.reports else None
        assert len(outcome.reports) == len(outcome.counts) <= 1
        spoken = outcome.text
        if report is None:
            assert not outcome.pieces
        elif report["committed"]:
            assert outcome.path == path
            assert spoken.startswith(report["prefix"])
            assert spoken.count("Well") == 1
            assert (LOST in spoken) == (outcome.error is not None) or take is not None
            if path == "relay":
                assert brain.prefixes[1:] in ([report["prefix"] + " "], [])
        else:
            assert outcome.path == "cascade"
            assert "Well" not in spoken
            assert LOST not in spoken
            expected = "".join(piece for piece in alone if isinstance(piece, str)).split()
            assert spoken.split() == expected[: len(spoken.split())] or take is not None or outcome.error is not None
            assert report["reason"] in ("late", "failed", "doubtful", "empty")

    run(main())

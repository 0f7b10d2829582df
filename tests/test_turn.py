"""The turn machine: for any sequence of events its invariants hold, and the usual dialogues go as people expect."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.turn import (
    Action,
    CancelAsked,
    Event,
    Policy,
    ReplyEnded,
    ResponseAsked,
    StartReply,
    StopReply,
    TimedOut,
    Transcribed,
    TurnState,
    UserStarted,
    UserStopped,
    step,
)

EVENTS = st.one_of(
    st.builds(UserStarted, manual=st.booleans()),
    st.builds(UserStopped, discarded=st.booleans()),
    st.builds(Transcribed, turn_id=st.integers(0, 12), empty=st.booleans()),
    st.just(ResponseAsked()),
    st.just(TimedOut()),
    st.just(CancelAsked()),
    st.builds(ReplyEnded, turn_id=st.integers(0, 12)),
)
POLICIES = st.builds(Policy, create_response=st.booleans(), interrupt_response=st.booleans())
AUTO = Policy()


def play(events: list[Event], policy: Policy = AUTO) -> tuple[TurnState, list[Action]]:
    state, said = TurnState(), []
    for event in events:
        state, actions = step(state, event, policy)
        said.extend(actions)
    return state, said


@given(st.lists(EVENTS, max_size=40), POLICIES)
def test_invariants(events: list[Event], policy: Policy) -> None:
    state = TurnState()
    sounding: int | None = None
    for event in events:
        before = state
        state, actions = step(state, event, policy)
        for action in actions:
            if isinstance(action, StartReply):
                assert not before.replying or StopReply in map(type, actions) or isinstance(event, ReplyEnded)
                sounding = action.turn_id
            else:
                assert action.turn_id == sounding, "only the reply that has the floor is stopped"
                sounding = None
        assert state.floor == sounding
        assert state.last_id >= before.last_id
        assert state.replying <= (state.floor is not None)
        assert all(turn <= state.last_id for turn in state.hearing)
        assert state.utterance not in state.hearing
        if state.due is not None:  # what is owed waits for something that will come
            assert state.replying or state.hearing or state.utterance is not None


@given(st.lists(EVENTS, max_size=30), POLICIES)
def test_what_is_owed_is_answered(events: list[Event], policy: Policy) -> None:
    state, _ = play(events, policy)
    owed = state.due
    endings: list[Event] = [UserStopped(discarded=True), *(Transcribed(turn, empty=True) for turn in state.hearing)]
    started = []
    for event in endings:
        state, actions = step(state, event, policy)
        started += [action for action in actions if isinstance(action, StartReply)]
    if state.replying and not started:
        assert state.floor is not None
        state, actions = step(state, ReplyEnded(state.floor), policy)
        started += [action for action in actions if isinstance(action, StartReply)]
    assert (owed is not None) == bool(started)


def test_a_spoken_turn_is_answered_once() -> None:
    _, said = play([UserStarted(), UserStopped(), Transcribed(1, empty=False), Transcribed(1, empty=False)])
    assert said == [StartReply(1, asked=False)]


def test_noise_is_not_answered() -> None:
    _, said = play([UserStarted(), UserStopped(), Transcribed(1, empty=True)])
    assert said == []


def test_barge_in_stops_the_reply_even_after_it_was_sent_whole() -> None:
    start: list[Event] = [UserStarted(), UserStopped(), Transcribed(1, empty=False)]
    for extra in ([], [ReplyEnded(1)]):
        _, said = play([*start, *extra, UserStarted()])
        assert said == [StartReply(1, asked=False), StopReply(1, barge_in=True)]


def test_someone_who_speaks_on_is_answered_once_at_the_end() -> None:
    events = [UserStarted(), UserStopped(), UserStarted(), Transcribed(1, empty=False), UserStopped()]
    _, said = play([*events, Transcribed(2, empty=False)])
    assert said == [StartReply(2, asked=False)]
    # A cough after the sentence does not swallow its answer.
    _, said = play([*events, Transcribed(2, empty=True)])
    assert said == [StartReply(1, asked=False)]


def test_commit_and_ask_in_one_breath_waits_for_the_transcript() -> None:
    manual = Policy(create_response=False, interrupt_response=False)
    events = [UserStarted(manual=True), UserStopped(), ResponseAsked()]
    assert play(events, manual)[1] == []
    assert play([*events, Transcribed(1, empty=False)], manual)[1] == [StartReply(1, asked=True)]


def test_without_interruption_the_next_answer_waits_for_the_first() -> None:
    policy = Policy(interrupt_response=False)
    events = [UserStarted(), UserStopped(), Transcribed(1, empty=False)]
    events += [UserStarted(), UserStopped(), Transcribed(2, empty=False)]
    assert play(events, policy)[1] == [StartReply(1, asked=False)]
    assert play([*events, ReplyEnded(1)], policy)[1] == [StartReply(1, asked=False), StartReply(2, asked=False)]


def test_too_long_a_silence_is_answered_only_when_nothing_else_is_going_on() -> None:
    spoken: list[Event] = [UserStarted(), UserStopped(), Transcribed(1, empty=False)]
    assert play([*spoken, ReplyEnded(1), TimedOut()])[1][-1] == StartReply(2, asked=False)
    for busy in ([*spoken], [UserStarted()], [UserStarted(), UserStopped()]):
        assert play([*busy, TimedOut()]) == play(busy)

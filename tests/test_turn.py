"""The turn machine: for any sequence of events its invariants hold, and the usual dialogues go as people expect."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from relay.turn import (
    Action,
    AnnounceTurn,
    CancelAsked,
    DropPrepared,
    DuckReply,
    Event,
    Policy,
    PrepareReply,
    ReplyEnded,
    ResponseAsked,
    ResumeReply,
    SpeechWeighed,
    StartReply,
    StopReply,
    TimedOut,
    Transcribed,
    TurnClaimed,
    TurnState,
    UserPaused,
    UserResumed,
    UserStarted,
    UserStopped,
    step,
)

EVENTS = st.one_of(
    st.builds(UserStarted, manual=st.booleans()),
    st.builds(SpeechWeighed, wants_floor=st.booleans()),
    st.just(TurnClaimed()),
    st.builds(UserPaused, text=st.sampled_from(["yes", "no"])),
    st.just(UserResumed()),
    st.builds(UserStopped, discarded=st.booleans()),
    st.builds(Transcribed, turn_id=st.integers(0, 12), empty=st.booleans(), is_backchannel=st.booleans()),
    st.just(ResponseAsked()),
    st.just(TimedOut()),
    st.just(CancelAsked()),
    st.builds(ReplyEnded, turn_id=st.integers(0, 12)),
)
POLICIES = st.builds(
    Policy,
    create_response=st.booleans(),
    interrupt_response=st.booleans(),
    weighs=st.booleans(),
)
AUTO = Policy()


def play(events: list[Event], policy: Policy = AUTO) -> tuple[TurnState, list[Action]]:
    """What is done about replies; what the client is told of turns is looked at by itself."""
    state, said = TurnState(), []
    for event in events:
        state, actions = step(state, event, policy)
        said.extend(action for action in actions if not isinstance(action, AnnounceTurn))
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
            elif isinstance(action, StopReply):
                assert action.turn_id == sounding, "only the reply that has the floor is stopped"
                sounding = None
        assert state.floor == sounding
        assert state.last_id >= before.last_id
        assert state.replying <= (state.floor is not None)
        assert all(turn <= state.last_id for turn in state.hearing)
        assert state.utterance not in state.hearing
        assert state.weighed is None or state.floor is not None
        assert state.weighed is None or state.weighed in {state.utterance, *state.hearing}
        if state.due is not None:  # what is owed waits for something that will come
            assert state.replying or state.hearing or state.utterance is not None


@given(st.lists(EVENTS, max_size=40), POLICIES)
def test_what_is_prepared_is_used_or_dropped_once(events: list[Event], policy: Policy) -> None:
    state = TurnState()
    prepared: int | None = None
    for event in events:
        before = state
        state, actions = step(state, event, policy)
        for action in actions:
            match action:
                case PrepareReply(turn_id=turn_id):
                    assert prepared is None
                    assert turn_id == state.utterance
                    assert policy.create_response
                    assert not before.replying
                    assert not before.hearing
                    prepared = turn_id
                case DropPrepared(turn_id=turn_id):
                    assert turn_id == prepared
                    prepared = None
                case StartReply(turn_id=turn_id, asked=asked, prepared=is_prepared):
                    assert is_prepared == (prepared == turn_id)
                    assert not (is_prepared and asked)
                    assert prepared in (None, turn_id), "the brain makes one reply at a time"
                    prepared = None
        assert state.prepared == prepared
        assert prepared is None or not state.replying
        waited_for = {state.utterance, *state.hearing, *([state.due.turn_id] if state.due else [])}
        assert prepared is None or prepared in waited_for


@given(st.lists(EVENTS, max_size=40), POLICIES)
def test_preparing_changes_nothing_else(events: list[Event], policy: Policy) -> None:
    state, said = play(events, policy)
    plain_state, plain_said = play([e for e in events if not isinstance(e, UserPaused | UserResumed)], policy)
    assert replace(state, prepared=None) == plain_state
    shown = [a for a in said if not isinstance(a, PrepareReply | DropPrepared)]
    assert [replace(a, prepared=False) if isinstance(a, StartReply) else a for a in shown] == plain_said


def test_a_pause_that_is_the_end_is_answered_with_what_was_prepared() -> None:
    paused: list[Event] = [UserStarted(), UserPaused("yes")]
    ended: list[Event] = [UserStopped(), Transcribed(1, empty=False)]
    prepare, start = PrepareReply(1, "yes"), StartReply(1, asked=False, prepared=True)
    assert play([*paused, *ended])[1] == [prepare, start]
    # More is recognised in the pause.
    again = [prepare, DropPrepared(1, went_on=False), PrepareReply(1, "yes please"), start]
    assert play([*paused, UserPaused("yes please"), *ended])[1] == again
    # The user goes on, in the same turn or in another.
    went_on = DropPrepared(1, went_on=True)
    assert play([*paused, UserResumed(), *ended])[1] == [prepare, went_on, StartReply(1, asked=False)]
    assert play([*paused, UserStopped(), UserStarted()])[1] == [prepare, went_on]
    # Nobody will answer it, or not as it was prepared.
    stale = DropPrepared(1, went_on=False)
    assert play([*paused, UserStopped(discarded=True)])[1] == [prepare, stale]
    assert play([*paused, UserStopped(), Transcribed(1, empty=True)])[1] == [prepare, stale]
    asked = [prepare, stale, StartReply(1, asked=True)]
    assert play([*paused, UserStopped(), ResponseAsked(), Transcribed(1, empty=False)])[1] == asked
    assert play(paused, Policy(create_response=False))[1] == []


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


@given(st.lists(EVENTS, max_size=40), POLICIES)
def test_a_turn_is_announced_once_and_one_that_was_none_never(events: list[Event], policy: Policy) -> None:
    state = TurnState()
    announced: set[int] = set()
    ducked: int | None = None
    for event in events:
        before = state
        state, actions = step(state, event, policy)
        for at, action in enumerate(actions):
            match action:
                case AnnounceTurn(turn_id=turn_id):
                    assert turn_id not in announced
                    announced.add(turn_id)
                case DuckReply(turn_id=turn_id):
                    assert ducked is None
                    assert policy.weighs
                    assert policy.interrupt_response
                    assert turn_id == before.floor
                    ducked = turn_id
                case ResumeReply(turn_id=turn_id):
                    assert turn_id == ducked == state.floor
                    assert before.weighed not in announced
                    assert before.weighed != state.utterance
                    assert before.weighed not in state.hearing
                    ducked = None
                case StopReply(turn_id=turn_id, barge_in=barge_in):
                    assert ducked in (None, turn_id)
                    told = [each for each in actions[:at] if isinstance(each, AnnounceTurn)]
                    assert told or not barge_in, "the client is told before the reply ends"
                    ducked = None
                case StartReply():
                    assert ducked is None, "nothing begins while it is open what becomes of the last"
        assert (ducked is not None) == (state.weighed is not None)
        assert state.weighed not in announced


@given(st.lists(EVENTS, max_size=30), POLICIES)
def test_what_is_weighed_is_decided_in_the_end(events: list[Event], policy: Policy) -> None:
    state, _ = play(events, policy)
    heard = [Transcribed(turn_id, empty=False, is_backchannel=True) for turn_id in range(state.last_id + 1)]
    for event in [UserStopped(), *heard]:
        state, _ = step(state, event, policy)
    assert state.weighed is None


WEIGHING = Policy(weighs=True)
REPLYING: list[Event] = [UserStarted(), UserStopped(), Transcribed(1, empty=False)]
YEAH, STOP = SpeechWeighed(wants_floor=False), SpeechWeighed(wants_floor=True)


def test_a_backchannel_lets_the_reply_go_on_as_if_nothing_had_been_said() -> None:
    start, duck, resume = StartReply(1, asked=False), DuckReply(1), ResumeReply(1)
    for extra in ([], [ReplyEnded(1)]):
        heard: list[Event] = [*REPLYING, *extra, UserStarted(), YEAH]
        state, said = play(heard, WEIGHING)
        assert said == [start, duck, resume]
        assert replace(state, last_id=1) == play([*REPLYING, *extra], WEIGHING)[0]
        assert play([*heard, UserStarted(), YEAH], WEIGHING)[1][3:] == [duck, resume]
        # The end of the turn comes before it is clear: then its words decide.
        ended: list[Event] = [*REPLYING, *extra, UserStarted(), UserStopped()]
        assert play([*ended, Transcribed(2, empty=False, is_backchannel=True)], WEIGHING)[1] == [start, duck, resume]
        assert play([*ended, Transcribed(2, empty=True, is_backchannel=True)], WEIGHING)[1] == [start, duck, resume]
        wanted = [start, duck, StopReply(1, barge_in=True), StartReply(2, asked=False)]
        assert play([*ended, Transcribed(2, empty=False)], WEIGHING)[1] == wanted, (
            "what could not be heard was something"
        )


def test_an_interruption_is_announced_and_then_stops_the_reply() -> None:
    state, actions = step(play([*REPLYING, UserStarted()], WEIGHING)[0], STOP, WEIGHING)
    assert actions == (AnnounceTurn(2), StopReply(1, barge_in=True))
    assert state.utterance == 2
    assert step(state, YEAH, WEIGHING) == (state, ()), "it is decided once"
    for claim in (TurnClaimed(), ResponseAsked()):
        actions = step(play([*REPLYING, UserStarted()], WEIGHING)[0], claim, WEIGHING)[1]
        assert actions[:2] == (AnnounceTurn(2), StopReply(1, barge_in=True))
    actions = step(play([*REPLYING, UserStarted()], WEIGHING)[0], CancelAsked(), WEIGHING)[1]
    assert actions == (AnnounceTurn(2), StopReply(1, barge_in=False))
    # Who speaks again before the words are known goes on.
    again: list[Event] = [*REPLYING, UserStarted(), UserStopped(), UserStarted()]
    assert play(again, WEIGHING)[1] == [StartReply(1, asked=False), DuckReply(1), StopReply(1, barge_in=True)]


def test_speech_that_is_not_weighed_is_announced_at_once() -> None:
    playing, _ = play(REPLYING)
    assert step(playing, UserStarted(), AUTO)[1] == (AnnounceTurn(2), StopReply(1, barge_in=True))
    assert step(playing, UserStarted(), Policy(interrupt_response=False, weighs=True))[1] == (AnnounceTurn(2),)
    assert step(playing, UserStarted(manual=True), WEIGHING)[1] == ()
    assert step(TurnState(), UserStarted(), WEIGHING)[1] == (AnnounceTurn(1),), "there is no reply to duck"

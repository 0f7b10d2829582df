"""The turn machine: who has the floor. Pure: (state, event) -> (state, actions). No await, no clock, no I/O.

A user's utterance gets the next turn id when it begins. A reply carries the id of the turn it answers; a client's own
`response.create` takes an id of its own. `floor` is the id of the reply that may be heard: barge-in clears it, and
whatever carries another id is stale wherever it is.

Speech under a reply may be no more than a listener's "mm-hm". Where the policy weighs it, the reply is ducked at once.
When the speech wants the floor, the turn is announced and the reply stopped; else it goes on, and there was no turn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

# --------------------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class UserStarted:
    """The user began to speak, or a manual turn received its first audio (`manual`: that interrupts nothing)."""

    manual: bool = False


@dataclass(frozen=True, slots=True)
class SpeechWeighed:
    """It is clear whether speech under a reply wants the floor, or is a listener's."""

    wants_floor: bool


@dataclass(frozen=True, slots=True)
class UserPaused:
    """The user, in the middle of a turn, has fallen silent for as long as people do who have finished.

    Attributes:
        text: What has been heard of the turn. A pause in which more is recognised is announced again.
    """

    text: str


@dataclass(frozen=True, slots=True)
class UserResumed:
    """The pause was none: the user goes on with the turn."""


@dataclass(frozen=True, slots=True)
class TurnClaimed:
    """The client says that what is being spoken is a turn: it is about to end it by hand."""


@dataclass(frozen=True, slots=True)
class UserStopped:
    """The user's turn ended; `discarded` when the client cleared its audio."""

    discarded: bool = False


@dataclass(frozen=True, slots=True)
class Transcribed:
    """The recogniser has finished a turn.

    Attributes:
        turn_id: The turn.
        empty: It has no words.
        is_backchannel: All its words, if it has any, are those of a listener.
    """

    turn_id: int
    empty: bool
    is_backchannel: bool = False


@dataclass(frozen=True, slots=True)
class ResponseAsked:
    """The client asked for a response by itself."""


@dataclass(frozen=True, slots=True)
class TimedOut:
    """It has been quiet for too long: the reply is to bring the user back."""


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """The client cancelled the reply."""


@dataclass(frozen=True, slots=True)
class ReplyEnded:
    """A reply is generated and sent whole, was cancelled, or has failed."""

    turn_id: int


Event: TypeAlias = (
    UserStarted
    | SpeechWeighed
    | UserPaused
    | UserResumed
    | TurnClaimed
    | UserStopped
    | Transcribed
    | ResponseAsked
    | TimedOut
    | CancelAsked
    | ReplyEnded
)

# -------------------------------------------------------------------------------------------------------------- actions


@dataclass(frozen=True, slots=True)
class AnnounceTurn:
    """The user's turn is one: the client is told that it began, and all else that has happened of it since."""

    turn_id: int


@dataclass(frozen=True, slots=True)
class DuckReply:
    """The reply falls silent for now; it keeps the floor."""

    turn_id: int


@dataclass(frozen=True, slots=True)
class ResumeReply:
    """The reply goes on where it was ducked. What was said meanwhile was no turn."""

    turn_id: int


@dataclass(frozen=True, slots=True)
class StopReply:
    """The reply loses the floor: `barge_in` says by the user's voice, else by the client's request.

    Also given for a reply that was sent whole but may still be playing.
    """

    turn_id: int
    barge_in: bool


@dataclass(frozen=True, slots=True)
class StartReply:
    """A reply gets the floor.

    Attributes:
        turn_id: The turn that it answers.
        asked: By the client, with parameters of its own.
        prepared: What was prepared for this turn may become the reply, if it answers what was said in the end.
    """

    turn_id: int
    asked: bool
    prepared: bool = False


@dataclass(frozen=True, slots=True)
class PrepareReply:
    """The beginning of a reply to what has been heard may be made, unheard. There is never more than one."""

    turn_id: int
    text: str


@dataclass(frozen=True, slots=True)
class DropPrepared:
    """What was prepared will not be needed. `went_on`: the user spoke on; else it answers something else."""

    turn_id: int
    went_on: bool


Action: TypeAlias = AnnounceTurn | DuckReply | ResumeReply | StopReply | StartReply | PrepareReply | DropPrepared

# -------------------------------------------------------------------------------------------------------------- machine


@dataclass(frozen=True, slots=True)
class Policy:
    """What the client wants done by itself (`turn_detection` of the session).

    Attributes:
        create_response: A finished turn is answered.
        interrupt_response: Speech stops the reply.
        weighs: It does so only if it wants the floor. False, too, where no reply is being heard.
    """

    create_response: bool = True
    interrupt_response: bool = True
    weighs: bool = False


@dataclass(frozen=True, slots=True)
class Due:
    """A reply that is owed. `asked`: by the client, with parameters of its own."""

    turn_id: int
    asked: bool


@dataclass(frozen=True, slots=True)
class TurnState:
    """Where a dialogue stands.

    Attributes:
        last_id: The highest turn id given so far.
        utterance: The turn being spoken by the user, if any.
        hearing: Turns that ended and are still being recognised.
        due: The reply that is owed and begins when nothing stands in its way.
        floor: The turn whose reply may be heard, if any; stays after its end, while it may be playing.
        replying: Whether that reply is still being made.
        prepared: The turn to which a reply is being prepared unheard, if any.
        weighed: The turn, spoken or being recognised, of which it is open whether it is one; the reply is ducked.
    """

    last_id: int = 0
    utterance: int | None = None
    hearing: frozenset[int] = frozenset()
    due: Due | None = None
    floor: int | None = None
    replying: bool = False
    prepared: int | None = None
    weighed: int | None = None

    @property
    def is_quiet(self) -> bool:
        """Nobody speaks, and nothing is being recognised or answered. A reply may still be playing."""
        return self.utterance is None and not self.hearing and self.due is None and not self.replying


def step(state: TurnState, event: Event, policy: Policy) -> tuple[TurnState, tuple[Action, ...]]:
    """Takes one event. Total: every event is defined in every state; what makes no sense changes nothing."""
    actions: tuple[Action, ...] = ()
    match event:
        case UserStarted(manual=manual):
            if state.utterance is None:
                state, settled = _interrupt(state)  # who speaks again so soon goes on
                turn_id = state.last_id + 1
                state, dropped = _drop(replace(state, last_id=turn_id, utterance=turn_id), went_on=True)
                actions = settled + dropped
                if not manual:
                    state, begun = _begin(state, turn_id, policy)
                    actions += begun
        case SpeechWeighed(wants_floor=wants_floor):
            if state.weighed is not None and state.weighed == state.utterance:
                state, actions = _interrupt(state) if wants_floor else _resume(state)
        case UserPaused(text=text):
            turn = state.utterance
            if turn is not None and _may_prepare(state, policy):
                state, actions = _drop(state, went_on=False)
                state = replace(state, prepared=turn)
                actions += (PrepareReply(turn, text),)
        case UserResumed():
            if state.prepared is not None and state.prepared == state.utterance:
                state, actions = _drop(state, went_on=True)
        case TurnClaimed():
            state, actions = _interrupt(state)
        case UserStopped(discarded=discarded):
            turn = state.utterance
            if turn is not None and discarded and turn == state.weighed:
                state, actions = _resume(state)
            elif turn is not None:
                hearing = state.hearing if discarded else state.hearing | {turn}
                state = replace(state, utterance=None, hearing=hearing)
        case Transcribed(turn_id=turn_id, empty=empty, is_backchannel=is_backchannel):
            if turn_id in state.hearing and turn_id == state.weighed:
                state, actions = _resume(state) if is_backchannel else _interrupt(state)
            if turn_id in state.hearing:
                state = replace(state, hearing=state.hearing - {turn_id})
                asked = state.due is not None and state.due.asked
                if asked or (policy.create_response and not empty):
                    state = replace(state, due=Due(turn_id, asked))
        case ResponseAsked():
            state, actions = _interrupt(state)
            # It answers the turn being recognised, if there is one: clients commit and ask in one breath.
            turn_id = max(state.hearing, default=state.last_id + 1)
            state = replace(state, last_id=max(turn_id, state.last_id), due=Due(turn_id, asked=True))
        case TimedOut():
            if state.is_quiet:
                turn_id = state.last_id + 1
                state = replace(state, last_id=turn_id, due=Due(turn_id, asked=False))
        case CancelAsked():
            state, settled = _announce(state)
            state, actions = _stop(replace(state, due=None), barge_in=False)
            actions = settled + actions
        case ReplyEnded(turn_id=turn_id):
            if turn_id == state.floor:
                state = replace(state, replying=False)
    state, outdated = _drop_outdated(state)
    state, started = _start_due(state)
    return state, actions + outdated + started


def _begin(state: TurnState, turn_id: int, policy: Policy) -> tuple[TurnState, tuple[Action, ...]]:
    """What becomes of the reply as the user begins to speak."""
    if policy.interrupt_response and policy.weighs and state.floor is not None:
        return replace(state, weighed=turn_id), (DuckReply(state.floor),)
    if not policy.interrupt_response:
        return state, (AnnounceTurn(turn_id),)
    state, stopped = _stop(state, barge_in=True)
    return state, (AnnounceTurn(turn_id), *stopped)


def _announce(state: TurnState) -> tuple[TurnState, tuple[Action, ...]]:
    """What was being weighed is a turn."""
    if state.weighed is None:
        return state, ()
    return replace(state, weighed=None), (AnnounceTurn(state.weighed),)


def _interrupt(state: TurnState) -> tuple[TurnState, tuple[Action, ...]]:
    """What was being weighed wants the floor."""
    if state.weighed is None:
        return state, ()
    state, announced = _announce(state)
    state, stopped = _stop(state, barge_in=True)
    return state, announced + stopped


def _resume(state: TurnState) -> tuple[TurnState, tuple[Action, ...]]:
    """What was being weighed is no turn."""
    floor, weighed = state.floor, state.weighed
    assert floor is not None, "a reply is ducked"
    assert weighed is not None
    utterance = None if state.utterance == weighed else state.utterance
    state = replace(state, utterance=utterance, hearing=state.hearing - {weighed}, weighed=None)
    return state, (ResumeReply(floor),)


def _start_due(state: TurnState) -> tuple[TurnState, tuple[Action, ...]]:
    """Starts the reply that is owed, unless one is under way or ducked, or words are awaited."""
    due = state.due
    if due is None or state.replying or state.hearing or state.weighed is not None:
        return state, ()
    if state.utterance is not None and not due.asked:
        return state, ()
    is_prepared = state.prepared == due.turn_id
    state, dropped = (replace(state, prepared=None), ()) if is_prepared else _drop(state, went_on=False)
    state = replace(state, due=None, floor=due.turn_id, replying=True)
    return state, (*dropped, StartReply(due.turn_id, due.asked, is_prepared))


def _may_prepare(state: TurnState, policy: Policy) -> bool:
    """Whether the turn being spoken will be answered by itself, and all that was said before it is known."""
    asked = state.due is not None and state.due.asked
    return policy.create_response and not (state.hearing or state.replying or asked or state.weighed is not None)


def _drop_outdated(state: TurnState) -> tuple[TurnState, tuple[Action, ...]]:
    """Drops what was prepared for a turn that will not be answered, or is answered as the client asks."""
    due = state.due
    if due is not None and due.turn_id == state.prepared and not due.asked:
        return state, ()
    if state.prepared == state.utterance or state.prepared in state.hearing:
        return state, ()
    return _drop(state, went_on=False)


def _drop(state: TurnState, *, went_on: bool) -> tuple[TurnState, tuple[Action, ...]]:
    if state.prepared is None:
        return state, ()
    return replace(state, prepared=None), (DropPrepared(state.prepared, went_on),)


def _stop(state: TurnState, *, barge_in: bool) -> tuple[TurnState, tuple[Action, ...]]:
    if state.floor is None:
        return state, ()
    return replace(state, floor=None, replying=False), (StopReply(state.floor, barge_in),)

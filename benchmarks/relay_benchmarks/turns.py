"""The turn-taking benchmark: who speaks when, by the definitions of Full-Duplex-Bench, over a real socket in real time.

Full-Duplex-Bench (Lin et al. 2025, arXiv 2503.04721) and its v1.5 (arXiv 2507.23159) ask four things of a system:

- At a pause in the middle of a turn it should not take over. A takeover is a reply of more than 1 s or 3 words.
- At the end of a turn it should. Turn latency is the time from the caller's last sample to the first output word.
- A backchannel of the caller ("uh-huh") should not stop its reply.
- An interruption should. Stop latency is how long both then speak at once.

Here replies are what was played by a client with a paced sound card, so a reply that is broken off counts as long as it
was heard, and the first output word is its first audible sample. Nothing is left out: missed turns count with 10 s, and
replies that go on under an interruption with the overlap up to their own end. A reply that falls silent while the
server weighs what is said into it, and then goes on, was not stopped; how long it was silent is told beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np

import relay
from relay.audio import VOICE_RATE_HZ, samples_in
from relay.client.dialogue import Reply
from relay.client.duplex import ROOM_NOISE_DBFS
from relay_benchmarks.caller import TURNS_PER_SESSION, Caller, Said, call, sessions_of
from relay_benchmarks.corpus import Utterance, backchannels, interruptions, utterances
from relay_benchmarks.latency import GAP_MS, INTERRUPT_AFTER_MS, OFFSET_SAMPLES, machine
from relay_benchmarks.summary import MISS_AFTER_MS, distribution, wilson_upper

TAKEOVER_MS, TAKEOVER_WORDS = 1000.0, 3
PAUSED_SHARE = 1 / 2
PAUSE_BINS_MS = (300, 600, 900, 1200, 1500)
LEFT_MS = 600
"""What must still wait to be played of a reply that somebody speaks into: else it may end by itself."""
ANSWERED_AFTER_MS = 2000.0
"""How long after a backchannel a reply still counts as an answer to it."""

Kind = Literal["pause", "turn_end", "backchannel", "interruption"]


@dataclass(frozen=True, slots=True)
class PlannedTurn:
    """What will be said, and what into the answer.

    Attributes:
        utterance: The turn.
        gap_ms: Room noise between the end of the dialogue before it and its first sample.
        offset_samples: Further delay, so that speech does not keep step with the blocks of client and server.
        intrusion: Said while the answer plays.
        intrusion_kind: Whether that wants the floor.
    """

    utterance: Utterance
    gap_ms: int
    offset_samples: int
    intrusion: Utterance | None = None
    intrusion_kind: Literal["backchannel", "interruption"] = "backchannel"


@dataclass(frozen=True, slots=True)
class Moment:
    """One place where the floor could change hands, and what happened.

    Attributes:
        kind: What the caller did there.
        text: What he said; of a pause, the whole turn.
        reply: What the server said there: the reply that sounded, or that was spoken into.
        pause_ms: Length of a pause.
        sounded: Whether anything was heard of a reply at a pause, of an answer at the end of a turn or an interruption,
            or of a new reply after a backchannel.
        played_ms: How much was heard of it; 0 if it was not.
        words: How many of its words.
        took_over: Whether that makes a takeover.
        latency_ms: From the caller's last sample to the first audible one of the answer.
        stopped: Whether a reply that was spoken into fell silent before its own end.
        overlap_ms: From the first sample that was spoken into a reply to the last one played of it.
        held_ms: How long a reply that was spoken into and not stopped fell silent in the meantime.
        cut_ins: Replies that became audible while the caller was speaking, outside pauses.
    """

    kind: Kind
    text: str
    reply: str = ""
    pause_ms: float | None = None
    sounded: bool = False
    played_ms: float = 0.0
    words: int = 0
    took_over: bool = False
    latency_ms: float | None = None
    stopped: bool | None = None
    overlap_ms: float | None = None
    held_ms: float | None = None
    cut_ins: int = 0


def is_takeover(played_ms: float, words: int) -> bool:
    """Whether so much of a reply takes the floor (Full-Duplex-Bench): more than 1 s, or more than 3 words."""
    return played_ms > TAKEOVER_MS or words > TAKEOVER_WORDS


def plan(turns: int, seed: int) -> list[PlannedTurn]:
    """Turns of which half pause, a third is followed by a backchannel and a third by an interruption; from a seed.

    Raises:
        EngineUnavailable: The synthesiser cannot run.
    """
    rng = np.random.default_rng([seed, 4])
    said = utterances(turns, seed, paused_share=PAUSED_SHARE)
    listening, breaking_in = backchannels(turns, seed), interruptions(turns, seed)
    planned = []
    for number, utterance in enumerate(said):
        turn = PlannedTurn(utterance, int(rng.integers(*GAP_MS)), int(rng.integers(OFFSET_SAMPLES)))
        if number % 3 == 0:
            turn = replace(turn, intrusion=listening[number])
        elif number % 3 == 1:
            turn = replace(turn, intrusion=breaking_in[number], intrusion_kind="interruption")
        planned.append(turn)
    return planned


async def measure(
    urls: Mapping[str, str],
    planned: Sequence[PlannedTurn],
    *,
    api_key: str | None,
    seed: int,
    on_turn: Callable[[str], None],
) -> dict[str, list[Moment]]:
    """Holds the same dialogues with every server, session by session in turn.

    Args:
        urls: The servers, by path.
        planned: The turns.
        api_key: Presented to the servers.
        seed: Of the room noise.
        on_turn: Called with the path when a turn, and all that was said into its answer, is over.

    Returns:
        Moments by path.

    Raises:
        ConnectionFailed: A server cannot be reached or was lost.
    """
    moments: dict[str, list[Moment]] = {path: [] for path in urls}
    for path, turns, room_seed in sessions_of(list(urls), planned, seed):
        work = partial(_hold, turns=turns, add=moments[path].extend, on_turn=partial(on_turn, path))
        await call(urls[path], work, api_key=api_key, room_seed=room_seed)
    return moments


async def _hold(
    caller: Caller,
    *,
    turns: Sequence[PlannedTurn],
    add: Callable[[Sequence[Moment]], None],
    on_turn: Callable[[], None],
) -> None:
    for turn in turns:
        await caller.until_after(caller.script.position, turn.gap_ms)
        said = await caller.say(turn.utterance, turn.offset_samples, wait_ms=MISS_AFTER_MS)
        into = None
        if turn.intrusion is not None and said.answer is not None:
            await caller.until_after(caller.audible[said.answer.response_id], INTERRUPT_AFTER_MS)
            if caller.playout.buffered_samples >= samples_in(LEFT_MS, VOICE_RATE_HZ):
                wait_ms = MISS_AFTER_MS if turn.intrusion_kind == "interruption" else ANSWERED_AFTER_MS
                into = await caller.say(turn.intrusion, turn.offset_samples, wait_ms=wait_ms)
        await caller.until_quiet()
        add(_moments(caller, said, into, turn.intrusion_kind))
        on_turn()


def _moments(
    caller: Caller, said: Said, into: Said | None, kind: Literal["backchannel", "interruption"]
) -> list[Moment]:
    """What happened around one turn, when all of it is over."""
    found = []
    early = caller.early_replies(said)
    if said.pause is not None and said.utterance.pause is not None:
        first, last = said.utterance.pause
        moment = Moment("pause", said.utterance.text, pause_ms=round((last - first) * 1000 / VOICE_RATE_HZ, 1))
        heard = [_of_reply(caller, moment, caller.dialogue.replies[key]) for key, at in early if at >= said.pause]
        found.append(max(heard, key=lambda each: each.played_ms, default=moment))
    cut_ins = len(early) - sum(said.pause is not None and at >= said.pause for _, at in early)
    found.append(_answered(caller, Moment("turn_end", said.utterance.text, cut_ins=cut_ins), said, cut_by=into))
    if into is not None and said.answer is not None:
        reply = said.answer
        overlap_ms = (caller.last_played(reply) - into.begin) * 1000 / VOICE_RATE_HZ
        whole = caller.was_whole(reply)
        moment = Moment(
            kind,
            into.utterance.text,
            stopped=not whole,
            overlap_ms=round(max(0.0, overlap_ms), 2),
            held_ms=caller.held_ms(reply, into.begin) if whole else None,
        )
        found.append(_answered(caller, moment, into, cut_by=None))
    return found


def _answered(caller: Caller, moment: Moment, said: Said, *, cut_by: Said | None) -> Moment:
    """The moment with the answer that was given. One that we spoke into is judged by what it would have said."""
    moment = _of_reply(caller, moment, said.answer)
    if said.answer is None:
        return moment
    latency_ms = (caller.audible[said.answer.response_id] - said.end) * 1000 / VOICE_RATE_HZ
    if cut_by is not None:
        sent_ms = said.answer.audio_samples * 1000 / VOICE_RATE_HZ
        moment = replace(moment, took_over=is_takeover(sent_ms, len(said.answer.words)))
    return replace(moment, latency_ms=round(latency_ms, 2))


def _of_reply(caller: Caller, moment: Moment, reply: Reply | None) -> Moment:
    """The moment with what was heard of a reply, from its first audible sample to the last one played."""
    if reply is None:
        return moment
    first = caller.audible[reply.response_id]
    spans = caller.playout.spans(reply.response_id)
    played = sum(max(0, span.position + span.samples - max(span.position, first)) for span in spans)
    played_ms = played * 1000 / VOICE_RATE_HZ
    heard = caller.playout.played_samples(reply.response_id)
    words = sum(word.start_sample < heard for word in reply.words)
    return replace(
        moment,
        reply=reply.text,
        sounded=True,
        played_ms=round(played_ms, 1),
        words=words,
        took_over=is_takeover(played_ms, words),
    )


def _share(moments: Sequence[Moment], is_so: Callable[[Moment], bool | None]) -> dict[str, float | None]:
    """A rate and its upper bound (Wilson, 95 %); None without moments."""
    if not moments:
        return {"rate": None, "at_most": None}
    hits = sum(bool(is_so(moment)) for moment in moments)
    return {"rate": round(hits / len(moments), 4), "at_most": round(wilson_upper(hits, len(moments)), 4)}


def summarise(path: str, moments: Sequence[Moment]) -> dict[str, Any]:
    """The `results` entry of one path."""
    of: dict[Kind, list[Moment]] = {"pause": [], "turn_end": [], "backchannel": [], "interruption": []}
    for moment in moments:
        of[moment.kind].append(moment)
    by_length = []
    for low, high in pairwise(PAUSE_BINS_MS):
        inside = [moment for moment in of["pause"] if low <= (moment.pause_ms or 0.0) < high]
        by_length.append({"from_ms": low, "to_ms": high, **_pauses(inside)})
    return {
        "path": path,
        "pauses": _pauses(of["pause"]) | {"by_length": by_length},
        "turn_ends": _taken(of["turn_end"]) | {"cut_ins": sum(moment.cut_ins for moment in of["turn_end"])},
        "backchannels": {
            "count": len(of["backchannel"]),
            "stopped": _share(of["backchannel"], lambda moment: moment.stopped),
            "answered": _share(of["backchannel"], lambda moment: moment.sounded),
            "held_ms": distribution([m.held_ms for m in of["backchannel"] if m.held_ms is not None]),
        },
        "interruptions": _taken(of["interruption"])
        | {
            "stopped": _share(of["interruption"], lambda moment: moment.stopped),
            "stop_ms": distribution([m.overlap_ms for m in of["interruption"] if m.overlap_ms is not None]),
        },
        "moments": [asdict(moment) for moment in moments],
    }


def _pauses(moments: Sequence[Moment]) -> dict[str, Any]:
    return {
        "count": len(moments),
        "takeover": _share(moments, lambda moment: moment.took_over),
        "sounded": _share(moments, lambda moment: moment.sounded),
    }


def _taken(moments: Sequence[Moment]) -> dict[str, Any]:
    """Turns that want an answer."""
    latencies = [MISS_AFTER_MS if moment.latency_ms is None else moment.latency_ms for moment in moments]
    return {
        "count": len(moments),
        "takeover": _share(moments, lambda moment: moment.took_over),
        "missed": sum(not moment.sounded for moment in moments),
        "latency_ms": distribution(latencies),
    }


def report(
    measured: Mapping[str, Sequence[Moment]],
    planned: Sequence[PlannedTurn],
    *,
    seed: int,
    url: str | None,
    left_out: Mapping[str, str],
) -> dict[str, Any]:
    """The JSON of the benchmark: machine, configuration, results.

    What was planned to be said into an answer is not said where there was none, or too little of it was left.
    """
    kinds = [turn.intrusion_kind for turn in planned if turn.intrusion is not None]
    return {
        "machine": machine(),
        "config": {
            "relay": relay.__version__,
            "turns": len(planned),
            "planned": {"backchannels": kinds.count("backchannel"), "interruptions": kinds.count("interruption")},
            "seed": seed,
            "left_out": dict(left_out),
            "server": url or "a process of its own on this machine for each path",
            "turns_per_session": TURNS_PER_SESSION,
            "room_noise_dbfs": ROOM_NOISE_DBFS,
            "takeover": f"more than {TAKEOVER_MS:.0f} ms or {TAKEOVER_WORDS} words heard",
            "into_answer_after_ms": INTERRUPT_AFTER_MS,
            "miss_after_ms": MISS_AFTER_MS,
        },
        "results": [summarise(path, moments) for path, moments in measured.items()],
    }

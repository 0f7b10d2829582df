"""The latency benchmark: labelled speech in real time over a real socket, and what was heard of the answer, when.

A turn is played into a session by a client that paces its input and its output like one sound card (`caller`). The end
of speech is known from the synthesiser (`corpus`), the first audible sample of the answer from the playout clock; both
are positions on one clock, so the onset is a subtraction. Some turns pause in the middle; some are interrupted while
the answer plays. Several servers, one for each way that replies are made, are measured by turns.
"""

from __future__ import annotations

import itertools
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import relay
from relay.audio import VOICE_RATE_HZ
from relay.client.dialogue import Reply
from relay.client.duplex import ROOM_NOISE_DBFS
from relay.client.timing import AUDIBLE_DBFS, onset_of
from relay_benchmarks.caller import BLOCK_MS, PREBUFFER_MS, TURNS_PER_SESSION, Caller, Said, as_ms, call, sessions_of
from relay_benchmarks.corpus import Utterance, interruptions, utterances
from relay_benchmarks.summary import MISS_AFTER_MS, TurnResult, summarise

INTERRUPT_EVERY = 4
INTERRUPT_AFTER_MS = 700
OFFSET_SAMPLES = 480
GAP_MS = (600, 1400)


@dataclass(frozen=True, slots=True)
class PlannedTurn:
    """What will be said, and what into the answer.

    Attributes:
        utterance: The turn.
        gap_ms: Room noise between the end of the dialogue before it and its first sample.
        offset_samples: Further delay, so that speech does not keep step with the blocks of client and server.
        interruption: Said while the answer plays.
    """

    utterance: Utterance
    gap_ms: int
    offset_samples: int
    interruption: Utterance | None = None


def plan(turns: int, seed: int) -> list[PlannedTurn]:
    """Utterances, gaps and interruptions, the same for the same seed. Interruptions are turns too: they are counted.

    Raises:
        EngineUnavailable: The synthesiser cannot run.
    """
    rng = np.random.default_rng(seed)
    said, broken_in = utterances(turns, seed), interruptions(turns, seed)
    planned: list[PlannedTurn] = []
    counted = 0
    while counted < turns:
        at = len(planned)
        interrupts = at % INTERRUPT_EVERY == INTERRUPT_EVERY - 1 and counted + 2 <= turns
        gap_ms, offset_samples = int(rng.integers(*GAP_MS)), int(rng.integers(OFFSET_SAMPLES))
        planned.append(PlannedTurn(said[at], gap_ms, offset_samples, broken_in[at] if interrupts else None))
        counted += 2 if interrupts else 1
    return planned


async def measure(
    urls: Mapping[str, str],
    planned: Sequence[PlannedTurn],
    *,
    api_key: str | None,
    seed: int,
    on_turn: Callable[[str, TurnResult], None],
) -> dict[str, list[TurnResult]]:
    """Runs all turns against every server, five to a session.

    The servers take turns, session by session, and another one begins each time: whatever else the machine is busy
    with hits all of them alike. All hear the same turns in the same room.

    Args:
        urls: The servers, by path.
        planned: The turns.
        api_key: Presented to the servers.
        seed: Of the room noise.
        on_turn: Called with the path and every result as it comes.

    Returns:
        Results by path.

    Raises:
        ConnectionFailed: A server cannot be reached or was lost.
    """
    results: dict[str, list[TurnResult]] = {path: [] for path in urls}
    for path, turns, room_seed in sessions_of(list(urls), planned, seed):

        def add(result: TurnResult, path: str = path) -> None:
            results[path].append(result)
            on_turn(path, result)

        await call(urls[path], partial(hold, turns=turns, add=add), api_key=api_key, room_seed=room_seed)
    return results


async def hold(caller: Caller, *, turns: Iterable[PlannedTurn], add: Callable[[TurnResult], None]) -> None:
    """Says every turn and hands over what came of it; asks for the next when one has been answered and played."""
    for turn in turns:
        await caller.until_after(caller.script.position, turn.gap_ms)
        said = await caller.say(turn.utterance, turn.offset_samples, wait_ms=MISS_AFTER_MS)
        interruption = None
        if turn.interruption is not None and said.answer is not None:
            await caller.until_after(caller.audible[said.answer.response_id], INTERRUPT_AFTER_MS)
            interruption = await caller.say(turn.interruption, turn.offset_samples, wait_ms=MISS_AFTER_MS)
        await caller.until_quiet()
        add(_result(caller, said))
        if interruption is not None:
            add(_result(caller, interruption, interrupted=said.answer))


def _result(caller: Caller, said: Said, *, interrupted: Reply | None = None) -> TurnResult:
    """What came of a turn."""
    utterance, answer, pause = said.utterance, said.answer, said.pause
    early = [position for _, position in caller.early_replies(said)]
    in_pause = [] if pause is None else [position for position in early if position >= pause]
    result = TurnResult(
        kind="interruption" if interrupted else "paused" if pause is not None else "plain",
        text=utterance.text,
        transcript=said.transcript,
        pauses=int(pause is not None),
        takeovers=int(bool(in_pause)),
        cut_ins=len(early) - len(in_pause),
        stop_ms=None if interrupted is None else caller.stop_ms(said, interrupted),
        ended_s=round(caller.card.started_s + said.end / VOICE_RATE_HZ, 4),
    )
    if answer is None:
        replies = (reply for key, reply in caller.dialogue.replies.items() if key not in said.replies_before)
        failed = next((reply for reply in replies if reply.status == "failed"), None)
        return result if failed is None else replace(result, status="failed", failure=failed.failure)
    first_played = caller.audible[answer.response_id]
    onset = onset_of(answer, caller.card, speech_end=said.end, first_played=first_played)
    spans = caller.playout.spans(answer.response_id)
    gaps = [after.position - before.position - before.samples for before, after in itertools.pairwise(spans)]
    return replace(
        result,
        reply=answer.text,
        status=answer.status,
        failure=answer.failure,
        onset_ms=round(onset.onset_ms, 2),
        stages_ms={name: round(ms, 2) for name, ms in onset.stages_ms.items()},
        unaccounted_ms=round(onset.unaccounted_ms, 2),
        underruns=len(gaps),
        played_ms=as_ms(sum(span.samples for span in spans)),
        gaps_ms=[as_ms(gap) for gap in gaps],
        draft=answer.draft,
    )


def report(
    measured: Sequence[tuple[str, int | None, Sequence[TurnResult]]],
    *,
    turns: int,
    seed: int,
    url: str | None,
    left_out: Mapping[str, str],
) -> dict[str, Any]:
    """The JSON of the benchmark: machine, configuration, results.

    Args:
        measured: Path, milliseconds by which the brain was delayed (None: nobody knows), and turns of each condition.
        turns: How many were asked for.
        seed: Of utterances, pauses and noise.
        url: The server, if it was not one of our own.
        left_out: Paths that could not be measured, and why.
    """
    return {
        "machine": machine(),
        "config": {
            "relay": relay.__version__,
            "turns": turns,
            "seed": seed,
            "left_out": dict(left_out),
            "server": url or "a process of its own on this machine for each path and delay",
            "block_ms": BLOCK_MS,
            "prebuffer_ms": PREBUFFER_MS,
            "room_noise_dbfs": ROOM_NOISE_DBFS,
            "audible_dbfs": AUDIBLE_DBFS,
            "miss_after_ms": MISS_AFTER_MS,
            "turns_per_session": TURNS_PER_SESSION,
        },
        "results": [summarise(path, results, brain_delay_ms=delay_ms) for path, delay_ms, results in measured],
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
        memory_gb = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (OSError, ValueError):
        memory_gb = None
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gb": memory_gb,
        "os": platform.platform(terse=True),
        "python": platform.python_version(),
    }

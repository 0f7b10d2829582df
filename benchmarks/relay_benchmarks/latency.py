"""The latency benchmark: labelled speech in real time over a real socket, and what was heard of the answer, when.

A turn is played into a session by a client that paces its input and its output like one sound card (`PacedCard`). Room
noise runs all the time. The end of speech is known from the synthesiser (`corpus`), the first audible sample of the
answer from the playout clock; both are positions on one clock, so the onset is a subtraction. Some turns pause in the
middle; some are interrupted while the answer plays.
"""

from __future__ import annotations

import itertools
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import relay
from relay.audio import VOICE_RATE_HZ, Int16Array, samples_in
from relay.client.dialogue import Dialogue, Reply, until_first
from relay.client.duplex import ROOM_NOISE_DBFS, PacedCard, Room, Script
from relay.client.playout import PlayoutClock
from relay.client.realtime import Client, connect
from relay.client.timing import AUDIBLE_DBFS, first_audible, onset_of
from relay_benchmarks.corpus import Utterance, interruptions, utterances
from relay_benchmarks.summary import MISS_AFTER_MS, TurnResult, summarise

BLOCK_MS = 10
PREBUFFER_MS = 20
TURNS_PER_SESSION = 5
INTERRUPT_EVERY = 4
INTERRUPT_AFTER_MS = 700
OFFSET_SAMPLES = 480
QUIET_TIMEOUT_MS = 30_000


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
        gap_ms, offset_samples = int(rng.integers(600, 1400)), int(rng.integers(OFFSET_SAMPLES))
        planned.append(PlannedTurn(said[at], gap_ms, offset_samples, broken_in[at] if interrupts else None))
        counted += 2 if interrupts else 1
    return planned


async def measure(
    url: str, planned: Sequence[PlannedTurn], *, api_key: str | None, seed: int, on_turn: Callable[[TurnResult], None]
) -> list[TurnResult]:
    """Runs all turns, five to a session, one session after another.

    Args:
        url: The server.
        planned: The turns.
        api_key: Presented to the server.
        seed: Of the room noise.
        on_turn: Called with every result as it comes.

    Raises:
        ConnectionFailed: The server cannot be reached or was lost.
    """
    results: list[TurnResult] = []

    def add(result: TurnResult) -> None:
        results.append(result)
        on_turn(result)

    for at in range(0, len(planned), TURNS_PER_SESSION):
        async with connect(url, api_key=api_key) as client:
            await hold(client, planned[at : at + TURNS_PER_SESSION], add, seed=seed + at)
    return results


async def hold(
    client: Client,
    turns: Iterable[PlannedTurn],
    add: Callable[[TurnResult], None],
    *,
    seed: int,
    block_ms: int = BLOCK_MS,
) -> PacedCard:
    """Holds one dialogue in a session that is open.

    Args:
        client: The session.
        turns: What is said; the next is asked for when the one before has been answered and played.
        add: Called with every result.
        seed: Of the room noise.
        block_ms: How much audio the client sends at once.

    Returns:
        The clock it was held on, which knows how late this client itself has been.

    Raises:
        ConnectionFailed: The server was lost.
    """
    playout = PlayoutClock(prebuffer_ms=PREBUFFER_MS)
    dialogue = Dialogue(client, playout)
    await dialogue.start()
    session = _Session(dialogue, playout, Script(Room(seed)))
    session.card = PacedCard(
        session.script,
        playout,
        client.append,
        report=dialogue.report,
        on_block=session.on_block,
        block_ms=block_ms,
    )
    await until_first(dialogue.run(), session.card.run(), session.run(turns, add))
    return session.card


class _Session:
    """One dialogue with the server under test."""

    card: PacedCard

    def __init__(self, dialogue: Dialogue, playout: PlayoutClock, script: Script) -> None:
        self.dialogue = dialogue
        self.playout = playout
        self.script = script
        self.audible: dict[str, int] = {}  # response -> position of its first audible sample

    def on_block(self, heard: Int16Array, played: Int16Array) -> None:
        """Notes the first audible sample of every reply, and lets `until` look."""
        if played.any():
            begin = self.playout.position - len(played)
            for response_id in self.dialogue.replies.keys() - self.audible.keys():
                for span in self.playout.spans(response_id):
                    skip = max(span.position - begin, 0)
                    loud = first_audible(played[skip : max(span.position + span.samples - begin, 0)])
                    if loud is not None:
                        self.audible[response_id] = begin + skip + loud
                        break
        self.dialogue.touch()

    async def run(self, turns: Iterable[PlannedTurn], add: Callable[[TurnResult], None]) -> None:
        """Says every turn and hands over what came of it."""
        for turn in turns:
            await self.until_position(self.script.position + samples_in(turn.gap_ms, VOICE_RATE_HZ))
            said = await self.say(turn.utterance, turn.offset_samples)
            interruption = None
            if turn.interruption is not None and said.answer is not None:
                heard = self.audible[said.answer.response_id] + samples_in(INTERRUPT_AFTER_MS, VOICE_RATE_HZ)
                await self.until_position(heard)
                interruption = await self.say(turn.interruption, turn.offset_samples)
            await self.until_quiet()
            add(self.result(said))
            if interruption is not None:
                add(self.result(interruption, interrupted=said.answer))

    async def say(self, utterance: Utterance, offset_samples: int) -> _Said:
        """Says a turn and waits for its answer, 10 s at most."""
        self.script.say(np.zeros(offset_samples, dtype=np.int16))  # the room goes on under it
        said = _Said(utterance, self.script.say(utterance.pcm), set(self.dialogue.replies))
        heard_before = len(self.dialogue.transcripts)
        limit = said.end + samples_in(round(MISS_AFTER_MS), VOICE_RATE_HZ)
        await self.dialogue.until(lambda: self.answer_to(said) is not None or self.playout.position >= limit)
        said.answer = self.answer_to(said)
        said.transcript = " ".join(self.dialogue.transcripts[heard_before:])
        return said

    async def until_position(self, position: int) -> None:
        """Until the clock has come to a position."""
        await self.dialogue.until(lambda: self.script.position >= position)

    async def until_quiet(self) -> None:
        """Until nobody speaks and all is played; gives up after 30 s, as a caller would."""
        give_up = self.script.position + samples_in(QUIET_TIMEOUT_MS, VOICE_RATE_HZ)
        await self.dialogue.until(lambda: self.dialogue.quiet or self.script.position >= give_up)

    def answer_to(self, said: _Said) -> Reply | None:
        """The reply to a turn: the first begun since whose first audible sample comes after the end of speech."""
        new = (key for key in self.dialogue.replies if key not in said.replies_before)
        answers = (key for key in new if self.audible.get(key, -1) > said.end)
        return next((self.dialogue.replies[key] for key in answers), None)

    def result(self, said: _Said, *, interrupted: Reply | None = None) -> TurnResult:
        """What came of a turn."""
        utterance, answer = said.utterance, said.answer
        begin, pause = said.start + utterance.speech_start, utterance.pause
        early = [
            position
            for key, position in self.audible.items()
            if key not in said.replies_before and begin <= position <= said.end
        ]
        in_pause = [] if pause is None else [position for position in early if position >= said.start + pause[0]]
        result = TurnResult(
            kind="interruption" if interrupted else "paused" if pause else "plain",
            text=utterance.text,
            transcript=said.transcript,
            pauses=int(pause is not None),
            takeovers=int(bool(in_pause)),
            cut_ins=len(early) - len(in_pause),
            stop_ms=None if interrupted is None else self.stop_ms(said, interrupted),
            ended_s=round(self.card.started_s + said.end / VOICE_RATE_HZ, 4),
        )
        if answer is None:
            return result
        first_played = self.audible[answer.response_id]
        onset = onset_of(answer, self.card, speech_end=said.end, first_played=first_played)
        spans = self.playout.spans(answer.response_id)
        gaps = [after.position - before.position - before.samples for before, after in itertools.pairwise(spans)]
        return replace(
            result,
            reply=answer.text,
            status=answer.status,
            onset_ms=round(onset.onset_ms, 2),
            stages_ms={name: round(ms, 2) for name, ms in onset.stages_ms.items()},
            unaccounted_ms=round(onset.unaccounted_ms, 2),
            underruns=len(gaps),
            played_ms=_ms(sum(span.samples for span in spans)),
            gaps_ms=[_ms(gap) for gap in gaps],
        )

    def stop_ms(self, said: _Said, reply: Reply) -> float | None:
        """First speech sample of an interruption to the last sample played of the reply; None if that had ended."""
        last = self.playout.spans(reply.response_id)[-1]
        end = last.position + last.samples - 1
        begin = said.start + said.utterance.speech_start
        whole = reply.status == "completed" and self.playout.played_samples(reply.response_id) >= reply.audio_samples
        return None if whole or end < begin else _ms(end - begin)


def _ms(samples: int) -> float:
    return round(samples * 1000 / VOICE_RATE_HZ, 2)


@dataclass(slots=True)
class _Said:
    """A turn that was said: from which position on, which replies there had been, and what came of it."""

    utterance: Utterance
    start: int
    replies_before: set[str]
    answer: Reply | None = None
    transcript: str = ""

    @property
    def end(self) -> int:
        """Position of its last speech sample."""
        return self.start + self.utterance.speech_end


def report(path: str, results: Sequence[TurnResult], *, turns: int, seed: int, url: str | None) -> dict[str, Any]:
    """The JSON of the benchmark: machine, configuration, results."""
    return {
        "machine": machine(),
        "config": {
            "relay": relay.__version__,
            "turns": turns,
            "seed": seed,
            "server": url or "a process of its own on this machine",
            "block_ms": BLOCK_MS,
            "prebuffer_ms": PREBUFFER_MS,
            "room_noise_dbfs": ROOM_NOISE_DBFS,
            "audible_dbfs": AUDIBLE_DBFS,
            "miss_after_ms": MISS_AFTER_MS,
            "turns_per_session": TURNS_PER_SESSION,
        },
        "results": [summarise(path, results)],
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

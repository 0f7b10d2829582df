"""The caller of the benchmarks: speaks labelled turns into a real session, and knows what was heard of the answers.

Input and output are paced like one sound card (`PacedCard`); room noise runs all the time. What was said and what
sounded are positions on that one clock.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from relay.audio import VOICE_RATE_HZ, Int16Array, samples_in
from relay.client.dialogue import Dialogue, Reply, until_first
from relay.client.duplex import PacedCard, Room, Script
from relay.client.playout import PlayoutClock
from relay.client.realtime import Client, connect
from relay.client.timing import first_audible
from relay_benchmarks.corpus import Utterance

BLOCK_MS = 10
PREBUFFER_MS = 20
QUIET_TIMEOUT_MS = 30_000
TURNS_PER_SESSION = 5
Planned = TypeVar("Planned")


@dataclass(slots=True)
class Said:
    """A turn that was said: from which position on, which replies there had been, and what came of it."""

    utterance: Utterance
    start: int
    replies_before: set[str]
    answer: Reply | None = None
    transcript: str = ""

    @property
    def begin(self) -> int:
        """Position of its first speech sample."""
        return self.start + self.utterance.speech_start

    @property
    def end(self) -> int:
        """Position of its last speech sample."""
        return self.start + self.utterance.speech_end

    @property
    def pause(self) -> int | None:
        """Position at which its pause begins, if it has one."""
        return None if self.utterance.pause is None else self.start + self.utterance.pause[0]


class Caller:
    """One dialogue with the server under test; see `call`.

    Attributes:
        audible: By response, the position of its first audible sample.
    """

    card: PacedCard

    def __init__(self, dialogue: Dialogue, playout: PlayoutClock, script: Script) -> None:
        self.dialogue = dialogue
        self.playout = playout
        self.script = script
        self.audible: dict[str, int] = {}

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

    async def say(self, utterance: Utterance, offset_samples: int, *, wait_ms: float) -> Said:
        """Says a turn, `offset_samples` of room noise before it, and waits for its answer, `wait_ms` at most."""
        said = self.begin_saying(utterance, offset_samples)
        heard_before = len(self.dialogue.transcripts)
        limit = said.end + samples_in(round(wait_ms), VOICE_RATE_HZ)
        await self.dialogue.until(lambda: self.answer_to(said) is not None or self.playout.position >= limit)
        said.answer = self.answer_to(said)
        said.transcript = " ".join(self.dialogue.transcripts[heard_before:])
        return said

    def begin_saying(self, utterance: Utterance, offset_samples: int) -> Said:
        """Says a turn, and waits for nothing."""
        self.script.say(np.zeros(offset_samples, dtype=np.int16))  # the room goes on under it
        return Said(utterance, self.script.say(utterance.pcm), set(self.dialogue.replies))

    async def until_after(self, position: int, ms: int) -> None:
        """Until the clock has come so far beyond a position."""
        target = position + samples_in(ms, VOICE_RATE_HZ)
        await self.dialogue.until(lambda: self.script.position >= target)

    async def until_quiet(self) -> None:
        """Until nobody speaks and all is played; gives up after 30 s, as a caller would."""
        give_up = self.script.position + samples_in(QUIET_TIMEOUT_MS, VOICE_RATE_HZ)
        await self.dialogue.until(
            lambda: (self.script.silent and self.dialogue.quiet) or self.script.position >= give_up
        )

    def answer_to(self, said: Said) -> Reply | None:
        """The reply to a turn: the first begun since whose first audible sample comes after the end of speech."""
        new = (key for key in self.dialogue.replies if key not in said.replies_before)
        answers = (key for key in new if self.audible.get(key, -1) > said.end)
        return next((self.dialogue.replies[key] for key in answers), None)

    def early_replies(self, said: Said) -> list[tuple[str, int]]:
        """Replies that became audible while a turn was being said, and where."""
        new = ((key, at) for key, at in self.audible.items() if key not in said.replies_before)
        return [(key, at) for key, at in new if said.begin <= at <= said.end]

    def last_played(self, reply: Reply) -> int:
        """Position of the last sample that was played of a reply that has sounded."""
        last = self.playout.spans(reply.response_id)[-1]
        return last.position + last.samples - 1

    def held_ms(self, reply: Reply, since: int) -> float:
        """How long a reply fell silent between samples that were played of it after a position."""
        spans = [span for span in self.playout.spans(reply.response_id) if span.position + span.samples > since]
        return as_ms(sum(after.position - before.position - before.samples for before, after in pairwise(spans)))

    def was_whole(self, reply: Reply) -> bool:
        """Whether a reply was made and played to its end."""
        return reply.status == "completed" and self.playout.played_samples(reply.response_id) >= reply.audio_samples

    def stop_ms(self, said: Said, reply: Reply) -> float | None:
        """First speech sample of an interruption to the last sample played of the reply; None if that had ended."""
        overlap = self.last_played(reply) - said.begin
        return None if self.was_whole(reply) or overlap < 0 else as_ms(overlap)


def as_ms(samples: int) -> float:
    """Samples played, in milliseconds."""
    return round(samples * 1000 / VOICE_RATE_HZ, 2)


async def call(
    url: str, work: Callable[[Caller], Coroutine[Any, Any, None]], *, api_key: str | None, room_seed: int
) -> None:
    """Opens a session, and lets `work` hold a dialogue with it.

    Args:
        url: The server.
        work: Gets the caller; the session ends with it.
        api_key: Presented to the server.
        room_seed: Of the room noise.

    Raises:
        ConnectionFailed: The server cannot be reached or was lost.
    """
    async with connect(url, api_key=api_key) as client:
        await converse(client, work, room_seed=room_seed)


async def converse(
    client: Client,
    work: Callable[[Caller], Coroutine[Any, Any, None]],
    *,
    room_seed: int,
    block_ms: int = BLOCK_MS,
) -> PacedCard:
    """Lets `work` hold a dialogue in a session that is open.

    Args:
        client: The session.
        work: Gets the caller.
        room_seed: Of the room noise.
        block_ms: How much audio the client sends at once.

    Returns:
        The clock it was held on, which knows how late this client itself has been.

    Raises:
        ConnectionFailed: The server was lost.
    """
    playout = PlayoutClock(prebuffer_ms=PREBUFFER_MS)
    dialogue = Dialogue(client, playout)
    await dialogue.start()
    caller = Caller(dialogue, playout, Script(Room(room_seed)))
    caller.card = PacedCard(
        caller.script,
        playout,
        client.append,
        report=dialogue.report,
        on_block=caller.on_block,
        block_ms=block_ms,
    )
    await until_first(dialogue.run(), caller.card.run(), work(caller))
    return caller.card


def sessions_of(
    paths: Sequence[str], planned: Sequence[Planned], seed: int
) -> Iterator[tuple[str, Sequence[Planned], int]]:
    """Which server is called next, what it is told, and the seed of its room.

    Every one gets all turns, five to a session. They take turns, and another one begins each time: whatever else the
    machine is busy with hits all of them alike.
    """
    for block, at in enumerate(range(0, len(planned), TURNS_PER_SESSION)):
        for place in range(len(paths)):
            yield paths[(block + place) % len(paths)], planned[at : at + TURNS_PER_SESSION], seed + at

"""Does the server take its own voice for the user's? Replies are played into simulated rooms and heard back.

Nothing here runs in real time, and nothing is heard by a recogniser: whether a reply is interrupted is decided by the
server's own detector, endpointing and turn machine, which hear the microphone after the client's echo control.

A room is a direct path and a diffuse tail that decays exponentially (Polack 1988; Moorer 1979), behind the delay of a
sound card and a loudspeaker that saturates gently. The echo's level is that of the reply, lowered by so many decibels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from relay.audio import VOICE_RATE_HZ, Int16Array, samples_in
from relay.client.duplex import Room
from relay.client.echo import EchoControl
from relay.endpoint import Endpointing, Started
from relay.stages.listen import Intake
from relay.turn import Policy, ReplyEnded, ResponseAsked, StopReply, TurnState, UserStarted, UserStopped, step
from relay_benchmarks.corpus import interruptions
from relay_benchmarks.espeak import Spoken, speak
from relay_benchmarks.summary import distribution, wilson_upper

FloatArray = npt.NDArray[np.float64]

REPLIES = (
    "Of course, I can help you with that. There are three restaurants near the river, and two are open tonight.",
    "The next train to Cambridge leaves at half past nine. It takes about an hour, and you do not need to change.",
    "I have found a room for three nights from Friday. Breakfast is included, and parking is free.",
    "The museum opens at ten in the morning and closes at five. On Mondays it is closed all day.",
    "It will be cloudy this afternoon, with some rain in the evening. You may want to take an umbrella.",
    "A taxi to the station takes about twenty minutes. Shall I book one for you?",
    "I am sorry to hear that. Would you like me to look for a later meeting?",
    "You can pay by card or in cash. A receipt will be sent to your address.",
    "Yes, the city centre is only ten minutes away on foot. Go straight on and turn left at the bridge.",
    "That sounds good. I have booked the table for two people, and I have sent you the number.",
)
REPLIES_A_ROOM = 10
USERS = 20
BLOCK_MS = 20
BLOCK_SAMPLES = samples_in(BLOCK_MS, VOICE_RATE_HZ)
GAP_MS = 1200
TAIL_MS = 400
NOISE_DBFS = -60.0
T60_S = (0.2, 0.7)
DIRECT_DB = (-3.0, 12.0)
DELAY_MS = (10, 160)
SATURATION = 0.8


@dataclass(frozen=True, slots=True)
class Scene:
    """One reply in a room, and perhaps an interruption.

    Attributes:
        reply: [samples] int16, 24 kHz: what is played.
        heard: [samples] int16: what the microphone picks up of it, and of the room and the user.
        user_start: First sample of the user's speech; None: nobody interrupts.
    """

    reply: Int16Array
    heard: Int16Array
    user_start: int | None


def room_response(rng: np.random.Generator) -> FloatArray:
    """[taps] impulse response from loudspeaker to microphone, at 24 kHz, of a room drawn at random.

    Its reverberation time is 0.2 to 0.7 s, its direct path -3 to 12 dB above the diffuse sound, its delay, with that of
    the sound card, 10 to 160 ms.
    """
    delay = samples_in(int(rng.integers(*DELAY_MS)), VOICE_RATE_HZ)
    t60_s = rng.uniform(*T60_S)
    times_s = np.arange(1, int(t60_s * VOICE_RATE_HZ)) / VOICE_RATE_HZ
    tail = rng.standard_normal(len(times_s)) * np.exp(-math.log(1000.0) * times_s / t60_s)
    tail *= 10.0 ** (-rng.uniform(*DIRECT_DB) / 20.0) / np.linalg.norm(tail)
    return np.concatenate((np.zeros(delay), [1.0], tail))


def echo_of(reply: Int16Array, response: FloatArray, level_db: float) -> FloatArray:
    """[samples + taps - 1] what the microphone picks up of a reply, `level_db` above the reply's own level."""
    loud = np.tanh(reply / 32768.0 / SATURATION)
    size = 1 << (len(loud) + len(response) - 2).bit_length()
    echo = np.fft.irfft(np.fft.rfft(loud, size) * np.fft.rfft(response, size), size)[: len(loud) + len(response) - 1]
    energy = np.sqrt(np.sum((reply / 32768.0) ** 2) / np.sum(echo**2))
    return np.asarray(echo * energy * 10.0 ** (level_db / 20.0) * 32768.0)


def scenes(
    replies: Sequence[Int16Array],
    users: Sequence[Int16Array],
    *,
    count: int,
    echo_db: float,
    user_db: float | None,
    echo_is_heard: bool = True,
    seed: int,
) -> Iterator[list[Scene]]:
    """Rooms of ten replies each.

    Args:
        replies: What the server says, in its own voice.
        users: What its users say.
        count: Replies in all.
        echo_db: Level of the echo, relative to the reply played.
        user_db: Level of the user, relative to the echo; None: nobody speaks.
        echo_is_heard: False leaves the echo out, and all else as it is.
        seed: Of rooms and times.
    """
    rng = np.random.default_rng([seed, 2])
    noise = Room(seed, NOISE_DBFS)
    for first in range(0, count, REPLIES_A_ROOM):
        response = room_response(rng)
        numbers = range(first, min(first + REPLIES_A_ROOM, count))
        room = []
        for reply, user in ((replies[n % len(replies)], users[n % len(users)]) for n in numbers):
            echo = echo_of(reply, response, echo_db)
            start = None
            said = np.zeros(0)
            if user_db is not None:
                start = int(rng.integers(len(reply) // 5, len(reply) * 3 // 5))
                level = np.sqrt(np.mean(echo[: len(reply)] ** 2) / np.mean(user.astype(np.float64) ** 2))
                said = user * level * 10.0 ** (user_db / 20.0)
            room.append(_scene(reply, echo * echo_is_heard, said, start, noise))
        yield room


def _scene(reply: Int16Array, echo: FloatArray, said: FloatArray, start: int | None, noise: Room) -> Scene:
    samples = -(-(len(reply) + samples_in(TAIL_MS, VOICE_RATE_HZ)) // BLOCK_SAMPLES) * BLOCK_SAMPLES
    played = np.zeros(samples, dtype=np.int16)
    played[: len(reply)] = reply
    heard = noise.read(samples).astype(np.float64)
    heard[: len(echo)] += echo[:samples]
    if start is not None:
        heard[start : start + len(said)] += said[: samples - start]
    return Scene(played, np.clip(np.rint(heard), -32768, 32767).astype(np.int16), start)


@dataclass(frozen=True, slots=True)
class Barge:
    """What became of one reply.

    Attributes:
        user_start: First sample of the user's speech; None: nobody spoke.
        at: Samples after which the reply was interrupted; None: it was not.
    """

    user_start: int | None
    at: int | None

    @property
    def is_false(self) -> bool:
        """Whether it was interrupted although nobody had spoken."""
        return self.at is not None and (self.user_start is None or self.at <= self.user_start)

    @property
    def delay_ms(self) -> float | None:
        """From the user's first sample to the interruption; None if there was none, or a false one."""
        if self.at is None or self.user_start is None or self.is_false:
            return None
        return (self.at - self.user_start) * 1000 / VOICE_RATE_HZ


class Listener:
    """The server's own ears for turns: what arrives, and whether it interrupts."""

    def __init__(self) -> None:
        self._intake = Intake("pcm16", Endpointing())
        self._state = TurnState()
        self._policy = Policy()

    def reply(self) -> None:
        """A reply gets the floor."""
        self._state, _ = step(self._state, ResponseAsked(), self._policy)

    def hear(self, pcm: Int16Array) -> bool:
        """Takes [samples] int16, 24 kHz; whether the user's voice has taken the floor from the reply."""
        stopped = False
        for found in self._intake.push(pcm.tobytes()):
            if isinstance(found, Started):
                self._state, actions = step(self._state, UserStarted(), self._policy)
                stopped |= any(isinstance(action, StopReply) and action.barge_in for action in actions)
        return stopped

    def settle(self) -> None:
        """The reply and what was said are over."""
        if self._state.floor is not None:
            self._state, _ = step(self._state, ReplyEnded(self._state.floor), self._policy)
        self._intake.clear()
        self._state, _ = step(self._state, UserStopped(discarded=True), self._policy)


def barge_ins(rooms: Iterator[list[Scene]], control: Callable[[], EchoControl], seed: int) -> Iterator[Barge]:
    """Plays every reply until it is over or interrupted, each room with an echo control of its own.

    Args:
        rooms: Scenes, in the order in which a room's are heard.
        control: Makes an echo control.
        seed: Of the room noise between two replies.
    """
    quiet = np.zeros(BLOCK_SAMPLES, dtype=np.int16)
    for room in rooms:
        cleaner, listener, noise = control(), Listener(), Room(seed + 1, NOISE_DBFS)
        for scene in room:
            listener.reply()
            at = None
            for begin in range(0, len(scene.reply), BLOCK_SAMPLES):
                block = slice(begin, begin + BLOCK_SAMPLES)
                if listener.hear(cleaner.step(scene.heard[block], scene.reply[block])):
                    at = begin + BLOCK_SAMPLES
                    break
            for _ in range(GAP_MS // BLOCK_MS):
                listener.hear(cleaner.step(noise.read(BLOCK_SAMPLES), quiet))
            listener.settle()
            yield Barge(scene.user_start, at)


def summarise(barges: Sequence[Barge]) -> dict[str, Any]:
    """Counts and delays of one control in one condition; the rate's bound is Wilson's, at 95 %."""
    false = sum(barge.is_false for barge in barges)
    delays_ms = [barge.delay_ms for barge in barges if barge.delay_ms is not None]
    summary: dict[str, Any] = {
        "replies": len(barges),
        "false_barge_ins": false,
        "false_rate": round(false / len(barges), 4),
        "false_rate_at_most": round(wilson_upper(false, len(barges)), 4),
    }
    if any(barge.user_start is not None for barge in barges):
        detected = {"detected": len(delays_ms), "detected_rate": round(len(delays_ms) / len(barges), 4)}
        summary |= detected | {"delay_ms": distribution(delays_ms)}
    return summary


def voices() -> tuple[list[Int16Array], list[Int16Array]]:
    """What the server says, in its baseline voice, and what users break in with. Raises EngineUnavailable."""
    replies = speak([Spoken(text) for text in REPLIES])
    return replies, [utterance.pcm for utterance in interruptions(USERS, seed=0)]

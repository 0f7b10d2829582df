"""What the benchmark's users say: requests and small talk, with the place of every word's edge that a label needs.

Everything is synthesised when it is needed, by eSpeak NG in several voices and rates; nothing recorded of anybody. The
first and last sample of speech are found in the synthesiser's own output, before any noise, by `speech_bounds`: the
first and last frame of 10 ms within 35 dB of the loudest.

    python -m relay_benchmarks.corpus     # makes relay/assets/question.wav again
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from relay.audio import VOICE_RATE_HZ, Int16Array, samples_in
from relay.client.duplex import Room
from relay.client.files import write_wav
from relay.client.timing import speech_bounds
from relay_benchmarks.espeak import Spoken, speak

VOICES = ("en-us", "en-us+m3", "en-us+edward", "en-us+michael", "en-us+f2", "en-gb-x-rp")
RATES = (145, 160, 175)
PITCHES = (40, 50, 60)
PEAK = 0.5
PAUSED_SHARE = 1 / 3
PAUSE_MS = (300, 1500)

# A bar marks where a speaker may stop to think.
TURNS = (
    "can you help me find | a restaurant",
    "I would like to book a table | for two people tonight",
    "is there a train | to Cambridge on Sunday morning",
    "I need a cheap hotel | with free parking",
    "what time does | the museum open",
    "please find me a taxi | to the train station",
    "do you know a good place | to eat Italian food",
    "I am looking for | something to do this afternoon",
    "how much is a ticket | to London",
    "could you tell me | the phone number and the address",
    "I want to leave | after five o'clock",
    "we need a room | for three nights from Friday",
    "what is the weather | like today",
    "how are you | doing this morning",
    "my train was late | and I missed the meeting",
    "tell me something | about yourself",
    "I have a question | about my bill",
    "is it far | from the city centre",
    "can I pay | with a credit card",
    "that sounds good | please book it for me",
)
INTERRUPTIONS = (
    "wait I meant tomorrow",
    "sorry can you say that again",
    "no hold on please",
    "actually I want something else",
    "stop that is not what I asked",
)
# What listeners say while the other speaks on: eSpeak says them as words, in 0.4 to 0.8 s.
BACKCHANNELS = ("mm hmm", "uh-huh", "yeah", "right", "okay", "I see")
QUESTION = Spoken("can you help me find a restaurant", "en-us", 150, 50)


@dataclass(frozen=True, slots=True)
class Utterance:
    """One labelled turn, without noise.

    Attributes:
        text: What is said.
        pcm: [samples] int16, 24 kHz.
        speech_start: First sample of speech.
        speech_end: Last sample of speech.
        pause: First and one past the last sample of the pause in the middle, if there is one.
    """

    text: str
    pcm: Int16Array
    speech_start: int
    speech_end: int
    pause: tuple[int, int] | None = None


def utterances(count: int, seed: int, *, paused_share: float = PAUSED_SHARE) -> list[Utterance]:
    """That many turns, a share of them with a pause of 0.3 to 1.5 s; the same for the same seed.

    Raises:
        EngineUnavailable: eSpeak NG cannot run.
    """
    rng = np.random.default_rng([seed, 0])
    texts = [TURNS[i % len(TURNS)] for i in _shuffled(count, len(TURNS), rng)]
    paused = rng.permutation(count) < round(count * paused_share)
    parts = [
        text.split(" | ") if is_paused else [text.replace(" | ", " ")]
        for text, is_paused in zip(texts, paused, strict=True)
    ]
    speakers = [_speaker(rng) for _ in texts]
    audio = iter(speak([Spoken(part, *who) for who, both in zip(speakers, parts, strict=True) for part in both]))
    made = []
    for both in parts:
        pause = int(rng.integers(*PAUSE_MS)) if len(both) > 1 else 0
        made.append(_utterance(both, [next(audio) for _ in both], pause))
    return made


def interruptions(count: int, seed: int) -> list[Utterance]:
    """That many short turns to break into a reply with. Raises EngineUnavailable."""
    return _short(INTERRUPTIONS, count, np.random.default_rng([seed, 1]))


def backchannels(count: int, seed: int) -> list[Utterance]:
    """That many sounds of somebody who listens and wants no turn. Raises EngineUnavailable."""
    return _short(BACKCHANNELS, count, np.random.default_rng([seed, 3]))


def _short(choices: tuple[str, ...], count: int, rng: np.random.Generator) -> list[Utterance]:
    texts = [choices[i] for i in _shuffled(count, len(choices), rng)]
    audio = speak([Spoken(text, *_speaker(rng)) for text in texts])
    return [_utterance([text], [pcm], 0) for text, pcm in zip(texts, audio, strict=True)]


def _shuffled(count: int, choices: int, rng: np.random.Generator) -> list[int]:
    """Indices in random order, each as often as the others."""
    rounds = [rng.permutation(choices) for _ in range(-(-count // choices))]
    return [int(i) for i in np.concatenate(rounds)[:count]] if rounds else []


def _speaker(rng: np.random.Generator) -> tuple[str, int, int]:
    return str(rng.choice(VOICES)), int(rng.choice(RATES)), int(rng.choice(PITCHES))


def _utterance(texts: list[str], parts: list[Int16Array], pause_ms: int) -> Utterance:
    """Joins one part, or two with silence between, and labels them."""
    trimmed = []
    for pcm in parts:
        first, last = speech_bounds(pcm)
        trimmed.append(pcm[first : last + 1].astype(np.float64))
    peak = max(np.abs(part).max() for part in trimmed)
    scaled = [np.rint(part * (PEAK * 32767 / peak)).astype(np.int16) for part in trimmed]
    pause = None
    if len(scaled) > 1:
        pause = (len(scaled[0]), len(scaled[0]) + samples_in(pause_ms, VOICE_RATE_HZ))
        scaled.insert(1, np.zeros(pause[1] - pause[0], dtype=np.int16))
    pcm = np.concatenate(scaled)
    return Utterance(" ".join(texts), pcm, 0, len(pcm) - 1, pause)


def make_question(path: Path) -> None:
    """Writes the question that `relay demo` asks: 24 kHz mono, room noise around and under it."""
    question = _utterance([QUESTION.text], speak([QUESTION]), 0).pcm
    room = Room(seed=0)
    before, after = samples_in(400, VOICE_RATE_HZ), samples_in(400, VOICE_RATE_HZ)
    track = room.read(before + len(question) + after)
    track[before : before + len(question)] += question
    write_wav(path, track, VOICE_RATE_HZ)


if __name__ == "__main__":
    make_question(Path(__file__).parents[2] / "relay" / "assets" / "question.wav")

"""Spoken conversations of two on one clock, laid out and mixed: what a duplex model listens to and what it should do.

A written dialogue becomes a score of utterances with places in samples: gaps around 0 to 200 ms between turns, pauses
inside a turn that are not its end (0.3 to 1.5 s), backchannels while the other speaks, and turns of the assistant that
the user breaks off. The score is then mixed into what the user's microphone hears - the user in a room, the room's own
noise at all times, a little of the assistant's voice as echo - and what the assistant says. Everything follows from a
seed; nothing of it is stored.

Gaps and overlaps follow Stivers et al. 2009 (PNAS 106, "Universals and cultural variation in turn-taking") and Heldner
and Edlund 2010 (J. Phonetics 38): most gaps within 0 to 300 ms, pauses inside a turn longer than gaps between turns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Pcm = NDArray[np.int16]
RATE_HZ = 16_000
USER, ASSISTANT = 0, 1


class Kind(Enum):
    """What an utterance is in the conversation."""

    TURN = "turn"
    BACKCHANNEL = "backchannel"
    BARGE_IN = "barge_in"
    """A user's turn that begins while the assistant speaks, and ends its turn."""


@dataclass(frozen=True, slots=True)
class Habits:
    """How these two converse. Shares are probabilities for a turn.

    Attributes:
        gap_mean_s, gap_deviation_s: Silence between turns; never negative but for barge-ins.
        longest_gap_s: Bound of it.
        late_share: Assistant's turns that come late instead: a draft is asked for when the end of a turn is certain.
        late_s: Shortest and longest silence before those.
        paused_share: User's turns with a pause inside.
        pause_s: Shortest and longest such pause.
        backchannel_share: Long turns of one with a backchannel of the other.
        barge_in_share: Assistant's turns that the user breaks off.
        broken_off: Between which parts of its length.
        yield_s: Time the assistant takes to fall silent, from the start of the barge-in.
    """

    gap_mean_s: float = 0.12
    gap_deviation_s: float = 0.1
    longest_gap_s: float = 0.6
    late_share: float = 0.15
    late_s: tuple[float, float] = (0.3, 1.0)
    paused_share: float = 0.35
    pause_s: tuple[float, float] = (0.3, 1.5)
    backchannel_share: float = 0.25
    barge_in_share: float = 0.12
    broken_off: tuple[float, float] = (0.2, 0.6)
    yield_s: tuple[float, float] = (0.16, 0.4)


@dataclass(frozen=True, slots=True)
class Phrase:
    """Text and sound of a part of an utterance that is said without a pause.

    Attributes:
        text: What is said.
        first, last: Samples of the conversation; the last one not included.
        pcm: [last - first] int16 at 16 kHz.
    """

    text: str
    first: int
    last: int
    pcm: Pcm


@dataclass(frozen=True, slots=True)
class Utterance:
    """One thing that one of the two says.

    Attributes:
        speaker: `USER` or `ASSISTANT`.
        kind: See `Kind`.
        phrases: One, or two with a pause between.
        whole_text: What would have been said; more than is heard when it was broken off.
        broken_off: The other has ended it.
    """

    speaker: int
    kind: Kind
    phrases: tuple[Phrase, ...]
    whole_text: str
    broken_off: bool = False

    @property
    def first(self) -> int:
        """First sample."""
        return self.phrases[0].first

    @property
    def last(self) -> int:
        """One past the last sample."""
        return self.phrases[-1].last

    @property
    def text(self) -> str:
        """What is heard."""
        return " ".join(phrase.text for phrase in self.phrases if phrase.text)


@dataclass(frozen=True, slots=True)
class Score:
    """A conversation before it is mixed.

    Attributes:
        utterances: In the order in which they begin.
        samples: Length.
    """

    utterances: tuple[Utterance, ...]
    samples: int


class Say(Protocol):
    """Says a text in the voice of one of the two; the silence before and after speech is trimmed."""

    def __call__(self, text: str, speaker: int) -> Pcm | None:
        """[samples] int16 at 16 kHz; None when this text cannot be said."""


BACKCHANNELS = ("mm-hm", "uh-huh", "right", "yeah", "okay", "I see", "sure")
_LEAST_WORDS_TO_PAUSE = 5
_LEAST_S_FOR_BACKCHANNEL = 2.5


def split_at_pause(text: str, chance: np.random.Generator) -> tuple[str, str] | None:
    """Where a speaker may stop to think: at a comma in the middle, or before any word but the first two and last two.

    None when the text is too short for a pause.
    """
    tokens = text.split()
    if len(tokens) < _LEAST_WORDS_TO_PAUSE:
        return None
    inner = range(2, len(tokens) - 1)
    commas = [place for place in inner if tokens[place - 1].endswith((",", ";", "-"))]
    place = int(chance.choice(commas if commas and chance.random() < 0.6 else list(inner)))
    return " ".join(tokens[:place]), " ".join(tokens[place:])


def heard_part(text: str, share: float) -> str:
    """The words of a text that are out when a share of its sound is; letters stand for time."""
    limit = share * sum(len(word) for word in text.split())
    out, spent = [], 0
    for word in text.split():
        spent += len(word)
        if spent > limit:
            break
        out.append(word)
    return " ".join(out)


def faded(pcm: Pcm, samples: int, *, fade_samples: int = RATE_HZ // 50) -> Pcm:
    """The first `samples`, the end faded out over 20 ms, as a voice that stops and not one that is cut."""
    part = pcm[:samples].astype(np.float32)
    fade = min(fade_samples, len(part))
    if fade:
        part[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    return np.rint(part).astype(np.int16)


def arrange(
    turns: Sequence[tuple[int, str]], say: Say, habits: Habits, chance: np.random.Generator, *, lead_s: float = 0.6
) -> Score:
    """Lays a written dialogue out in time.

    Args:
        turns: (speaker, text), in order. A turn that cannot be said ends the conversation before it, and before the
            turn that it would have broken off.
        say: The two voices.
        habits: How they converse.
        chance: Decides all that is drawn.
        lead_s: Silence before the first turn; as much follows the last.
    """
    utterances: list[Utterance] = []
    now = round(lead_s * RATE_HZ)
    barging = False
    for number, (speaker, text) in enumerate(turns):
        phrases = _phrases(text, speaker, now, say, habits, chance)
        if phrases is None:
            if barging:  # nobody broke the last turn off after all
                utterances.pop()
            break
        turn = Utterance(speaker, Kind.BARGE_IN if barging else Kind.TURN, phrases, text)
        barging = False
        followed = number + 1 < len(turns) and turns[number + 1][0] == USER
        if speaker == ASSISTANT and followed and chance.random() < habits.barge_in_share:
            turn, now = _break_off(turn, habits, chance)
            barging = True
            utterances.append(turn)
            continue
        utterances.append(turn)
        if chance.random() < habits.backchannel_share:
            utterances += _backchannel(turn, say, chance)
        gap_s = float(np.clip(chance.normal(habits.gap_mean_s, habits.gap_deviation_s), 0, habits.longest_gap_s))
        if speaker == USER and chance.random() < habits.late_share:
            gap_s = float(chance.uniform(*habits.late_s))
        now = turn.last + round(gap_s * RATE_HZ)
    end = max((utterance.last for utterance in utterances), default=now) + round(lead_s * RATE_HZ)
    return Score(tuple(sorted(utterances, key=lambda utterance: utterance.first)), end)


def _phrases(
    text: str, speaker: int, first: int, say: Say, habits: Habits, chance: np.random.Generator
) -> tuple[Phrase, ...] | None:
    """A turn's sound from a sample on, perhaps with a pause inside."""
    parts: tuple[str, ...] = (text,)
    if speaker == USER and chance.random() < habits.paused_share:
        parts = split_at_pause(text, chance) or parts
    phrases: list[Phrase] = []
    for part in parts:
        pcm = say(part, speaker)
        if pcm is None or not len(pcm):
            return None
        if phrases:
            first = phrases[-1].last + round(chance.uniform(*habits.pause_s) * RATE_HZ)
        phrases.append(Phrase(part, first, first + len(pcm), pcm))
    return tuple(phrases)


def _break_off(turn: Utterance, habits: Habits, chance: np.random.Generator) -> tuple[Utterance, int]:
    """The turn as it is heard when the user begins to speak inside it, and the sample at which the user does."""
    whole = turn.phrases[0]
    begins = whole.first + round(chance.uniform(*habits.broken_off) * len(whole.pcm))
    silent = min(whole.last, begins + round(chance.uniform(*habits.yield_s) * RATE_HZ))
    pcm = faded(whole.pcm, silent - whole.first)
    text = heard_part(whole.text, len(pcm) / len(whole.pcm))
    heard = Phrase(text, whole.first, silent, pcm)
    return Utterance(turn.speaker, turn.kind, (heard,), turn.whole_text, broken_off=silent < whole.last), begins


def _backchannel(turn: Utterance, say: Say, chance: np.random.Generator) -> list[Utterance]:
    """A short sign of listening by the other, somewhere in the middle of a long phrase."""
    phrase = max(turn.phrases, key=lambda phrase: len(phrase.pcm))
    if len(phrase.pcm) < _LEAST_S_FOR_BACKCHANNEL * RATE_HZ:
        return []
    other = USER if turn.speaker == ASSISTANT else ASSISTANT
    text = str(chance.choice(BACKCHANNELS))
    pcm = say(text, other)
    if pcm is None or len(pcm) > len(phrase.pcm) // 2:
        return []
    first = phrase.first + round(chance.uniform(0.3, 0.5) * len(phrase.pcm))
    return [Utterance(other, Kind.BACKCHANNEL, (Phrase(text, first, first + len(pcm), pcm),), text)]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where the user sits. Levels are of root mean squares, in dB.

    Attributes:
        noise: Noise of the room, [samples] float32 with root mean square 1; repeated as often as is needed.
        noise_db: The noise below the user's speech.
        room: Response [samples] float32 from the user's mouth to the microphone, its direct sound first and 1.
        echo: Response from the loudspeaker to the microphone, likewise.
        echo_db: The assistant's voice at the microphone below the user's speech; None for a headset.
    """

    noise: NDArray[np.float32]
    noise_db: float
    room: NDArray[np.float32]
    echo: NDArray[np.float32]
    echo_db: float | None


def tracks(score: Score) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What user and assistant say, each on a track of its own: two of [samples] float32, full scale 1."""
    dry = np.zeros((2, score.samples), np.float32)
    for utterance in score.utterances:
        for phrase in utterance.phrases:
            dry[utterance.speaker, phrase.first : phrase.last] += phrase.pcm / np.float32(32768)
    return dry[USER], dry[ASSISTANT]


def microphone(score: Score, surroundings: Surroundings, *, peak: float = 0.5) -> Pcm:
    """What the user's microphone hears: [samples] int16, its loudest sample at `peak` of full scale.

    There is noise at every sample: a model that has met digital silence takes it for the sign that it may speak.
    """
    user, assistant = tracks(score)
    heard = _through(user, surroundings.room)
    level = _loudness(heard)
    if surroundings.echo_db is not None and assistant.any():
        echo = _through(assistant, surroundings.echo)
        heard = heard + echo * (level / _loudness(echo) * 10 ** (-surroundings.echo_db / 20))
    repeats = math.ceil(score.samples / len(surroundings.noise))
    noise = np.tile(surroundings.noise, repeats)[: score.samples]
    heard = heard + noise * (level * 10 ** (-surroundings.noise_db / 20))
    return np.rint(heard * (peak * 32767 / np.abs(heard).max())).astype(np.int16)


def _through(x: NDArray[np.float32], room: NDArray[np.float32]) -> NDArray[np.float32]:
    length = 1 << (len(x) + len(room) - 1).bit_length()
    spectrum = np.fft.rfft(x, length) * np.fft.rfft(room, length)
    y: NDArray[np.float32] = np.fft.irfft(spectrum, length)[: len(x)].astype(np.float32)
    return y


def _loudness(x: NDArray[np.float32]) -> float:
    """Root mean square of the samples at which somebody speaks; 0.05 when nobody does."""
    loud = x[np.abs(x) > 1e-3]
    return float(np.sqrt(np.square(loud).mean())) if len(loud) else 0.05


class Label(Enum):
    """What the duplex model should say at a frame besides words (RelayS2S, arXiv 2603.23346)."""

    SILENCE = "[SIL]"
    BEGIN = "[BOS]"
    END = "[EOS]"
    BACKCHANNEL = "[BOC]"
    STOP = "[STP]"


def frame_labels(score: Score, encode: Callable[[str], Sequence[int]], *, frame_samples: int) -> list[Label | int]:
    """What the assistant's side should say at each frame of the user's sound.

    A turn is `BEGIN`, its text's tokens one a frame, `END`; a backchannel `BACKCHANNEL`, text, `END`; `STOP` comes in
    the frame in which a barge-in has been heard for one frame, and takes the place of the text that was not out yet.
    Text runs ahead of its sound, since a frame holds a token and that is more than is said in it: a turn may be at its
    `END`, and be stopped later.

    Args:
        score: The conversation.
        encode: Text -> tokens.
        frame_samples: Samples of a frame.
    """
    count = -(-score.samples // frame_samples)
    labels: list[Label | int] = [Label.SILENCE] * count
    barge_ins = [u.first for u in score.utterances if u.kind is Kind.BARGE_IN]
    free = 0
    for utterance in score.utterances:
        if utterance.speaker != ASSISTANT:
            continue
        at = max(free, utterance.first // frame_samples)
        begin = Label.BACKCHANNEL if utterance.kind is Kind.BACKCHANNEL else Label.BEGIN
        spoken: list[Label | int] = [begin, *encode(utterance.whole_text), Label.END]
        if utterance.broken_off:
            stop = next(first for first in barge_ins if first >= utterance.first) // frame_samples + 1
            out = spoken[: max(1, stop - at)]
            spoken = [*out, *[Label.SILENCE] * (stop - at - len(out)), Label.STOP]
        for place, label in enumerate(spoken[: count - at], start=at):
            labels[place] = label
        free = min(count, at + len(spoken))
    return labels

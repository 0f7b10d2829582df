"""How the tests let a voice speak, whichever it is, and what every voice promises."""

from __future__ import annotations

from typing import Any

import numpy as np

from relay.audio import VOICE_RATE_HZ, Int16Array
from relay.engine.engine import Runner
from relay.engine.voice import SpokenWord, VoiceInput, VoiceOutput

Voice = Runner[VoiceInput, VoiceOutput]
LONGEST_PIECE_S = 20.0

ODD_TEXTS = [
    ("", False),
    (" \n ", False),
    ("...", False),
    ("— !? (...)", False),
    ("😀 🎉🎉 👍🏽", False),
    ("\x00\x01 \x02", False),
    ("Привет мир, как дела", True),
    ("你好世界", True),
    ("مرحبا بالعالم", True),
    ("a" * 10_000, True),
    ("1234567890" * 100, True),
    ("你" * 500, True),
    ("$%&@#!" * 200, True),
    ("<speak>&lt;b&gt; {x} [[h@'loU]] \\n", True),
    ("word " * 2000, True),
    ("😀" * 2000 + " well", True),
]
"""What a language model may write, and whether there is something to hear in it."""


def step(runner: Voice, slot: int, x: VoiceInput) -> VoiceOutput:
    (result,) = runner.step([slot], [x])
    assert isinstance(result, VoiceOutput), result
    return result


def say(runner: Voice, increments: list[str], *, slot: int = 0, speed: float = 1.0) -> list[VoiceOutput]:
    """Hands the increments over, one a step, then steps until the reply is spoken."""
    slots: dict[int, Any] = runner._slots  # type: ignore[attr-defined]  # what is open, in every voice here
    if slot not in slots:
        runner.open(slot)
    outputs = [step(runner, slot, VoiceInput(text, speed=speed)) for text in increments]
    outputs.append(step(runner, slot, VoiceInput("", final=True, speed=speed)))
    while not outputs[-1].final:
        outputs.append(step(runner, slot, VoiceInput("", speed=speed)))
    return outputs


def audio(outputs: list[VoiceOutput]) -> Int16Array:
    return np.concatenate([output.pcm for output in outputs])


def spoken(outputs: list[VoiceOutput]) -> list[SpokenWord]:
    return [word for output in outputs for word in output.words]


def check(outputs: list[VoiceOutput], text: str) -> None:
    """What every voice promises of a whole reply: all words, in order, each with the output in which it begins."""
    assert " ".join(word.text for word in spoken(outputs)) == " ".join(text.split())
    edges = [edge for word in spoken(outputs) for edge in (word.start_sample, word.end_sample)]
    assert edges == sorted(edges)
    position = 0
    for output in outputs:
        assert output.pcm.dtype == np.int16
        assert all(position <= word.start_sample <= position + len(output.pcm) for word in output.words)
        assert len(output.pcm) < LONGEST_PIECE_S * VOICE_RATE_HZ
        position += len(output.pcm)
    assert not edges or edges[-1] <= position
    assert [output.final for output in outputs] == [False] * (len(outputs) - 1) + [True]

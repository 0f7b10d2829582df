"""How the tests let a voice speak, whichever it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from relay.audio import Int16Array
from relay.engine.engine import Runner
from relay.engine.voice import SpokenWord, VoiceInput, VoiceOutput

Voice = Runner[VoiceInput, VoiceOutput]


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

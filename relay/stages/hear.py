"""Hear: speech of a turn -> its transcript, through the session's slots of noise suppression and recogniser."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from relay.audio import EARS_RATE_HZ, Int16Array, samples_in
from relay.channel import Channel
from relay.engine.ears import EarsInput, EarsOutput
from relay.engine.engine import Steps
from relay.errors import StageFailed
from relay_models.framing import FRAME_MS, LEAD_IN_SAMPLES

HEARD_S = 0.16
"""What was said is to be shown so soon after it came: before the next chunk of a recogniser is there."""
FINAL_S = 0.1
"""And how soon all of a turn is to be known: nothing is heard until then."""
BLOCK_SAMPLES = samples_in(FRAME_MS, EARS_RATE_HZ)
"""Audio is handed on by so many samples, counted from `LEAD_IN_SAMPLES` before a turn: just when it completes a frame
of a learned recogniser, so that nothing is known later for it. Every step less is time that the engine process has for
others: with gateways, about a quarter of a millisecond."""


@dataclass(frozen=True, slots=True)
class TurnAudio:
    """Audio of a turn.

    Attributes:
        turn_id: The turn.
        pcm: [samples] int16 at 16 kHz; may be empty.
        came_s: When its end was spoken, on the event loop's clock: for a client that sends ahead of real time, later
            than when it came.
        last: The turn ends with it.
        discarded: Nobody wants the turn's transcript; only with `last`.
    """

    turn_id: int
    pcm: Int16Array
    came_s: float
    last: bool = False
    discarded: bool = False


async def hear(
    inbox: Channel[TurnAudio],
    ears: Steps[EarsInput, EarsOutput],
    on_output: Callable[[int, EarsOutput], None],
    on_failure: Callable[[int, StageFailed], None],
    *,
    denoiser: Steps[EarsInput, Int16Array] | None = None,
    denoises: Callable[[], bool] = lambda: False,
) -> None:
    """Runs until the inbox is closed; `on_output` gets the partials and then the final output of every turn.

    A recogniser that fails loses the turn under way and gets a fresh slot for the next; `on_failure` is told when that
    turn ends, in place of a final output.

    Args:
        inbox: Audio of turns.
        ears: The recogniser.
        on_output: Told of the turn and what has been heard of it.
        on_failure: Told of a turn that was lost, and why.
        denoiser: Noise suppression, where the server has one.
        denoises: Asked at a turn's first audio: whether noise is suppressed in it.
    """
    lost: int | None = None
    turn_id: int | None = None
    cleans = False
    failure = StageFailed("ears", "")
    taken = 0
    held: TurnAudio | None = None  # the beginning of a block
    waiting: list[TurnAudio] = []
    while True:
        async with contextlib.AsyncExitStack() as slots:
            slot = await slots.enter_async_context(ears.slot())
            cleaning = None if denoiser is None else await slots.enter_async_context(denoiser.slot())
            while True:
                if not waiting:
                    try:
                        waiting.append(await inbox.get())
                    except StopAsyncIteration:
                        return
                waiting.extend(inbox.get_waiting())
                if held is not None and held.turn_id == waiting[0].turn_id:
                    # Not older for being held: nobody was kept waiting.
                    waiting[0] = replace(waiting[0], pcm=np.concatenate((held.pcm, waiting[0].pcm)))
                held = None
                item, waiting = _merge(waiting)
                if item.turn_id != turn_id:
                    turn_id, cleans, taken = item.turn_id, denoises(), LEAD_IN_SAMPLES
                if not item.last and not waiting and taken % BLOCK_SAMPLES + len(item.pcm) < BLOCK_SAMPLES:
                    held = item
                    continue
                taken += len(item.pcm)
                if item.turn_id != lost:
                    try:
                        pcm, due_s = item.pcm, item.came_s + (FINAL_S if item.last else HEARD_S)
                        if denoiser is not None and cleaning is not None and cleans:
                            pcm = await denoiser.step(cleaning, EarsInput(pcm, final=item.last), deadline_s=due_s)
                        output = await ears.step(slot, EarsInput(pcm, final=item.last), deadline_s=due_s)
                    except Exception as error:
                        lost, failure = item.turn_id, StageFailed("ears", f"the recogniser failed: {error}")
                        waiting.insert(0, TurnAudio(lost, item.pcm[:0], item.came_s, item.last, item.discarded))
                        break
                    if not item.discarded:
                        on_output(item.turn_id, output)
                elif item.last and not item.discarded:
                    on_failure(lost, failure)


def _merge(items: list[TurnAudio]) -> tuple[TurnAudio, list[TurnAudio]]:
    """All leading audio of one turn as one item, and the rest: what waited while the engine was busy is one step.

    It is as old as the first of it, so that who was kept waiting is heard before others; the end of a turn, as itself.
    """
    count = 1
    while not items[count - 1].last and count < len(items) and items[count].turn_id == items[0].turn_id:
        count += 1
    first, last = items[0], items[count - 1]
    pcm = np.concatenate([item.pcm for item in items[:count]])
    came_s = last.came_s if last.last else first.came_s
    return TurnAudio(last.turn_id, pcm, came_s, last.last, last.discarded), items[count:]

"""Draft: all that is heard and said -> the draft model's state; and from it, when asked, the first words of a reply."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from relay.audio import EARS_RATE_HZ
from relay.channel import Channel, ChannelFull
from relay.engine.draft import DRAFT_FRAME_SAMPLES, Draft, DraftEngine, DraftInput, DraftOutput, Signals
from relay.errors import StageFailed

_HEARD_S = DRAFT_FRAME_SAMPLES / EARS_RATE_HZ  # what was heard is to be taken in before the next frame is there
_DRAFTED_S = 0.05  # somebody waits in silence for the first words
_MAX_AUDIO_S = 4.0  # of audio that may wait: a model that is slower than real time hears gaps, and holds nobody up


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody waits for a draft of `words` words, an answer to what was heard with this confidence."""

    words: int
    answer: asyncio.Future[Draft]
    confidence: float = 0.0


Item: TypeAlias = DraftInput | Asked
Inbox: TypeAlias = Channel[Item]


def open_inbox() -> Inbox:
    """A queue for `follow`."""
    return Channel(int(_MAX_AUDIO_S * EARS_RATE_HZ), policy="error", weight=_weight)


def _weight(item: Item) -> int:
    return max(1, len(item.pcm)) if isinstance(item, DraftInput) else 1


def tell(inbox: Inbox, item: Item) -> None:
    """Puts what was heard, said or asked into the queue, now. When it is full, audio that waits in it is lost."""
    try:
        inbox.put_nowait(item)
    except ChannelFull:
        inbox.drop(lambda waiting: isinstance(waiting, DraftInput) and not waiting.words and not waiting.ended)
        with contextlib.suppress(ChannelFull):
            inbox.put_nowait(item)


async def draft(inbox: Inbox, words: int, confidence: float = 0.0) -> Draft:
    """The draft of a reply to what has been heard until now.

    Args:
        inbox: Of the task that follows the session.
        words: How many.
        confidence: How sure the recogniser is of what was heard; 0 if nobody knows.

    Raises:
        StageFailed: The draft model failed, or has no slot free.
    """
    answer: asyncio.Future[Draft] = asyncio.get_running_loop().create_future()
    tell(inbox, Asked(words, answer, confidence))
    return await answer


async def follow(inbox: Inbox, engine: DraftEngine, on_signals: Callable[[Signals], None] = lambda _: None) -> None:
    """Runs until the inbox is closed.

    A model that fails loses its history, so the draft that is asked for next is refused; then it is begun anew.

    Args:
        inbox: Of `open_inbox`.
        engine: The draft model.
        on_signals: Told after each step what the model makes of the newest frame that it has heard.
    """
    while True:
        items: list[Item] = []
        try:
            async with engine.slot() as slot:
                while True:
                    try:
                        items += [await inbox.get(), *inbox.get_waiting()]
                    except StopAsyncIteration:
                        return
                    while items:
                        output = await _take(items, engine, slot)
                        if output is not None and output.signals is not None:
                            on_signals(output.signals)
        except Exception as error:
            failure = StageFailed("draft", f"the draft model failed: {error}")
            asked = [item for item in items if isinstance(item, Asked)]
            for each in asked:
                _refuse(each, failure)
            if not asked and not await _refuse_next(inbox, failure):
                return


async def _take(items: list[Item], engine: DraftEngine, slot: int) -> DraftOutput | None:
    """Steps through what waits first, and then takes it off; audio that follows on audio is one step."""
    first, output = items[0], None
    now_s = asyncio.get_running_loop().time()
    if isinstance(first, Asked):
        if not first.answer.done():  # nobody may wait any more
            asked = DraftInput(np.empty(0, np.int16), draft_words=first.words, confidence=first.confidence)
            output = await engine.step(slot, asked, deadline_s=now_s + _DRAFTED_S)
            if output.draft is None:
                raise ValueError("it gave no draft")
            if not first.answer.done():
                first.answer.set_result(output.draft)
        del items[0]
        return output
    heard, last, count = [first.pcm], first, 1
    while count < len(items) and not last.words and not last.ended and isinstance(item := items[count], DraftInput):
        heard.append(item.pcm)
        last, count = item, count + 1
    told = DraftInput(np.concatenate(heard), last.words, last.ended, until_sample=last.until_sample)
    output = await engine.step(slot, told, deadline_s=now_s + _HEARD_S)
    del items[:count]
    return output


async def _refuse_next(inbox: Inbox, error: StageFailed) -> bool:
    """Waits until a draft is asked for, and refuses it. False when the inbox was closed before."""
    async for item in inbox:
        if isinstance(item, Asked):
            _refuse(item, error)
            return True
    return False


def _refuse(asked: Asked, error: StageFailed) -> None:
    if not asked.answer.done():
        asked.answer.set_exception(error)

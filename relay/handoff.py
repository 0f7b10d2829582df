"""The hand-off: two answers to one question begun at once, and the one stream of words that is made of them.

The slow path (the brain) and the fast path (draft, then verify) race. If the slow path's first words come first, it
answers alone: nothing could be won. If the draft is committed first, its words are the reply's beginning, and the slow
path is asked anew to continue them. A draft that is missing, late, doubtful or broken changes nothing: the slow path is
under way already. Like any dialogue with a brain, a hand-off is asked for a reply once at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from relay.brains import Dialogue
from relay.config import Path_
from relay.engine.draft import Draft
from relay.errors import BrainUnavailable, RelayError
from relay.events import Message, Piece, ToolOffer
from relay.metrics import StageClock
from relay.services import Fast
from relay.stages.draft import Inbox, draft
from relay.stages.verify import Verdict, verify

log = logging.getLogger(__name__)

Reason = Literal["late", "failed", "doubtful", "empty", "interrupted", "unasked"]

DRAFT_WORDS = 7
WHOLE_WORDS = 40
"""What is asked of a draft that is to be the whole reply (path `draft`)."""
ALONE_S = 2.0
"""How long such a draft is waited for."""
LATE_S = 6.0
"""When the slow path has not continued committed words by then, it is given up; with a voice, sooner (`hold`)."""
LOST = "sorry, I lost my train of thought. Please ask me again."
_NOT_FIRST = " \t\n,.;:!?…-\u2013\u2014"  # of a continuation whose first word stands by itself


@dataclass(frozen=True, slots=True)
class _Tried:
    """What the fast path came to: all drafted words, those to speak, the verifier's probability, or why not."""

    drafted: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    probability: float | None = None
    reason: Reason | None = None


class Handoff:
    """One reply's brain: a `Dialogue` that begins with the draft's words where it can.

    Args:
        dialogue: The slow path.
        fast: The fast path.
        inbox: Of the task that follows the session for it (`stages.draft.follow`).
        confidence: How sure the recogniser is of what is answered; 0 if nobody knows.
        count: Told how the draft fared: `committed`, or why not.
    """

    def __init__(
        self, dialogue: Dialogue, fast: Fast, inbox: Inbox, confidence: float, count: Callable[[str], None]
    ) -> None:
        self._dialogue = dialogue
        self._fast = fast
        self._inbox = inbox
        self._confidence = confidence
        self._count = count
        self._report: dict[str, Any] | None = None
        self._on_report: Callable[[dict[str, Any]], None] | None = None
        self._clock: StageClock | None = None
        self._hold_over = asyncio.Event()
        self.path: Path_ = "cascade"
        self.is_waiting = False
        """Words were committed, and the slow path has not continued them yet."""
        self.is_trying = False
        """A draft was asked for, and what becomes of it is not known yet."""

    def attach(self, on_report: Callable[[dict[str, Any]], None], clock: StageClock) -> None:
        """The reply that it makes has begun: `relay.draft` goes to `on_report` once, as soon as it is known."""
        self._on_report, self._clock = on_report, clock
        if self.path != "cascade":
            self._lap("draft", *(() if self.path == "draft" else ("verify",)))
        if self._report is not None:
            on_report(self._report)

    def detach(self) -> None:
        """The reply has ended, and is not held any longer."""
        self._on_report = self._clock = None

    def give_up(self) -> None:
        """The hold is used up: if the slow path has not continued by now, it need not any more."""
        self._hold_over.set()

    async def reply(
        self,
        messages: Sequence[Message],
        *,
        prefix: str = "",
        max_tokens: int | None = None,
        tools: ToolOffer | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """See `Dialogue.reply`. With tools to call or a prefix of its own, the slow path answers alone."""
        if prefix or tools is not None:
            slow = self._dialogue.reply(messages, prefix=prefix, max_tokens=max_tokens, tools=tools)
            async with aclosing(_closable(slow)) as alone:
                async for piece in alone:
                    yield piece
            return
        self.is_trying = True
        if self._fast.path == "draft":
            words = await self._alone()
            if words:
                yield " ".join(words)
                return
        async with aclosing(_closable(self._dialogue.reply(messages, max_tokens=max_tokens))) as alone:
            first = asyncio.ensure_future(_next(alone))
            try:
                words = () if self._fast.path == "draft" else await self._race(first)
                if not words:
                    if (begun := await first) is not None:
                        yield begun
                    async for piece in alone:
                        yield piece
                    return
            finally:
                await _end(first)
        async with aclosing(self._continued(messages, words, max_tokens)) as pieces:
            async for piece in pieces:
                yield piece

    # ---------------------------------------------------------------------------------------------------- the fast path

    async def _alone(self) -> tuple[str, ...]:
        """The words of a reply by the draft model alone; none if it has no answer, or none in time."""
        try:
            async with asyncio.timeout(ALONE_S):
                tried = await self._try(WHOLE_WORDS)
        except TimeoutError:
            tried = _Tried(reason="late")
        if tried.reason is None:
            self.path = "draft"
        self._tell(tried)
        return tried.words

    async def _race(self, first: asyncio.Future[Piece | None]) -> tuple[str, ...]:
        """The committed words; none if the slow path's first piece, or its failure, comes before them."""
        fast = asyncio.ensure_future(self._try(DRAFT_WORDS))
        both: set[asyncio.Future[Any]] = {first, fast}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end(fast)
        tried = _Tried(reason="late") if fast.cancelled() else fast.result()
        if tried.reason is None and first.done():
            tried = replace(tried, words=(), reason="late")
        if tried.reason is None:
            self.path = "relay"
        self._tell(tried)
        return tried.words

    async def _try(self, words: int) -> _Tried:
        """A draft and the verdict on it. Tells nothing and raises nothing."""
        made = Draft(())
        try:
            made = await draft(self._inbox, words, self._confidence)
            self._lap("draft")
            if self._fast.path == "draft":
                verdict = Verdict(made.words, None)
            else:
                verdict = await verify(made, self._confidence, self._fast.verifier)
                self._lap("verify")
        except RelayError as error:
            log.warning("no draft: %s", error)
            return _Tried(made.words, reason="failed")
        reason: Reason | None = None if verdict.words else "doubtful" if made.words else "empty"
        return _Tried(made.words, verdict.words, verdict.probability, reason)

    def _tell(self, tried: _Tried) -> None:
        self._count(tried.reason or "committed")
        shown = tried.words or tried.drafted
        self.is_trying = False
        self._report = report(" ".join(shown) or None, tried.probability, tried.reason)
        if self._on_report is not None:
            self._on_report(self._report)

    def _lap(self, *stages: str) -> None:
        if self._clock is not None:
            for stage in stages:
                self._clock.lap(stage)

    # ---------------------------------------------------------------------------------------------------- the slow path

    async def _continued(
        self, messages: Sequence[Message], words: Sequence[str], max_tokens: int | None
    ) -> AsyncGenerator[Piece, None]:
        """The committed words, and what the slow path adds. If it fails, the sentence is ended, and then it raises."""
        said = " ".join(words) + " "  # with the space the last word is whole, and is spoken now
        left = None if max_tokens is None else max(1, max_tokens - len(words))
        self.is_waiting = True
        try:
            yield said
            async with aclosing(_closable(self._dialogue.reply(messages, prefix=said, max_tokens=left))) as slow:
                begun = False
                while (piece := await (_next(slow) if begun else self._first_of(slow))) is not None:
                    if isinstance(piece, str) and not begun:
                        piece = continuation(piece)
                    if piece:
                        begun, self.is_waiting = True, False
                        yield piece
        except Exception:
            self.is_waiting = False
            yield f" {LOST} "  # the space behind makes its last word whole
            raise
        finally:
            self.is_waiting = False

    async def _first_of(self, slow: AsyncIterator[Piece]) -> Piece | None:
        """The next piece, if it comes before the hold is used up. Raises BrainUnavailable if it does not."""
        first = asyncio.ensure_future(_next(slow))
        over = asyncio.ensure_future(self._hold_over.wait())
        try:
            await asyncio.wait({first, over}, timeout=LATE_S, return_when=asyncio.FIRST_COMPLETED)
            if first.done():
                return first.result()
            raise BrainUnavailable("the language model did not continue in time; use a faster one, or --path cascade")
        finally:
            await _end(over)
            await _end(first)


def report(prefix: str | None = None, probability: float | None = None, reason: Reason | None = None) -> dict[str, Any]:
    """The fields of the `relay.draft` event: without a reason why not, the prefix was committed."""
    return {"prefix": prefix, "probability": probability, "committed": reason is None, "reason": reason}


def continuation(text: str) -> str:
    """A continuation without what cannot follow on words that are spoken already: their space, their punctuation."""
    return text.lstrip(_NOT_FIRST)


def _closable(stream: AsyncIterator[Piece]) -> AsyncGenerator[Piece, None]:
    return cast("AsyncGenerator[Piece, None]", stream)


async def _next(stream: AsyncIterator[Piece]) -> Piece | None:
    """The next piece; None at the end."""
    try:
        return await anext(stream)
    except StopAsyncIteration:
        return None


async def _end(work: asyncio.Future[Any]) -> None:
    """Cancels what still runs, and waits until it has ended, whatever it ends in."""
    work.cancel()
    if not work.done():
        await asyncio.wait([work])
    if not work.cancelled():
        work.exception()  # marks it as seen

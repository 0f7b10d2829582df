"""Speculation: the beginning of a reply, made unheard while the end of the user's turn is only likely.

The brain's first pieces and the voice's first audio are made and held. When the turn has ended and what is to be
answered is what was guessed, the reply is given both streams as if they began only now: it reads what is held at once,
then what follows. Nothing of a speculation reaches the client, the conversation or the counters of replies before.

With a fast path the brain's stream is a hand-off's: the draft is made and judged in the pause, and the committed words
go to the voice with the space that makes the last one whole, so that their first sound is held as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

from relay.audio import VOICE_RATE_HZ, samples_in
from relay.brains import Replies
from relay.engine.voice import VoiceInput, VoiceOutput
from relay.events import Piece
from relay.stages.listen import NO_AUDIO
from relay.stages.speak import Voice
from relay.stages.think import WordSplitter
from relay.wire.basis import Basis

log = logging.getLogger(__name__)

MAX_WORDS = 8
"""After so many words a speculation waits to be needed."""

_UNHEARD_S = 0.3  # nobody waits for it yet: the turn ends a while after it was likely to

MAX_SAMPLES = samples_in(1500, VOICE_RATE_HZ)
"""And after so much audio; what one step of the voice gives is not cut."""


class HeldVoice:
    """A voice that has begun before it is asked: `feed` it ahead, then use it as the voice that it stands before.

    What it is asked to say must begin with what it was fed. Held audio is given no sooner than the words that it says.

    Args:
        voice: The voice.
        slot: An open slot of it, which stays the caller's.
        speed: Speaking rate.
    """

    def __init__(self, voice: Voice, slot: int, speed: float) -> None:
        self._voice = voice
        self._slot = slot
        self._speed = speed
        self._one_step = asyncio.Lock()  # a step of `feed` may be under way when `step` is called
        self._held: deque[VoiceOutput] = deque()
        self._ended = False
        self._error: Exception | None = None
        self._uses = 0
        self._fed_words = self._given_words = self._said_words = 0
        self._unfed = ""
        self.held_samples = 0

    @property
    def has_failed(self) -> bool:
        """Whether the voice failed while it was fed."""
        return self._error is not None

    async def feed(self, words: Sequence[str], *, final: bool) -> None:
        """Speaks words ahead and holds the audio; nothing once `slot` was called. Does not raise what `step` raises."""
        async with self._one_step:
            if self._uses or self._error is not None:
                return
            text = "".join(words)
            self._fed_words += len(text.split())
            try:
                x, due_s = VoiceInput(text, final, self._speed), asyncio.get_running_loop().time() + _UNHEARD_S
                output = await self._voice.step(self._slot, x, deadline_s=due_s)
            except Exception as error:
                self._error = error
                return
            self._held.append(output)
            self.held_samples += len(output.pcm)

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[int]:
        """The slot that was fed, the first time; then fresh ones."""
        self._uses += 1
        if self._uses == 1:
            yield self._slot
        else:
            async with self._voice.slot() as slot:
                yield slot

    async def step(self, slot: int, x: VoiceInput, *, deadline_s: float = 0.0) -> VoiceOutput:
        """What is held, then what the voice makes. Raises what the voice raises."""
        if self._uses > 1:
            return await self._voice.step(slot, x, deadline_s=deadline_s)
        words = x.text.split()
        self._unfed += "".join(f" {word}" for word in words[max(self._fed_words - self._given_words, 0) :])
        self._given_words += len(words)
        if self._held:
            return self._next_held(all_given=x.final)
        async with self._one_step:
            if self._error is not None:
                raise self._error
            if self._held:
                return self._next_held(all_given=x.final)
            if self._ended or (self._given_words < self._fed_words and not x.final):
                return VoiceOutput(NO_AUDIO, final=x.final)
            text, self._unfed = self._unfed, ""
            return await self._voice.step(slot, replace(x, text=text), deadline_s=deadline_s)

    def _next_held(self, *, all_given: bool) -> VoiceOutput:
        output = self._held[0]
        if not all_given and self._said_words + len(output.words) > self._given_words:
            return VoiceOutput(NO_AUDIO)
        self._said_words += len(output.words)
        self._ended = output.final
        return replace(self._held.popleft(), final=output.final and all_given)


class Speculation:
    """A reply that may be wanted. It owns the brain's stream and a slot of the voice until its task has ended.

    Args:
        basis: What it is made from.
        dialogue: The session's side of the brain.
        voice: The voice; a speculation that finds no slot free ends.
        after: Tasks that use the dialogue now.
        spawn: Starts a task of the session.
    """

    def __init__(
        self,
        basis: Basis,
        dialogue: Replies,
        voice: Voice,
        *,
        after: Collection[asyncio.Task[None]],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self.basis = basis
        self._dialogue = dialogue
        self._engine = voice
        self._pieces: list[Piece] = []
        self._news = asyncio.Event()
        self._is_prepared = False
        self._stream: AsyncGenerator[Piece, None] | None = None
        self._voice: HeldVoice | None = None
        self._error: Exception | None = None
        self._reader: asyncio.Task[None] | None = None
        self.task = spawn(self._run(after))

    @property
    def voice(self) -> HeldVoice | None:
        """The voice of a reply that it becomes; None when that is written."""
        return self._voice

    def can_answer(self, basis: Basis) -> bool:
        """Whether a reply made from this would be the same: it has begun, nothing failed, and it was asked this."""
        has_failed = self._error is not None or (self._voice is not None and self._voice.has_failed)
        return self._stream is not None and not has_failed and not self.task.done() and self.basis.is_same(basis)

    def become(self, reply: asyncio.Task[None]) -> None:
        """A reply takes it over: the task that reads `pieces` and uses `voice`. All is freed when that has ended."""
        self._reader = reply
        reply.add_done_callback(lambda _: self.task.cancel())

    def drop(self) -> None:
        """Nobody needs it."""
        self.task.cancel()

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """The brain's stream from its beginning, for the reply that it has become. Raises what the brain raises."""
        at = 0
        while at < len(self._pieces) or not self._is_prepared:
            if at == len(self._pieces):
                self._news.clear()
                await self._news.wait()
                continue
            yield self._pieces[at]
            at += 1
        if self._error is not None:
            raise self._error
        assert self._stream is not None
        async for piece in self._stream:
            yield piece

    async def _run(self, after: Collection[asyncio.Task[None]]) -> None:
        """Prepares, and holds what that takes until it is cancelled."""
        if after:
            await asyncio.wait(after)
        basis = self.basis
        try:
            async with contextlib.AsyncExitStack() as held:
                if basis.speaks:
                    slot = await held.enter_async_context(self._engine.slot())
                    self._voice = HeldVoice(self._engine, slot, basis.speed)
                replying = self._dialogue.reply(basis.messages, max_tokens=basis.max_tokens, tools=basis.tools)
                self._stream = cast("AsyncGenerator[Piece, None]", replying)
                await held.enter_async_context(aclosing(self._stream))
                held.push_async_callback(self._until_read)
                await self._prepare(self._stream)
                await asyncio.Event().wait()
        except Exception as error:
            log.info("a reply could not be prepared: %s", error)

    async def _prepare(self, stream: AsyncIterator[Piece]) -> None:
        splitter = WordSplitter()
        count = 0
        try:
            async for piece in stream:
                self._pieces.append(piece)
                self._news.set()
                is_text = isinstance(piece, str)
                words = splitter.push(piece) if isinstance(piece, str) else splitter.end()
                count += len(words)
                if self._voice is not None and (words or not is_text):
                    await self._voice.feed(words, final=not is_text)
                # What follows the text, calls or the end, is left to the reply.
                if not is_text or count >= MAX_WORDS or self._has_enough_audio or self._reader is not None:
                    break
            else:
                if self._voice is not None:
                    await self._voice.feed(splitter.end(), final=True)
        except Exception as error:
            self._error = error
        finally:
            self._is_prepared = True
            self._news.set()

    @property
    def _has_enough_audio(self) -> bool:
        return self._voice is not None and (self._voice.has_failed or self._voice.held_samples >= MAX_SAMPLES)

    async def _until_read(self) -> None:
        """The reply's task may stand in the brain's stream: it is not closed under its feet."""
        if self._reader is not None:
            await asyncio.wait([self._reader])

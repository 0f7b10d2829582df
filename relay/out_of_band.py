"""Responses beside the conversation (`conversation: "none"`): side by side, each by itself, and nobody's turn."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from relay.audio import Format
from relay.errors import BadEvent, RelayError, shown
from relay.metrics import StageClock
from relay.reply import Reply
from relay.services import Services
from relay.wire.commands import ResponseParams
from relay.wire.realtime import RealtimeProtocol


class OutOfBand:
    """The out-of-band responses of one session. Speech does not interrupt them; a client cancels each by its id.

    Args:
        protocol: Says how many there may be.
        services: The voice, and the brain: each response opens a dialogue of its own.
        spawn: Starts a task of the session.
        settled: Waits until what was said before is recognised.
        flush: Lets the session's writer send what is queued.
        on_audio: Told of every piece of audio sent, with its format.
    """

    def __init__(
        self,
        protocol: RealtimeProtocol,
        services: Services,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        settled: Callable[[], Awaitable[None]],
        flush: Callable[[], None],
        on_audio: Callable[[bytes, Format], None],
    ) -> None:
        self._protocol = protocol
        self._services = services
        self._spawn = spawn
        self._settled = settled
        self._flush = flush
        self._on_audio = on_audio
        self._replies: dict[str, Reply] = {}

    def start(self, params: ResponseParams, event_id: str | None) -> None:
        """Begins a response; an error event says that there are too many."""
        try:
            response = self._protocol.begin_response(params)
        except BadEvent as error:
            self._protocol.error(error, event_id)
            return
        reply = Reply(
            0,
            response,
            StageClock(),
            reports_playback=False,
            lead_s=self._services.limits.playout_lead_s,
            flush=self._flush,
            on_audio=self._on_audio,
        )
        self._replies[response.id] = reply
        reply.task = self._spawn(self._run(reply))

    def cancel(self, response_id: str) -> bool:
        """Cancels a response; False if it is none of these."""
        reply = self._replies.pop(response_id, None)
        if reply is None:
            return False
        reply.stop(barge_in=False)
        self._services.metrics.replies.labels("cancelled").inc()
        self._flush()
        return True

    def stop(self) -> None:
        """Cancels all."""
        for response_id in list(self._replies):
            self.cancel(response_id)

    async def _run(self, reply: Reply) -> None:
        await self._settled()
        response = reply.response
        basis = response.basis()
        voice = self._services.voice if basis.speaks else None
        try:
            async with self._services.brain.dialogue() as dialogue:
                pieces = dialogue.reply(basis.messages, max_tokens=basis.max_tokens, tools=basis.tools)
                await reply.run(pieces, voice, apologise=False)
        except RelayError as error:
            reply.fail(error)
        self._replies.pop(response.id, None)
        metrics = self._services.metrics
        metrics.replies.labels("completed" if reply.error is None else "failed").inc()
        if reply.error is not None:
            metrics.errors.labels(shown(reply.error).code).inc()

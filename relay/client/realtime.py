"""The client's side of `/v1/realtime`: typed events in, verbs out, over one websocket.

Speaks `relay.v1` (binary audio) with Relay's own server and plain `realtime` (base64 audio) with any other that follows
the OpenAI Realtime API; both look the same to the caller.

    async with connect("ws://127.0.0.1:8000") as client:
        await client.update({"instructions": "Be brief."})
        await client.append(pcm)
        async for event in client:
            ...

A session ends with its connection. With `reconnect`, a lost one is opened again, and its settings and conversation are
restored; the iterator says so with `Reconnecting` and `Reconnected`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from relay.audio import RATE_HZ, Format, Int16Array, decode_bytes, encode_bytes
from relay.client import foreign
from relay.client.dial import Dial, Refused, line, realtime_url
from relay.client.restore import OF_THE_MOMENT, Memory
from relay.errors import ConnectionFailed, UsageError
from relay.wire import client_events as ask
from relay.wire import response_events as reply_events
from relay.wire import server_events as got
from relay.wire.binary import decode_audio
from relay.wire.types import AudioFormat, MessageItem, SessionFields

_FORMATS: dict[str, Format] = {"audio/pcm": "pcm16", "audio/pcmu": "g711_ulaw", "audio/pcma": "g711_alaw"}


@dataclass(frozen=True, slots=True)
class OutputAudio:
    """Audio of a reply, however it travelled.

    Attributes:
        response_id: The response.
        first_sample: Place of `pcm[0]` in the response's output.
        pcm: [samples] int16 at the rate of the session's output format.
    """

    response_id: str
    first_sample: int
    pcm: Int16Array


@dataclass(frozen=True, slots=True)
class UnknownEvent:
    """An event of a server newer than this client, or of another make, as it came."""

    frame: str | bytes


@dataclass(frozen=True, slots=True)
class Reconnecting:
    """The connection is lost, and is about to be opened again.

    Attributes:
        reason: What happened.
        attempt: Which attempt this is, from 1.
        delay_s: How long it waits.
    """

    reason: str
    attempt: int
    delay_s: float


@dataclass(frozen=True, slots=True)
class Reconnected:
    """A new session took the place of a lost one: it has its settings and its conversation, under the same ids.

    Attributes:
        lost_responses: Responses that were in progress: nothing more of them will come.
        restored_items: Items of the conversation that were said again.
        forgotten_items: Items that could not be: speech that had not been transcribed.
        dropped_audio_s: Speech appended while there was no connection.
    """

    lost_responses: tuple[str, ...]
    restored_items: int
    forgotten_items: int
    dropped_audio_s: float


@dataclass(frozen=True, slots=True)
class Reconnect:
    """How patiently a lost connection is opened again.

    The delay doubles from attempt to attempt, and each is drawn between half of it and the whole, so that the clients
    of a server that was restarted do not all come back at the same moment.

    Attributes:
        first_delay_s: Before the first attempt.
        longest_delay_s: Between two attempts.
        attempts: After so many, the connection counts as lost.
    """

    first_delay_s: float = 0.25
    longest_delay_s: float = 8.0
    attempts: int = 10

    def delay_s(self, attempt: int) -> float:
        """How long to wait before an attempt, from 1."""
        return min(self.longest_delay_s, self.first_delay_s * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)


Event: TypeAlias = got.AnyServerEvent | OutputAudio | UnknownEvent | Reconnecting | Reconnected
_FINAL_CLOSES = (1000, 1002, 1003, 1007, 1008, 1009, 1010, 3000)


@contextlib.asynccontextmanager
async def connect(
    url: str,
    *,
    api_key: str | None = None,
    model: str = "relay",
    subprotocol: Literal["relay.v1", "realtime"] = "relay.v1",
    headers: Mapping[str, str] | None = None,
    reconnect: Reconnect | None = None,
    open_timeout_s: float = 10.0,
) -> AsyncIterator[Client]:
    """Opens a session and closes it at the end of the block.

    Args:
        url: `ws://`, `wss://`, `http://` or `https://`; the path is `/v1/realtime` if it has none.
        api_key: Presented as a bearer token.
        model: Model asked for.
        subprotocol: `relay.v1` falls back to `realtime` when the server does not speak it.
        headers: Further headers of the handshake, such as `OpenAI-Organization`.
        reconnect: What to do when the connection is lost; None: raise ConnectionFailed.
        open_timeout_s: Most time for the handshake.

    Raises:
        UsageError: The URL is none of a websocket.
        ConnectionFailed: Nobody answers, or the server refuses.
    """
    address = realtime_url(url, model)
    authorization = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    dial = Dial(url, address, subprotocol, {**(headers or {}), **authorization}, open_timeout_s)
    client = Client(await dial.open(), url, dial if reconnect is not None else None, reconnect)
    try:
        await client.begin(open_timeout_s)
        yield client
    finally:
        await client.close()


class Client:
    """An open session; made by `connect`. Iterate it for events; one task may iterate while others send.

    Attributes:
        session: The session object as the server last showed it.
        subprotocol: What was agreed on: `relay.v1`, `realtime`, or nothing.
    """

    def __init__(self, socket: ClientConnection, url: str, dial: Dial | None, reconnect: Reconnect | None) -> None:
        self.session = SessionFields()
        self._url = url
        self._dial = dial
        self._patience = reconnect or Reconnect()
        self._memory = Memory()
        self._unsent: deque[ask.AnyClientEvent] = deque()
        self._dropped_samples = 0
        self._closed = False
        self._attach(socket)

    def _attach(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.subprotocol = socket.subprotocol or ""
        self._connected = True
        self._input_format: Format = "pcm16"
        self._output_format: Format = "pcm16"
        self._by_index: dict[int, str] = {}
        self._next_sample: dict[str, int] = {}  # base64 audio does not say its place: it is counted

    @property
    def offers_extras(self) -> bool:
        """Whether the server has the `relay.*` events."""
        return self.subprotocol == "relay.v1"

    async def begin(self, timeout_s: float) -> None:
        """Takes the server's first event, `session.created`. Raises ConnectionFailed if it is another, or none."""
        try:
            async with asyncio.timeout(timeout_s):
                event = await self._receive()
        except TimeoutError as error:
            raise ConnectionFailed(f"{self._url} accepts and then says nothing; check the address") from error
        if isinstance(event, got.Error):
            raise ConnectionFailed(f"{self._url} refused the session: {event.error.message}")
        if not isinstance(event, got.SessionCreated):
            raise ConnectionFailed(f"{self._url} is not a Realtime server; check the address")

    async def close(self) -> None:
        """Ends the session; leaving the block of `connect` does it too."""
        self._closed = True
        await self._socket.close()

    async def __aiter__(self) -> AsyncIterator[Event]:
        """All events from now until the server closes the session in good order.

        Raises:
            ConnectionFailed: The connection was lost for good, or the server ended it for a reason.
        """
        while True:
            try:
                event = await self._receive()
            except _Lost as lost:
                if lost.code == 1000 or (lost.code == 1001 and self._dial is None):
                    return
                if self._dial is None or self._closed or lost.code in _FINAL_CLOSES:
                    raise
                async for step in self._reconnect(self._dial, str(lost)):
                    yield step
                continue
            yield event

    async def _reconnect(self, dial: Dial, reason: str) -> AsyncIterator[Event]:
        """Opens a new connection and says everything again. Raises ConnectionFailed when that does not succeed."""
        self._connected = False
        lost = tuple(sorted(self._memory.open_responses))
        for attempt in range(1, self._patience.attempts + 1):
            delay_s = self._patience.delay_s(attempt)
            yield Reconnecting(reason, attempt, delay_s)
            await asyncio.sleep(delay_s)
            try:
                socket = await dial.open()
            except Refused:
                raise
            except ConnectionFailed as error:
                reason = str(error)
                continue
            self._attach(socket)
            try:
                await self.begin(dial.timeout_s)
                events, forgotten = self._memory.restore()
                for event in events:
                    await self._send_frame(ask.encode(event))
                while self._unsent:
                    await self._send_frame(ask.encode(self._unsent[0]))
                    self._unsent.popleft()
            except ConnectionFailed as error:
                await socket.close()
                self._connected = False
                if isinstance(error, _Lost) and error.code in _FINAL_CLOSES:
                    raise
                reason = str(error)
                continue
            restored = sum(isinstance(event, ask.ConversationItemCreate) for event in events)
            dropped_s, self._dropped_samples = self._dropped_samples / RATE_HZ[self._input_format], 0
            yield Reconnected(lost, restored, forgotten, dropped_s)
            return
        raise ConnectionFailed(f"gave up after {self._patience.attempts} attempts: {reason}")

    async def update(self, session: Mapping[str, Any]) -> None:
        """Changes the session (`session.update`); `type` is filled in.

        Raises:
            UsageError: A field is none, or is `relay` and the server offers no extras.
        """
        if "relay" in session and not self.offers_extras:
            raise UsageError(f"{self._url} offers no relay.* events; leave `relay` out (see `Client.offers_extras`)")
        try:
            fields = msgspec.convert({"type": "realtime", **session}, SessionFields)
        except msgspec.ValidationError as error:
            raise UsageError(f"session.update cannot take this: {error}") from error
        await self._send(ask.SessionUpdate(session=fields))

    async def append(self, pcm: Int16Array) -> None:
        """Sends [samples] int16 of speech at the rate of the session's input format (24 kHz unless changed).

        While a lost connection is opened again, speech is dropped and counted: `Reconnected.dropped_audio_s`.
        """
        data = encode_bytes(pcm, self._input_format)
        binary = self.subprotocol == "relay.v1"
        try:
            if not self._connected:
                self._dropped_samples += len(pcm)
            else:
                await self._send_frame(data if binary else ask.encode(ask.InputAudioBufferAppend(audio=data)))
        except _Lost as lost:
            self._check_recoverable(lost)
            self._dropped_samples += len(pcm)

    async def commit(self) -> None:
        """Ends the user's turn by hand."""
        await self._send(ask.InputAudioBufferCommit())

    async def clear_input(self) -> None:
        """Forgets the audio of the turn under way."""
        await self._send(ask.InputAudioBufferClear())

    async def create_message(self, text: str, *, role: Literal["system", "user", "assistant"] = "user") -> None:
        """Adds a message to the conversation."""
        kind = "output_text" if role == "assistant" else "input_text"
        item_id = f"item_{secrets.token_hex(8)}"  # by which it is known again after a lost connection
        item = {"type": "message", "id": item_id, "role": role, "content": [{"type": kind, "text": text}]}
        await self._send(ask.ConversationItemCreate(item=msgspec.convert(item, MessageItem)))

    async def create_response(self, **settings: Any) -> None:
        """Asks for a reply; `settings` as in `response.create`. Raises UsageError for a setting that is none."""
        try:
            response = msgspec.convert(settings, ask.ResponseSettings) if settings else None
        except msgspec.ValidationError as error:
            raise UsageError(f"response.create cannot take this: {error}") from error
        await self._send(ask.ResponseCreate(response=response))

    async def cancel(self, response_id: str | None = None) -> None:
        """Stops a reply, by default the one in progress."""
        await self._send(ask.ResponseCancel(response_id=response_id))

    async def truncate(self, item_id: str, audio_end_ms: int, *, content_index: int = 0) -> None:
        """Says that an assistant's item was played up to here only."""
        await self._send(
            ask.ConversationItemTruncate(item_id=item_id, content_index=content_index, audio_end_ms=audio_end_ms)
        )

    async def report_playback(self, response_id: str, played_samples: int) -> None:
        """Says how much of a response has really been played (`relay.playback`); Relay's own servers only."""
        await self._send(ask.RelayPlayback(response_id=response_id, played_samples=played_samples))

    async def send(self, event: ask.AnyClientEvent) -> None:
        """Sends any event of the API. Raises ConnectionFailed."""
        await self._send(event)

    async def _send(self, event: ask.AnyClientEvent) -> None:
        """Sends an event, or keeps it until there is a connection again."""
        self._memory.sent(event)
        if self._connected:
            try:
                await self._send_frame(ask.encode(event))
                return
            except _Lost as lost:
                self._check_recoverable(lost)
        if not isinstance(event, OF_THE_MOMENT) and not self._memory.restores(event):
            self._unsent.append(event)

    def _check_recoverable(self, lost: _Lost) -> None:
        """Raises what was lost unless the iterator will open the connection again."""
        if self._dial is None or self._closed or lost.code in _FINAL_CLOSES:
            raise lost

    async def _send_frame(self, frame: str | bytes) -> None:
        try:
            await self._socket.send(frame)
        except ConnectionClosed as error:
            raise self._lost(error) from error

    async def _receive(self) -> Event:
        try:
            frame = await self._socket.recv()
        except ConnectionClosed as error:
            raise self._lost(error) from error
        if isinstance(frame, bytes):
            return self._binary(frame)
        event = foreign.decode(frame)
        if event is None:
            return UnknownEvent(frame)
        self._memory.received(event)
        match event:
            case got.SessionCreated(session=session) | got.SessionUpdated(session=session):
                self._follow(session)
            case reply_events.ResponseCreated(response=response):
                if isinstance(response.relay, reply_events.ResponseRelay):
                    self._by_index[response.relay.index] = response.id
                self._output_format = _FORMATS[response.audio.output.format.type]
            case reply_events.ResponseDone(response=response):
                self._next_sample.pop(response.id, None)
            case reply_events.ResponseOutputAudioDelta(response_id=response_id, delta=data):
                pcm = decode_bytes(data, self._output_format)
                first_sample = self._next_sample.get(response_id, 0)
                self._next_sample[response_id] = first_sample + len(pcm)
                return self._audio(response_id, first_sample, pcm)
            case _:
                pass
        return event

    def _audio(self, response_id: str, first_sample: int, pcm: Int16Array) -> OutputAudio:
        self._memory.heard(response_id, len(pcm) * 1000 / RATE_HZ[self._output_format])
        return OutputAudio(response_id, first_sample, pcm)

    def _binary(self, frame: bytes) -> OutputAudio | UnknownEvent:
        try:
            audio = decode_audio(frame)
        except ValueError as error:
            raise ConnectionFailed(f"{self._url} sent a damaged binary frame: {line(error)}") from error
        response_id = None if audio is None else self._by_index.get(audio.response_index)
        if audio is None or response_id is None:
            return UnknownEvent(frame)
        return self._audio(response_id, audio.first_sample, decode_bytes(audio.data, audio.form))

    def _follow(self, session: SessionFields) -> None:
        self.session = session
        if not isinstance(session.audio, msgspec.UnsetType):
            self._input_format = _format(getattr(session.audio.input, "format", None), self._input_format)
            self._output_format = _format(getattr(session.audio.output, "format", None), self._output_format)

    def _lost(self, error: ConnectionClosed) -> _Lost:
        if error.rcvd is None:
            return _Lost(f"lost the connection to {self._url}; is the server still running?", None)
        reason = error.rcvd.reason or "no reason given"
        return _Lost(f"{self._url} closed the session ({error.rcvd.code}: {reason})", error.rcvd.code)


class _Lost(ConnectionFailed):
    """The connection is closed; `code` is what the server said, None if it said nothing."""

    def __init__(self, message: str, code: int | None) -> None:
        super().__init__(message)
        self.code = code


def _format(shape: AudioFormat | msgspec.UnsetType | None, otherwise: Format) -> Format:
    return _FORMATS[shape.type] if isinstance(shape, AudioFormat) else otherwise

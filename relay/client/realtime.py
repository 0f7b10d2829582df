"""The client's side of `/v1/realtime`: typed events in, verbs out, over one websocket.

Speaks `relay.v1` (binary audio) with Relay's own server and plain `realtime` (base64 audio) with any other that follows
the OpenAI Realtime API; both look the same to the caller.

    async with connect("ws://127.0.0.1:8000") as client:
        await client.update({"relay": {"partials": True}})
        await client.append(pcm)
        async for event in client:
            ...
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from relay.audio import Format, Int16Array, decode_bytes, encode_bytes
from relay.errors import ConnectionFailed, UsageError
from relay.wire import client_events as ask
from relay.wire import response_events as reply_events
from relay.wire import server_events as got
from relay.wire.binary import decode_audio
from relay.wire.types import AudioFormat, MessageItem, SessionFields

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
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


Event: TypeAlias = got.AnyServerEvent | OutputAudio | UnknownEvent


@contextlib.asynccontextmanager
async def connect(
    url: str,
    *,
    api_key: str | None = None,
    model: str = "relay",
    subprotocol: Literal["relay.v1", "realtime"] = "relay.v1",
    open_timeout_s: float = 10.0,
) -> AsyncIterator[Client]:
    """Opens a session and closes it at the end of the block.

    Args:
        url: `ws://`, `wss://`, `http://` or `https://`; the path is `/v1/realtime` if it has none.
        api_key: Presented as a bearer token.
        model: Model asked for.
        subprotocol: `relay.v1` falls back to `realtime` when the server does not speak it.
        open_timeout_s: Most time for the handshake.

    Raises:
        UsageError: The URL is none of a websocket.
        ConnectionFailed: Nobody answers, or the server refuses.
    """
    address = realtime_url(url, model)
    offered = [Subprotocol(name) for name in dict.fromkeys((subprotocol, "realtime"))]
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    try:
        socket = await open_websocket(
            address,
            subprotocols=offered,
            additional_headers=headers,
            max_size=MAX_MESSAGE_BYTES,
            open_timeout=open_timeout_s,
            compression=None,  # audio does not compress, and deflate costs time on every frame
            proxy=None if _is_loopback(address) else True,
        )
    except InvalidURI as error:
        raise UsageError(f"{url!r} is not the address of a server; give one like ws://127.0.0.1:8000") from error
    except InvalidStatus as error:
        raise ConnectionFailed(_refusal(url, error)) from error
    except (InvalidHandshake, EOFError) as error:
        raise ConnectionFailed(f"{url} does not speak websockets ({_line(error)}); check the address") from error
    except TimeoutError as error:
        raise ConnectionFailed(f"{url} does not answer within {open_timeout_s:g} s; check the address") from error
    except ssl.SSLError as error:
        raise ConnectionFailed(
            f"the certificate of {url} is not trusted ({_line(error)}); point SSL_CERT_FILE at its authority's"
        ) from error
    except OSError as error:
        raise ConnectionFailed(f"no server at {url} ({_line(error)}); start one with `relay serve`") from error
    client = Client(socket, url)
    try:
        try:
            async with asyncio.timeout(open_timeout_s):
                await client.begin()
        except TimeoutError as error:
            raise ConnectionFailed(f"{url} accepts and then says nothing; check the address") from error
        yield client
    finally:
        await socket.close()


def realtime_url(url: str, model: str) -> str:
    """The websocket address that a user's shorter URL means. Raises UsageError when it cannot be one."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError for a port that is none
    except ValueError as error:
        raise UsageError(f"{url!r} is not a URL ({_line(error)}); give one like ws://127.0.0.1:8000") from error
    scheme = {"ws": "ws", "http": "ws", "wss": "wss", "https": "wss"}.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise UsageError(f"{url!r} is not the address of a server; give one like ws://127.0.0.1:8000")
    path = parts.path if parts.path not in ("", "/") else "/v1/realtime"
    query = parts.query or urlencode({"model": model})
    return urlunsplit((scheme, parts.netloc, path, query, ""))


class Client:
    """An open session; made by `connect`. Iterate it for events; one task may iterate while others send.

    Attributes:
        session: The session object as the server last showed it.
        subprotocol: What was agreed on: `relay.v1`, `realtime`, or nothing.
    """

    def __init__(self, socket: ClientConnection, url: str) -> None:
        self.subprotocol = socket.subprotocol or ""
        self.session = SessionFields()
        self._socket = socket
        self._url = url
        self._input_format: Format = "pcm16"
        self._output_format: Format = "pcm16"
        self._by_index: dict[int, str] = {}
        self._next_sample: dict[str, int] = {}  # base64 audio does not say its place: it is counted

    async def begin(self) -> None:
        """Takes the server's first event, `session.created`. Raises ConnectionFailed if it is another."""
        event = await self._receive()
        if isinstance(event, got.Error):
            raise ConnectionFailed(f"{self._url} refused the session: {event.error.message}")
        if not isinstance(event, got.SessionCreated):
            raise ConnectionFailed(f"{self._url} is not a Realtime server; check the address")

    async def __aiter__(self) -> AsyncIterator[Event]:
        """All events from now until the server closes the session in good order.

        Raises:
            ConnectionFailed: The connection was lost, or the server ended it for a reason.
        """
        while True:
            try:
                event = await self._receive()
            except _ClosedInOrder:
                return
            yield event

    async def update(self, session: Mapping[str, Any]) -> None:
        """Changes the session (`session.update`); `type` is filled in. Raises UsageError for a field that is none."""
        try:
            fields = msgspec.convert({"type": "realtime", **session}, SessionFields)
        except msgspec.ValidationError as error:
            raise UsageError(f"session.update cannot take this: {error}") from error
        await self._send(ask.SessionUpdate(session=fields))

    async def append(self, pcm: Int16Array) -> None:
        """Sends [samples] int16 of speech at the rate of the session's input format (24 kHz unless changed)."""
        data = encode_bytes(pcm, self._input_format)
        if self.subprotocol == "relay.v1":
            await self._send_frame(data)
        else:
            await self._send(ask.InputAudioBufferAppend(audio=data))

    async def commit(self) -> None:
        """Ends the user's turn by hand."""
        await self._send(ask.InputAudioBufferCommit())

    async def clear_input(self) -> None:
        """Forgets the audio of the turn under way."""
        await self._send(ask.InputAudioBufferClear())

    async def create_message(self, text: str, *, role: Literal["system", "user", "assistant"] = "user") -> None:
        """Adds a message to the conversation."""
        kind = "output_text" if role == "assistant" else "input_text"
        item = {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}
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
        await self._send_frame(ask.encode(event))

    async def _send_frame(self, frame: str | bytes) -> None:
        try:
            await self._socket.send(frame)
        except ConnectionClosed as error:
            raise self._lost(error) from error

    async def _receive(self) -> Event:
        try:
            frame = await self._socket.recv()
        except ConnectionClosed as error:
            if error.rcvd is not None and error.rcvd.code in (1000, 1001):
                raise _ClosedInOrder(f"{self._url} closed the session") from error
            raise self._lost(error) from error
        if isinstance(frame, bytes):
            return self._binary(frame)
        try:
            event = got.decode(frame)
        except msgspec.DecodeError:
            return UnknownEvent(frame)
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
                return OutputAudio(response_id, first_sample, pcm)
            case _:
                pass
        return event

    def _binary(self, frame: bytes) -> OutputAudio | UnknownEvent:
        try:
            audio = decode_audio(frame)
        except ValueError as error:
            raise ConnectionFailed(f"{self._url} sent a damaged binary frame: {_line(error)}") from error
        response_id = None if audio is None else self._by_index.get(audio.response_index)
        if audio is None or response_id is None:
            return UnknownEvent(frame)
        return OutputAudio(response_id, audio.first_sample, decode_bytes(audio.data, audio.form))

    def _follow(self, session: SessionFields) -> None:
        self.session = session
        if not isinstance(session.audio, msgspec.UnsetType):
            self._input_format = _format(getattr(session.audio.input, "format", None), self._input_format)
            self._output_format = _format(getattr(session.audio.output, "format", None), self._output_format)

    def _lost(self, error: ConnectionClosed) -> ConnectionFailed:
        if error.rcvd is None:
            return ConnectionFailed(f"lost the connection to {self._url}; is the server still running?")
        reason = error.rcvd.reason or "no reason given"
        return ConnectionFailed(f"{self._url} closed the session ({error.rcvd.code}: {reason})")


class _ClosedInOrder(ConnectionFailed):
    """The server closed the session with 1000 or 1001."""


def _format(shape: AudioFormat | msgspec.UnsetType | None, otherwise: Format) -> Format:
    return _FORMATS[shape.type] if isinstance(shape, AudioFormat) else otherwise


def _refusal(url: str, error: InvalidStatus) -> str:
    status = error.response.status_code
    body = bytes(error.response.body or b"")[:2000].decode("utf-8", "replace")
    with contextlib.suppress(ValueError, AttributeError, TypeError):
        body = str(msgspec.json.decode(body)["error"]["message"])
    said = f": {' '.join(body.split())}" if body.strip() else ""
    advice = {401: "; give its key with --api-key", 403: "; give its key with --api-key", 404: "; check the path"}
    return f"{url} refused the connection with HTTP {status}{said}{advice.get(status, '')}"


def _is_loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _line(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split()) or type(error).__name__

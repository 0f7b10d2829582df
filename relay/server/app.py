"""The edge: one port for the page, the websocket and the probes. The only importer of websockets' server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection
from websockets.asyncio.server import serve as serve_websocket
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from relay.config import ServerConfig
from relay.engine.device import memory_bytes
from relay.engine.load import Admission, Load
from relay.engine.remote import Links
from relay.errors import ConfigError, RelayError, shown
from relay.metrics import Metrics
from relay.recorder import SessionRecorder
from relay.server.admission import Seats, SharedSeats, check_key, check_origin, deciding
from relay.server.listener import SharedListener
from relay.server.models import keep_for_good, load, reach
from relay.server.static import SECURITY_HEADERS, StaticFile, load_page
from relay.services import Services
from relay.session import Session
from relay.wire.config import SessionConfig, TurnDetection
from relay.wire.realtime import RealtimeProtocol

log = logging.getLogger(__name__)

REALTIME_PATH = "/v1/realtime"
_SUBPROTOCOLS = ("relay.v1", "realtime")
_LOOK_S = 0.5
_REASON_BYTES = 123  # of a close frame (RFC 6455, section 5.5)


class RelayServer:
    """The whole server: `async with RelayServer(config) as server` listens until the block ends.

    Args:
        config: Its settings.
        links: The processes that have the models; None: they are loaded here.
        listener: The socket to listen on, with others; None: one is opened at the settings' address.
        metrics: Counters; None: ones of its own.

    Attributes:
        url: Where it is reached.

    Raises:
        ConfigError: The port is taken, or the certificate does not load.
        EngineUnavailable, WeightsError: A model cannot run here.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        links: Links | None = None,
        listener: SharedListener | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.config = config
        self.metrics = metrics or Metrics()
        self._links = links
        self._listener = listener
        self.url = ""
        self._sockets = Load(1)
        self._loads: dict[str, Load] = {}
        self._page: dict[str, StaticFile] = {}
        self._stack = contextlib.AsyncExitStack()
        self._services: Services
        self._server: Server

    async def __aenter__(self) -> RelayServer:
        """Loads the models, then opens the port."""
        async with contextlib.AsyncExitStack() as stack:
            config = self.config
            self._page = await asyncio.to_thread(load_page)
            if self._links is None:
                models = await load(config, self.metrics, stack)
            else:
                models = await reach(config, self._links, self.metrics, stack)
            self._loads = {**models.loads, "sockets": self._sockets}
            admission = Admission(deciding(self._loads, config.path), max_share=config.max_load_percent / 100)
            if self._links is None:
                self._seats: Seats | SharedSeats = Seats(models.capacity, admission)
            else:
                self._seats = SharedSeats(self._links.server, admission)
            self._services = models.services
            watching = asyncio.create_task(self._watch_sockets())
            stack.callback(watching.cancel)
            self.metrics.denoiser_delay.set(models.denoiser_delay_s)
            context = tls_context(config)
            address = (config.host, config.port) if self._listener is None else ()
            try:
                self._server = await serve_websocket(
                    self._on_connection,
                    *address,
                    sock=self._listener,
                    backlog=100 if self._listener is None else 1,  # of a shared one: how many it accepts at once
                    process_request=self._on_request,
                    subprotocols=[Subprotocol(name) for name in _SUBPROTOCOLS],
                    select_subprotocol=_select_subprotocol,
                    compression=None,  # audio does not shrink, and a deflate window costs each session memory
                    max_size=config.limits.max_frame_bytes,
                    max_queue=16,
                    close_timeout=3.0,
                    write_limit=256 * 1024,
                    ssl=context,
                    server_header=None,
                )
            except OSError as error:
                raise ConfigError(
                    f"cannot listen on {config.host}:{config.port} ({error.strerror or error}); choose another --port"
                ) from error
            await stack.enter_async_context(self._server)
            self.url = url_of(config, next(iter(self._server.sockets)).getsockname()[1])
            if not config.is_loopback and config.api_key is None:
                log.warning("listening on %s without --api-key: whoever reaches this port can talk here", config.host)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Says goodbye to every client (close code 1001) and frees the models."""
        await self._stack.aclose()

    @property
    def sessions(self) -> int:
        """How many are held in this process."""
        return self._seats.held

    # ----------------------------------------------------------------------------------------------------------- HTTP

    def _on_request(self, connection: ServerConnection, request: Request) -> Response | None:
        path = urlsplit(request.path).path
        if path == REALTIME_PATH and "upgrade" in request.headers.get("Connection", "").lower():
            return self._admit(request)
        match path:
            case "/healthz":
                return _response(200, "text/plain; charset=utf-8", b"ok\n")
            case "/readyz":
                body = {"ready": True, "sessions": self._seats.taken, "capacity": self._seats.capacity}
                return _json(200, body | {"refusing": self._seats.refusal()})
            case "/metrics":
                self.metrics.tasks.set(len(asyncio.all_tasks()))
                for name, used in self._used().items():
                    self.metrics.load.labels(name).set(used)
                for name, load in self._loads.items():
                    self.metrics.stepped(name, load.steps, load.seconds)
                self.metrics.device_memory.set(memory_bytes())
                return _response(200, "text/plain; version=0.0.4; charset=utf-8", self.metrics.exposition())
            case _ if path in self._page:
                file = self._page[path]
                if request.headers.get("If-None-Match") == file.etag:
                    return _response(304, file.content_type, b"", {"ETag": file.etag})
                extra = {"ETag": file.etag, "Cache-Control": "no-cache", **SECURITY_HEADERS}
                return _response(200, file.content_type, file.body, extra)
        message = f"nothing at {path}; the page is at /, the websocket at {REALTIME_PATH}"
        return _json(404, {"error": {"type": "invalid_request_error", "code": "not_found", "message": message}})

    def _admit(self, request: Request) -> Response | None:
        offered = ",".join(request.headers.get_all("Sec-WebSocket-Protocol")).replace(" ", "").split(",")
        try:
            check_key(self.config.api_key, request.headers, offered)
            has_key = self.config.api_key is not None
            check_origin(request.headers, loopback=self.config.is_loopback, has_key=has_key)
            self._seats.check()
        except RelayError as error:
            row = shown(error)
            self.metrics.refused.labels(row.code).inc()
            return _json(row.http_status, {"error": {"type": row.type, "code": row.code, "message": str(error)}})
        return None

    def _used(self) -> dict[str, float]:
        """How much each engine is used, and the event loop."""
        now_s = time.monotonic()
        far = {} if self._links is None else self._links.used()
        return {**far, **{name: load.used(now_s) for name, load in self._loads.items()}}

    async def _watch_sockets(self) -> None:
        """Counts the processor time of the event loop as steps: what it computes, no other thread can do for it."""
        before_s = time.thread_time()
        while True:
            await asyncio.sleep(_LOOK_S)
            now_s = time.thread_time()
            self._sockets.stepped(time.monotonic(), 1, now_s - before_s)
            before_s = now_s

    # ------------------------------------------------------------------------------------------------------ websocket

    async def _on_connection(self, connection: ServerConnection) -> None:
        query = parse_qs(urlsplit(connection.request.path if connection.request else "").query)
        protocol = RealtimeProtocol(
            subprotocol="relay.v1" if connection.subprotocol == "relay.v1" else "realtime",
            model=query.get("model", ["relay"])[0][:128],
            config=session_defaults(self._services),
            max_event_bytes=self.config.limits.max_frame_bytes,
        )
        self.metrics.sessions_total.inc()
        try:
            async with self._seats.seat():
                with self.metrics.sessions.track_inprogress():
                    async with contextlib.AsyncExitStack() as stack:
                        recorder = None
                        if self.config.record_dir is not None:
                            recorder = await stack.enter_async_context(
                                SessionRecorder(self.config.record_dir, protocol)
                            )
                        await Session(_Socket(connection), protocol, self._services, recorder).run()
        except ConnectionClosed:
            return
        except RelayError as error:
            await self._close(connection, protocol, error)
        except Exception as error:
            log.exception("a session failed")
            await self._close(connection, protocol, error)

    async def _close(self, connection: ServerConnection, protocol: RealtimeProtocol, error: BaseException) -> None:
        row = shown(error)
        self.metrics.errors.labels(row.code).inc()
        protocol.error(error)
        reason = f"{row.code}: {error}".encode()[:_REASON_BYTES].decode(errors="ignore")
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            async with asyncio.timeout(2.0):
                for frame in protocol.outgoing():
                    await connection.send(frame)
        await connection.close(row.close_code or 1011, reason)


class _Socket:
    """A websocket as a session's transport."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection

    async def receive(self) -> str | bytes | None:
        try:
            return await self._connection.recv()
        except ConnectionClosed:
            return None

    async def send(self, frame: str | bytes) -> None:
        await self._connection.send(frame)


def session_defaults(services: Services) -> SessionConfig:
    """What a session is before its client asks for anything: turns end by their words where a model can tell."""
    kind: Literal["server_vad", "semantic_vad"] = "semantic_vad" if services.brain.knows_ends else "server_vad"
    return SessionConfig(turn_detection=TurnDetection(type=kind), paths=services.paths)


async def serve(config: ServerConfig, on_ready: Callable[[str], None]) -> None:
    """Serves until it is cancelled (asyncio does so on Ctrl-C) or gets SIGTERM.

    `on_ready` gets the URL once clients can connect.
    """
    stop = asyncio.Event()
    with contextlib.suppress(NotImplementedError):  # Windows has no signal handlers on the loop
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with RelayServer(config) as server:
        keep_for_good()
        on_ready(server.url)
        await stop.wait()


def url_of(config: ServerConfig, port: int) -> str:
    """Where a server with these settings is reached."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"{'https' if config.tls_cert else 'http'}://{host}:{port}"


def tls_context(config: ServerConfig) -> ssl.SSLContext | None:
    """The certificate and key of the settings; None where there are none. Raises ConfigError when they do not load."""
    if config.tls_cert is None or config.tls_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"cannot load --tls-cert and --tls-key: {error}") from error
    return context


def _select_subprotocol(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return next((Subprotocol(name) for name in _SUBPROTOCOLS if name in offered), None)


def _json(status: int, body: object) -> Response:
    return _response(status, "application/json", json.dumps(body).encode())


_REASONS = {200: "OK", 304: "Not Modified", 401: "Unauthorized", 404: "Not Found", 503: "Service Unavailable"}


def _response(status: int, content_type: str, body: bytes, extra: dict[str, str] | None = None) -> Response:
    headers = Headers(
        {"Content-Type": content_type, "Content-Length": str(len(body)), "Connection": "close", **(extra or {})}
    )
    return Response(status, _REASONS.get(status, "Error"), headers, body)

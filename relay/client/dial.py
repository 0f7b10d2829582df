"""How a server is reached: from what a user types to an open websocket, or to one line that says what to do."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from relay.errors import ConnectionFailed, UsageError

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_FINAL_STATUSES = (400, 401, 403, 404, 405, 426)


class Refused(ConnectionFailed):
    """The server does not want this client: it would refuse it again."""


def realtime_url(url: str, model: str) -> str:
    """The websocket address that a user's shorter URL means. Raises UsageError when it cannot be one."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError for a port that is none
    except ValueError as error:
        raise UsageError(f"{url!r} is not a URL ({line(error)}); give one like ws://127.0.0.1:8000") from error
    scheme = {"ws": "ws", "http": "ws", "wss": "wss", "https": "wss"}.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise UsageError(f"{url!r} is not the address of a server; give one like ws://127.0.0.1:8000")
    path = parts.path if parts.path not in ("", "/") else "/v1/realtime"
    query = parts.query or urlencode({"model": model})
    return urlunsplit((scheme, parts.netloc, path, query, ""))


@dataclass(frozen=True, slots=True)
class Dial:
    """How to reach a server; `open` makes a connection, and another when that is lost."""

    url: str
    address: str
    subprotocol: str
    headers: Mapping[str, str]
    timeout_s: float

    async def open(self) -> ClientConnection:
        """Raises UsageError, ConnectionFailed; Refused when it is no use to try again."""
        url = self.url
        try:
            return await open_websocket(
                self.address,
                subprotocols=[Subprotocol(name) for name in dict.fromkeys((self.subprotocol, "realtime"))],
                additional_headers=self.headers,
                max_size=MAX_MESSAGE_BYTES,
                open_timeout=self.timeout_s,
                compression=None,  # audio does not compress, and deflate costs time on every frame
                proxy=None if _is_loopback(self.address) else True,
            )
        except InvalidURI as error:
            raise UsageError(f"{url!r} is not the address of a server; give one like ws://127.0.0.1:8000") from error
        except InvalidStatus as error:
            final = error.response.status_code in _FINAL_STATUSES
            raise (Refused if final else ConnectionFailed)(_refusal(url, error)) from error
        except (InvalidHandshake, EOFError) as error:
            raise ConnectionFailed(f"{url} does not speak websockets ({line(error)}); check the address") from error
        except TimeoutError as error:
            raise ConnectionFailed(f"{url} does not answer within {self.timeout_s:g} s; check the address") from error
        except ssl.SSLError as error:
            raise Refused(
                f"the certificate of {url} is not trusted ({line(error)}); point SSL_CERT_FILE at its authority's"
            ) from error
        except OSError as error:
            raise ConnectionFailed(f"no server at {url} ({line(error)}); start one with `relay serve`") from error


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


def line(error: BaseException) -> str:
    """What an error says, in one line."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split()) or type(error).__name__

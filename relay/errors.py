"""Every error Relay raises on purpose, and the one table that says how each is shown to the outside.

An error carries a message that says what to do. The table maps its class to the wire (`error` event type and code), the
websocket close code, the HTTP status of the handshake and the exit status of the command line.
"""

from __future__ import annotations

from dataclasses import dataclass


class RelayError(Exception):
    """Base of all errors of this project. `str(error)` is one line that says what to do."""


class UsageError(RelayError):
    """A command or setting was used wrongly."""


class ConfigError(UsageError):
    """A configuration value is out of its documented range."""


class BadEvent(RelayError):
    """A client event is malformed, unknown, or not allowed now. The session goes on.

    Args:
        message: One line that says what to do.
        code: Stable machine-readable code, e.g. `unknown_event`.
        param: Path of the offending field, e.g. `session.audio.input.format`.
        event_id: The client's own id of the offending event, if it gave one.
    """

    def __init__(
        self, message: str, *, code: str = "invalid_value", param: str | None = None, event_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.param = param
        self.event_id = event_id


class FrameTooLarge(RelayError):
    """A websocket message is larger than the limit; the connection is closed."""


class AudioTooFast(RelayError):
    """A client sent audio much faster than real time for longer than the server buffers; the connection is closed."""


class SlowReader(RelayError):
    """A client does not read what it asked for; its connection is closed instead of buffering without bound."""


class Unauthorized(RelayError):
    """The API key is missing or wrong."""


class TooManySessions(RelayError):
    """The server holds as many sessions as it admits, or as it has time for."""


class StageFailed(RelayError):
    """A stage of a turn failed; the response ends with a terminal event that names the stage.

    Args:
        stage: `ears`, `brain` or `voice`.
        message: One line that says what happened and what to do.
    """

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage


class BrainUnavailable(StageFailed):
    """The language model server cannot be reached, timed out, or refused."""

    def __init__(self, message: str) -> None:
        super().__init__("brain", message)


class EngineUnavailable(RelayError):
    """An engine cannot run on this machine: a package, a library or its weights are missing."""


class EngineBusy(RelayError):
    """All slots of an engine are taken."""


class WeightsError(RelayError):
    """Weights are missing, damaged, or of another layout than the manifest says."""


class AudioFileError(RelayError):
    """A sound file is missing, empty, truncated, or in a format that cannot be read."""


class ConnectionFailed(RelayError):
    """A client could not reach the server, or lost it."""


@dataclass(frozen=True, slots=True)
class Shown:
    """How one class of error is shown outside.

    Attributes:
        type: `error.type` of the wire's error event.
        code: `error.code` of the wire's error event (a `BadEvent` brings its own).
        close_code: Websocket close code when the error ends the connection; None when the session goes on.
        http_status: Status of a refused handshake or request.
        exit_status: Exit status of the command line.
    """

    type: str
    code: str
    close_code: int | None
    http_status: int
    exit_status: int


_TABLE: dict[type[BaseException], Shown] = {
    BadEvent: Shown("invalid_request_error", "invalid_value", None, 400, 1),
    FrameTooLarge: Shown("invalid_request_error", "frame_too_large", 1009, 413, 1),
    AudioTooFast: Shown("invalid_request_error", "audio_too_fast", 1008, 429, 1),
    SlowReader: Shown("server_error", "slow_reader", 1008, 408, 1),
    Unauthorized: Shown("authentication_error", "invalid_api_key", 3000, 401, 1),
    TooManySessions: Shown("rate_limit_error", "too_many_sessions", 1013, 503, 1),
    BrainUnavailable: Shown("server_error", "brain_unavailable", None, 502, 1),
    StageFailed: Shown("server_error", "stage_failed", None, 500, 1),
    EngineUnavailable: Shown("server_error", "engine_unavailable", 1011, 503, 1),
    EngineBusy: Shown("rate_limit_error", "engine_busy", None, 503, 1),
    WeightsError: Shown("server_error", "weights_error", 1011, 500, 1),
    AudioFileError: Shown("invalid_request_error", "audio_file_error", None, 400, 1),
    ConnectionFailed: Shown("server_error", "connection_failed", None, 502, 1),
    UsageError: Shown("invalid_request_error", "usage_error", None, 400, 2),
    RelayError: Shown("server_error", "relay_error", 1011, 500, 1),
    BaseException: Shown("server_error", "internal_error", 1011, 500, 1),
}


def shown(error: BaseException) -> Shown:
    """The table's row for an error: that of its nearest ancestor."""
    for cls in type(error).__mro__:
        row = _TABLE.get(cls)
        if row is not None:
            return row
    raise AssertionError("BaseException is in the table")


def documented() -> dict[str, Shown]:
    """The whole table by class name, for the documentation and its test."""
    return {cls.__name__: row for cls, row in _TABLE.items()}

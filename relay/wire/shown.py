"""Errors and counts as the wire shows them."""

from __future__ import annotations

from relay.errors import BadEvent, RelayError, shown
from relay.wire import response_events as ev
from relay.wire.commands import Usage
from relay.wire.server_events import ErrorDetail


def error_detail(error: BaseException, event_id: str | None = None) -> ErrorDetail:
    """An error as the wire shows it. What is not an error of this project does not show its message."""
    row = shown(error)
    if isinstance(error, BadEvent):
        return ErrorDetail(
            type=row.type,
            code=error.code,
            message=str(error),
            param=error.param,
            event_id=error.event_id if event_id is None else event_id,
        )
    message = str(error) if isinstance(error, RelayError) else "The server made a mistake: its log says more"
    return ErrorDetail(type=row.type, code=row.code, message=message, event_id=event_id)


def response_error(error: BaseException) -> ev.ResponseError:
    """An error as `response.done` shows it."""
    detail = error_detail(error)
    return ev.ResponseError(type=detail.type, code=detail.code or "", message=detail.message)


def usage_object(usage: Usage) -> ev.UsageObject:
    """Tokens as `response.done` shows them."""
    input_tokens = usage.input_text_tokens + usage.input_audio_tokens
    output_tokens = usage.output_text_tokens + usage.output_audio_tokens
    return ev.UsageObject(
        total_tokens=input_tokens + output_tokens,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        input_token_details=ev.InputTokenDetails(
            text_tokens=usage.input_text_tokens,
            audio_tokens=usage.input_audio_tokens,
            cached_tokens=usage.cached_tokens,
            cached_tokens_details=ev.CachedTokenDetails(text_tokens=usage.cached_tokens),
        ),
        output_token_details=ev.OutputTokenDetails(
            text_tokens=usage.output_text_tokens, audio_tokens=usage.output_audio_tokens
        ),
    )

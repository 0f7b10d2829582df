"""How the tests of the protocol talk to it."""

import json
from collections.abc import Callable
from typing import Any

from relay.wire.realtime import RealtimeProtocol

NewProtocol = Callable[..., RealtimeProtocol]
SdkParse = Callable[[str], Any]


def send(protocol: RealtimeProtocol, **event: Any) -> list[Any]:
    """What the session is asked to do for a client event."""
    return protocol.receive(json.dumps(event))


def events(protocol: RealtimeProtocol) -> list[dict[str, Any]]:
    """The events that wait to be sent."""
    return [json.loads(frame) for frame in protocol.outgoing() if isinstance(frame, str)]


def kinds(protocol: RealtimeProtocol) -> list[str]:
    """Their types."""
    return [event["type"] for event in events(protocol)]


def the_error(protocol: RealtimeProtocol) -> dict[str, Any]:
    """The error that is the only event that waits."""
    (event,) = events(protocol)
    assert event["type"] == "error"
    return dict(event["error"])


def text_item(text: str, role: str = "user", **fields: Any) -> dict[str, Any]:
    """A message as clients send it."""
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}], **fields}

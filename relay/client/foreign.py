"""Events of other servers: the same API, told a little differently.

`relay.wire` describes exactly what this project's server sends. Others add fields, and OpenAI's endpoint counts the
tokens of a transcript instead of its seconds. What is not known is left out; what remains is the event.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from relay.wire import server_events as got

_UNKNOWN = re.compile(r"Object contains unknown field `([^`]*)`(?: - at `\$\.?([^`]*)`)?$")
_BAD = re.compile(r" - at `\$\.?([^`]*)`$")
_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
_MOST_MENDS = 64
_TRANSCRIBED = "conversation.item.input_audio_transcription.completed"


def decode(frame: str) -> got.AnyServerEvent | None:
    """The event in a JSON text frame, without what this version does not know; None if nothing known remains."""
    try:
        return got.decode(frame)
    except msgspec.ValidationError:
        pass
    except (msgspec.DecodeError, RecursionError):
        return None
    event = msgspec.json.decode(frame)
    if not isinstance(event, dict):
        return None
    if event.get("type") == _TRANSCRIBED and "seconds" not in (event.get("usage") or {}):
        event["usage"] = {"type": "duration", "seconds": 0.0}
    for _ in range(_MOST_MENDS):
        try:
            known: got.AnyServerEvent = msgspec.convert(event, got.AnyServerEvent)
            return known
        except msgspec.ValidationError as error:
            if not _mend(event, str(error)):
                return None
    return None


def _mend(event: dict[str, Any], reason: str) -> bool:
    """Removes what the decoder complains of; False if that is the event itself."""
    if unknown := _UNKNOWN.match(reason):
        path = [*_steps(unknown[2] or ""), unknown[1]]
    elif bad := _BAD.search(reason):
        path = _steps(bad[1])
    else:
        return False
    place: Any = event
    for step in path[:-1]:
        place = place[step]
    if not path or (isinstance(place, dict) and path[-1] not in place) or path == ["type"]:
        return False
    del place[path[-1]]
    return True


def _steps(path: str) -> list[Any]:
    return [int(index) if index else name for index, name in _STEP.findall(path)]

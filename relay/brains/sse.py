"""Server-sent events, bytes in, data out. No I/O.

Source: the WHATWG HTML standard, section "Server-sent events", 9.2.6 (interpreting an event stream). Only the `data`
field matters to chat completions. One leniency: an event that the end of the stream cuts off is given out too, because
some servers leave out the last empty line.
"""

from __future__ import annotations

import codecs

MAX_EVENT_CHARACTERS = 1 << 20


class EventTooLong(ValueError):
    """One event exceeds `MAX_EVENT_CHARACTERS`."""


class SseParser:
    """Takes any split of an event stream and gives each event's data once."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("replace").decode
        self._line = ""
        self._after_cr = False
        self._data: list[str] = []
        self._characters = 0

    def push(self, chunk: bytes) -> list[str]:
        """The data of the events that this chunk completes. Raises EventTooLong."""
        return self._take(self._decode(chunk))

    def end(self) -> list[str]:
        """The data of an event that the stream's end cut off, if any."""
        return [*self._take(self._decode(b"", True)), *self._take("\n\n")]

    def _take(self, text: str) -> list[str]:
        if self._after_cr and text:  # CR LF is one line end, also when a chunk ends between the two
            text = text.removeprefix("\n")
            self._after_cr = False
        self._after_cr = self._after_cr or text.endswith("\r")
        *lines, rest = (self._line + text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._line = rest
        events = [data for line in lines for data in self._take_line(line)]
        if self._characters + len(self._line) > MAX_EVENT_CHARACTERS:
            raise EventTooLong(f"an event is longer than {MAX_EVENT_CHARACTERS} characters")
        return events

    def _take_line(self, line: str) -> list[str]:
        if line:
            name, _, value = line.partition(":")  # a comment has the empty name
            if name == "data":
                self._data.append(value.removeprefix(" "))
                self._characters += len(value)
            return []
        data, self._data, self._characters = self._data, [], 0
        return ["\n".join(data)] if data else []

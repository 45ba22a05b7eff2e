"""
Server-Sent Events, read from a stream of bytes (WHATWG HTML, section 9.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from attrs import define, field, frozen

MAX_EVENT_BYTES: Final = 64 << 20
"""The longest event: the longest value there can be is 8 MiB, and each of its
bytes takes up to six in JSON."""

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


class EventTooLong(Exception):
    """Whatever sends this is no kvdb."""


@frozen(slots=True)
class Message:
    """
    @ivar event: its kind; C{message} where none was named.
    @ivar data: its lines, joined.
    """

    event: str
    data: bytes


@define(slots=True, eq=False)
class EventReader:
    """Bytes in, as they come; messages out."""

    max_bytes: int = MAX_EVENT_BYTES
    _pending: bytearray = field(factory=bytearray)
    _event: str = ""
    _data: list[bytes] = field(factory=list)
    _size: int = 0

    def feed(self, data: bytes) -> Iterator[Message]:
        """
        The messages that C{data} completes.

        @raise EventTooLong: one is beyond the bound.
        """
        searched = max(len(self._pending) - 1, 0)
        self._pending += data
        begin = 0
        while True:
            found = _LINE_END.search(self._pending, max(begin, searched))
            # A CR at the end may be half of a CR LF.
            if found is None or (
                found[0] == b"\r" and found.end() == len(self._pending)
            ):
                break
            line = bytes(self._pending[begin : found.start()])
            begin = found.end()
            message = self._line(line)
            if message is not None:
                yield message
        del self._pending[:begin]
        if len(self._pending) + self._size > self.max_bytes:
            raise EventTooLong(f"an event has more than {self.max_bytes} bytes")

    def _line(self, line: bytes) -> Message | None:
        if not line:
            message = Message(self._event or "message", b"\n".join(self._data))
            is_any = bool(self._data)
            self._event, self._data, self._size = "", [], 0
            return message if is_any else None
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"data":
            self._data.append(value)
            self._size += len(value)
        return None  # a comment, or a field that is not needed here

"""
Answers of an HTTP server, taken out of a stream of bytes.

It knows what the servers measured here send to a write: a status, headers, and
a body of known length.
"""

from __future__ import annotations

import re
from typing import Final

from attrs import define, field

MAX_HEAD_BYTES: Final = 1 << 14
"""Beyond this it is no head of an answer."""

_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_WITHOUT_BODY: Final = (204, 304)


class BadAnswer(Exception):
    """It is no answer that can be read."""


@define(slots=True)
class Answers:
    """What has arrived on one connection, and is not a whole answer yet."""

    _rest: bytes = field(default=b"")

    def take(self, data: bytes) -> list[int]:
        """
        The statuses of the answers that C{data} completes.

        @raise BadAnswer: these are no answers.
        """
        data = self._rest + data
        statuses: list[int] = []
        begin = 0
        while True:
            head_end = data.find(b"\r\n\r\n", begin)
            if head_end < 0:
                if len(data) - begin > MAX_HEAD_BYTES:
                    raise BadAnswer("a head without an end")
                break
            status = _STATUS.match(data, begin)
            if status is None:
                raise BadAnswer(repr(data[begin : begin + 40]))
            end = head_end + 4
            if int(status[1]) not in _WITHOUT_BODY:
                length = _LENGTH.search(data, begin, head_end + 2)
                if length is None:
                    raise BadAnswer("a body of unknown length")
                end += int(length[1])
            if len(data) < end:
                break
            statuses.append(int(status[1]))
            begin = end
        self._rest = data[begin:]
        return statuses

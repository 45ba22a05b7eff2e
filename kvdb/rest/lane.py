"""
The fast lane: plain reads and writes of keys, without a request object.

Most requests are alike: a GET or PUT of a key of ordinary characters, with
headers that change nothing.  A L{Lane} tells these from all others, and makes
their answers::

    bytes --> FastChannel --plain--> Lane --> Database
                   |
                   +--anything else--> twisted.web --> Klein --> Keys, Members

Rules:

* What it does not know is not plain: another method, a header that could mean
  something, a percent sign, an address of kvdb's own.
* Where access is controlled, it serves who is known already, and may: the long
  way finds out who somebody is, and refuses.
* Answers are those of the long way, byte for byte, but for the date, which may
  be a second old.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web import http, server

from kvdb.access.guard import Guard
from kvdb.access.rules import Principal
from kvdb.durations import Durations
from kvdb.interfaces import Database
from kvdb.rest.keys import content_type, written
from kvdb.rest.parsing import check_host, check_local, is_reserved
from kvdb.rest.problems import REASONS, Answer, Problem, answer_to
from kvdb.store.commands import Outcome, OutcomeStatus

MAX_HEAD_BYTES: Final = 2048
"""The longest header section that the lane reads."""

MAX_LEARNED: Final = 512
"""Header sections remembered, which clients send again and again."""

_LINE: Final = re.compile(
    rb"(GET|PUT) (/[A-Za-z0-9._~!$&'()*+,;=:@/-]+)(\?consistency=stale)? HTTP/1\.1"
)
_HEADER: Final = re.compile(
    rb"([A-Za-z-]+):[ \t]*([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)"
)
_AUTHORIZATION: Final = re.compile(
    rb"(\r\nauthorization:[ \t]*([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?))(?=\r\n|\Z)",
    re.IGNORECASE,
)
_HARMLESS: Final = frozenset(
    {b"accept", b"accept-encoding", b"accept-language", b"content-type", b"user-agent"}
)
"""Headers that change no answer."""

MAX_BATCH_BYTES: Final = 1 << 20
"""Answers to a batch that are made before they are sent, beside the last."""

MEASURED: Final = 64
"""Of how many requests one is measured."""

KEY_ROUTE: Final = "key"
"""What the addresses of keys are called where requests are counted."""

Counted = tuple[str, str, int]
"""Requests that are counted together: route, method, status."""

_FOUND: Final[Counted] = (KEY_ROUTE, "GET", 200)
_WRITTEN: Final[Counted] = (KEY_ROUTE, "PUT", 204)

NOT_PLAIN: Final = -1
"""The length of the body of a request that is none of the lane's."""

Plain = tuple[bool, bytes, bool, int, int]
"""A request: whether it writes, its key, whether a read may be stale, and where
its body begins and ends."""

_MAX_LENGTH_DIGITS: Final = 9

_NAMES: Final = {b"etag": b"ETag"}
_NOSNIFF: Final = b"X-Content-Type-Options: nosniff\r\n"


def body_length(section: bytes, local_only: bool = False) -> int:
    """
    How long the body is that follows a header section, or -1 if there is
    anything in it that the lane does not know.

    @param local_only: see L{check_local<kvdb.rest.parsing.check_local>}.
    """
    if len(section) > MAX_HEAD_BYTES:
        return NOT_PLAIN
    seen: dict[bytes, bytes] = {}
    for line in section.split(b"\r\n")[1:]:
        match = _HEADER.fullmatch(line)
        if match is None:
            return NOT_PLAIN
        name = match[1].lower()
        if name in seen:
            return NOT_PLAIN
        seen[name] = match[2]
    length = seen.pop(b"content-length", b"0")
    if not length.isdigit() or len(length) > _MAX_LENGTH_DIGITS:
        return NOT_PLAIN
    if seen.pop(b"connection", b"keep-alive").lower() != b"keep-alive":
        return NOT_PLAIN
    host = seen.pop(b"host", b"").decode()
    try:
        check_host(host)
        if local_only:
            check_local(host)
    except Problem:
        return NOT_PLAIN
    return int(length) if _HARMLESS.issuperset(seen) else NOT_PLAIN


def split_authorization(section: bytes) -> tuple[bytes, bytes | None]:
    """
    A header section without its C{Authorization}, and that one's value; the
    section as it was where that is not simply one.
    """
    found = _AUTHORIZATION.findall(section)
    if len(found) != 1 or len(section) > MAX_HEAD_BYTES:
        return section, None
    [(line, value)] = found
    return section.replace(line, b""), value


def encode_answer(answer: Answer, date: bytes) -> bytes:
    """
    An answer as twisted.web writes it.

    @param date: the headers that begin every answer.
    """
    parts = [b"HTTP/1.1 %d %s\r\n" % (answer.status, REASONS[answer.status]), date]
    for name, value in answer.headers.items():
        parts.append(b"%s: %s\r\n" % (_NAMES.get(name) or name.title(), value))
    parts.append(_NOSNIFF)
    if answer.status not in (204, 304):
        parts.append(b"Content-Length: %d\r\n" % len(answer.body))
    return b"".join((*parts, b"\r\n", answer.body))


@define(slots=True, eq=False)
class Lane:
    """
    What the connections of one server share.

    @ivar max_key_bytes, max_value_bytes: what is beyond them goes the long way,
        and is refused there.
    @ivar found, done: reads answered 200, and writes answered 204: nearly all, and
        plain numbers, for a count in a dictionary is dearer than the rest of it.
    @ivar took: until plain requests were answered; one in L{MEASURED}.
    @ivar asked: requests that had to wait for an answer.
    @ivar guard: None where everybody may do everything.
    @ivar local_only: see L{RestSettings<kvdb.rest.site.RestSettings>}.
    """

    database: Database
    clock: IReactorTime
    max_key_bytes: int
    max_value_bytes: int
    guard: Guard | None = None
    local_only: bool = False
    _lengths: dict[bytes, int] = field(factory=dict, repr=False)
    _principals: dict[bytes, Principal] = field(factory=dict, repr=False)
    _answers: list[tuple[Any, bytes]] | None = None
    _answers_bytes: int = 0
    found: int = 0
    done: int = 0
    _others: Counter[Counted] = field(factory=Counter)
    took: Durations = field(factory=Durations)
    asked: int = 0
    _date: bytes = b""
    _dated: float = -1.0

    def __attrs_post_init__(self) -> None:
        self.database.listen(self)
        if self.guard is not None:
            self.guard.forgotten = self.forget

    def begin(self) -> None:
        """
        See L{Audience<kvdb.interfaces.Audience>}: answers to a batch are made
        first, and then sent in one go, so that a client which has many of them
        to read is woken once and not for each.
        """
        self._answers = []

    def end(self) -> None:
        """See there."""
        self._send_batch()
        self._answers = None

    def _send_batch(self) -> None:
        answers, self._answers = self._answers or (), []
        self._answers_bytes = 0
        for transport, answer in answers:
            transport.write(answer)

    def send(self, transport: Any, answer: bytes) -> None:
        """Write an answer, at once or with those it belongs to."""
        if self._answers is None:
            transport.write(answer)
        else:
            self._answers.append((transport, answer))
            self._answers_bytes += len(answer)
            if self._answers_bytes > MAX_BATCH_BYTES:
                self._send_batch()

    @property
    def counts(self) -> Counter[Counted]:
        """The requests that it has answered."""
        return self._others + Counter({_FOUND: self.found, _WRITTEN: self.done})

    @property
    def learned(self) -> int:
        """How many header sections are remembered."""
        return len(self._lengths)

    def recognise(self, data: bytes) -> Plain | None:
        """The plain request that C{data} begins with, if it does."""
        line_end = data.find(b"\r\n")
        head_end = data.find(b"\r\n\r\n", line_end)
        if head_end < 0:
            return None
        line = _LINE.fullmatch(data, 0, line_end)
        if line is None:
            return None
        section = data[line_end:head_end]
        length = self._lengths.get(section)
        if length is None:
            length = self._learn(section)
        method, key, stale = line.groups()
        if len(key) > self.max_key_bytes or is_reserved(key):
            return None
        if self.guard is not None:
            principal = self._principals.get(section)
            if principal is None or not key.startswith(
                principal.write if method == b"PUT" else principal.read
            ):
                return None
        begin = head_end + 4
        if method == b"PUT":
            if stale or not 0 <= length <= self.max_value_bytes:
                return None
            return True, key, False, begin, begin + length
        if length:
            return None
        return False, key, stale is not None, begin, begin

    def forget(self) -> None:
        """Who may do what has changed."""
        self._lengths.clear()
        self._principals.clear()

    def _learn(self, section: bytes) -> int:
        plain, principal = section, None
        if self.guard is not None:
            plain, shown = split_authorization(section)
            if shown is None:
                principal = self.guard.anonymous
            else:
                principal = self.guard.known(shown)
                if principal is None:
                    return NOT_PLAIN  # yet
        length = body_length(plain, self.local_only)
        if length != NOT_PLAIN:
            if len(self._lengths) >= MAX_LEARNED:
                self.forget()
            self._lengths[section] = length
            if principal is not None:
                self._principals[section] = principal
        return length

    def date(self) -> bytes:
        """The headers that begin every answer."""
        now = self.clock.seconds()
        if not 0 <= now - self._dated < 1:
            self._dated = now
            self._date = b"Server: %s\r\nDate: %s\r\n" % (
                server.version,
                http.datetimeToString(),
            )
        return self._date

    def read(self, key: bytes) -> bytes:
        """The answer to a read of what is here."""
        try:
            record = self.database.get(key)
            if record is None:
                raise Problem(404, "there is no such key")
        except Exception:
            return self.failed(Failure(), "GET")
        self.found += 1
        value = record.value
        return (
            b'HTTP/1.1 200 OK\r\n%bContent-Type: %b\r\nETag: "%d"\r\n%b'
            b"Content-Length: %d\r\n\r\n%b"
        ) % (
            self.date(),
            content_type(value),
            record.mod_revision,
            _NOSNIFF,
            len(value),
            value,
        )

    def written(self, outcome: Outcome) -> bytes:
        """The answer to a write."""
        if outcome.status is OutcomeStatus.DONE:
            self.done += 1
            return b'HTTP/1.1 204 No Content\r\n%bETag: "%d"\r\n%b\r\n' % (
                self.date(),
                outcome.revision,
                _NOSNIFF,
            )
        try:
            answer = written(outcome)
        except Problem as problem:
            answer = problem.answer()
        return self._counted(answer, "PUT")

    def failed(self, failure: Failure, method: str) -> bytes:
        """The answer to what could not be done."""
        return self._counted(answer_to(failure), method)

    def _counted(self, answer: Answer, method: str) -> bytes:
        self._others[KEY_ROUTE, method, answer.status] += 1
        return encode_answer(answer, self.date())

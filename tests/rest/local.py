"""
A database without Raft: commands are applied to a store at once.

And the server on it, spoken to in bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase as TestCase

from kvdb.access.guard import Guard
from kvdb.interfaces import (
    Audience,
    Backup,
    Caller,
    CompactedRevision,
    MemberStatus,
    NodeStatus,
    Selection,
    UnknownMember,
    Watch,
    WatchListener,
)
from kvdb.node.backups import Backups
from kvdb.node.watches import Watches
from kvdb.raft.messages import Entry
from kvdb.rest.problems import REASONS
from kvdb.rest.site import RestSettings, Site, make_site
from kvdb.store.commands import Command, Member, Outcome, Record
from kvdb.store.encoding import encode_command, join_commands
from kvdb.store.memory import MemoryEngines
from kvdb.store.store import Compacted, Store

FAST_LANE = True
"""Whether servers have one; L{the_long_way} lets them do without."""


def the_long_way(case: type[TestCase]) -> type[TestCase]:
    """The same tests, with every request sent to twisted.web and Klein."""

    class TheLongWay(case):  # type: ignore[valid-type, misc]
        def setUp(self) -> None:
            self.patch(sys.modules[__name__], "FAST_LANE", False)
            super().setUp()

    TheLongWay.__name__ = TheLongWay.__qualname__ = case.__name__ + "TheLongWay"
    TheLongWay.__module__ = case.__module__
    return TheLongWay


class LocalDatabase:
    """
    Implements L{Database<kvdb.interfaces.Database>}.

    @ivar failure: what every call fails with, if anything.
    @ivar held: writes that wait, while C{hold} is set.
    @ivar outcomes: of all writes.
    @ivar asked: what was asked of the membership.
    @param clock: by which watches read history.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.store = Store.open(MemoryEngines())
        self.store.bootstrap(7, [Member(1, "http://h:1")])
        self.failure: Exception | None = None
        self.hold = False
        self.held: list[Deferred[Any]] = []
        self.outcomes: list[Outcome] = []
        self.audiences: list[Audience] = []
        self.asked: list[tuple[Any, ...]] = []
        self.barriers = 0
        self.watches = Watches(self.store, clock or Clock())
        self.backups = Backups(self.store, lambda: 1_790_000_000.0)
        self.ready = True

    def _answer(self, value: Any) -> Deferred[Any]:
        if self.failure is not None:
            return fail(self.failure)
        if self.hold:
            self.held.append(Deferred())
            return self.held[-1]
        return succeed(value)

    def listen(self, audience: Audience) -> None:
        self.audiences.append(audience)

    def write(self, command: Command) -> Deferred[Outcome]:
        outcome = None
        if self.failure is None:
            index = self.store.applied_index + 1
            data = join_commands([encode_command(1, index, 0, command)])
            [(_, _, outcome)] = self.store.apply([Entry(1, index, data=data)])
            self.watches.applied()
            self.outcomes.append(outcome)
        return self._answer(outcome)

    def write_for(self, command: Command, caller: Caller[Outcome]) -> None:
        self.write(command).addCallbacks(
            caller.callback, lambda failure: caller.errback(failure.value)
        )

    def read_for(self, caller: Caller[None]) -> None:
        self.read_barrier().addCallbacks(
            caller.callback, lambda failure: caller.errback(failure.value)
        )

    def read_barrier(self) -> Deferred[None]:
        self.barriers += 1
        return self._answer(None)

    def get(self, key: bytes, revision: int | None = None) -> Record | None:
        try:
            return self.store.get(key, revision)
        except Compacted as error:
            raise CompactedRevision(str(error)) from error

    def range(
        self, low: bytes, high: bytes, limit: int
    ) -> tuple[int, Iterator[tuple[bytes, Record]]]:
        return self.store.revision, self.store.range(low, high, limit)

    def watch(
        self, selection: Selection, since: int | None, listener: WatchListener
    ) -> Watch:
        return self.watches.watch(selection, since, listener)

    def open_backup(self) -> Backup:
        return self.backups.begin()

    def add_member(
        self, node_id: int, url: str, idempotency_key: bytes = b""
    ) -> Deferred[None]:
        self.asked.append(("add", node_id, url, idempotency_key))
        return self._answer(None)

    def remove_member(
        self, node_id: int, idempotency_key: bytes = b""
    ) -> Deferred[None]:
        self.asked.append(("remove", node_id, idempotency_key))
        if node_id == 99:
            return fail(UnknownMember("member 99 is not in the cluster"))
        return self._answer(None)

    def transfer_leadership(self, to: int | None) -> Deferred[int]:
        self.asked.append(("lead", to))
        return self._answer(to or 2)

    def status(self) -> NodeStatus:
        member = MemberStatus(1, "http://h:1", "leader", 3, 0, None)
        return NodeStatus(
            id=1,
            cluster_id="0" * 16,
            role="leader",
            leader=1,
            term=2,
            commit_index=3,
            applied_index=3,
            revision=self.store.revision,
            compacted_revision=0,
            log_bytes=0,
            store_bytes=0,
            version="0",
            members=[member],
            alarms=[],
            warnings=[],
        )

    def is_ready(self) -> bool:
        return self.ready


@define
class Reply:
    """An answer, read from its bytes."""

    status: int
    headers: dict[str, str]
    body: bytes


class Conversation:
    """One connection, in bytes."""

    def __init__(self, site: Site, transport: Any = None) -> None:
        self.transport: Any = StringTransport() if transport is None else transport
        self.protocol: Any = site.buildProtocol(None)
        self.protocol.makeConnection(self.transport)

    def say(self, data: bytes) -> None:
        """Send bytes."""
        self.protocol.dataReceived(data)

    def hang_up(self) -> None:
        """Close it from the client's side."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def replies(self, head: bool = False) -> list[Reply]:
        """What was answered so far."""
        data = self.transport.value()
        self.transport.clear()
        found = []
        while data:
            raw, _, data = data.partition(b"\r\n\r\n")
            first, *lines = raw.decode("latin-1").split("\r\n")
            headers = dict(
                line.lower().split(": ", 1) for line in lines if ": " in line
            )
            length = 0 if head else int(headers.get("content-length", "0"))
            status = int(first.split()[1])
            # Twisted's own table lacks some.
            assert first.split(" ", 2)[2] == REASONS[status].decode(), first
            found.append(Reply(status, headers, data[:length]))
            data = data[length:]
        return found


@define
class Server:
    """A server on a database of its own."""

    settings: RestSettings = field(factory=RestSettings)
    clock: Clock = field(factory=Clock)
    guard: Guard | None = None
    database: LocalDatabase = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.database = LocalDatabase(self.clock)

    def site(self) -> Site:
        """A server, to which connections can be made."""
        fast = self.settings.fast_lane and FAST_LANE
        settings = evolve(self.settings, fast_lane=fast)
        return make_site(self.database, self.clock, settings, guard=self.guard)

    def connect(self) -> Conversation:
        """A connection."""
        return Conversation(self.site())

    def ask(
        self, method: str, target: str | bytes, body: bytes | None = None, **more: str
    ) -> Reply:
        """One request, over a connection of its own."""
        raw = target if isinstance(target, bytes) else target.encode("latin-1")
        lines = [method.encode() + b" " + raw + b" HTTP/1.1", b"Host: node"]
        lines += [f"{n.replace('_', '-')}: {v}".encode() for n, v in more.items()]
        if body is not None:
            lines.append(b"Content-Length: %d" % len(body))
        talk = self.connect()
        talk.say(b"\r\n".join(lines) + b"\r\n\r\n" + (body or b""))
        [reply] = talk.replies(head=method == "HEAD")
        talk.hang_up()
        return reply

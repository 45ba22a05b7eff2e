"""What clients do not read: bounded, on every way that an answer takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.interfaces import IPushProducer
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from kvdb.rest import lane as lane_module
from kvdb.rest import unsent as unsent_module
from kvdb.rest.channel import MAX_HELD_BYTES, TURN_BYTES
from kvdb.rest.site import (
    ARRIVE_SECONDS,
    IDLE_SECONDS,
    RestSettings,
    Site,
    make_site,
)
from kvdb.rest.turns import TURN_SECONDS, Turns
from kvdb.rest.unsent import Unsent
from kvdb.store.commands import Put
from tests.rest.local import Conversation, LocalDatabase, Server
from tests.tls.test_clients import Talk

FULL_BYTES = 1 << 16
"""Behind which Twisted's transports pause who writes to them."""

VALUE = b"v" * (1 << 20)
ONE_ANSWER = len(VALUE) * 4 // 3 + 65536
END = b" HTTP/1.1\r\nHost: n\r\n\r\n"


class Unread(StringTransport):
    """
    A transport as Twisted's, whose client reads when it is told to.

    @ivar taken: what the client has read.
    """

    producer: Any

    def __init__(self) -> None:
        super().__init__()
        self.taken = b""
        self.paused = False
        self.most = 0

    @property
    def unsent(self) -> int:
        return len(self.value())

    def write(self, data: bytes) -> None:
        super().write(data)
        self.most = max(self.most, self.unsent)
        if self.unsent > FULL_BYTES and self.producer is not None:
            self.paused = True
            self.producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def read(self) -> int:
        """The client reads all there is."""
        data = self.value()
        self.clear()
        self.taken += data
        if self.paused and self.producer is not None:
            self.paused = False
            self.producer.resumeProducing()
        return len(data)


def connect(site: Site) -> tuple[Any, Unread]:
    channel: Any = site.buildProtocol(None)
    transport = Unread()
    channel.makeConnection(transport)
    return channel, transport


def say(channel: Any, transport: Unread, data: bytes, piece: int = 1 << 14) -> bytes:
    """Send, as TCP does, while it is read; what is left."""
    while data and transport.producerState == "producing":
        channel.dataReceived(data[:piece])
        data = data[piece:]
    return data


def statuses(data: bytes) -> list[int]:
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        found.append(int(first.split()[1]))
        data = data[int(headers.get("content-length", "0")) :]
    return found


def exposition(_: str) -> tuple[bytes, str]:
    return b"m 1\n" * 20_000, "text/plain"


def prepare(fast: bool) -> tuple[Server, Site]:
    server = Server(RestSettings(fast_lane=fast))
    server.database.write(Put(b"/v", VALUE))
    for number in range(20):
        server.database.write(Put(b"/list/%d" % number, bytes(range(256)) * 200))
    settings = RestSettings(fast_lane=fast)
    return server, make_site(server.database, server.clock, settings, exposition)


ASKED = {
    "linearizable": (b"GET /v", 200),
    "stale": (b"GET /v?consistency=stale", 200),
    "long way": (b"GET /v?consistency=stale&revision=1", 200),
    "list": (b"GET /_/kv?prefix=/list/&limit=1000", 200),
    "metrics": (b"GET /metrics", 200),
    "dashboard": (b"GET /_/ui/app.js", 200),
    "no such key": (b"GET /" + b"k" * 4000, 404),
    "too long": (b"GET /" + b"k" * 4100, 414),
    "no such method": (b"BREW /k", 405),
    "status": (b"GET /_/status", 200),
}


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("kind", ASKED)
def test_what_is_asked_ahead_is_answered_as_it_is_read(kind: str, fast: bool) -> None:
    """Not before; and then all of it, in order."""
    server, site = prepare(fast)
    channel, transport = connect(site)
    line, status = ASKED[kind]
    count = 40
    rest = say(channel, transport, (line + END) * count)
    last = b"GET /_/nothing" + END
    rest += last
    seen: list[int] = []
    for _ in range(count * 2):
        server.clock.advance(0)
        assert transport.unsent <= FULL_BYTES + ONE_ANSWER
        assert channel.held_bytes <= MAX_HELD_BYTES + (1 << 14) + len(line + END)
        if not transport.read() and not rest:
            break
        seen += statuses(transport.taken)
        transport.taken = b""
        rest = say(channel, transport, rest)
    assert not rest
    assert seen == [status] * count + [404]
    assert transport.most <= FULL_BYTES + ONE_ANSWER
    assert site.unsent.held_bytes == 0
    for _ in range(3):
        server.clock.advance(IDLE_SECONDS)
    assert transport.disconnecting


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("line", [b"GET /v", b"GET /v?consistency=stale"])
def test_over_tls(line: bytes, fast: bool, tmp_path: Path) -> None:
    """Also where each request comes in a record of its own."""
    server = Server(RestSettings(fast_lane=fast))
    server.database.write(Put(b"/v", VALUE))
    talk = Talk(server, tmp_path)
    listening: Any = talk.listening
    build = listening.factory.buildProtocol
    made: list[Unread] = []

    class Wire(Unread):
        def setTcpNoDelay(self, enabled: bool) -> None: ...

    def build_protocol(addr: Any) -> Any:
        protocol = build(addr)
        connected = protocol.makeConnection

        def make_connection(wire: Any) -> None:
            made.append(Wire())
            connected(made[0])

        protocol.makeConnection = make_connection
        return protocol

    listening.factory.buildProtocol = build_protocol
    talk.connect()
    [transport] = made
    client, wire = talk.client
    secured = talk.server[0]

    def pass_on() -> int:
        """What the client reads."""
        data = transport.value()
        transport.read()
        if data:
            client.dataReceived(data)
        sent = wire.value()
        wire.clear()
        if sent:
            secured.dataReceived(sent)
        return len(data)

    while pass_on():
        pass
    count = 20
    for _ in range(count):
        client.write(line + END)
    transport.most = 0
    for _ in range(3 * count):
        pass_on()
        server.clock.advance(0)
        if client.within.heard.count(b"HTTP/1.1 200") == count:
            break
        client.within.heard = client.within.heard.replace(VALUE, b"")
    assert client.within.heard.count(b"HTTP/1.1 200") == count
    assert transport.most <= FULL_BYTES + ONE_ANSWER


def test_who_is_full_is_not_taken_for_slow_to_ask() -> None:
    """What is held waits for the client to read, and not for more of it."""
    server, site = prepare(True)
    channel, transport = connect(site)
    say(channel, transport, (b"GET /v?consistency=stale" + END) * 100)
    for _ in range(int(ARRIVE_SECONDS) + 5):
        server.clock.advance(1)
    assert b" 408 " not in transport.value()
    assert not transport.disconnecting
    for _ in range(2 * IDLE_SECONDS + 20):
        server.clock.advance(1)
    assert transport.disconnected, "kept although nobody reads"
    assert site.unsent.held_bytes == 0 or channel in site.open


def test_what_comes_while_a_stream_is_full_is_bounded() -> None:
    server, site = prepare(True)
    channel, transport = connect(site)
    say(channel, transport, b"GET /_/watch?since=0" + END)
    server.clock.advance(0)
    assert transport.paused
    sent = 1 << 20
    rest = say(channel, transport, bytes(sent))
    assert sent - len(rest) <= MAX_HELD_BYTES + (1 << 14)


def test_changes_of_one_turn_do_not_all_go_to_one_connection() -> None:
    server, site = prepare(True)
    readers = [connect(site) for _ in range(3)]
    for channel, transport in readers:
        say(channel, transport, b"GET /_/watch" + END)
    database = server.database
    for _ in range(20):
        database.write(Put(b"/w", VALUE))
    for _, transport in readers:
        assert transport.most <= FULL_BYTES + ONE_ANSWER
    heard = [0] * len(readers)
    for _ in range(200):
        for number, (_, transport) in enumerate(readers):
            transport.read()
            heard[number] += transport.taken.count(b"event: put")
            transport.taken = b""
        server.clock.advance(0)
    assert heard == [20] * len(readers)


def test_a_backup_is_made_as_it_is_read() -> None:
    server, site = prepare(True)
    for number in range(20):
        server.database.write(Put(b"/b/%d" % number, VALUE))
    channel, transport = connect(site)
    say(channel, transport, b"GET /_/snapshot" + END)
    for _ in range(200):
        server.clock.advance(0)
    assert 0 < transport.most <= FULL_BYTES + ONE_ANSWER


class Together(SynchronousTestCase):
    """Many connections."""

    def test_those_that_are_not_read_for_longest_are_cut(self) -> None:
        self.patch(unsent_module, "MAX_UNSENT_BYTES", 5 * len(VALUE))
        server, site = prepare(True)
        ways = [line for line, status in ASKED.values()][:3]
        connections = []
        for number in range(12):
            connections.append(connect(site))
            say(*connections[-1], ways[number % 3] + END)
            server.clock.advance(0)
        cut = [transport.disconnected for _, transport in connections]
        self.assertEqual(cut, [True] * 8 + [False] * 4)
        self.assertLessEqual(site.unsent.held_bytes, 5 * len(VALUE))
        self.assertGreater(site.unsent.held_bytes, 3 * len(VALUE))
        for _, transport in connections[8:]:
            transport.read()
        self.assertEqual(site.unsent.held_bytes, 0)

    def test_all_who_watch_one_large_change(self) -> None:
        self.patch(unsent_module, "MAX_UNSENT_BYTES", 5 * len(VALUE))
        server, site = prepare(True)
        readers = [connect(site) for _ in range(20)]
        for reader in readers:
            say(*reader, b"GET /_/watch?key=/w" + END)
        server.database.write(Put(b"/w", VALUE))
        for _ in range(40):
            server.clock.advance(0)
        unsent = sum(t.unsent for _, t in readers if not t.disconnected)
        self.assertLessEqual(unsent, 6 * ONE_ANSWER)

    def test_unsent(self) -> None:
        self.patch(unsent_module, "MAX_UNSENT_BYTES", 10)

        class One:
            def __init__(self) -> None:
                self.transport = self
                self.cut = False

            def abortConnection(self) -> None:
                self.cut = True

        complaints: list[None] = []
        unsent = Unsent(lambda: complaints.append(None))
        a: Any = One()
        b: Any = One()
        c: Any = One()
        unsent.hold(a, 4)
        unsent.hold(b, 4)
        unsent.hold(a, 2)
        unsent.hold(a, 1)
        self.assertEqual((a.cut, b.cut, unsent.held_bytes), (False, True, 7))
        unsent.hold(c, 30)
        self.assertEqual((a.cut, c.cut, unsent.held_bytes), (True, False, 30))
        unsent.release(c)
        self.assertEqual((unsent.held_bytes, len(complaints)), (0, 2))

    def test_answers_to_a_batch_are_not_all_made_before_they_are_sent(self) -> None:
        self.patch(lane_module, "MAX_BATCH_BYTES", 2 * len(VALUE))
        server, site = prepare(True)
        server.database.hold = True
        connections = [connect(site) for _ in range(9)]
        for connection in connections:
            say(*connection, b"GET /v" + END)
        for audience in server.database.audiences:
            audience.begin()
        for held in server.database.held:
            held.callback(None)
        waiting = sum(not transport.unsent for _, transport in connections)
        self.assertLessEqual(waiting, 2)
        for audience in server.database.audiences:
            audience.end()
        for _, transport in connections:
            self.assertGreater(transport.unsent, len(VALUE))


class Ticking:
    """Time that passes while work is done: C{seconds} on each question."""

    def __init__(self, clock: Any, step: float) -> None:
        self.clock, self.step = clock, step
        self.callLater = clock.callLater

    def seconds(self) -> float:
        self.clock.rightNow += self.step
        return float(self.clock.rightNow)


class TurnsTests(SynchronousTestCase):
    """No connection has a turn of the reactor for itself."""

    def rounds(self, connections: Iterator[Any] | list[Any], clock: Any) -> list[int]:
        """How many answers each turn brings, to all of them."""
        found = []
        for _ in range(200):
            answers = 0
            for _, transport in connections:
                data = transport.value()
                transport.clear()
                answers += len(statuses(data))
            found.append(answers)
            calls = [
                c for c in clock.getDelayedCalls() if c.getTime() <= clock.rightNow
            ]
            for call in calls:
                if call.active():
                    clock.calls.remove(call)
                    call.called = 1
                    call.func(*call.args, **call.kw)
        return found

    def test_requests_that_take_long_are_spread_over_turns(self) -> None:
        for fast, line in (
            (True, b"GET /k?consistency=stale"),
            (True, b"GET /_/status"),
            (False, b"GET /k"),
        ):
            database = LocalDatabase()
            server = Server()
            clock: Any = server.clock
            ticking: Any = Ticking(clock, TURN_SECONDS / 10)
            site = make_site(database, ticking, RestSettings(fast_lane=fast))
            connections = [connect(site) for _ in range(3)]
            for channel, _ in connections:
                channel.dataReceived((line + END) * 40)
            rounds = self.rounds(connections, clock)
            self.assertEqual(sum(rounds), 120)
            self.assertLessEqual(max(rounds), 3 + 10, line)

    def test_bytes_of_one_turn(self) -> None:
        """To a client that reads as fast as it is answered."""
        server = Server()
        server.database.write(Put(b"/v", VALUE))
        clock: Any = server.clock
        for line in (b"GET /v?consistency=stale", b"GET /v?revision=1"):
            talk = server.connect()
            talk.say((line + END) * 20)
            rounds = self.rounds([(talk.protocol, talk.transport)], clock)
            self.assertEqual(sum(rounds), 20)
            self.assertLessEqual(max(rounds), TURN_BYTES // len(VALUE) + 1)

    def test_lists_that_many_wait_for_are_made_in_turns(self) -> None:
        database = LocalDatabase()
        server = Server()
        clock: Any = server.clock
        ticking: Any = Ticking(clock, TURN_SECONDS / 2)
        site = make_site(database, ticking, RestSettings())
        database.hold = True
        connections = [connect(site) for _ in range(5)]
        for channel, _ in connections:
            channel.dataReceived(b"GET /_/kv" + END)
        for held in database.held:
            held.callback(None)
        rounds = self.rounds(connections, clock)
        self.assertEqual(sum(rounds), 5)
        self.assertLessEqual(max(rounds), 2)

    def test_who_hangs_up_while_it_waits_is_forgotten(self) -> None:
        server = Server()
        clock: Any = server.clock
        turns = Turns(clock)
        told: list[str] = []

        class One:
            def __init__(self, name: str, then: Callable[[], None]) -> None:
                self.name, self.then = name, then

            def next_turn(self) -> None:
                told.append(self.name)
                self.then()

        second = One("second", lambda: None)
        first = One("first", lambda: turns.forget(second))
        turns.wait(first)
        turns.wait(second)
        server.clock.advance(0)
        self.assertEqual(told, ["first"])
        turns.wait(second)
        turns.forget(second)
        server.clock.advance(1)
        self.assertEqual((told, clock.getDelayedCalls()), (["first"], []))
        ticking: Any = Ticking(clock, TURN_SECONDS / 2)
        turns = Turns(ticking)
        self.assertFalse(turns.is_over())
        waiting = turns.turn()
        waiting.cancel()
        self.failureResultOf(waiting)
        self.assertEqual(clock.getDelayedCalls(), [])


def test_the_conversation_of_a_test_is_read() -> None:
    """What other tests rest on: a transport that is never full."""
    talk = Conversation(Server().site())
    assert IPushProducer.providedBy(talk.transport)
    talk.say(b"GET /_/status" + END)
    assert json.loads(talk.replies()[0].body)["id"] == 1

"""
What is fuzzed: for each decoder, or group of them, one function of bytes.

A target returns, whatever the bytes; what it raises is a finding.  Rules:

* the errors that a decoder documents are answers, and nothing else is;
* what is read is written as it was, where there is one way to write it;
* a target with choices takes them from its first two bytes, see L{Input};
* checksums stop a fuzzer at the door, so one choice is to put them right;
* no data last from one run to the next, and no real time or disk is used.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from random import Random
from typing import Any, Final, NamedTuple

from google_crc32c import value as crc32c
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from zope.interface import provider

from kvdb.interfaces import Unavailable
from kvdb.peer import codec
from kvdb.peer.addresses import parse_peer_url, tcp_dial
from kvdb.peer.codec import decode_messages, encode_message
from kvdb.peer.framing import (
    HEADER,
    MAX_FRAME_BYTES,
    MAX_HELLO_BYTES,
    FrameParser,
    FrameType,
    ProtocolError,
    encode_frame,
)
from kvdb.peer.handshake import (
    NOT_A_PEER_RESPONSE,
    Hello,
    Identity,
    Purpose,
    decode_hello,
    decode_refusal,
    encode_hello,
    encode_refusal,
)
from kvdb.peer.snapshots import decode_result, encode_result
from kvdb.raft.confchange import as_v2, decode_conf_change, encode_conf_change
from kvdb.raft.messages import ConfState, Entry, EntryType, HardState
from kvdb.rest.channel import MAX_HELD_BYTES
from kvdb.rest.site import BoundedRequest, RestSettings, Site, make_site
from kvdb.simulation.filesystem import SimulatedFileSystem
from kvdb.storage.log import Log, UnknownFormat
from kvdb.storage.records import (
    HEAD,
    BadRecord,
    RecordType,
    decode_entries,
    decode_record,
    encode_entry,
    encode_record,
)
from kvdb.storage.segment import BATCH, CorruptLog
from kvdb.store import encoding
from kvdb.store import store as stores
from kvdb.store.commands import Member, Put
from kvdb.store.encoding import (
    UnknownCommand,
    decode_command,
    decode_member_change,
    encode_command,
    encode_member_change,
)
from kvdb.store.engine import View
from kvdb.store.memory import MemoryEngines
from kvdb.store.snapshot import BadSnapshot, SnapshotReceiver, StoreSnapshot
from kvdb.store.store import Store
from kvdb.store.urls import url_problem
from tests.peer import network as peers
from tests.rest.local import Conversation, LocalDatabase
from tests.storage.disk import content

Target = Callable[[bytes], None]

SMALL_SEGMENT: Final = 4096

AT_REST: Final = (struct.error, ValueError)
"""What the readers of the engine raise; they document nothing."""

OF_A_LOG: Final = (CorruptLog, UnknownFormat)


class Input(NamedTuple):
    """
    Bytes with choices before them.

    @ivar flags: what each bit means, its target says.
    @ivar piece: the length of the pieces the bytes come in; 0 for all at once.
    """

    flags: int
    piece: int
    rest: bytes

    @classmethod
    def of(cls, data: bytes) -> Input:
        """The first two bytes are the choices."""
        return cls(data[0], data[1], data[2:]) if len(data) > 1 else cls(0, 0, b"")

    def pieces(self) -> list[bytes]:
        """C{rest}, as it comes: in at most 64 pieces, lest it takes long."""
        length = len(self.rest)
        size = max(self.piece, length // 64 + 1) if self.piece else length or 1
        return [self.rest[at : at + size] for at in range(0, len(self.rest), size)]


def items(data: bytes) -> Iterator[bytes]:
    """What stands in C{data} behind lengths of two bytes; the last may be cut."""
    at = 0
    while at + 2 <= len(data):
        length = int.from_bytes(data[at : at + 2], "big")
        yield data[at + 2 : at + 2 + length]
        at += 2 + length


def join(parts: Iterable[bytes]) -> bytes:
    """The other way."""
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def seal_frames(data: bytes) -> bytes:
    """C{data} with the checksums of frames put right."""
    sealed, at = bytearray(data), 0
    while at + HEADER.size <= len(data):
        length, kind, _ = HEADER.unpack_from(data, at)
        end = at + HEADER.size + length
        if end > len(data):
            break
        covered = bytes([kind]) + data[at + HEADER.size : end]
        HEADER.pack_into(sealed, at, length, kind, crc32c(covered))
        at = end
    return bytes(sealed)


def seal_records(data: bytes, at: int = 0, until: int | None = None) -> bytes:
    """C{data} with the checksums of records put right."""
    sealed = bytearray(data)
    until = len(data) if until is None else min(until, len(data))
    while at + HEAD.size < until:
        length, _ = HEAD.unpack_from(data, at)
        end = at + HEAD.size + length
        if not length or end > until:
            break
        HEAD.pack_into(sealed, at, length, crc32c(data[at + HEAD.size : end]))
        at = end
    return bytes(sealed)


@contextmanager
def nothing_fails(*but: type[Exception]) -> Iterator[None]:
    """A failure that is logged is a finding too."""
    failures: list[Any] = []

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event["log_level"] >= LogLevel.error:
            failure = event.get("log_failure") or event.get("failure")
            if failure is None or not failure.check(*but):
                failures.append(failure or event.get("log_format"))

    globalLogPublisher.addObserver(observe)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(observe)
    for failure in failures:
        cause = getattr(failure, "value", None)
        raise AssertionError(f"logged: {failure}") from cause


# What peers send.


def frames(data: bytes) -> None:
    """
    L{FrameParser}.  Flags: 1 before the handshake, 2 right checksums.
    """
    given = Input.of(data)
    if given.flags & 2:
        given = given._replace(rest=seal_frames(given.rest))
    limit = MAX_HELLO_BYTES if given.flags & 1 else MAX_FRAME_BYTES
    found = _frames(limit, given.pieces())
    assert found == _frames(limit, [given.rest]), "pieces make a difference"
    taken, _ = found
    written = b"".join([encode_frame(kind, body) for kind, body in taken])
    assert given.rest.startswith(written)


def _frames(
    limit: int, pieces: Sequence[bytes]
) -> tuple[list[tuple[FrameType, bytes]], str]:
    """The frames in C{pieces}, and how they end."""
    parser = FrameParser(limit)
    found: list[tuple[FrameType, bytes]] = []
    for piece in pieces:
        parser.feed(piece)
        try:
            while (frame := parser.next()) is not None:
                found.append(frame)
        except ProtocolError as error:
            return found, error.reason
        waiting = len(parser._buffer) - parser._offset
        assert waiting < HEADER.size + limit, "more than a frame is held"
        assert len(parser._buffer) <= HEADER.size + limit + len(piece)
    return found, ""


def messages(data: bytes) -> None:
    """L{decode_messages}.  Flags: 1 right checksums."""
    given = Input.of(data)
    body = _seal_messages(given.rest) if given.flags & 1 else given.rest
    try:
        found = decode_messages(body)
    except ProtocolError:
        return
    assert b"".join([encode_message(message) for message in found]) == body
    for message in found:
        for entry in message.entries:
            again = Entry(entry.term, entry.index, entry.type, entry.data)
            assert encode_entry(again) == entry.encoded


def _seal_messages(body: bytes) -> bytes:
    at = 0
    while at + codec._FIXED.size <= len(body):
        _, flags, context, _, length, *_ = codec._FIXED.unpack_from(body, at)
        start = at + codec._FIXED.size
        body = seal_records(body, start, start + length)
        at = start + length
        if flags & codec._HAS_SNAPSHOT and at + codec._SNAPSHOT.size <= len(body):
            *_, a, b, c, d, size = codec._SNAPSHOT.unpack_from(body, at)
            at += codec._SNAPSHOT.size + 8 * (a + b + c + d) + size
        at += context
    return body


def hello(data: bytes) -> None:
    """L{decode_hello}, and what its URL may come to."""
    try:
        found = decode_hello(data)
    except ProtocolError:
        return
    assert data.startswith(encode_hello(found))
    tcp_dial(MemoryReactorClock())(found.identity.url)


def refusal(data: bytes) -> None:
    """L{decode_refusal}."""
    try:
        found = decode_refusal(data)
    except ProtocolError:
        return
    again = decode_refusal(encode_refusal(found))
    assert again.code is found.code
    assert found.text.startswith(again.text.rstrip("\N{REPLACEMENT CHARACTER}"))


def result(data: bytes) -> None:
    """L{decode_result}."""
    try:
        code, text = decode_result(data)
    except ProtocolError:
        return
    again, cut = decode_result(encode_result(code, text))
    assert again is code
    assert text.startswith(cut.rstrip("\N{REPLACEMENT CHARACTER}"))


def peer_url(data: bytes) -> None:
    """
    L{parse_peer_url}, and that a URL it takes can be dialled.  What may become a
    member's URL, this must take.
    """
    url = data.decode("utf-8", "surrogateescape")
    fits = url_problem(url) is None
    try:
        host, port = parse_peer_url(url)
    except ValueError:
        assert not fits, "a member that cannot be dialled"
        return
    assert host and 0 < port < 2**16
    tcp_dial(MemoryReactorClock())(url)


class _Stranger(Protocol):
    """Whoever dials the peers' port."""

    def __init__(self) -> None:
        self.got = bytearray()

    def dataReceived(self, data: bytes) -> None:
        self.got += data


def connection(data: bytes) -> None:
    """
    Bytes to the port on which a member listens.  Flags: 1 right checksums, 2
    behind a HELLO, which is 4 for a snapshot, 8 from a member; 16 the sink of
    the snapshot is slow.
    """
    given = Input.of(data)
    rest = seal_frames(given.rest) if given.flags & 1 else given.rest
    net = peers.Network()
    net.piece_bytes = given.piece or peers.TRANSPORT_BYTES
    members = (1, 2) if given.flags & 8 else (1,)
    member = peers.Member(net, 1, members=members).start()
    waiting: list[Deferred[None]] = []

    def take() -> Deferred[None]:
        waiting.append(Deferred())
        return waiting[-1]

    if given.flags & 16:
        assert member.sink is not None
        member.sink.taking = member.sink.finishing = take
    if given.flags & 2:
        identity = Identity(2, 1002, peers.CLUSTER, peers.url(2))
        purpose = Purpose.SNAPSHOT if given.flags & 4 else Purpose.MESSAGES
        word = encode_hello(Hello(identity, 1, purpose))
        rest = encode_frame(FrameType.HELLO, word) + rest
    server = net.listeners[peers.host(1)].buildProtocol(None)
    stranger = _Stranger()
    with nothing_fails():
        near = net.join(stranger, "192.0.2.1", server, peers.host(1))
        near.write(rest)
        net.run()
        limit = MAX_FRAME_BYTES if server.hello else MAX_HELLO_BYTES
        held = len(server.parser._buffer)
        assert held <= HEADER.size + limit + net.piece_bytes
        assert len(stranger.got) <= max(2048, len(NOT_A_PEER_RESPONSE))
        assert all(message.to == 1 for _, message in member.received)
        for deferred in waiting:
            deferred.callback(None)
            net.run()
        for _ in range(12):
            net.clock.advance(1.0)
        assert near.other.lost, "a silent peer is not given up"
        assert server not in member.peers._connections
        member.peers.stopService()
        net.run()
        assert not net.clock.getDelayedCalls()
    sink = member.sink
    if member.offers and sink is not None:
        assert sink.finished or sink.aborted, "a snapshot is never done with"


# What rests on the disk.


def records(data: bytes) -> None:
    """L{decode_record} and L{decode_entries}.  Flags: 1 right checksums."""
    given = Input.of(data)
    buffer = seal_records(given.rest) if given.flags & 1 else given.rest
    at = 0
    while True:
        try:
            kind, body, behind = decode_record(buffer, at)
        except BadRecord as error:
            assert error.offset == at
            break
        head = HEAD.pack(1 + len(body), crc32c(bytes([kind]) + body))
        assert buffer[at:behind] == head + bytes([kind]) + body
        at = behind
    try:
        entries = decode_entries(buffer, 0, given.piece)
    except BadRecord:
        return
    assert buffer.startswith(b"".join([entry.encoded or b"?" for entry in entries]))


def log_bytes(data: bytes) -> None:
    """
    A log whose segments hold the bytes.  Flags: 1 right checksums, 2 in two
    segments, 4 with zeros behind.
    """
    given = Input.of(data)
    parts = list(items(given.rest))[:2] if given.flags & 2 else [given.rest]
    if given.flags & 1:
        parts = [seal_records(part) for part in parts]
    zeros = bytes(SMALL_SEGMENT if given.flags & 4 else 0)
    _open_log([part + zeros for part in parts], sane=not given.flags & 1)


def log_records(data: bytes) -> None:
    """
    A log of whole batches that hold the bytes as records: each of L{items} is
    a kind and a body, and kind 0 begins a batch with its claim, 255 a segment.
    """
    segments: list[bytes] = []
    durable, batch, buffer = 0, b"", b""

    def end_batch() -> bytes:
        claim = encode_record(RecordType.BATCH, BATCH.pack(durable, len(batch)))
        return claim + batch if batch else b""

    for item in items(data):
        kind, body = item[:1], item[1:]
        if kind in (b"\x00", b"\xff"):
            buffer, batch = buffer + end_batch(), b""
            durable = int.from_bytes(body[:8], "big")
        if kind == b"\xff" and len(segments) < 3:
            segments.append(buffer)
            buffer = b""
        elif kind and kind != b"\x00":
            covered = kind + body
            batch += HEAD.pack(len(covered), crc32c(covered)) + covered
    _open_log([*segments, buffer + end_batch()], sane=False)


def _open_log(segments: Sequence[bytes], *, sane: bool) -> None:
    """
    Open a log, append to it, and open it again.

    @param sane: all records with right checksums were written by a log, so
        that it is the same at the second time.
    """
    clock = Clock()
    disk = SimulatedFileSystem(clock, Random(0))
    disk.open("log/reserve").close()  # else each run fills 4 MiB
    for number, part in enumerate(segments, 1):
        disk.open(f"log/log-{number:016x}").write(0, part)
    try:
        log = Log.open(disk, "log", clock, SMALL_SEGMENT)
    except OF_A_LOG:
        assert not disk.locks, "the lock is kept"
        return
    found, state = content(log), log.hard_state
    entry = Entry(1, log.last_index() + 1, data=b"next")
    if state.commit < entry.index < 2**63:
        log.append([entry], HardState(2**64 - 1, 1, state.commit))
        done = log.sync()
        clock.advance(1.0)
        assert done.called and not log.pending_sync_seconds()
        found, state = [*found, entry], log.hard_state
    identity, first = log.identity, log.first_index()
    log.close()
    clock.advance(1.0)
    try:
        log = Log.open(disk, "log", clock, SMALL_SEGMENT)
    except OF_A_LOG:
        assert not sane, "a log that was open and closed is bad"
        return
    if sane:
        assert (content(log), log.hard_state) == (found, state)
        assert (log.identity, log.first_index()) == (identity, first)
    log.close()


# What is in entries, and in the store.


def command(data: bytes) -> None:
    """L{decode_command}."""
    try:
        envelope, found = decode_command(data)
    except UnknownCommand:
        return
    numbers = envelope.session, envelope.sequence, envelope.time_ms
    again = decode_command(encode_command(*numbers, found))
    assert again[1] == found
    if isinstance(found, Put):
        assert len(encode_command(*numbers, found)) == len(data)


def member_change(data: bytes) -> None:
    """L{decode_member_change}."""
    try:
        found = decode_member_change(data)
    except UnknownCommand:
        return
    again = encode_member_change(
        found.session,
        found.sequence,
        found.time_ms,
        found.member_id,
        found.url,
        found.idempotency_key,
        found.judged,
    )
    assert decode_member_change(again) == found


def conf_change(data: bytes) -> None:
    """L{decode_conf_change}.  Flags: the type of the entry."""
    given = Input.of(data)
    kinds = (EntryType.CONF_CHANGE, EntryType.CONF_CHANGE_V2)
    entry = Entry(1, 1, kinds[given.flags & 1], given.rest)
    try:
        found = decode_conf_change(entry)
        again = encode_conf_change(found)
    except ValueError:
        return
    entry.data = again
    if again:
        assert decode_conf_change(entry) == found


def _one_event(data: bytes) -> encoding.Event:
    [event] = encoding.decode_events(data)
    return event


def at_rest(data: bytes) -> None:
    """The readers of the engine.  Flags: which."""
    given = Input.of(data)
    pairs: list[tuple[Callable[[bytes], Any], Callable[[Any], bytes]]] = [
        (encoding.decode_record, encoding.encode_record),
        (_one_event, encoding.encode_event),
        (encoding.decode_outcome, lambda found: encoding.encode_outcome(*found)),
        (encoding.decode_member, encoding.encode_member),
        (encoding.decode_conf_state, encoding.encode_conf_state),
    ]
    decode, encode = pairs[given.flags % len(pairs)]
    try:
        found = decode(given.rest)
    except AT_REST:
        return
    assert decode(encode(found)) == found


def _store() -> Store:
    store = Store.open(MemoryEngines())
    store.bootstrap(7, [Member(1, "http://h:1"), Member(2, "http://h:2")])
    return store


def applied(data: bytes) -> None:
    """L{Store.apply} of entries that hold the L{items}."""
    store = _store()
    for term, item in enumerate(items(data), 1):
        index = store.applied_index + 1
        try:
            store.apply([Entry(term, index, data=item)])
        except UnknownCommand:
            assert store.applied_index == index - 1
            return
        for key, record in store.range(b"", b"\xff", 99):
            assert store.get(key, store.revision) == record
        for revision, _ in store.events(store.compacted_revision):
            assert revision <= store.revision


def membership(data: bytes) -> None:
    """What a member does with committed membership entries, the L{items}."""
    store = _store()
    for item in items(data):
        index = store.applied_index + 1
        entry = Entry(1, index, EntryType.CONF_CHANGE_V2, item)
        try:
            change = as_v2(decode_conf_change(entry))
            store.check_change(index, change)
        except (ValueError, UnknownCommand):
            return
        store.apply_conf_change(index, 1, change, ConfState((1, 2)))
        record = decode_member_change(change.context)
        if record.judged is not None and record.member_id in store.members:
            assert url_problem(store.members[record.member_id].url) is None


def snapshot(data: bytes) -> None:
    """
    L{SnapshotReceiver}, given the L{items}.  Flags: 1 between a right header
    and a right trailer.
    """
    given = Input.of(data)
    chunks = list(items(given.rest))
    engines = MemoryEngines()
    receiver = SnapshotReceiver(engines, engines.stage())
    if given.flags & 1:
        chunks = [*_snapshot_of(chunks)]
    try:
        for chunk in chunks:
            receiver.write(chunk)
        receiver.finish()
    except BadSnapshot:
        receiver.abort()
        return
    store = _store()
    try:
        store.install(receiver)
        list(store.range(b"", b"\xff", 99))
        list(store.events(store.compacted_revision))
    except (*AT_REST, stores.UnknownFormat):
        return  # the sender's store was as bad; its checksum is right
    assert len(store.digest()) == 64


class _Pairs:
    """What a snapshot is made of."""

    def __init__(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        self._pairs = pairs

    def scan(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All, whatever is asked for."""
        return iter(self._pairs)

    def close(self) -> None:
        """Nothing is held."""


def _snapshot_of(parts: Sequence[bytes]) -> Iterator[bytes]:
    """A whole snapshot of the keys and values in turn."""
    view: View = _Pairs(list(zip(parts[::2], parts[1::2], strict=False)))
    return StoreSnapshot(view, 3, 1, ConfState((1,))).chunks()


# What clients send.

_HTTP: Final = RestSettings(max_key_bytes=64, max_value_bytes=256)


def http(data: bytes) -> None:
    """
    Bytes to the port for clients.  Flags: 1 the database is slow, 4 the client
    hangs up first.
    """
    given = Input.of(data)
    site, database, clock, codes = _server()
    LocalDatabase.__init__(database)
    database.hold = bool(given.flags & 1)
    codes.clear()
    with nothing_fails():
        talk = Conversation(site)
        transport: Any = talk.transport
        transport.unregisterProducer = lambda: None  # real ones forgive a second
        for piece in given.pieces():
            while transport.producerState == "paused" and database.held:
                database.held.pop(0).errback(Unavailable("slow"))
            if transport.producerState == "paused":
                break
            talk.say(piece)
            if transport.disconnecting:
                break  # nothing more is read then
            held = len(talk.protocol._buffer) + sum(map(len, talk.protocol._dataBuffer))
            assert held <= 2**15 + 2 * len(piece), "what is not read yet is kept"
            ahead = talk.protocol.held_bytes
            assert ahead <= MAX_HELD_BYTES + 2 * len(piece), "too much is held"
        if given.flags & 4:
            talk.hang_up()
        while database.held:
            database.held.pop(0).errback(Unavailable("slow"))
        if not given.flags & 4:
            for _ in range(3):
                clock.advance(1.0 * _HTTP.idle_seconds)
            assert transport.disconnecting, "never given up"
            talk.hang_up()
        clock.advance(1.0 * _HTTP.idle_seconds)
    assert not site.open and not clock.getDelayedCalls()
    assert not [code for code in codes if code >= 500 and code not in (501, 503)]


@cache
def _server() -> tuple[Site, LocalDatabase, Clock, list[int]]:
    """
    The server that all runs share, for to make one is slow; and the statuses that
    it answers with, as they come.
    """
    database, clock = LocalDatabase(), Clock()
    site: Any = make_site(database, clock, _HTTP)
    codes: list[int] = []
    made = site.requestFactory

    class Watched(BoundedRequest):
        def setResponseCode(self, code: int, message: bytes | None = None) -> None:
            codes.append(code)
            super().setResponseCode(code, message)

    site.requestFactory = partial(Watched, **made.keywords)

    @provider(ILogObserver)
    def watch(event: LogEvent) -> None:
        if "log_failure" in event:  # the fast lane's answers are not seen above
            codes.append(500)

    globalLogPublisher.addObserver(watch)
    return site, database, clock, codes


TARGETS: Final[dict[str, Target]] = {
    "frames": frames,
    "messages": messages,
    "hello": hello,
    "refusal": refusal,
    "result": result,
    "peer-url": peer_url,
    "connection": connection,
    "records": records,
    "log-bytes": log_bytes,
    "log-records": log_records,
    "command": command,
    "member-change": member_change,
    "conf-change": conf_change,
    "at-rest": at_rest,
    "applied": applied,
    "membership": membership,
    "snapshot": snapshot,
    "http": http,
}

"""
Valid bytes for each target, made by the encoders: where fuzzing begins.

Also the words of each language, which a fuzzer would have to guess.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Final

from twisted.internet.task import Clock

from kvdb.peer.codec import encode_message
from kvdb.peer.framing import FrameType, encode_frame
from kvdb.peer.handshake import (
    Hello,
    Identity,
    Purpose,
    Refusal,
    RefusalCode,
    encode_hello,
    encode_refusal,
)
from kvdb.peer.snapshots import _END, ResultCode, encode_result
from kvdb.raft.confchange import encode_conf_change
from kvdb.raft.messages import (
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfChangeV2,
    ConfState,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    Snapshot,
)
from kvdb.simulation.filesystem import SimulatedFileSystem
from kvdb.storage.log import Identity as LogIdentity
from kvdb.storage.log import Log
from kvdb.storage.records import HEAD, RecordType, encode_entry, encode_record
from kvdb.store.commands import (
    Command,
    Compact,
    Condition,
    ConditionKind,
    Delete,
    Member,
    Outcome,
    OutcomeStatus,
    Put,
    Reason,
    Record,
    RegisterInstance,
)
from kvdb.store.encoding import (
    Event,
    Judged,
    Operation,
    encode_command,
    encode_conf_state,
    encode_event,
    encode_member,
    encode_member_change,
    encode_outcome,
    join_commands,
)
from kvdb.store.encoding import encode_record as encode_stored
from kvdb.store.memory import MemoryEngines
from kvdb.store.store import Store
from tests.fuzz.targets import SMALL_SEGMENT, join
from tests.peer.network import CLUSTER

_HELLO = encode_hello(
    Hello(Identity(2, 1002, CLUSTER, "http://10.0.0.2:9"), 1, Purpose.MESSAGES)
)
_ENTRIES = [
    Entry(1, 1, data=b"a"),
    Entry(1, 2),
    Entry(2, 3, EntryType.CONF_CHANGE_V2, b"\x00\x00\x01\x00" + bytes(7) + b"\x03"),
]
_STATE = ConfState((1, 2), (3,), (1,), (), True)
_MESSAGES = [
    Message(MessageType.HEARTBEAT, 1, 2, term=1, commit=1, context=b"context"),
    Message(MessageType.APP, 1, 2, 2, 1, 3, 1, entries=_ENTRIES),
    Message(MessageType.APP_RESP, 1, 2, 2, 1, 3, reject=True, reject_hint=4),
    Message(MessageType.PROP, 1, 2, entries=_ENTRIES[:1]),
    Message(MessageType.READ_INDEX, 1, 2, context=b"12345678"),
    Message(MessageType.VOTE, 1, 2, 3, 2, 3),
]
_SNAP = Message(MessageType.SNAP, 1, 2, 2, snapshot=Snapshot(9, 2, _STATE, b"data"))
_COMMANDS: list[Command] = [
    Put(b"/k", b"value"),
    Put(b"/k", b"v", Condition(ConditionKind.REVISION, 1), b"token", 5),
    Put(b"/k", b"v", Condition(ConditionKind.ABSENT), b"token"),
    Delete(b"/k", Condition(ConditionKind.EXISTS), b"other"),
    Delete(b"/k"),
    Compact(1),
    RegisterInstance(1, 77),
]
_ENCODED = [encode_command(1, n, 1000, c) for n, c in enumerate(_COMMANDS)]
_IN_ENTRIES = [join_commands([one]) for one in _ENCODED]
_MEMBERSHIP = [
    encode_member_change(1, 2, 3, 3, "http://h:3", b"token"),
    encode_member_change(1, 2, 3, 2, "", b""),
    encode_member_change(1, 2, 3, 2, "", b"token", Judged((1, 2, 3), 7)),
    encode_member_change(1, 2, 3, 4, "tcp://[::1]:3/", b""),
]
_CHANGES = [
    ConfChangeV2(
        (ConfChangeSingle(ConfChangeType.ADD_LEARNER_NODE, 3),), context=_MEMBERSHIP[0]
    ),
    ConfChangeV2(
        (ConfChangeSingle(ConfChangeType.REMOVE_NODE, 2),), context=_MEMBERSHIP[1]
    ),
    ConfChangeV2(
        (
            ConfChangeSingle(ConfChangeType.ADD_NODE, 4),
            ConfChangeSingle(ConfChangeType.ADD_NODE, 5),
        ),
        ConfChangeTransition.JOINT_EXPLICIT,
    ),
    ConfChangeV2(),
]
_URLS = [
    b"http://10.0.0.2:9",
    b"tcp://[::1]:42379/",
    b"http://node-1.example.org:65535",
    b"http://[fe80::1%25eth0]:1",
    b"http://user@h:1/path?query#fragment",
]


def _segments() -> list[bytes]:
    """A log in two segments."""
    clock = Clock()
    disk = SimulatedFileSystem(clock, Random(0))
    log = Log.open(disk, "log", clock, SMALL_SEGMENT)
    log.set_identity(LogIdentity(7, 1, 9))
    log.append(_ENTRIES[:2], HardState(1, 1, 1))
    log.append([Entry(2, 2, data=bytes(9000))], HardState(2, 1, 1))
    log.append([Entry(2, 3, data=b"end")], None)
    names = [name for name in disk.list("log") if name.startswith("log-")]
    files = [disk.open(f"log/{name}") for name in names]
    return [file.read(0, file.size()).rstrip(b"\0") + bytes(8) for file in files]


def _record_items(segment: bytes) -> bytes:
    """The records of a segment, for C{log-records}."""
    found, at = [], 0
    while at + HEAD.size < len(segment):
        length, _ = HEAD.unpack_from(segment, at)
        if not length:
            break
        body = segment[at + HEAD.size : at + HEAD.size + length]
        if len(body) < 200:
            is_batch = body[0] == RecordType.BATCH
            found.append(b"\0" + body[1:9] if is_batch else body)
        at += HEAD.size + length
    return join(found)


def _snapshots() -> tuple[bytes, bytes]:
    """A stream of a store; and its pairs, in turn."""
    store = Store.open(MemoryEngines())
    store.bootstrap(7, [Member(1, "http://h:1"), Member(2, "http://h:2")])
    store.apply([Entry(1, n, data=d) for n, d in enumerate(_IN_ENTRIES[:3], 2)])
    pairs = [part for pair in store.engine.scan(b"", b"\xff") for part in pair]
    return join(store.open_snapshot().chunks()), join(pairs)


def _requests() -> Iterable[bytes]:
    head = b" HTTP/1.1\r\nHost: h\r\n"
    yield b"PUT /k" + head + b"Content-Length: 5\r\n\r\nvalueGET /k" + head + b"\r\n"
    yield b"GET /k?consistency=stale&revision=1" + head + b'If-None-Match: "1"\r\n\r\n'
    yield b"DELETE /k" + head + b"If-Match: *\r\nIdempotency-Key: a\r\n\r\n"
    yield b"POST /4" + head + b"Content-Length: 10\r\n\r\nhttp://h:1"
    body = b'{"id": 4, "url": "http://h:1"}'
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    yield b"POST /_/members" + head + length + body
    yield b"POST /_/leader" + head + length + body
    yield b"DELETE /_/members/3" + head + b"\r\n"
    for path in (b"status", b"members", b"live", b"ready", b"kv/x"):
        yield b"GET /_/" + path + head + b"\r\n"
    yield b"GET /health HTTP/1.0\r\n\r\n"
    yield b"GET http://h/version" + head + b"Connection: close\r\n\r\n"
    chunks = b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    yield b"PUT /%6b" + head + chunks
    yield b"PUT /k" + head + b"Expect: 100-continue\r\nOrigin: http://h\r\n\r\n"
    yield b"OPTIONS *" + head + b"\r\n"


def _choose(choices: Iterable[tuple[int, int]], rests: Iterable[bytes]) -> list[bytes]:
    """Each of C{rests}, with each of the choices."""
    choices = list(choices)
    return [bytes(choice) + rest for rest in rests for choice in choices]


def _seeds() -> dict[str, list[bytes]]:
    segments = _segments()
    stream, pairs = _snapshots()
    message = b"".join(map(encode_message, _MESSAGES))
    frames = [encode_frame(FrameType.MESSAGES, message), encode_frame(FrameType.PING)]
    begin = encode_frame(FrameType.SNAPSHOT_BEGIN, encode_message(_SNAP))
    chunk = encode_frame(FrameType.SNAPSHOT_CHUNK, b"chunk")
    end = encode_frame(FrameType.SNAPSHOT_END, _END.pack(5, 0x3C9DFDBC))
    refusal = encode_refusal(Refusal(RefusalCode.WRONG_CLUSTER, "why"))
    hello = encode_frame(FrameType.HELLO, _HELLO)
    refuse = encode_frame(FrameType.REFUSE, refusal)
    at_rest = [
        encode_stored(Record(b"value", 1, 2, 3, 4)),
        encode_event(Event(Operation.PUT, 1, 2, b"/k")),
        encode_outcome(
            Outcome(OutcomeStatus.REFUSED, 0, Reason.URL_TAKEN, 3), b"12345678"
        ),
        encode_member(Member(1, "http://h:1", 9)),
        encode_conf_state(_STATE),
    ]
    records = encode_record(RecordType.MARK, bytes(17))
    entries = b"".join(map(encode_entry, _ENTRIES))
    return {
        "frames": _choose([(0, 0), (2, 3), (3, 1)], [b"".join(frames), hello]),
        "messages": _choose([(0, 0), (1, 0)], [message, encode_message(_SNAP)]),
        "hello": [_HELLO],
        "refusal": [refusal],
        "result": [encode_result(ResultCode.BUSY, "why")],
        "peer-url": _URLS,
        "connection": [
            *_choose([(0, 0), (1, 5)], [hello + frames[0], refuse, b"GET / HTTP"]),
            *_choose([(2, 0), (11, 9)], [b"".join(frames), refuse, hello]),
            *_choose([(6, 0), (31, 9)], [begin + chunk + end, begin + refuse]),
        ],
        "records": _choose([(0, 3), (1, 1)], [entries, records + entries]),
        "log-bytes": [
            *_choose([(0, 0), (1, 0), (5, 0)], segments),
            *_choose([(2, 0), (3, 0)], [join(segments)]),
        ],
        "log-records": [
            *map(_record_items, segments),
            join([b"\xff"]).join(map(_record_items, segments)),
        ],
        "command": _ENCODED,
        "member-change": _MEMBERSHIP,
        "conf-change": _choose([(0, 0), (1, 0)], map(encode_conf_change, _CHANGES)),
        "at-rest": [bytes([n, 0]) + data for n, data in enumerate(at_rest)],
        "applied": [
            join(_IN_ENTRIES),
            join(_IN_ENTRIES[2:4]),
            join([join_commands(_ENCODED)]),
        ],
        "membership": [join(map(encode_conf_change, _CHANGES))],
        "snapshot": [*_choose([(0, 0)], [stream]), *_choose([(1, 0)], [pairs])],
        "http": _choose([(0, 0), (1, 7), (6, 0)], _requests()),
    }


SEEDS: Final = _seeds()

_KEYS = b"GET PUT POST DELETE HEAD OPTIONS PATCH HTTP/1.0 HTTP/1.1 /_/kv/ /_/members/"
_HEADERS = b"""Host: Content-Length: Transfer-Encoding: Connection: Expect: Origin:
 If-Match: If-None-Match: Idempotency-Key: Content-Type: chunked close 100-continue"""
WORDS: Final[dict[str, list[bytes]]] = {
    "http": [
        b"\r\n\r\n",
        b"%2F",
        b"?consistency=",
        b"stale",
        b"&revision=",
        b'{"id": 4, "url": "http://h:1"}',
        *_KEYS.split(),
        *_HEADERS.split(),
    ],
    "peer-url": [b"http://", b"tcp://", b"[::1]", b"%25", b"@", b":0", b"\\", b"\t"],
}
"""What a fuzzer is told of each language."""

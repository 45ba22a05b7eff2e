"""
One history, on record, and what every Python makes of it.

C{history.bin} holds log entries: type (1), term (8), length of the data (4), data,
big-endian, from index 2 on, behind the bootstrap of L{MEMBERS}.  C{history.digest}
holds what the store is once they are applied.  Members on different releases of
Python must come to the same; so must this release and the next, or it is a new form
of entry.  C{python -m tests.store.recorded record} writes both anew.

Rule: nothing is imported that applying does not need: it runs where little more than
attrs is installed (see scripts/mixed_python.py).
"""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

from kvdb.raft.confchange import (
    Changer,
    as_v2,
    decode_conf_change,
    encode_conf_change,
    restore,
)
from kvdb.raft.messages import (
    NO_NODE,
    ConfChangeSingle,
    ConfChangeType,
    ConfChangeV2,
    Entry,
    EntryType,
)
from kvdb.raft.tracker import Tracker
from kvdb.store.commands import (
    Command,
    Compact,
    Condition,
    ConditionKind,
    Delete,
    Member,
    Put,
    RegisterInstance,
)
from kvdb.store.encoding import (
    Judged,
    encode_command,
    encode_member_change,
    join_commands,
)
from kvdb.store.memory import MemoryEngines
from kvdb.store.store import Settled, Store

HISTORY: Final = Path(__file__).with_name("history.bin")
DIGEST: Final = Path(__file__).with_name("history.digest")

MEMBERS: Final = (
    Member(1, "http://10.0.0.1:12380"),
    Member(2, "http://10.0.0.2:12380"),
    Member(3, "http://10.0.0.3:12380"),
)
CLUSTER_ID: Final = 0xC0FFEE

ODD_URLS: Final = (
    "http://h:1",
    "HTTP://H:1/",
    "http://[::1]foo:81",
    "http://foo[::1]:82",
    "http://[::1]:81",
    "http://[fe80::1%eth0]:1",
    "http://[v1.a]:1",
    "http://[::ffff:1.2.3.4]:1",
    "http://[::1",
    "http://]a[:1",
    "http://u@h:1",
    "http://h:0081",
    "http://h:+1",
    "http://h:\u0661",
    "http://h:1?",
    "http://h:1#",
    "http://h:1;x",
    "http://0.0.0.0:1",
    "http://256.1.1.1:1",
    "http://a..b:1",
    "http://-x:1",
    "http://x_y:1",
    "http://\u00e4:1",
    "http://\u2100:1",
    "http://\u1e9e:1",
    "http://\U0001e030:1",
    "http://h\u2028:1",
    "http://h\x1f:1",
    "http://h\x85:1",
    "http://h:1\n",
    " http://h:1",
    "nonsense",
    "",
    "http://" + "a" * 64 + ":1",
    "http://" + "a" * 1100 + ":1",
)

_HEAD: Final = struct.Struct(">BQI")


def read(data: bytes) -> Iterator[Entry]:
    """The entries in C{data}."""
    index, start = 2, 0
    while start < len(data):
        kind, term, length = _HEAD.unpack_from(data, start)
        start += _HEAD.size + length
        yield Entry(term, index, EntryType(kind), data[start - length : start])
        index += 1


def applied(data: bytes) -> str:
    """What a store is, and has said, once the entries in C{data} are applied."""
    store = Store.open(MemoryEngines())
    store.bootstrap(CLUSTER_ID, MEMBERS)
    said = hashlib.sha256()
    for entry in read(data):
        if entry.type is EntryType.NORMAL:
            settled = store.apply([entry])
        else:
            settled = [_change(store, entry)]
        for session, sequence, outcome in settled:
            numbers = (session, sequence, outcome.revision, outcome.number)
            said.update(struct.pack(">4Q", *numbers))
            said.update(bytes([outcome.status, outcome.reason]))
        for last, window in store.windows.hashes.items():
            said.update(struct.pack(">QQ", last, window))
    while store.compact_slice(100):
        pass
    lines = [
        f"state {store.digest()}",
        f"said {said.hexdigest()}",
        f"index {store.applied_index}",
        f"revision {store.revision}",
        f"members {len(store.members)}",
        f"removed {len(store.removed)}",
    ]
    return "\n".join(lines) + "\n"


def _change(store: Store, entry: Entry) -> Settled:
    """As L{kvdb.node.changes.Changes.apply} does."""
    change = as_v2(decode_conf_change(entry))
    singles = change.changes
    if store.check_change(entry.index, change) is not None:
        singles = tuple(ConfChangeSingle(c.type, NO_NODE) for c in singles)
    tracker = Tracker(256, 0)
    tracker.install(*restore(tracker, entry.index, store.conf_state))
    effective = ConfChangeV2(singles, change.transition, change.context)
    state = Changer(tracker, entry.index).change(effective)[0].conf_state()
    settled = store.apply_conf_change(entry.index, entry.term, change, state)
    assert settled is not None, "an entry of ours has an outcome"
    return settled


class Recorder:
    """Makes a history that has some of everything."""

    def __init__(self) -> None:
        self.random = Random(1)
        self.parts: list[bytes] = []
        self.next_member = 4
        self.commands: list[Command] = []

    @property
    def index(self) -> int:
        """Of the next entry."""
        return len(self.parts) + 2

    def add(self, kind: EntryType, data: bytes) -> None:
        term = 1 + len(self.parts) // 97
        self.parts.append(_HEAD.pack(kind, term, len(data)) + data)

    def write(self, *commands: Command) -> None:
        made = [
            encode_command(7, 1000 * self.index + place, 1_700_000_000_000, command)
            for place, command in enumerate(commands)
        ]
        self.add(EntryType.NORMAL, join_commands(made))

    def change(
        self,
        kind: ConfChangeType,
        node: int,
        url: str = "",
        judged: Judged | None = None,
        token: bytes = b"",
    ) -> None:
        context = encode_member_change(7, self.index, 9, node, url, token, judged)
        change = ConfChangeV2((ConfChangeSingle(kind, node),), context=context)
        self.add(EntryType.CONF_CHANGE_V2, encode_conf_change(change))

    def command(self) -> Command:
        random = self.random
        if self.commands and random.random() < 0.1:
            return random.choice(self.commands)  # asked for again
        key = b"/k%d" % random.randrange(12)
        kind = ConditionKind(random.randrange(4))
        condition = Condition(kind, random.randrange(400) if kind == 3 else 0)
        token = b"token %d" % random.randrange(200) if random.random() < 0.3 else b""
        draw = random.random()
        if draw < 0.6:
            made: Command = Put(key, random.randbytes(9), condition, token, 0)
        elif draw < 0.9:
            made = Delete(key, condition, token)
        elif draw < 0.97:
            made = RegisterInstance(random.randrange(1, 9), random.randrange(1, 4))
        else:
            made = Compact(random.randrange(self.index))
        self.commands.append(made)
        return made

    def membership(self) -> None:
        random = self.random
        token = b"change %d" % random.randrange(9) if random.random() < 0.2 else b""
        share = random.choice((0.3, 0.6, 1.0))
        reached = tuple(n for n in range(1, 40) if random.random() < share)
        behind = random.choice((0, 1, 100, 101, 102, 500))
        judged = Judged(reached, max(self.index - behind, 0))
        form = random.choice((None, judged))
        known = random.randrange(1, random.choice((14, self.next_member + 1)))
        draw = random.random()
        if draw < 0.55:
            url = random.choice((*ODD_URLS, f"http://10.1.0.{known}:1"))
            node = self.next_member if random.random() < 0.9 else known
            self.next_member = min(self.next_member + 1, 200)
            self.change(ConfChangeType.ADD_LEARNER_NODE, node, url, form, token)
        elif draw < 0.8:
            self.change(ConfChangeType.ADD_NODE, known, "", form, token)
        elif draw < 0.97:
            self.change(ConfChangeType.REMOVE_NODE, known, "", form, token)
        else:
            self.change(ConfChangeType.UPDATE_NODE, known, "", form, token)

    def record(self) -> bytes:
        for node, url in enumerate(ODD_URLS, 4):
            self.change(ConfChangeType.ADD_LEARNER_NODE, node, url)
            self.change(
                ConfChangeType.ADD_LEARNER_NODE, 100 + node, url, Judged((1, 2))
            )
        for node in range(4, 13):
            self.change(ConfChangeType.ADD_NODE, node)
        self.next_member = 4 + len(ODD_URLS)
        self.change(ConfChangeType.ADD_LEARNER_NODE, 90, "http://l:1")
        for _ in range(120):
            self.write(self.command())
        for judged in (  # too far behind, then with too few reached
            Judged((*range(1, 91),), self.index - 102),
            Judged((1, 90), self.index + 1),
            Judged((*range(1, 91),), self.index - 99),
        ):
            self.change(ConfChangeType.ADD_NODE, 90, "", judged, b"promoted")
        self.change(ConfChangeType.REMOVE_NODE, 3)
        for node in (1, 2):  # each would do alone
            few = Judged((1, 2, 4, 6, 7, 9))
            self.change(ConfChangeType.REMOVE_NODE, node, "", few)
        for _ in range(560):
            draw = self.random.random()
            if draw < 0.02:
                self.add(EntryType.NORMAL, b"")
            elif draw < 0.2:
                self.membership()
            else:
                many = self.random.randrange(1, 4)
                self.write(*[self.command() for _ in range(many)])
        for node in range(1, self.next_member):  # the last voter stays
            self.change(ConfChangeType.REMOVE_NODE, node)
        return b"".join(self.parts)


def main() -> int:
    """Print the digest; with C{record}, write a history first."""
    if sys.argv[1:] == ["record"]:
        HISTORY.write_bytes(Recorder().record())
        DIGEST.write_text(applied(HISTORY.read_bytes()), encoding="ascii")
    print(applied(HISTORY.read_bytes()), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())

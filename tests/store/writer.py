"""
A process that writes to a store until it is killed: C{writer.py DIRECTORY}.

After each batch it says on a line which index is known to be durable.
"""

from __future__ import annotations

import sys
from random import Random
from typing import Final

from kvdb.raft.messages import Entry
from kvdb.storage.filesystem import RealFileSystem
from kvdb.store import rocks
from kvdb.store.commands import Command, Compact, Delete, Put
from kvdb.store.rocks import RocksEngines
from kvdb.store.store import Store
from tests.storage.disk import AtOnce
from tests.store.entries import bootstrap, entry

KEYS: Final = 40


def made_entry(index: int) -> Entry:
    """The entry at C{index}: the same in every process."""
    random = Random(index)
    key = b"key %d" % random.randrange(KEYS)
    command: Command = Put(key, random.randbytes(random.randrange(2000)))
    if random.random() < 0.2:
        command = Delete(key)
    elif random.random() < 0.2:
        token = b"%d" % random.randrange(100)
        command = Put(key, b"value", idempotency_key=token)
    elif random.random() < 0.01:
        command = Compact(index // 2)
    return entry(index, command)


def open_store(directory: str) -> Store:
    """The store, with buffers so small that they are often written out."""
    rocks.WRITE_BUFFER_BYTES = 64 << 10  # type: ignore[misc]
    return Store.open(RocksEngines(RealFileSystem(AtOnce()), directory))


def write(directory: str) -> None:
    """Write until killed."""
    store = open_store(directory)
    if not store.applied_index:
        bootstrap(store)
    random = Random(store.applied_index)
    while True:
        first = store.applied_index + 1
        count = random.randrange(1, 10)
        store.apply([made_entry(index) for index in range(first, first + count)])
        durable = store.poll_flush()
        if not store.flushing and random.random() < 0.1:
            store.begin_flush()
        print(durable, flush=True)


if __name__ == "__main__":
    write(sys.argv[1])

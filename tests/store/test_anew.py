"""What one cluster had, as the beginning of another."""

from __future__ import annotations

import pytest

from kvdb.raft.messages import ConfChangeType
from kvdb.store.commands import Command, Delete, Member, Put
from kvdb.store.memory import MemoryEngines
from kvdb.store.store import Store
from tests.store.entries import Changer, bootstrap, do


def filled(*commands: Command) -> Store:
    store = Store.open(MemoryEngines())
    bootstrap(store)
    do(store, *commands)
    return store


def test_a_store_begins_anew_in_another_cluster() -> None:
    store = filled(
        Put(b"/a", b"1", idempotency_key=b"t"), Put(b"/a", b"2"), Delete(b"/b")
    )
    changer = Changer(store)
    changer.change(ConfChangeType.ADD_LEARNER_NODE, 9, "http://i:9")
    changer.change(ConfChangeType.REMOVE_NODE, 9)
    assert store.removed == {9}
    before = list(store.engine.scan(b"i", b"m"))
    store.begin_anew(99, [Member(4, "http://d:4"), Member(2, "http://b:2")], 1000)
    for again in (store, Store.open(store.engines)):
        assert again.cluster_id == 99
        assert (again.applied_index, again.applied_term) == (1, 1)
        assert (again.revision, again.compacted_revision) == (1000, 1000)
        assert [*again.members] == [2, 4]
        assert again.conf_state.voters == (2, 4)
        assert again.removed == set()
        assert list(again.engine.scan(b"i", b"m")) == before
        assert not list(again.engine.scan(b"h", b"i"))
        assert not list(again.engine.scan(b"v", b"w"))
    [outcome] = do(store, Put(b"/a", b"3"))
    assert outcome.revision == 1001
    [outcome] = do(store, Put(b"/a", b"1", idempotency_key=b"t"))
    assert outcome.revision == 1, "a retry gets the outcome from before"


def test_a_revision_does_not_move_back() -> None:
    store = filled(Put(b"/a", b"1"), Put(b"/a", b"2"))
    with pytest.raises(AssertionError, match="moves back"):
        store.begin_anew(99, [Member(4, "http://d:4")], 1)

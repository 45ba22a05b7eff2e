"""What is in a backup."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from google_crc32c import value as crc32c

from kvdb.offline.archive import verify
from kvdb.offline.directory import real_disk
from kvdb.offline.restore import NewCluster, restore
from kvdb.raft.messages import ConfState
from kvdb.store.backup import (
    BackupHeader,
    BackupReader,
    BadBackup,
    LaterBackup,
    backup_pieces,
    encode_header,
)
from kvdb.store.memory import MemoryEngines
from kvdb.store.snapshot import StoreSnapshot
from kvdb.store.store import Store
from tests.offline.member import (
    CLUSTER_ID,
    backup_bytes,
    digest_of,
    nothing,
    some_commands,
)

HEADER = b"\x01kvdbsnap\0\x01" + bytes(16)


def test_what_a_backup_holds(tmp_path: Path) -> None:
    data = backup_bytes(some_commands())
    path = tmp_path / "b"
    path.write_bytes(data)
    told: list[int] = []
    contents = verify(str(path), told.append)
    assert told == sorted(told)
    assert told[-1] == contents.size == len(data)
    assert contents.header.cluster_id == CLUSTER_ID
    assert contents.header.revision == 66
    assert [one.id for one in contents.members] == [1, 2, 3]
    assert contents.keys == 18
    assert contents.outcomes == 9
    assert contents.digest == digest_of(data)


def test_one_that_is_harmed(tmp_path: Path) -> None:
    """Which, where, and what to do is told."""
    whole = backup_bytes(some_commands())
    data = bytearray(whole)
    data[len(data) // 2] ^= 1
    path = tmp_path / "b"
    path.write_bytes(data)
    with pytest.raises(BadBackup, match=r"/b: .* byte \d+ is not as .*take another"):
        verify(str(path), nothing)
    path.write_bytes(whole[:1000])
    cut = r"/b: .* after 1000 bytes, in what begins at byte \d+: .*take another"
    with pytest.raises(BadBackup, match=cut):
        verify(str(path), nothing)


def test_one_of_a_later_release_is_not_to_be_taken_again(tmp_path: Path) -> None:
    data = bytearray(encode_header(BackupHeader(CLUSTER_ID, 1, 1, 0, 0, 0))[:-4])
    data[9] += 1
    path = tmp_path / "b"
    path.write_bytes(data + crc32c(bytes(data)).to_bytes(4, "big"))
    with pytest.raises(LaterBackup, match=r"/b: .*: use a later release$"):
        verify(str(path), nothing)


def enveloped(*chunks: bytes) -> bytes:
    header = BackupHeader(CLUSTER_ID, 1, 1, 0, 0, 0)
    return b"".join(backup_pieces(header, iter(chunks)))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (enveloped(), "breaks off before its end"),
        (enveloped(b"?"), "is none"),
        (enveloped(HEADER), "breaks off before its end"),
        (enveloped(HEADER, b"\x02\0\0\0\x05\0\0\0\0key"), "a pair cut"),
    ],
)
def test_an_envelope_without_a_snapshot(tmp_path: Path, data: bytes, why: str) -> None:
    """Right in all its checksums, and no backup."""
    path = tmp_path / "b"
    path.write_bytes(data)
    with pytest.raises(BadBackup, match=why):
        verify(str(path), nothing)


@pytest.mark.parametrize(
    ("pair", "why"),
    [
        ((b"n1", b"short"), "the members in it are none"),
        ((b"n1", bytes(16) + b"\xff"), "the members in it are none"),
        ((b"mc", b""), "the members in it are none"),
        ((b"ms", b""), "the store in the backup is none"),
    ],
)
def test_a_store_that_nobody_writes(
    tmp_path: Path, pair: tuple[bytes, bytes], why: str
) -> None:
    """Right in all its checksums."""
    engines = MemoryEngines()
    Store.open(engines)
    engines.open().write(dict([pair]))
    path = tmp_path / "b"
    view = engines.open().open_view()
    path.write_bytes(enveloped(*StoreSnapshot(view, 1, 1, ConfState()).chunks()))
    cluster = NewCluster(members={1: "http://a:1"})
    with pytest.raises(BadBackup, match=why):
        restore(real_disk(), str(path), str(tmp_path / "1"), 1, cluster, nothing)
    assert os.listdir(tmp_path) == ["b"]


@pytest.mark.parametrize(("place", "what"), [(18, "index"), (26, "term")])
def test_a_snapshot_of_another_moment(tmp_path: Path, place: int, what: str) -> None:
    """Right in all its checksums; the snapshot's own header says something else."""
    reader = BackupReader()
    first, *others = reader.feed(backup_bytes(some_commands()))
    wrong = bytearray(first)
    wrong[place] += 1
    path = tmp_path / "b"
    chunks = [bytes(wrong), *others]
    path.write_bytes(b"".join(backup_pieces(reader.finish(), iter(chunks))))
    with pytest.raises(BadBackup, match=f"is of {what} .*, and holds {what} "):
        verify(str(path), nothing)


def test_the_digest_is_of_keys_and_their_records() -> None:
    one, same = backup_bytes(some_commands(40)), backup_bytes(some_commands(40))
    assert digest_of(one) == digest_of(same)
    assert digest_of(one) != digest_of(backup_bytes(some_commands(41)))

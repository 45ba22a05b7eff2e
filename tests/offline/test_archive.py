"""What is in a backup."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvdb.offline.archive import verify
from kvdb.store.backup import BackupHeader, BadBackup, backup_pieces
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
    data = bytearray(backup_bytes(some_commands()))
    data[len(data) // 2] ^= 1
    path = tmp_path / "b"
    path.write_bytes(data)
    with pytest.raises(BadBackup, match="not as it was written"):
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


def test_the_digest_is_of_keys_and_their_records() -> None:
    one, same = backup_bytes(some_commands(40)), backup_bytes(some_commands(40))
    assert digest_of(one) == digest_of(same)
    assert digest_of(one) != digest_of(backup_bytes(some_commands(41)))

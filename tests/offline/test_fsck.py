"""What is wrong with a data directory is found, where it is."""

from __future__ import annotations

import os
import re
from contextlib import closing
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from kvdb.offline.check_store import first_bad_record
from kvdb.offline.directory import read_engine
from kvdb.offline.files import real_filesystem
from kvdb.offline.findings import MAX_FINDINGS, Finding, Findings
from kvdb.offline.fsck import Checked, fsck
from kvdb.raft.messages import Entry, EntryType
from kvdb.storage.instance import InstanceFile
from kvdb.storage.log import Log
from kvdb.storage.segment import CorruptLog, decode_batch
from kvdb.store.engine import EngineError
from kvdb.store.rocks import RocksEngine
from tests.offline.member import (
    CLUSTER_ID,
    backup_bytes,
    digest_of,
    fingerprint,
    make_member,
    nothing,
    some_commands,
)

BOOT = "0b75bb73-4c2c-4a3e-9a9e-3f1ab6d9d1a2"


@pytest.fixture
def member(tmp_path: Path) -> Path:
    return make_member(tmp_path / "member", some_commands(200), applied=150)


def check(directory: Path) -> Checked:
    """And nothing is changed by it."""
    before = fingerprint(directory)
    try:
        return fsck(str(directory), BOOT, nothing)
    finally:
        assert fingerprint(directory) == before


def only(checked: Checked) -> Finding:
    [finding] = checked.findings.found
    assert finding.remedy
    return finding


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x40
    path.write_bytes(data)


def test_one_that_is_well(member: Path) -> None:
    told: list[int] = []
    checked = fsck(str(member), BOOT, told.append)
    assert checked.findings.found == []
    assert checked.findings.errors == 0
    assert checked.entries == 221
    assert checked.segments == len(list((member / "log").glob("log-*"))) > 5
    assert checked.keys > 10
    assert told == sorted(told)
    assert told[-1] > checked.log_bytes


def test_its_digest_is_that_of_its_backup(tmp_path: Path) -> None:
    commands = some_commands(80)
    checked = check(make_member(tmp_path / "m", commands))
    assert checked.digest == digest_of(backup_bytes(commands))


# What was acknowledged before it was on the disk.


def test_what_is_in_memory_alone(member: Path) -> None:
    (member / "log" / "unsynced").write_text(BOOT)
    checked = check(member)
    finding = only(checked)
    assert (finding.is_error, checked.findings.errors) == (False, 0)
    assert finding.path == f"{member}/log/unsynced"
    assert "in this machine's memory alone" in finding.what
    assert "start the node" in finding.remedy


def test_what_a_loss_of_power_may_have_taken(member: Path) -> None:
    (member / "log" / "unsynced").write_text("another boot")
    checked = check(member)
    finding = only(checked)
    assert (finding.is_error, checked.findings.errors) == (True, 1)
    assert "what it acknowledged last may be gone" in finding.what
    assert "under a new id" in finding.remedy


# The log.


def records(path: Path) -> list[tuple[int, int]]:
    """Begin and end of each record in a segment, and of each batch's head."""
    data = path.read_bytes()
    found, offset = [], 0
    end = len(data.rstrip(b"\0"))
    while offset < end:
        batch = decode_batch(data, offset)
        starts = [offset, *(record.offset for record in batch.records)]
        found += list(zip(starts, [*starts[1:], batch.end], strict=True))
        offset = batch.end
    return found


@pytest.mark.parametrize("place", [0.0, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("number", [0, 2])
def test_a_flipped_byte_in_a_segment(member: Path, number: int, place: float) -> None:
    path = sorted((member / "log").glob("log-*"))[number]
    found = records(path)
    start, end = found[int(place * len(found))]
    flip(path, end - 1)
    finding = only(check(member))
    assert finding.is_error
    assert Path(finding.path) == path
    assert finding.offset == start
    assert "check the disk" in finding.remedy


def test_every_one_of_several(member: Path) -> None:
    """And not the first alone."""
    places = set()
    for number in (1, 3):
        path = sorted((member / "log").glob("log-*"))[number]
        found = records(path)
        for part in (0.3, 0.6):
            start, end = found[int(part * len(found))]
            flip(path, end - 1)
            places.add((str(path), start))
    checked = check(member)
    assert {(one.path, one.offset) for one in checked.findings.found} == places
    assert checked.findings.errors == 4


def test_a_torn_end_is_no_error(member: Path) -> None:
    path = sorted((member / "log").glob("log-*"))[-1]
    start, end = records(path)[-1]
    flip(path, end - 1)
    finding = only(check(member))
    assert not finding.is_error
    assert (Path(finding.path), finding.offset) == (path, start)
    assert "its next start erases it" in finding.remedy


def test_a_segment_that_is_missing(member: Path) -> None:
    path = sorted((member / "log").glob("log-*"))[2]
    path.unlink()
    checked = check(member)
    assert checked.findings.errors == 1
    finding = only(checked)
    assert (Path(finding.path), finding.offset) == (path, 0)
    assert "missing" in finding.what


def test_a_file_that_is_not_of_the_log(member: Path) -> None:
    (member / "log" / "notes").write_text("")
    finding = only(check(member))
    assert not finding.is_error
    assert finding.path.endswith("/log/notes")


def test_no_log_at_all(member: Path) -> None:
    for path in (member / "log").iterdir():
        path.unlink()
    checked = check(member)
    assert "does not say whose it is" in checked.findings.found[0].what
    assert "the log that belongs to it is missing" in checked.findings.found[-1].what
    assert "restored from a backup" in checked.findings.found[-1].remedy
    assert checked.findings.errors == 1


def test_a_log_of_another_instance(tmp_path: Path) -> None:
    member = make_member(tmp_path / "m", some_commands())
    InstanceFile(real_filesystem(), str(member / "store")).write(77)
    finding = only(check(member))
    assert finding.is_error
    assert finding.path.endswith("store/INSTANCE")
    assert "they are parts of two data directories" in finding.what


def test_a_later_format(member: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvdb.storage.log.FORMAT_VERSION", 0)
    assert "start a later release" in only(check(member)).what


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ([Entry(3, 2), Entry(2, 3)], "entry 3 is of term 2, behind 3"),
        ([Entry(3, 2)], "the hard state has term 1, and entries 3"),
        ([Entry(1, 2, data=b"\0\0\0\x01?")], "entry 2: 1 bytes in an entry are no"),
        ([Entry(1, 2, data=b"?")], "entry 2: an entry of 1 bytes is cut"),
        ([Entry(1, 2, EntryType.CONF_CHANGE, b"")], "entry 2: "),
    ],
)
def test_entries_that_nobody_writes(
    tmp_path: Path, more: list[Entry], what: str
) -> None:
    """Each with a right checksum."""
    checked = check(make_member(tmp_path / "m", more=more, applied=0))
    errors = [one.what for one in checked.findings.found if one.is_error]
    assert any(one.startswith(what) for one in errors), errors


def test_a_commit_index_beyond_the_end(tmp_path: Path) -> None:
    finding = only(check(make_member(tmp_path / "m", commit=9)))
    assert finding.what == "entry 9 was committed, and the last is 1"


def test_an_entry_that_is_harmed_after_the_log_was_opened(
    member: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def entries(log: Log, low: int, high: int, size: int) -> list[Entry]:
        raise CorruptLog("log-1", 7, "a bad sector")

    monkeypatch.setattr(Log, "entries", entries)
    finding = only(check(member))
    assert (finding.path, finding.offset) == ("log-1", 7)


# The store.


def engine_of(member: Path) -> Path:
    return member / "store" / "engine-00000001"


def tables_of(member: Path) -> list[Path]:
    return sorted(engine_of(member).glob("*.sst"))


def test_a_flipped_byte_in_a_table(member: Path) -> None:
    path = tables_of(member)[-1]
    flip(path, 100)
    checked = check(member)
    finding = only(checked)
    assert finding.is_error
    assert Path(finding.path) == path
    assert finding.offset == 0, "the block in which it lies"
    assert "checksum" in finding.what
    assert checked.digest is None


def test_several_tables(tmp_path: Path) -> None:
    """One of them is told of: behind it RocksDB reads no further."""
    member = make_member(tmp_path / "m", some_commands())
    before = tables_of(member)
    spoil(member, {b"z%d" % number: bytes(100) for number in range(99)})
    [added] = set(tables_of(member)) - set(before)
    for path in (before[-1], added):
        flip(path, 60)
    finding = only(check(member))
    assert (Path(finding.path), finding.offset) in ((before[-1], 0), (added, 0))


def test_the_footer_of_a_table(member: Path) -> None:
    path = tables_of(member)[-1]
    flip(path, path.stat().st_size - 3)
    finding = check(member).findings.found[0]
    assert finding.is_error
    assert Path(finding.path) == path


@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.99])
def test_a_flipped_byte_in_a_manifest(member: Path, part: float) -> None:
    [path] = engine_of(member).glob("MANIFEST-*")
    data = path.read_bytes()
    offset = int(part * len(data))
    flip(path, offset)
    finding = check(member).findings.found[0]
    assert finding.is_error
    assert Path(finding.path) == path
    assert finding.offset is not None
    assert finding.offset <= offset
    length = int.from_bytes(data[finding.offset + 4 : finding.offset + 6], "little")
    assert offset < finding.offset + 7 + length


def test_every_flip_in_a_manifest_is_found(member: Path) -> None:
    [path] = engine_of(member).glob("MANIFEST-*")
    data = path.read_bytes()
    assert first_bad_record(data) is None
    for offset in range(len(data)):
        changed = bytearray(data)
        changed[offset] ^= 1
        bad = first_bad_record(bytes(changed))
        assert bad is not None
        assert bad <= offset
    assert first_bad_record(data[:-1]) is not None


def test_a_manifest_of_several_blocks() -> None:
    assert first_bad_record(bytes(3 << 15)) is None, "padding alone"


def test_the_name_of_the_current_engine(member: Path) -> None:
    path = member / "store" / "CURRENT"
    flip(path, 8)
    finding = only(check(member))
    assert finding.is_error
    assert Path(finding.path) == path
    path.unlink()
    engine_of(member).rename(member / "store" / "engine-00000002")
    finding = only(check(member))
    assert finding.is_error
    assert "missing" in finding.what


@pytest.mark.parametrize("name", ["log/lock", "log/log-0000000000000002"])
def test_a_fifo_in_place_of_a_file_is_not_waited_for(member: Path, name: str) -> None:
    (member / name).unlink()
    os.mkfifo(member / name)
    checked = fsck(str(member), BOOT, nothing)
    assert (checked.findings.errors > 0) == (name != "log/lock")


@pytest.mark.parametrize("name", [bytes(16), b"e" * 300, b"..\n", b""])
def test_a_name_that_no_engine_has(member: Path, name: bytes) -> None:
    (member / "store" / "CURRENT").write_bytes(name)
    finding = only(check(member))
    assert finding.is_error
    assert finding.path.startswith(f"{member}/store")
    with pytest.raises(EngineError), read_engine(str(member)):
        raise AssertionError("there is one")


def test_rocksdb_own_current(member: Path) -> None:
    flip(engine_of(member) / "CURRENT", 3)
    finding = check(member).findings.found[0]
    assert finding.is_error
    assert str(engine_of(member)) in finding.path


def test_a_member_that_never_started(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    checked = check(tmp_path)
    assert checked.findings.errors == 0
    assert [one.what for one in checked.findings.found] == [
        "the log does not say whose it is",
        "there is no store",
    ]
    (tmp_path / "store").mkdir()
    assert check(tmp_path).findings.errors == 0


def spoil(member: Path, pairs: dict[bytes, bytes | None]) -> None:
    engine = RocksEngine(str(engine_of(member)))
    engine.write(pairs)
    engine.flush()
    engine.close()


@pytest.mark.parametrize(
    ("pairs", "what"),
    [
        ({b"k/x": b"short"}, "kind 'k'"),
        ({b"k/x": (2**40).to_bytes(8, "big") * 4}, "kind 'k'"),
        ({b"k/x": bytes(32)}, "kind 'k'"),
        ({b"h" + bytes(8): b""}, "kind 'h'"),
        ({b"h" + bytes(8): b"cut"}, "kind 'h'"),
        ({b"ixx": b"short"}, "kind 'i'"),
        ({b"j" + b"\1" * 8: b"no such token"}, "no such outcome"),
        ({b"j" + b"\1" * 8: b"token-0"}, "not equal in number"),
        ({b"mc": bytes(2)}, "its state is wrong"),
        ({b"ms": b"\0\x09"}, "start a later release"),
        ({b"n" + (2).to_bytes(8, "big"): None}, "voters and learners are"),
        ({b"r" + (2).to_bytes(8, "big"): b""}, "are members, and removed"),
    ],
)
def test_what_contradicts_itself(
    member: Path, pairs: dict[bytes, bytes | None], what: str
) -> None:
    spoil(member, pairs)
    checked = check(member)
    assert checked.findings.errors
    assert any(what in one.what for one in checked.findings.found), [
        one.text() for one in checked.findings.found
    ]


# Both.


def test_log_and_store_of_two_members(tmp_path: Path, member: Path) -> None:
    other = make_member(tmp_path / "other", node_id=2)
    spoil(other, {b"ms": state(cluster=5)})
    (member / "store").rename(tmp_path / "unused")
    (other / "store").rename(member / "store")
    [finding] = [one for one in check(member).findings.found if one.is_error]
    assert "the log is of cluster 0000000001234567, the store of" in finding.what


def state(*, index: int = 1, cluster: int = CLUSTER_ID) -> bytes:
    """A store's, see docs/store-format.md."""
    numbers = (index, 1, cluster, 0, 0, 0, 0, 0, 0)
    return b"\0\1" + b"".join(one.to_bytes(8, "big") for one in numbers)


def test_a_store_without_its_log(tmp_path: Path) -> None:
    member = make_member(tmp_path / "m", some_commands(100))
    spoil(member, {b"ms": state(index=2)})
    segments = sorted((member / "log").glob("log-*"))
    for path in segments[:-1]:
        path.unlink()
    assert any(
        "entries are missing" in one.what for one in check(member).findings.found
    )


def test_a_store_ahead_of_its_log(tmp_path: Path) -> None:
    member = make_member(tmp_path / "m")
    spoil(member, {b"ms": state(index=100)})
    finding = only(check(member))
    assert finding.is_error
    assert "the log that belongs to the store is missing, or it is an" in finding.what
    with closing(Log.open(real_filesystem(), f"{member}/log", Clock())) as log:
        log.begin_install()
    finding = only(check(member))
    assert not finding.is_error
    assert "a snapshot came" in finding.what


@pytest.mark.parametrize(
    ("node_id", "flags", "what", "is_error"),
    [
        (1, {"removed": True}, "member 1 was removed", False),
        (1, {"diverged": True}, "found to differ", True),
        (4, {}, "member 4 is not among the members", False),
    ],
)
def test_what_the_identity_says(
    tmp_path: Path, node_id: int, flags: dict[str, bool], what: str, is_error: bool
) -> None:
    finding = only(check(make_member(tmp_path / "m", node_id=node_id, flags=flags)))
    assert what in finding.what
    assert finding.is_error == is_error


def test_another_instance(tmp_path: Path) -> None:
    member = make_member(tmp_path / "m")
    one = (1).to_bytes(8, "big")
    spoil(member, {b"n" + one: one + (5).to_bytes(8, "big") + b"http://127.0.0.1:1"})
    assert "another data directory" in only(check(member)).what


def test_no_more_findings_than_anybody_reads() -> None:
    findings = Findings()
    for number in range(MAX_FINDINGS + 5):
        findings.error("file", number, "bad")
        findings.error("file", number, "bad, again")
    assert (len(findings.found), findings.more) == (MAX_FINDINGS, 5 + 5)
    text = findings.found[3].text()
    assert re.fullmatch(r"error: file, offset 3: bad. What to do: check the .*", text)

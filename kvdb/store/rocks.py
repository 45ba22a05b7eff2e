"""
RocksDB as the engine.

Its own write-ahead log is off: the Raft log is that.  Everything lies in one
column family, so flushes keep the order of batches and a crash leaves a
prefix of them.

Files::

    <directory>/CURRENT              the name of the current engine
    <directory>/INSTANCE             see L{kvdb.storage.instance}
    <directory>/engine-00000001/     RocksDB's own files

Memory is bounded: L{WRITE_BUFFER_BYTES} times L{WRITE_BUFFERS} for what is not
flushed, L{CACHE_BYTES} for what is read, and indexes and filters within the
latter, in parts: the whole filter of one file is larger than the part of the cache
that it could lie in, and would be read again for each key.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

from attrs import define, field
from rocksdict import (
    AccessType,
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteOptions,
)

from kvdb.storage.filesystem import DiskFull, FileSystem
from kvdb.storage.instance import NAME as INSTANCE
from kvdb.store.engine import Engine, EngineError, Pair

WRITE_BUFFER_BYTES: Final = 16 << 20
"""What is gathered in memory before it is written out as one file."""

WRITE_BUFFERS: Final = 4
"""How many of them there may be, one being filled and others written out."""

CACHE_BYTES: Final = 64 << 20

METADATA_BLOCK_BYTES: Final = 64 << 10
"""A part of an index or a filter."""

OPEN_FILES: Final = 512

TOMBSTONE_WINDOW: Final = 8192
TOMBSTONES_IN_WINDOW: Final = 7000
"""A file in which so many of so many pairs that follow each other are tombstones is
compacted: else a scan that begins there goes through all of them.  What history leaves
is rarely as dense, or each file would be compacted at once."""

_CURRENT = "CURRENT"
_FIRST: Final = "engine-00000001"
_ROCKS_FILE: Final = re.compile(r"CURRENT|MANIFEST-\d+|\d+\.(sst|log)")
_ENGINE_NAME: Final = re.compile(r"engine-\d{8}")


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(WRITE_BUFFERS)
    options.set_max_background_jobs(2)
    options.set_max_open_files(OPEN_FILES)
    options.set_keep_log_file_num(2)
    options.set_stats_dump_period_sec(0)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_level_compaction_dynamic_level_bytes(True)
    options.set_bytes_per_sync(1 << 20)
    options.add_compact_on_deletion_collector_factory(
        TOMBSTONE_WINDOW, TOMBSTONES_IN_WINDOW, 0.0
    )
    table = BlockBasedOptions()
    table.set_block_cache(Cache(CACHE_BYTES))
    table.set_bloom_filter(10, False)
    table.set_index_type(BlockBasedIndexType.two_level_index_search())
    table.set_partition_filters(True)
    table.set_metadata_block_size(METADATA_BLOCK_BYTES)
    table.set_pin_top_level_index_and_filter(True)
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    options.set_block_based_table_factory(table)
    return options


def _up_to(db: Rdict, high: bytes) -> Any:
    """
    An iterator that ends below C{high}: without that it goes on through what was
    deleted there, however much that is, to find that there is no more.
    """
    options = ReadOptions()
    options.set_iterate_upper_bound(high)
    return db.iter(options)


def _scan(path: str, iterator: Any, low: bytes, high: bytes) -> Iterator[Pair]:
    iterator.seek(low)
    while iterator.valid() and (key := iterator.key()) < high:
        yield key, iterator.value()
        iterator.next()
    try:
        iterator.status()  # at a bad block it is as at the end
    except Exception as error:
        raise _engine_error(path, error) from error


@define(slots=True, eq=False)
class RocksView:
    """
    Implements L{View<kvdb.store.engine.View>}, for one scan at a time.

    It is an iterator, which sees what there was when it was made: rocksdict's
    snapshots do so for single keys, but not when they are iterated.
    """

    _path: str
    _iterator: Any

    def scan(self, low: bytes, high: bytes) -> Iterator[Pair]:
        """See there, as for the one below."""
        return _scan(self._path, self._iterator, low, high)

    def close(self) -> None:
        """See there."""
        self._iterator = None


@define(slots=True, eq=False)
class RocksEngine:
    """Implements L{Engine<kvdb.store.engine.Engine>}."""

    path: str
    _db: Rdict = field(init=False)
    _write_options: Any = field(init=False)  # its stubs are wrong

    def __attrs_post_init__(self) -> None:
        options = _options()
        # Named, too: a column family that is there already is else opened with
        # what was written down for it, and without the cache.
        families = {"default": options}
        try:
            self._db = Rdict(self.path, options=options, column_families=families)
        except Exception as error:
            raise _engine_error(self.path, error) from error
        self._write_options = WriteOptions()
        self._write_options.disable_wal = True

    def get(self, key: bytes) -> bytes | None:
        """See there, as for all below."""
        try:
            value: bytes | None = self._db.get(key)
        except Exception as error:
            raise _engine_error(self.path, error) from error
        return value

    def write(self, batch: Mapping[bytes, bytes | None]) -> None:
        """See there."""
        writes = WriteBatch(raw_mode=True)
        for key, value in batch.items():
            if value is None:
                writes.delete(key)
            else:
                writes.put(key, value)
        try:
            self._db.write(writes, self._write_options)
        except Exception as error:
            raise _engine_error(self.path, error) from error

    def scan(self, low: bytes, high: bytes) -> Iterator[Pair]:
        """See there."""
        return _scan(self.path, _up_to(self._db, high), low, high)

    def begin_flush(self) -> None:
        """See there."""
        self._flush(wait=False)

    def flushed(self) -> bool:
        """See there."""
        return not self._db.property_int_value("rocksdb.num-immutable-mem-table")

    def flush(self) -> None:
        """See there."""
        self._flush(wait=True)

    def _flush(self, *, wait: bool) -> None:
        try:
            self._db.flush(wait)
        except Exception as error:
            raise _engine_error(self.path, error) from error

    def open_view(self) -> RocksView:
        """See there."""
        return RocksView(self.path, self._db.iter())

    @property
    def size_bytes(self) -> int:
        """See there."""
        names = ("rocksdb.total-sst-files-size", "rocksdb.cur-size-all-mem-tables")
        return sum(self._db.property_int_value(name) or 0 for name in names)

    @property
    def unflushed_bytes(self) -> int:
        """See there."""
        return self._db.property_int_value("rocksdb.cur-size-all-mem-tables") or 0

    def close(self) -> None:
        """See there."""
        try:
            self._db.close()
        except Exception as error:
            raise _engine_error(self.path, error) from error


def _engine_error(path: str, error: Exception) -> Exception:
    text = str(error)
    if "No space left" in text or "quota exceeded" in text:
        return DiskFull(
            f"no space on the disk for {path}: free some, and start it again"
        )
    if "Permission denied" in text:
        return EngineError(
            f"RocksDB in {path} cannot go on ({text}).  Run it as the user whose files"
            " they are, or give all of them to the one that it runs as"
        )
    return EngineError(
        f"RocksDB in {path} cannot go on ({text}).  Check the disk.  If the other"
        " members are well, remove this one from the cluster and add it under a new"
        " id with an empty data directory; else restore a backup"
    )


def current_engine(filesystem: FileSystem, directory: str) -> str | None:
    """The name of the current engine; None where none is named."""
    path = f"{directory}/{_CURRENT}"
    if not filesystem.exists(path):
        return None
    file = filesystem.open(path)
    try:
        return file.read(0, 256).decode("latin-1").strip()
    finally:
        file.close()


@define(slots=True, eq=False)
class RocksReader:
    """
    Implements L{Engine<kvdb.store.engine.Engine>} for an engine that nobody uses,
    and writes nothing.

    RocksDB writes beside the files that it was only told to read, so they are
    linked into a directory where it may.

    @ivar scratch: that directory, which is empty.
    """

    path: str
    scratch: str
    _db: Rdict = field(init=False)

    def __attrs_post_init__(self) -> None:
        for name in os.listdir(self.path):
            if _ROCKS_FILE.fullmatch(name):
                os.symlink(
                    os.path.abspath(f"{self.path}/{name}"), f"{self.scratch}/{name}"
                )
        options = _options()
        options.create_if_missing(False)
        try:
            self._db = Rdict(
                self.scratch,
                options=options,
                column_families={"default": options},
                access_type=AccessType.read_only(),
            )
        except Exception as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> Exception:
        text = str(error).replace(self.scratch, self.path)
        return _engine_error(self.path, ValueError(text))

    def get(self, key: bytes) -> bytes | None:
        """See there, as for all below."""
        try:
            value: bytes | None = self._db.get(key)
        except Exception as error:
            raise self._error(error) from error
        return value

    def scan(self, low: bytes, high: bytes) -> Iterator[Pair]:
        """See there."""
        try:
            bounded = _up_to(self._db, high)
            yield from _scan(self.path, bounded, low, high)
        except EngineError as error:
            raise EngineError(str(error).replace(self.scratch, self.path)) from error

    def write(self, batch: Mapping[bytes, bytes | None]) -> None:
        """Nothing may be written."""
        raise AssertionError(f"a write to {self.path}, which is only read")

    def begin_flush(self) -> None:
        """There is nothing to flush."""

    def flushed(self) -> bool:
        """Always."""
        return True

    def flush(self) -> None:
        """There is nothing to flush."""

    def open_view(self) -> RocksView:
        """See there."""
        return RocksView(self.path, self._db.iter())

    @property
    def size_bytes(self) -> int:
        """See there."""
        return self._db.property_int_value("rocksdb.total-sst-files-size") or 0

    @property
    def unflushed_bytes(self) -> int:
        """Nothing is written."""
        return 0

    def close(self) -> None:
        """See there."""
        self._db.close()


@define(slots=True, eq=False)
class RocksEngines:
    """Implements L{Engines<kvdb.store.engine.Engines>}."""

    filesystem: FileSystem
    directory: str
    _current: RocksEngine | None = None

    def open(self) -> Engine:
        """See there, as for all below."""
        self.filesystem.make_directory(self.directory)
        name = current_engine(self.filesystem, self.directory)
        if name is None:
            name = _FIRST
            self._check_unnamed()
            # Durable before it is named: else a crash could leave the name of
            # what is not there, and an empty engine would be made in its place.
            self.filesystem.make_directory(f"{self.directory}/{name}")
            self._write_current(name)
        elif not (
            _ENGINE_NAME.fullmatch(name)
            and self.filesystem.exists(f"{self.directory}/{name}")
        ):
            raise _engine_error(
                self.directory, ValueError(f"{_CURRENT} names {name[:50]!r}")
            )
        for other in self.filesystem.list(self.directory):
            if other in (f"{_CURRENT}.new", f"{INSTANCE}.new"):
                # left by a crash, as the next
                self.filesystem.remove(f"{self.directory}/{other}")
            elif other not in (name, _CURRENT, INSTANCE):
                shutil.rmtree(f"{self.directory}/{other}", ignore_errors=True)
        self._current = RocksEngine(f"{self.directory}/{name}")
        return self._current

    def _check_unnamed(self) -> None:
        """@raise EngineError: there is an engine that should have a name."""
        for other in self.filesystem.list(self.directory):
            if _ENGINE_NAME.fullmatch(other) and other != _FIRST:
                raise _engine_error(
                    self.directory, ValueError(f"{_CURRENT} is missing")
                )

    def _write_current(self, name: str) -> None:
        path = f"{self.directory}/{_CURRENT}"
        file = self.filesystem.open(path + ".new")
        try:
            file.truncate(0)
            file.write(0, name.encode() + b"\n")
            file.sync()
        finally:
            file.close()
        self.filesystem.rename(path + ".new", path)
        self.filesystem.sync_directory(self.directory)

    def stage(self) -> Engine:
        """See there."""
        names = self.filesystem.list(self.directory)
        numbers = [int(name[7:]) for name in names if name.startswith("engine-")]
        return RocksEngine(f"{self.directory}/engine-{max(numbers) + 1:08}")

    def switch(self, staged: Engine) -> None:
        """See there."""
        assert isinstance(staged, RocksEngine)
        before = self._current
        assert before is not None
        self._write_current(staged.path.rpartition("/")[2])
        self._current = staged
        self.discard(before)

    def discard(self, staged: Engine) -> None:
        """See there."""
        assert isinstance(staged, RocksEngine)
        # To close it is to flush it, in vain: a full disk must not keep it here.
        with suppress(DiskFull):
            staged.close()
        shutil.rmtree(staged.path, ignore_errors=True)

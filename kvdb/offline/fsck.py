"""
What is wrong with a data directory that nobody uses.

All of the log is read and all of the store: each record's checksum, the order of
segments, batches, entries and terms, RocksDB's blocks, what membership and counters
say of each other, and log and store of each other.  Nothing is changed.
"""

from __future__ import annotations

from attrs import frozen

from kvdb.offline.check_log import LogCheck
from kvdb.offline.check_store import StoreCheck
from kvdb.offline.directory import Progress, held, read_log
from kvdb.offline.findings import LATER, Findings
from kvdb.storage.log import UnknownFormat
from kvdb.storage.segment import CorruptLog


@frozen(slots=True)
class Checked:
    """
    What was read, and what is wrong with it.

    @ivar log_bytes: in segments; C{entries} are among them.
    @ivar keys: in the store.
    @ivar digest: see L{ContentDigest<kvdb.offline.archive.ContentDigest>}; None if
        the store could not be read.
    """

    findings: Findings
    segments: int
    log_bytes: int
    entries: int
    keys: int
    digest: str | None


def fsck(directory: str, boot_id: str, progress: Progress) -> Checked:
    """
    Read everything.

    @param boot_id: of this boot of the machine.
    @raise DirectoryInUse: a node has it.
    @raise Unusable: it is no data directory.
    """
    findings = Findings()
    done = 0

    def read(size: int) -> None:
        nonlocal done
        done += size
        progress(done)

    log_check = LogCheck(f"{directory}/log", boot_id, findings, read)
    store_check = StoreCheck(directory, findings, read)
    with held(directory):
        log_check.check_segments()
        log_check.check_mark()
        try:
            with read_log(directory) as log:
                if log.repaired is not None:
                    log_check.note_torn(log.repaired)
                log_check.check_entries(log)
                store_check.check(log)
        except CorruptLog as error:
            log_check.note_corrupt(error)
            store_check.check(None)
        except UnknownFormat as error:
            findings.error(f"{directory}/log", None, str(error), LATER)
    return Checked(
        findings,
        log_check.segments,
        log_check.size,
        log_check.entries,
        store_check.keys,
        store_check.digest,
    )

"""
What a member tells the others of itself, about once a second, from protocol
version 2 on.  Body of REPORT (big-endian)::

     0  1  role: 0 follower, 1 candidate, 2 leader, 3 learner
     1  8  term
     9  8  leader's id; 0 while none is known
    17  8  commit index
    25  8  applied index
    33  8  last index of the log
    41  8  revision
    49  8  size of the store, in bytes
    57  8  size of the log, in bytes
    65  1  length of the release's name, and the name (ASCII)
        2  length of the clients' URL, and the URL (ASCII)
        1  number of links, and for each the id (8) of a member it is connected to
        1  number of windows, and for each its last index (8) and its hash (8):
           see L{kvdb.store.windows}
        1  flags: 1 its disk takes no writes now, 2 it acknowledges before it syncs;
           of a release before they were there, none
           (what follows is ignored: room for later versions)

Rules: nothing in a report is acted upon but the windows; it is what people are
shown, and may be a second old.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from attrs import frozen

from kvdb.peer.framing import ProtocolError

ROLES: Final = ("follower", "candidate", "leader", "learner")
"""By their numbers; who only asks whether it could lead is a candidate, too."""

MAX_TEXT_BYTES: Final = 255
"""A release's name, and a clients' URL."""

MAX_LISTED: Final = 255
"""Links, and windows."""

_TAKES_NO_WRITES: Final = 1
_SYNCS_LATER: Final = 2

_FIXED: Final = struct.Struct(">BQQQQQQQQ")
_ID: Final = struct.Struct(">Q")
_WINDOW: Final = struct.Struct(">QQ")


@frozen(slots=True)
class Report:
    """
    @ivar leader: 0 while none is known.
    @ivar client_url: where it serves clients; empty until it does.
    @ivar links: ids of the members that it is connected to.
    @ivar windows: last index and hash of the newest whole windows.
    @ivar takes_writes: whether its disk does: it is not full, and does not hang.
    @ivar syncs_first: whether it acknowledges only what its disk has.
    """

    role: str
    term: int
    leader: int
    commit_index: int
    applied_index: int
    last_index: int
    revision: int
    store_bytes: int
    log_bytes: int
    version: str
    client_url: str
    links: Sequence[int] = ()
    windows: Sequence[tuple[int, int]] = ()
    takes_writes: bool = True
    syncs_first: bool = True


def encode_report(report: Report) -> bytes:
    """The body of a REPORT frame."""
    version = report.version.encode("ascii", "replace")[:MAX_TEXT_BYTES]
    url = report.client_url.encode("ascii", "replace")[:MAX_TEXT_BYTES]
    links, windows = report.links[:MAX_LISTED], report.windows[:MAX_LISTED]
    fixed = _FIXED.pack(
        ROLES.index(report.role),
        report.term,
        report.leader,
        report.commit_index,
        report.applied_index,
        report.last_index,
        report.revision,
        report.store_bytes,
        report.log_bytes,
    )
    parts = [fixed, bytes([len(version)]), version]
    parts += [len(url).to_bytes(2, "big"), url]
    parts += [bytes([len(links)]), *(_ID.pack(node) for node in links)]
    parts += [bytes([len(windows)]), *(_WINDOW.pack(*window) for window in windows)]
    flags = _TAKES_NO_WRITES * (not report.takes_writes) | _SYNCS_LATER * (
        not report.syncs_first
    )
    parts += [bytes([flags])]
    return b"".join(parts)


def decode_report(body: bytes) -> Report:
    """
    The other way.

    @raise ProtocolError: it is none.
    """
    offset = _FIXED.size

    def take(size: int) -> bytes:
        nonlocal offset
        offset += size
        if offset > len(body):
            raise ProtocolError(f"a report of {len(body)} bytes is cut")
        return body[offset - size : offset]

    if len(body) < offset:
        raise ProtocolError(f"a report of {len(body)} bytes is cut")
    role, *numbers = _FIXED.unpack_from(body)
    version = take(take(1)[0]).decode("ascii", "replace")
    url = take(int.from_bytes(take(2), "big")).decode("ascii", "replace")
    links = [_ID.unpack(take(8))[0] for _ in range(take(1)[0])]
    windows = [_WINDOW.unpack(take(16)) for _ in range(take(1)[0])]
    flags = body[offset] if offset < len(body) else 0
    # A role of a later version is shown as what it most probably is.
    name = ROLES[role] if role < len(ROLES) else ROLES[0]
    term, leader, commit, applied, last, revision, store_bytes, log_bytes = numbers
    return Report(
        name,
        term,
        leader,
        commit,
        applied,
        last,
        revision,
        store_bytes,
        log_bytes,
        version,
        url,
        tuple(links),
        tuple(windows),
        not flags & _TAKES_NO_WRITES,
        not flags & _SYNCS_LATER,
    )

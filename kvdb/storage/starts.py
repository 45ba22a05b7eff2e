"""
Which starts a data directory has seen, so that an older copy of it is told from it.

A directory that is put back to an older copy of itself (a machine's snapshot, a
restored file system) has forgotten what its member acknowledged since, and nothing
in it shows that.  But its peers may know: each start draws a random id, which is
durable in the directory before any peer hears of it, and each peer remembers,
durably, the newest start it met of every member::

    directory   1:a  2:b  3:c            peers have met 3:c
    older copy  1:a  2:b                 started: 3:d   does not remember 3:c

Rules:

* numbers alone prove nothing, since a copy counts on from where it was taken: a
  history remembers a start if it has that start's id under that start's number;
* what is too long ago to be kept is not held against anybody;
* nothing here does I/O.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from attrs import frozen

MAX_STARTS: Final = 32
"""The ids of starts that a history keeps, newest ones."""

MAX_PEERS: Final = 100
"""The members whose newest starts are remembered."""

NO_INSTANCE: Final = 0
"""The instance id of a member whose data directory is not known."""

_HISTORY: Final = struct.Struct(">QB")
_ID: Final = struct.Struct(">Q")
_COUNT: Final = struct.Struct(">H")
_PEER: Final = struct.Struct(">QQQQ")


@frozen(slots=True)
class Start:
    """
    One start of a member.

    @ivar number: how many there were of its directory, with this one.
    @ivar id: random.
    """

    number: int
    id: int


@frozen(slots=True)
class Starts:
    """
    The starts of a directory, as it remembers them.

    @ivar count: how many there were; 0 where none was counted.
    @ivar ids: of the newest L{MAX_STARTS} of them, newest last.
    """

    count: int = 0
    ids: tuple[int, ...] = ()

    @property
    def newest(self) -> Start | None:
        """The last one; None where none was counted."""
        return Start(self.count, self.ids[-1]) if self.ids else None

    def begin(self, start_id: int) -> Starts:
        """These, and one more."""
        return Starts(self.count + 1, (*self.ids, start_id)[-MAX_STARTS:])

    def remembers(self, start: Start) -> bool:
        """Whether C{start} is one of these, or too long ago to tell."""
        back = self.count - start.number
        if back < 0:
            return False
        return back >= len(self.ids) or self.ids[-1 - back] == start.id


@frozen(slots=True)
class PeerStart:
    """
    The newest start that was met of a member.

    @ivar instance_id: of its data directory.
    """

    instance_id: int
    start: Start


def encode_starts(starts: Starts) -> bytes:
    """The form that the log and the handshake have in common."""
    ids = b"".join(_ID.pack(start_id) for start_id in starts.ids)
    return _HISTORY.pack(starts.count, len(starts.ids)) + ids


def decode_starts(data: bytes) -> Starts:
    """
    The other way; what follows is ignored.

    @raise struct.error: it is cut short.
    @raise ValueError: there are more ids than starts, or than are kept.
    """
    count, kept = _HISTORY.unpack_from(data)
    if kept > MAX_STARTS or kept > count:
        raise ValueError(
            f"{kept} ids of {count} starts, of which {MAX_STARTS} are kept"
        )
    return Starts(
        count,
        tuple(
            _ID.unpack_from(data, _HISTORY.size + position * _ID.size)[0]
            for position in range(kept)
        ),
    )


def encode_peer_starts(peers: Mapping[int, PeerStart]) -> bytes:
    """
    The newest starts of members, by id.

    @raise ValueError: there are more than L{MAX_PEERS}.
    """
    if len(peers) > MAX_PEERS:
        raise ValueError(f"the starts of {len(peers)} members; {MAX_PEERS} fit")
    parts = [_COUNT.pack(len(peers))]
    for node, known in sorted(peers.items()):
        start = known.start
        parts.append(_PEER.pack(node, known.instance_id, start.number, start.id))
    return b"".join(parts)


def decode_peer_starts(data: bytes) -> dict[int, PeerStart]:
    """
    The other way.

    @raise struct.error: it is of another length.
    """
    (count,) = _COUNT.unpack_from(data)
    if len(data) != _COUNT.size + count * _PEER.size:
        raise struct.error(f"{len(data)} bytes for the starts of {count} members")
    return {
        node: PeerStart(instance, Start(number, start_id))
        for node, instance, number, start_id in _PEER.iter_unpack(data[_COUNT.size :])
    }

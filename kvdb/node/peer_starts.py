"""
The newest starts that this member met of the others, kept in its log.

Rules:

* a start that was met is written to the log before its message is looked at, and
  synced beside the reactor; a full disk leaves it in memory, and it is written
  once there is space;
* members that were removed are forgotten with the next one that is met.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from kvdb.peer.handshake import Identity
from kvdb.storage.filesystem import DiskFull
from kvdb.storage.journal import LogClosed
from kvdb.storage.starts import MAX_PEERS, PeerStart


class StartsLog(Protocol):
    """What is asked of L{kvdb.storage.log.Log} here."""

    peer_starts: Mapping[int, PeerStart]

    def note_peer_starts(self, peer_starts: Mapping[int, PeerStart]) -> Deferred[None]:
        """Write them; fires once they are durable."""


@define(slots=True, eq=False)
class PeerStarts:
    """
    @ivar failed: told why they cannot be made durable any more.
    @ivar known: by member id.
    """

    log: StartsLog
    failed: Callable[[Failure], None]
    known: dict[int, PeerStart] = field(init=False)
    _unwritten: bool = False

    def __attrs_post_init__(self) -> None:
        self.known = dict(self.log.peer_starts)

    def met(self, peer: Identity, members: Container[int]) -> None:
        """A member that may take part has told its starts."""
        newest = peer.starts.newest
        if newest is None:
            return
        start = PeerStart(peer.instance_id, newest)
        before = self.known.get(peer.node_id)
        if before == start or (before is None and len(self.known) >= MAX_PEERS):
            return
        self.known = {node: met for node, met in self.known.items() if node in members}
        self.known[peer.node_id] = start
        self._write()

    def ticked(self) -> None:
        """Write what a full disk did not take before."""
        if self._unwritten:
            self._write()

    def _write(self) -> None:
        try:
            self.log.note_peer_starts(self.known).addErrback(self._not_durable)
        except DiskFull:
            self._unwritten = True
        except LogClosed:
            pass  # the node is being stopped
        except Exception:
            # Called by connections, which could do nothing about it.
            self.failed(Failure())
        else:
            self._unwritten = False

    def _not_durable(self, failure: Failure) -> None:
        if not failure.check(LogClosed):
            self.failed(failure)

"""
A store sent to a follower whose entries are compacted, and taken in by it.

The leader's core asks for a snapshot; what is sent is the store as of that
moment, streamed from a point-in-time view while writes go on.  The receiver
builds a store of it beside its own, which serves until the new one is whole,
and only then tells its core.

Rules: one is received at a time; what is received replaces the store whole or
not at all; a snapshot that the core does not want any more is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvdb.node.pump import Pump
from kvdb.peer.snapshots import SnapshotRefused
from kvdb.raft.messages import Message, Snapshot
from kvdb.store.snapshot import SnapshotReceiver
from kvdb.store.store import Store

log = Logger(namespace="kvdb.node")


class SnapshotNetwork(Protocol):
    """What is asked of the peers' connections here."""

    def send_snapshot(
        self, to: int, message: Message, chunks: Iterator[bytes]
    ) -> Deferred[None]:
        """Stream a snapshot; fires once the receiver has it whole."""


@define(slots=True, eq=False)
class Snapshots:
    """
    @ivar installed: told when the store was replaced.
    @ivar count_sent, count_failed: how many have arrived at their members, and how
        many have not.
    @ivar count_installed: how many were put in place here.
    """

    store: Store
    network: SnapshotNetwork
    installed: Callable[[], None]
    pump: Pump = field(init=False)
    count_sent: int = 0
    count_failed: int = 0
    count_installed: int = 0
    _received: tuple[Snapshot, SnapshotReceiver] | None = None

    # Sending.

    def send(self, message: Message) -> None:
        """The core wants C{message}'s receiver to have a snapshot."""
        view = self.store.open_snapshot()
        snapshot = Snapshot(view.index, view.term, view.conf_state)
        log.info(
            "sending member {node} a snapshot at index {index}",
            node=message.to,
            index=view.index,
        )
        sent = self.network.send_snapshot(
            message.to, evolve(message, snapshot=snapshot), view.chunks()
        )

        def ended(result: object) -> None:
            view.close()
            failed = isinstance(result, Failure)
            self.count_failed += failed
            self.count_sent += not failed
            log.info(
                "the snapshot for member {node} {outcome}",
                node=message.to,
                outcome=(
                    f"did not arrive: {result.getErrorMessage()}"
                    if isinstance(result, Failure)
                    else "arrived"
                ),
            )
            self.pump.report_snapshot(message.to, not failed)

        sent.addBoth(ended)

    # Receiving.

    def begin(self, message: Message) -> Incoming:
        """
        A member offers the snapshot that C{message} describes.

        @raise SnapshotRefused: the last one is not installed yet.
        """
        if self._received is not None:
            raise SnapshotRefused("the snapshot before is still being installed")
        return Incoming(self, message, self.store.receive_snapshot())

    def received(self, message: Message, receiver: SnapshotReceiver) -> None:
        """A snapshot is here whole: let the core decide whether to take it."""
        snapshot = message.snapshot
        assert snapshot is not None, "a MsgSnap without its snapshot"
        self._received = (snapshot, receiver)
        self.pump.receive([message])
        # This very one: the core may still hold one at the same index, whose state is
        # in place and not yet synced.
        if self.pump.raft.core.log.unstable.snapshot is not snapshot:
            log.info(
                "the snapshot at index {index} brings nothing new",
                index=snapshot.index,
            )
            self._received = None
            receiver.abort()

    def install(self, snapshot: Snapshot) -> None:
        """
        The core took C{snapshot}: put its state in place.

        @raise DiskFull: there is no space for that; nothing was changed.
        """
        assert self._received is not None and self._received[0] == snapshot, (
            f"a snapshot at index {snapshot.index} is to be installed that was not"
            " received"
        )
        self.store.install(self._received[1])
        self._received = None
        self.pump.proposals.lost_sight()
        self.count_installed += 1
        log.info("installed the snapshot at index {index}", index=snapshot.index)
        self.installed()


@define(slots=True, eq=False)
class Incoming:
    """Implements L{SnapshotSink<kvdb.peer.snapshots.SnapshotSink>}."""

    _snapshots: Snapshots
    _message: Message
    _receiver: SnapshotReceiver

    def chunk(self, data: bytes) -> None:
        """The next bytes of the stream."""
        self._receiver.write(data)

    def finish(self) -> None:
        """All has come."""
        try:
            self._receiver.finish()
        except Exception:
            self._receiver.abort()  # nobody else will
            raise
        self._snapshots.received(self._message, self._receiver)

    def abort(self) -> None:
        """No more will come."""
        self._receiver.abort()

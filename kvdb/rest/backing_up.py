"""
The whole store over HTTP, as a stream that is a backup.

Rules: a piece is read from the store when the reader has taken those before it,
and no more than one in a turn, so that a backup holds up nobody; what goes wrong,
and a reader that takes nothing for long, cuts the connection, and the backup lacks its
end.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from attrs import define
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from kvdb.interfaces import Backup, Database
from kvdb.rest.call import Call
from kvdb.rest.parsing import check_query, consistency_of
from kvdb.rest.streaming import Sink, Source, Stream

log = Logger(namespace="kvdb.rest")

STALL_SECONDS: Final = 60.0
"""How long a reader may take nothing: the engine keeps files for it meanwhile."""

BACKUP_TYPE: Final = b"application/vnd.kvdb.snapshot"


@define(slots=True, eq=False)
class BackingUp:
    """C{GET /_/snapshot}."""

    database: Database
    clock: IReactorTime

    @inlineCallbacks
    def get(self, call: Call) -> Generator[Deferred[None], None, Stream]:
        """The stream, or why there is none."""
        check_query(call.args, ("consistency",))
        if consistency_of(call.args):
            yield self.database.read_barrier()
        backup = self.database.open_backup()
        name = f"kvdb-{backup.cluster_id:016x}-{backup.revision}.backup"
        headers = {
            b"content-type": BACKUP_TYPE,
            b"content-disposition": f'attachment; filename="{name}"'.encode(),
            b"cache-control": b"no-store",
            b"x-kvdb-revision": b"%d" % backup.revision,
            b"x-kvdb-cluster-id": b"%016x" % backup.cluster_id,
        }
        begin = Sending(self.clock, backup).begin
        return Stream(headers, self.clock, begin, backup.close)


@define(slots=True, eq=False)
class Sending:
    """One backup on its way; the L{Source} of its stream."""

    _clock: IReactorTime
    _backup: Backup
    _sink: Sink | None = None
    _call: IDelayedCall | None = None
    _stall: IDelayedCall | None = None
    _paused: bool = False

    def begin(self, sink: Sink) -> Source:
        """The stream is open."""
        self._sink = sink
        self._call = self._clock.callLater(0, self._send)
        return self

    def _send(self) -> None:
        self._call = None
        sink = self._sink
        assert sink is not None, "sent before it began"
        try:
            piece = next(self._backup.pieces, None)
        except Exception:
            log.failure("a backup could not be read to its end")
            sink.abort()
            return
        if piece is None:
            sink.finish()
            return
        sink.write(piece)
        if not self._paused:
            self._call = self._clock.callLater(0, self._send)

    def pause(self) -> None:
        """See L{Source}, as for the two below."""
        self._paused = True
        self._cancel()
        self._stall = self._clock.callLater(STALL_SECONDS, self._give_up)

    def resume(self) -> None:
        """See there."""
        self._paused = False
        self._cancel()
        self._call = self._clock.callLater(0, self._send)

    def stop(self) -> None:
        """See there."""
        self._cancel()
        self._backup.close()

    def _give_up(self) -> None:
        self._stall = None
        log.info("a backup's reader took nothing for {s:g} s", s=STALL_SECONDS)
        assert self._sink is not None, "paused before it began"
        self._sink.abort()

    def _cancel(self) -> None:
        for call in (self._call, self._stall):
            if call is not None:
                call.cancel()
        self._call = self._stall = None

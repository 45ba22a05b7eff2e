"""
The append thread: what the core wants durable, made so in order.

Each job writes hard state and entries to the log, has them synced, and then
delivers its responses.  Jobs are written at once and synced together: whatever
was written while one sync ran is covered by the next.

Rules:

* responses are delivered in the order of their jobs, none before all that was
  asked for earlier is durable;
* a commit index alone is not worth a write: it goes with the next one (a
  member that forgot it hears it again from its leader), but for L{remember};
* with a C{sync_interval} entries alone are answered once they are written, for as
  long as the oldest so answered and not yet synced is younger than that: where
  the disk hangs, the next ones wait for it.  Votes, terms, snapshots and
  memberships are synced first all the same (L{kvdb.storage.unsynced} has what
  follows from it);
* a full disk holds the queue up and changes nothing; a failed sync is fatal.
* entries are only written while the disk has room for what the store will write of
  them: it cannot refuse what is committed, so the log refuses before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvdb.durations import Durations
from kvdb.raft.messages import Entry, HardState, Message, Snapshot
from kvdb.storage.filesystem import DiskFull

log = Logger(namespace="kvdb.node")


LOOK_BYTES: Final = 1 << 20
"""Of entries that may be written before it is looked for room again."""

ENTRY_BYTES: Final = 256
"""What the store takes for an entry besides its data, about."""


class WritableLog(Protocol):
    """What is asked of L{kvdb.storage.log.Log} here."""

    @property
    def hard_state(self) -> HardState:
        """What was remembered when it was opened, or written since."""

    def append(self, entries: Sequence[Entry], hard_state: HardState | None) -> None:
        """Write, and change nothing where the disk is full."""

    def sync(self) -> Deferred[None]:
        """Fires once all that was written before is durable."""

    def begin_install(self) -> None:
        """Record, durably, that the store may be ahead of the log until C{reset}."""

    def reset(self, index: int, term: int, hard_state: HardState) -> None:
        """Begin anew behind a snapshot."""


@define(slots=True, eq=False)
class _Job:
    hard_state: HardState | None
    entries: Sequence[Entry]
    snapshot: Snapshot | None
    responses: list[Message]
    must_sync: bool
    is_urgent: bool = False
    installed: bool = False
    began: float = 0.0


@define(slots=True, eq=False)
class LogWriter:
    """
    @ivar deliver: given responses whose time has come.
    @ivar install: given a snapshot, puts its state in place, durably, before
        the log forgets what led to it.
    @ivar failed: given what went wrong for good.
    @ivar room: how many bytes of entries the disk has room for, with all that the store
        has yet to write.
        @raise DiskFull: for none.
    @ivar slow_seconds: a sync that takes as long is worth a word: heartbeats do
        not wait for it, but votes and writes do.
    @ivar sync_interval: seconds that entries may be acknowledged ahead of their
        sync; 0: never.  A sync begins after half of it, to have ended in time.
    @ivar full: the error with which the disk refused the job at the head of
        the queue, if it did.
    @ivar took: how long syncs were waited for.
    """

    log: WritableLog
    deliver: Callable[[Sequence[Message]], None]
    install: Callable[[Snapshot], None]
    failed: Callable[[Failure], None]
    clock: IReactorTime
    slow_seconds: float
    sync_interval: float = 0.0
    room: Callable[[], int] | None = None
    full: DiskFull | None = None
    took: Durations = field(factory=Durations)
    _hard_state: HardState = field(init=False)
    _jobs: deque[_Job] = field(factory=deque)
    _syncing: deque[_Job] = field(factory=deque)
    _sync_call: IDelayedCall | None = None
    _early_since: float | None = None
    _syncing_early_since: float | None = None
    _stopped: bool = False
    _writing: bool = False
    _room_left: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        # Jobs that bring none write the one before, which may be older than
        # this process: a vote once given outlives it.
        self._hard_state = self.log.hard_state

    def submit(self, message: Message, must_sync: bool) -> None:
        """A message to the append thread."""
        hard_state = None
        if (message.term, message.vote, message.commit) != (0, 0, 0):
            hard_state = HardState(message.term, message.vote, message.commit)
        self._jobs.append(
            _Job(
                hard_state,
                message.entries,
                message.snapshot,
                list(message.responses),
                must_sync,
            )
        )
        self.write()

    def remember(self) -> None:
        """
        Make durable the commit index too.  A membership is in force once it is
        applied: a member that forgot this would go by the one before, and might
        wait for the votes of members that are gone.
        """
        self._jobs.append(_Job(None, (), None, [], must_sync=True, is_urgent=True))
        self.write()

    @property
    def idle(self) -> bool:
        """Whether all that was asked for is durable."""
        is_synced = self._early_since is None and self._syncing_early_since is None
        return not self._jobs and not self._syncing and is_synced

    def stop(self) -> None:
        """Sync no more by itself."""
        self._stopped = True
        if self._sync_call is not None:
            self._sync_call.cancel()
            self._sync_call = None

    def write(self) -> None:
        """Write what is queued; also to be called when space may be back."""
        if self._writing:
            return  # called by who was just answered: its turn comes
        self._writing = True
        try:
            while self._jobs:
                self._write_one(self._jobs[0])
                self._jobs.popleft()
        except DiskFull as error:
            self.full = error
        else:
            self.full = None
        finally:
            self._writing = False

    def _write_one(self, job: _Job) -> None:
        if job.hard_state is not None:
            before, self._hard_state = self._hard_state, job.hard_state
            if (before.term, before.vote) != (job.hard_state.term, job.hard_state.vote):
                job.is_urgent = True
        if job.snapshot is not None:
            # The state first: a store that is ahead of its log, where the log says
            # that this may be, is an install that a crash interrupted, and is
            # completed at the next start.
            if not job.installed:
                self.log.begin_install()
                self.install(job.snapshot)
                job.installed = True
            self.log.reset(job.snapshot.index, job.snapshot.term, self._hard_state)
            job.snapshot = None
            job.must_sync = job.is_urgent = True
        if job.entries and self.room is not None:
            self._take_room(job.entries, self.room)
        if job.entries or job.must_sync:
            self.log.append(job.entries, self._hard_state)
        if job.must_sync and not job.is_urgent and self._may_be_early():
            self._sync_within_interval()
            job.must_sync = False
        if job.must_sync:
            self._syncing.append(job)
            job.began = self.clock.seconds()
            self.log.sync().addCallback(self._synced, job).addErrback(self.failed)
        elif self._syncing:
            # What it answers may rest on a write that is being synced.
            self._syncing[-1].responses.extend(job.responses)
        else:
            self.deliver(job.responses)

    def _take_room(self, entries: Sequence[Entry], room: Callable[[], int]) -> None:
        """@raise DiskFull: the store would find no space for them."""
        # A leader's first entry is empty: the store takes nothing for it, and reads
        # wait for it.
        size = sum(len(entry.data) + ENTRY_BYTES for entry in entries if entry.data)
        if size > self._room_left:
            self._room_left = 0  # looked for again, whatever it is found to be
            self._room_left = max(size, min(room(), LOOK_BYTES))
        self._room_left -= size

    def _may_be_early(self) -> bool:
        """Whether an entry may be answered before it is synced."""
        oldest = self._syncing_early_since
        if oldest is None:
            oldest = self._early_since
        waited = 0.0 if oldest is None else self.clock.seconds() - oldest
        return waited < self.sync_interval

    def _sync_within_interval(self) -> None:
        if self._early_since is None:
            self._early_since = self.clock.seconds()
        if (
            self._sync_call is None
            and self._syncing_early_since is None
            and not self._stopped
        ):
            due = self._early_since + self.sync_interval / 2
            wait = max(0.0, due - self.clock.seconds())
            self._sync_call = self.clock.callLater(wait, self._sync)

    def _sync(self) -> None:
        self._sync_call = None
        began = self.clock.seconds()
        self._syncing_early_since, self._early_since = self._early_since, None
        done = self.log.sync()
        done.addCallback(self._early_synced, began).addErrback(self.failed)

    def _early_synced(self, _: None, began: float) -> None:
        self._note(began)
        self._syncing_early_since = None
        if self._early_since is not None:
            self._sync_within_interval()

    def _synced(self, _: None, job: _Job) -> None:
        self._note(job.began)
        # Jobs before it are durable too, should their own word come later.
        while job in self._syncing:
            self.deliver(self._syncing.popleft().responses)

    def _note(self, began: float) -> None:
        """A sync was waited for since then."""
        took = self.clock.seconds() - began
        self.took.observe(took)
        if took >= self.slow_seconds:
            log.warn(
                "a sync of the log took {ms:.0f} ms: the disk is slow, and members"
                " may lose their leader over it",
                ms=1000 * took,
            )

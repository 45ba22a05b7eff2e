"""
Watches: changes of keys, told in order to those who asked for them.

::

                      +-- behind: history is read to them, a slice per turn
    Watches.watch() --+        |  (caught up)
                      +-- live: told what is applied, as it is applied
                               |  (their connection is full)
                      +-- paused: only their place is kept

Rules:

* a watch is told each change that it selects once, in order of revisions, and
  none is left out: where that cannot be kept, it is ended, and told why;
* there is no queue: what a watch was not told is in the store's history, and a
  reader who falls behind reads it from there;
* all who are behind go through history together, however many they are, and
  those who come meanwhile begin when the others have reached what was the newest
  change at their start: nobody waits for readers that never catch up;
* what is told in one turn is bounded in changes and in bytes; the watches that a
  change was not told to in its turn are told it in the next;
* a node that knows no leader would keep its watches waiting for nothing, so it
  ends them.
"""

from __future__ import annotations

import enum
from typing import Final

from attrs import define, evolve, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from kvdb.interfaces import (
    Change,
    CompactedRevision,
    DatabaseError,
    Selection,
    Unavailable,
    WatchListener,
)
from kvdb.store.encoding import Event, Operation
from kvdb.store.store import Compacted, Store

MAX_WATCHES: Final = 20_000
"""On one node."""

SLICE_EVENTS: Final = 500
"""Of history, read in one turn to those who are behind."""

MAX_TOLD_PER_TURN: Final = 2_000
"""Changes told in one turn, each to one watch, and the rest of the last change."""

MAX_TOLD_BYTES_PER_TURN: Final = 1 << 20
"""Their keys and values, beside the last of them."""

PROGRESS_SECONDS: Final = 10.0
"""How often a watch that is live hears how far it is."""

MAX_PROGRESS_PER_TICK: Final = 200
"""How many are told so at one tick."""

STALL_SECONDS: Final = 30.0
"""How long a reader may take for what is in its connection's buffers."""


class State(enum.Enum):
    """Where a watch stands."""

    LIVE = enum.auto()
    BEHIND = enum.auto()
    PAUSED = enum.auto()
    ENDED = enum.auto()


@define(slots=True, eq=False)
class Turn:
    """What was told in one turn of the reactor."""

    _changes: int = 0
    _bytes: int = 0

    @property
    def is_over(self) -> bool:
        """Whether no other change is to be told in it."""
        return self._changes >= MAX_TOLD_PER_TURN or self.is_full

    @property
    def is_full(self) -> bool:
        """Whether this change is not to be told to one more watch either."""
        return self._bytes > MAX_TOLD_BYTES_PER_TURN

    def count(self, change: Change) -> None:
        """C{change} was told to one more watch."""
        self._changes += 1
        self._bytes += len(change.key)
        for record in (change.record, change.replaced):
            if record is not None:
                self._bytes += len(record.value)


@define(slots=True, eq=False)
class Watch:
    """
    Implements L{Watch<kvdb.interfaces.Watch>}.

    @ivar position: all that it selects was told up to this revision; while it
        is live, up to the newest.
    @ivar since: when it was paused.
    """

    _watches: Watches
    selection: Selection
    listener: WatchListener
    position: int
    state: State = State.BEHIND
    since: float = 0.0

    def pause(self) -> None:
        """See L{Watch<kvdb.interfaces.Watch>}, as for the two below."""
        self._watches.pause(self)

    def resume(self) -> None:
        """See there."""
        self._watches.resume(self)

    def cancel(self) -> None:
        """See there."""
        self._watches.cancel(self)


@define(slots=True, eq=False)
class Index:
    """Watches by what they select: to find those of a key takes as long as
    there are lengths of prefixes, and not watches."""

    _by_key: dict[bytes, dict[Watch, None]] = field(factory=dict)
    _by_prefix: dict[bytes, dict[Watch, None]] = field(factory=dict)
    _lengths: dict[int, int] = field(factory=dict)
    watches: dict[Watch, None] = field(factory=dict)

    def add(self, watch: Watch) -> None:
        """Find it from now on."""
        self.watches[watch] = None
        key, prefix = watch.selection.key, watch.selection.prefix
        if key is not None:
            self._by_key.setdefault(key, {})[watch] = None
            return
        alike = self._by_prefix.get(prefix)
        if alike is None:
            alike = self._by_prefix[prefix] = {}
            self._lengths[len(prefix)] = self._lengths.get(len(prefix), 0) + 1
        alike[watch] = None

    def remove(self, watch: Watch) -> None:
        """Find it no more."""
        del self.watches[watch]
        key, prefix = watch.selection.key, watch.selection.prefix
        if key is not None:
            alike = self._by_key[key]
            del alike[watch]
            if not alike:
                del self._by_key[key]
            return
        alike = self._by_prefix[prefix]
        del alike[watch]
        if not alike:
            del self._by_prefix[prefix]
            self._lengths[len(prefix)] -= 1
            if not self._lengths[len(prefix)]:
                del self._lengths[len(prefix)]

    def matching(self, key: bytes) -> list[Watch]:
        """Those that select C{key}."""
        found = list(self._by_key.get(key, ()))
        for length in self._lengths:
            if length <= len(key):
                found += self._by_prefix.get(key[:length], ())
        return found


@define(slots=True, eq=False)
class Watches:
    """
    See the head of this module.

    @ivar told_events: how many changes were told, to all together.
    @ivar ended_slow: how many watches were ended because their reader was slow.
    """

    store: Store
    clock: IReactorTime
    told_events: int = 0
    ended_slow: int = 0
    _live: Index = field(factory=Index)
    _told: int = 0
    _behind: dict[Watch, None] = field(factory=dict)
    _paused: dict[Watch, None] = field(factory=dict)
    _reading: Index = field(factory=Index)
    _cursor: int = 0
    _goal: int = 0
    _call: IDelayedCall | None = None
    _due: dict[Watch, float] = field(factory=dict)
    _leaderless_since: float | None = None

    def __attrs_post_init__(self) -> None:
        self._told = self.store.revision

    def __len__(self) -> int:
        return len(self._live.watches) + len(self._behind) + len(self._paused)

    @property
    def paused(self) -> int:
        """How many wait for their readers."""
        return len(self._paused)

    def watch(
        self, selection: Selection, since: int | None, listener: WatchListener
    ) -> Watch:
        """See L{Database<kvdb.interfaces.Database>}."""
        if len(self) >= MAX_WATCHES:
            raise Unavailable(
                f"there are {MAX_WATCHES} watches on this member, which is the most",
                "Ask another member, or watch a prefix in place of many keys.",
            )
        revision = self.store.revision
        position = revision if since is None else since
        if position > revision:
            raise ValueError(
                f"revision {position} is in the future: the newest is {revision}"
            )
        if position < self.store.compacted_revision:
            raise CompactedRevision(self._forgotten(position))
        watch = Watch(self, selection, listener, position)
        self._place(watch)
        return watch

    def _forgotten(self, position: int) -> str:
        return (
            f"changes after revision {position} are forgotten: history begins at"
            f" {self.store.compacted_revision}"
        )

    # What watches ask for.

    def pause(self, watch: Watch) -> None:
        """Its reader takes no more for now."""
        if watch.state in (State.LIVE, State.BEHIND):
            if watch.state is State.LIVE:
                watch.position = max(watch.position, self._told)
            self._remove(watch)
            watch.state = State.PAUSED
            watch.since = self.clock.seconds()
            self._paused[watch] = None

    def resume(self, watch: Watch) -> None:
        """Its reader takes more."""
        if watch.state is State.PAUSED:
            self._remove(watch)
            self._place(watch)

    def cancel(self, watch: Watch) -> None:
        """Its reader is gone: nothing is told any more."""
        if watch.state is not State.ENDED:
            self._remove(watch)
            watch.state = State.ENDED

    def _place(self, watch: Watch) -> None:
        if watch.position == self._told == self.store.revision:
            watch.state = State.LIVE
            self._live.add(watch)
            self._due[watch] = self.clock.seconds() + PROGRESS_SECONDS
        else:
            watch.state = State.BEHIND
            self._behind[watch] = None
            self._wake()

    def _remove(self, watch: Watch) -> None:
        if watch.state is State.LIVE:
            self._live.remove(watch)
            del self._due[watch]
        elif watch.state is State.BEHIND:
            del self._behind[watch]
            if watch in self._reading.watches:
                self._reading.remove(watch)
        else:
            del self._paused[watch]

    def _end(self, watch: Watch, error: DatabaseError) -> None:
        self.cancel(watch)
        watch.listener.ended(error)

    def end_all(self, error: DatabaseError) -> None:
        """Tell all of them why they end."""
        for watch in [*self._live.watches, *self._behind, *self._paused]:
            self._end(watch, error)

    # What the node tells.

    def applied(self) -> None:
        """The store may hold more changes than before."""
        if self._live.watches and self._told != self.store.revision:
            self._tell_live()
        self._told = self.store.revision

    def _tell_live(self) -> None:
        turn = Turn()
        try:
            for revision, event in self.store.events(self._told):
                watches = self._live.matching(event.key)
                if watches and not self._tell(watches, revision, event, turn):
                    self._fall_behind()
                    return
                self._told = revision
        except Compacted:
            # A snapshot took the store's place, or no history is kept at all.
            self._fall_behind()

    def _fall_behind(self) -> None:
        """Tell nobody more in this turn: history has it."""
        for watch in list(self._live.watches):
            self._remove(watch)
            watch.position = max(watch.position, self._told)
            watch.state = State.BEHIND
            self._behind[watch] = None
        self._wake()

    def _change(self, revision: int, event: Event) -> Change:
        record = None
        if event.operation is Operation.PUT:
            record = self.store.get(event.key, revision)
            assert record is not None, f"no record of revision {revision}"
        return Change(revision, event.key, record, event.previous, event.time_ms)

    def _tell(
        self, watches: list[Watch], revision: int, event: Event, turn: Turn
    ) -> bool:
        """
        Tell a change to C{watches}, as far as the turn goes.

        @return: whether it was told to all of them.
        """
        if turn.is_over:
            return False
        plain: Change | None = None
        whole: Change | None = None  # made for those who ask for it
        for watch in watches:
            if watch.state not in (State.LIVE, State.BEHIND):
                continue  # ended by another
            if turn.is_full:
                return False
            if plain is None:
                plain = self._change(revision, event)
            change = plain
            if watch.selection.replaced:
                if whole is None:
                    whole = evolve(plain, replaced=self.store.replaced(event))
                change = whole
            watch.position = revision
            self.told_events += 1
            turn.count(change)
            watch.listener.changed(change)
        return True

    def ticked(self, has_leader: bool, patience: float) -> None:
        """
        Time has passed.

        @param patience: seconds without a leader after which watches end.
        """
        self.applied()  # a snapshot may have brought some
        now = self.clock.seconds()
        if has_leader:
            self._leaderless_since = None
        elif self._leaderless_since is None:
            self._leaderless_since = now
        elif now - self._leaderless_since >= patience:
            self.end_all(
                Unavailable("this member knows no leader", "Watch another member.")
            )
        self._tell_progress(now)
        for watch in list(self._paused):
            if now - watch.since < STALL_SECONDS:
                break  # those behind it were paused later
            self.ended_slow += 1
            self._end(
                watch,
                Unavailable(
                    f"this stream stood full for {STALL_SECONDS:.0f} s",
                    "Read faster, or watch less.",
                ),
            )

    def _tell_progress(self, now: float) -> None:
        for _ in range(min(MAX_PROGRESS_PER_TICK, len(self._due))):
            watch = next(iter(self._due))
            if self._due[watch] > now:
                return
            del self._due[watch]
            self._due[watch] = now + PROGRESS_SECONDS
            watch.listener.progress(self._told)

    def stop(self) -> None:
        """Read no more history."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    # History.

    def _wake(self) -> None:
        if self._call is None:
            self._call = self.clock.callLater(0, self._read_slice)

    def _read_slice(self) -> None:
        """Read a slice of history to those who are behind."""
        self._call = None
        self.applied()  # a snapshot may have brought what nobody was told of
        if not self._reading.watches:
            self._begin_pass()
        if self._reading.watches:
            try:
                self._cursor = self._read_on()
            except Compacted:
                self._break_off()
            if self._cursor >= self._goal:
                for watch in list(self._reading.watches):
                    self._remove(watch)
                    watch.position = max(watch.position, self._cursor)
                    self._place(watch)
        if self._behind:
            self._wake()

    def _begin_pass(self) -> None:
        for watch in list(self._behind):
            if watch.position < self.store.compacted_revision:
                self._end_forgotten(watch)
        for watch in self._behind:
            self._reading.add(watch)
        self._cursor = min((watch.position for watch in self._behind), default=0)
        self._goal = self.store.revision

    def _break_off(self) -> None:
        """History was cut where it was being read."""
        for watch in list(self._reading.watches):
            self._reading.remove(watch)
            watch.position = max(watch.position, self._cursor)

    def _end_forgotten(self, watch: Watch) -> None:
        self.ended_slow += 1
        hint = "List the keys, and watch from the list's revision."
        self._end(watch, CompactedRevision(self._forgotten(watch.position), hint))

    def _read_on(self) -> int:
        """The revision up to which a slice was read."""
        turn = Turn()
        for count, (revision, event) in enumerate(self.store.events(self._cursor)):
            if count == SLICE_EVENTS or not self._reading.watches:
                return revision - 1
            watches = [
                watch
                for watch in self._reading.matching(event.key)
                if watch.position < revision
            ]
            if watches and not self._tell(watches, revision, event, turn):
                return revision - 1
        return self.store.revision

"""
What the node offers to those who talk to people.

The REST floor, and every later surface, sees the node only through
L{Database}.  Its errors say what became of the request, which is the one thing
a caller must know: L{Unavailable} and L{NoSpace} mean that nothing was done,
L{OutcomeUnknown} that it may yet be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred

from kvdb.store.commands import Command, Outcome, Record

Told_contra = TypeVar("Told_contra", contravariant=True)


class DatabaseError(Exception):
    """
    @ivar hint: what the caller can do, one sentence; may be empty.
    """

    def __init__(self, detail: str, hint: str = "") -> None:
        super().__init__(detail)
        self.hint = hint


class Unavailable(DatabaseError):
    """Nothing was done: no leader, too busy, or stopping.  Try again."""


class OutcomeUnknown(DatabaseError):
    """The request may yet be carried out; it was not in time."""


class NoSpace(DatabaseError):
    """Nothing was done: a disk is full, here or on the leader."""


class MembershipRefused(DatabaseError):
    """Nothing was done: the change does not fit the membership."""


class UnknownMember(MembershipRefused):
    """No member has that id."""


class CompactedRevision(DatabaseError):
    """The history asked for is no longer kept."""


@frozen(slots=True)
class MemberStatus:
    """
    A member as this node sees it.

    @ivar role: C{leader}, C{follower}, C{candidate}, C{learner} or C{unknown}
        (another member, seen from one that does not lead).
    @ivar match_index: how much of the log it is known to hold, or None where
        this node does not lead.
    @ivar lag: entries it is behind the leader, or None likewise: as of its last report,
        if that is fresh (C{age_seconds}), else of now.
    @ivar connected: whether a connection to it is up; None for oneself.

    What follows is what the member last said of itself, C{age_seconds} ago; None
    where nothing was heard for some seconds, or it is of an earlier release.

    @ivar client_url: where it serves clients.
    @ivar last_index: of its log.
    @ivar links: ids of the members that it is connected to.
    """

    id: int
    url: str
    role: str
    match_index: int | None
    lag: int | None
    connected: bool | None
    client_url: str | None = None
    term: int | None = None
    last_index: int | None = None
    applied_index: int | None = None
    revision: int | None = None
    version: str | None = None
    store_bytes: int | None = None
    links: Sequence[int] | None = None
    age_seconds: float | None = None


@frozen(slots=True)
class NodeStatus:
    """
    A node's own view of itself and its cluster.

    @ivar cluster_id: sixteen hexadecimal digits.
    @ivar leader: its id, or None while none is known.
    @ivar alarms: what is wrong, each a sentence that says what to do.
    @ivar warnings: what may surprise, likewise (a cluster of even size).
    @ivar sync_interval: seconds for which writes may be acknowledged before they are
        on this member's disk; 0: they are there first.
    """

    id: int
    cluster_id: str
    role: str
    leader: int | None
    term: int
    commit_index: int
    applied_index: int
    revision: int
    compacted_revision: int
    log_bytes: int
    store_bytes: int
    version: str
    members: Sequence[MemberStatus]
    alarms: Sequence[str]
    warnings: Sequence[str]
    sync_interval: float = 0.0


class Caller(Protocol[Told_contra]):
    """
    Who is told what became of a request, once; a Deferred is one.

    Neither may raise: there would be nobody to hear it.
    """

    def callback(self, result: Told_contra, /) -> None:
        """It was done."""

    def errback(self, fail: BaseException, /) -> None:
        """It was not, or nobody knows: a L{DatabaseError} says which."""


class Audience(Protocol):
    """Who would rather hear the outcomes of a batch together."""

    def begin(self) -> None:
        """What callers are told from now on belongs together."""

    def end(self) -> None:
        """That was all of it."""


@frozen(slots=True)
class Selection:
    """
    Which keys a watch is about.

    @ivar key: this one; None for all that begin with C{prefix}.
    @ivar replaced: whether to be told also what each change has replaced.
    """

    key: bytes | None = None
    prefix: bytes = b""
    replaced: bool = False


@frozen(slots=True, eq=False)
class Change:
    """
    One change of one key.

    @ivar record: what the key is since; None if it was deleted.
    @ivar previous: the key's mod_revision before; 0 if it was absent.
    @ivar replaced: what the key was before, for those who asked for it; None if it
        was absent.
    @ivar time_ms: when it was proposed, by the proposer's clock, since 1970.
    """

    revision: int
    key: bytes
    record: Record | None
    previous: int
    time_ms: int
    replaced: Record | None = None


class WatchListener(Protocol):
    """
    Who watches.  It may pause its watch or end it while it is being told; it
    may not raise.
    """

    def changed(self, change: Change) -> None:
        """The next change."""

    def progress(self, revision: int) -> None:
        """All changes up to C{revision} were told."""

    def ended(self, error: DatabaseError) -> None:
        """Nothing more will be told; those who want more watch again, from
        the last revision that they were told."""


class Backup(Protocol):
    """
    The whole store as of one revision.

    @ivar pieces: a backup's bytes (L{kvdb.store.backup}), each made when it is
        asked for.
    """

    revision: int
    cluster_id: int
    pieces: Iterator[bytes]

    def close(self) -> None:
        """Let go of it; also to be called once all pieces were taken."""


class Watch(Protocol):
    """A watch that was begun.

    @ivar position: the revision behind which it began, or up to which it was told.
    """

    position: int

    def pause(self) -> None:
        """Tell nothing for now."""

    def resume(self) -> None:
        """Go on, with what came meanwhile first."""

    def cancel(self) -> None:
        """Tell nothing any more."""


class Database(Protocol):
    """The node, as the surfaces see it."""

    def listen(self, audience: Audience) -> None:
        """Tell C{audience} when a batch of outcomes begins and ends."""

    def write(self, command: Command) -> Deferred[Outcome]:
        """
        Propose C{command}; fires once it is committed and applied here.

        @raise Unavailable, OutcomeUnknown, NoSpace: as their names say; all
            come through the Deferred.
        """

    def write_for(self, command: Command, caller: Caller[Outcome]) -> None:
        """As L{write}; C{caller} is told, perhaps at once."""

    def read_for(self, caller: Caller[None]) -> None:
        """As L{read_barrier}; C{caller} is told, perhaps at once."""

    def read_barrier(self) -> Deferred[None]:
        """
        Fires when a local read is linearizable with respect to the moment of
        this call (ReadIndex; thesis, section 6.4).

        @raise Unavailable: no quorum could be asked in time.
        """

    def get(self, key: bytes, revision: int | None = None) -> Record | None:
        """
        Read locally, now or as of a past revision.

        @raise CompactedRevision: that past is forgotten.
        @raise ValueError: C{revision} lies in the future.
        """

    def range(
        self, low: bytes, high: bytes, limit: int
    ) -> tuple[int, Iterator[tuple[bytes, Record]]]:
        """
        Read locally: the store's revision, and up to C{limit} records with
        C{low <= key < high}, in order of keys; each is read when it is asked for,
        all of them in this turn of the reactor.
        """

    def watch(
        self, selection: Selection, since: int | None, listener: WatchListener
    ) -> Watch:
        """
        Tell C{listener} all changes after revision C{since}, or from now on.
        It is told nothing before this returns.

        @raise CompactedRevision: some of them are forgotten.
        @raise ValueError: C{since} lies in the future.
        @raise Unavailable: there are too many watches.
        """

    def open_backup(self) -> Backup:
        """
        The store as it is on this member now.

        @raise Unavailable: there are too many of them at once.
        """

    def add_member(
        self, node_id: int, url: str, idempotency_key: bytes = b""
    ) -> Deferred[None]:
        """
        Add a learner, which the leader promotes once it has caught up; fires
        once the learner is in the committed configuration.

        @raise MembershipRefused: with the reason.
        """

    def remove_member(
        self, node_id: int, idempotency_key: bytes = b""
    ) -> Deferred[None]:
        """
        Remove a member; fires once it is out of the committed configuration.

        @raise UnknownMember, MembershipRefused: with the reason.
        """

    def transfer_leadership(self, to: int | None) -> Deferred[int]:
        """
        Hand leadership to C{to}, or to the most caught-up voter; fires with
        the new leader's id.

        @raise UnknownMember, Unavailable: it did not happen.
        """

    def status(self) -> NodeStatus:
        """This node's view, at once and without asking anybody."""

    def is_ready(self) -> bool:
        """Whether this node knows a leader and has applied what it knew to be
        committed when it started."""

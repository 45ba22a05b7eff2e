"""
What a node can be told, with the defaults.
"""

from __future__ import annotations

from attrs import frozen

from kvdb.storage.log import RECENT_BYTES, SEGMENT_BYTES


@frozen(slots=True, kw_only=True)
class NodeSettings:
    """
    @ivar tick: seconds.
    @ivar election_ticks: without a leader, before a follower campaigns, at
        least; drawn up to twice that.
    @ivar heartbeat_ticks: between a leader's heartbeats.
    @ivar sync_interval: seconds for which entries may be acknowledged before they
        are synced; 0: they are synced first.
    @ivar request_timeout: seconds a caller waits for a write or a read.
    @ivar snapshot_count: applied entries between compactions of the log.
    @ivar snapshot_bytes: the same in bytes of log, whichever comes first.
    @ivar catch_up_entries: entries kept in the log behind a compaction, so
        that a follower a little behind needs no snapshot.
    @ivar catch_up_bytes: the same in bytes of log, whichever is less.
    @ivar history_revisions: how many revisions of history are kept.
    @ivar history_bytes: the same in bytes of history, whichever is less.
    @ivar segment_bytes: the size of a file of the log.
    @ivar low_space_bytes: with less than this left on the disk there is an alarm; 0:
        never.
    @ivar recent_bytes: entries of the log kept in memory, in bytes.
    """

    tick: float = 0.1
    election_ticks: int = 10
    heartbeat_ticks: int = 1
    sync_interval: float = 0.0
    request_timeout: float = 5.0
    snapshot_count: int = 10_000
    snapshot_bytes: int = 64 << 20
    catch_up_entries: int = 5_000
    catch_up_bytes: int = 64 << 20
    history_revisions: int = 100_000
    history_bytes: int = 1 << 30
    segment_bytes: int = SEGMENT_BYTES
    recent_bytes: int = RECENT_BYTES
    low_space_bytes: int = 256 << 20

    @property
    def election_timeout(self) -> float:
        """The shortest time without a leader before a campaign, in seconds."""
        return self.tick * self.election_ticks

"""
All connections of one node with the other members.

A L{Link<kvdb.peer.links.Link>} goes out to each member, an
L{Inbox<kvdb.peer.links.Inbox>} comes in from each, and a snapshot has a
connection of its own.  Who may connect, and what messages mean, the
L{PeerHandler} decides: the node.

Rules: one inbox per member, the newest; links are held to exactly the members,
and to those whom this node does not know yet but who know the cluster (it may
be the one that is behind); a complaint is logged once, not once per attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any, Final, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IProtocolFactory,
    IReactorTime,
)
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvdb.peer.addresses import Dial
from kvdb.peer.connection import (
    Accepted,
    Channel,
    Connection,
    Dialled,
    OneConnection,
    PeerSettings,
)
from kvdb.peer.handshake import (
    NO_CLUSTER,
    Hello,
    Identity,
    Purpose,
    Refusal,
    negotiate,
    version_refusal,
)
from kvdb.peer.links import Inbox, Link
from kvdb.peer.streams import Incoming, Outgoing, SnapshotFailed, SnapshotSink
from kvdb.raft.messages import Message

log = Logger(namespace="kvdb.peer")

MAX_COMPLAINTS: Final = 1000
"""Whose last fault is remembered, so that it is not logged again."""

MAX_ACCEPTED: Final = 1000
"""Connections from others at a time; one more is closed at once."""

Listen = Callable[[IProtocolFactory], IListeningPort]
"""What makes a factory listen at the node's own peer URL."""


class PeerHandler(Protocol):
    """The node, as its connections see it."""

    @property
    def identity(self) -> Identity:
        """What to say of it."""

    def judge(self, hello: Hello) -> Refusal | None:
        """See L{PeerPolicy<kvdb.peer.handshake.PeerPolicy>}."""

    def messages_received(self, sender: int, messages: Sequence[Message]) -> None:
        """Messages from a member, in order."""

    def connected(self, node_id: int) -> None:
        """Messages can be sent to a member."""

    def disconnected(self, node_id: int) -> None:
        """The connection to a member is lost, by no doing of this node."""

    def unreachable(self, node_id: int) -> None:
        """Messages to a member were dropped."""

    def refused(self, node_id: int, refusal: Refusal) -> None:
        """A member will not talk to this node."""

    def cluster_learned(self, cluster_id: int) -> None:
        """Which cluster this joining node joins."""

    def begin_snapshot(self, message: Message) -> SnapshotSink:
        """A member offers a snapshot."""


class Peers(Service):
    """See the head of this module."""

    def __init__(
        self,
        clock: IReactorTime,
        random: Random,
        handler: PeerHandler,
        listen: Listen,
        dial: Dial,
        settings: PeerSettings | None = None,
    ) -> None:
        self.clock = clock
        self.random = random
        self.dial = dial
        self.settings = settings or PeerSettings()
        self._handler = handler
        self._listen = listen
        self._port: IListeningPort | None = None
        self._urls: dict[int, str] = {}
        self._links: dict[int, Link] = {}
        self._inboxes: dict[int, Inbox] = {}
        self._connections: dict[Connection, None] = {}
        self._complaints: dict[str, str] = {}
        self._incoming: Incoming | None = None
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = clock
        self._stopped: Deferred[None] | None = None
        self._patience: IDelayedCall | None = None

    # Running.

    def startService(self) -> None:
        """Listen, and dial the members."""
        super().startService()
        self._port = self._listen(_Acceptor(self))
        self._ticking.start(self.settings.ping_seconds, now=False)
        for link in self._links.values():
            link.start()

    def stopService(self) -> Deferred[None]:
        """Close everything; fires when all is gone."""
        super().stopService()
        if self._ticking.running:
            self._ticking.stop()
        for link in self._links.values():
            link.stop()
        self._links.clear()
        for connection in list(self._connections):
            connection.close()
        self._stopped = Deferred()
        self._patience = self.clock.callLater(
            self.settings.close_seconds, self._abort_all
        )
        closed: Deferred[None] = Deferred()
        listening = None if self._port is None else self._port.stopListening()
        if isinstance(listening, Deferred):
            listening.addBoth(lambda _: closed.callback(None))
        else:
            closed.callback(None)
        stopped = self._stopped
        closed.addCallback(lambda _: stopped)
        self._check_stopped()
        return closed

    def _abort_all(self) -> None:
        for connection in list(self._connections):
            connection.abort()

    def _check_stopped(self) -> None:
        if self._stopped is not None and not self._connections:
            stopped, self._stopped = self._stopped, None
            if self._patience is not None and self._patience.active():
                self._patience.cancel()
            stopped.callback(None)

    def _tick(self) -> None:
        now = self.now()
        for connection in list(self._connections):
            connection.tick(now)

    # What the node asks for.

    def set_members(self, urls: Mapping[int, str]) -> None:
        """Keep links to these, and to whom this node does not know yet."""
        self._urls = dict(urls)
        for node, link in list(self._links.items()):
            if self._urls.get(node) != link.url and node not in self._unknown():
                del self._links[node]
                link.stop()
        for node in sorted(self._urls):
            self._link(node, self._urls[node])
        for connection in list(self._connections):
            if isinstance(connection, Accepted) and connection.hello is not None:
                refusal = self._handler.judge(connection.hello)
                if refusal is not None:
                    connection.refuse(refusal)

    def _unknown(self) -> list[int]:
        """Members that dialled this node, and that it does not know."""
        return [node for node in self._inboxes if node not in self._urls]

    def _link(self, node: int, url: str) -> None:
        if node not in self._links:
            link = self._links[node] = Link(self, node, url)
            if self.running and self._port is not None:
                link.start()

    def connected(self) -> list[int]:
        """The members to whom messages can be sent now."""
        return [node for node in sorted(self._links) if self._links[node].is_open]

    def send(self, to: int, messages: Sequence[Message]) -> None:
        """Send C{messages} to a member, in order, or drop them."""
        link = self._links.get(to)
        if link is None:
            self._handler.unreachable(to)
        else:
            link.send(messages)

    def send_snapshot(
        self, to: int, message: Message, chunks: Iterator[bytes]
    ) -> Deferred[None]:
        """
        Stream a snapshot to a member.

        @return: fires once it is taken; fails with L{SnapshotFailed}.
        """
        outgoing = Outgoing(message, chunks, self.settings, self.now)
        link = self._links.get(to)
        if link is None or not self.running:
            outgoing.failed("there is no way to it")
            return outgoing.done
        connection = Dialled(self, outgoing, to, Purpose.SNAPSHOT)

        def failed(failure: Failure) -> None:
            outgoing.failed(failure.getErrorMessage())

        self.dial(link.url).connect(OneConnection(connection)).addErrback(failed)
        return outgoing.done

    # What connections ask for, see Owner and LinkOwner.

    def now(self) -> float:
        """The time, in seconds."""
        return self.clock.seconds()

    def greeting(self, target: int, purpose: Purpose) -> Hello:
        """What this node says of itself."""
        return Hello(
            self._handler.identity,
            target,
            purpose,
            self.settings.min_version,
            self.settings.max_version,
        )

    def judge(self, mine: Hello, theirs: Hello) -> Refusal | None:
        """Whether a peer is refused; one that is not tells a joining node
        which cluster it joins."""
        if negotiate(mine, theirs) is None:
            return version_refusal(mine, theirs)
        refusal = self._handler.judge(theirs)
        theirs_cluster = theirs.identity.cluster_id
        if (
            refusal is None
            and self._handler.identity.cluster_id == NO_CLUSTER
            and theirs_cluster != NO_CLUSTER
        ):
            self._handler.cluster_learned(theirs_cluster)
        return refusal

    def channel_for(self, connection: Connection, hello: Hello) -> Channel:
        """What a connection that a peer made is for."""
        peer = hello.identity
        own_id = self._handler.identity.node_id
        if hello.purpose is Purpose.SNAPSHOT:
            return Incoming(
                peer.node_id,
                own_id,
                self._begin_snapshot,
                self._snapshot_gone,
                self.settings,
                self.now,
            )
        before = self._inboxes.get(peer.node_id)
        inbox = Inbox(
            peer.node_id, own_id, self._handler.messages_received, self._inbox_lost
        )
        self._inboxes[peer.node_id] = inbox
        if before is not None and before.connection is not None:
            before.connection.close()
        self._link(peer.node_id, self._urls.get(peer.node_id, peer.url))
        self._links[peer.node_id].hurry()
        return inbox

    def _inbox_lost(self, inbox: Inbox, ours: bool) -> None:
        if self._inboxes.get(inbox.node_id) is not inbox:
            return
        del self._inboxes[inbox.node_id]
        if inbox.node_id not in self._urls:
            link = self._links.pop(inbox.node_id, None)
            if link is not None:
                link.stop()

    def _begin_snapshot(self, message: Message) -> SnapshotSink:
        if self._incoming is not None:
            raise SnapshotFailed("another snapshot is being received")
        return self._handler.begin_snapshot(message)

    def _snapshot_gone(self, incoming: Incoming) -> None:
        if self._incoming is incoming:
            self._incoming = None

    def connection_made(self, connection: Connection) -> None:
        """One more."""
        self._connections[connection] = None
        accepted = sum(isinstance(one, Accepted) for one in self._connections)
        if not self.running or accepted > MAX_ACCEPTED:
            connection.abort()

    def connection_gone(self, connection: Connection) -> None:
        """One less."""
        self._connections.pop(connection, None)
        self._check_stopped()

    def refused(self, peer_id: int, refusal: Refusal) -> None:
        """A member will not talk to this node."""
        self.complain(f"member {peer_id}", f"refuses this node: {refusal.text}")
        self._handler.refused(peer_id, refusal)

    def complain(self, who: str, what: str) -> None:
        """Log a fault of the other side, unless it is the same as last time."""
        if self._complaints.get(who) == what:
            return
        self._complaints.pop(who, None)
        self._complaints[who] = what
        if len(self._complaints) > MAX_COMPLAINTS:
            del self._complaints[next(iter(self._complaints))]
        log.warn("{who}: {what}", who=who, what=what)

    def link_opened(self, link: Link) -> None:
        """Messages can be sent."""
        log.info("connected to member {node} at {url}", node=link.node_id, url=link.url)
        self._complaints.pop(f"member {link.node_id}", None)
        self._handler.connected(link.node_id)

    def link_lost(self, link: Link) -> None:
        """They cannot any more."""
        if self.running:
            self._handler.disconnected(link.node_id)

    def dropped(self, link: Link) -> None:
        """Messages were dropped."""
        self._handler.unreachable(link.node_id)


class _Acceptor(Factory):
    """Makes a connection of what dials this node."""

    noisy = False

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    def buildProtocol(self, addr: object) -> Any:
        """A connection."""
        return Accepted(self._peers)

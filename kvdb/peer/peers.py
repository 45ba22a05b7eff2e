"""
All that this node says to the other members and hears from them.

L{Peers} listens, keeps a L{Link<kvdb.peer.links.Link>} to every member, takes
in their connections, and carries snapshots.  It is the C{Service} that the
node sees; its L{PeerHandler} is the node.

Rules:

* It carries, and decides nothing: who may connect and what a message means,
  its handler knows.
* One timer looks after all connections.  Time, sockets and randomness are the
  caller's: a simulator brings its own.
* A member has one inbox, the newest.
* A peer that is let in though it is no member here (this node may be the one
  that is behind, or joining) is dialled back at the URL it gave, for as long
  as its own connection lasts.
* A refusal or a failure is logged when it differs from the last about the same
  peer, not at each attempt.
* Once C{stopService} is called the handler hears nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any, Final, Protocol

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
)
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from kvdb.peer.addresses import Dial
from kvdb.peer.certificates import Vouch, anybody
from kvdb.peer.connection import (
    Accepted,
    Channel,
    Connection,
    Dialled,
    OneConnection,
    PeerSettings,
    State,
)
from kvdb.peer.handshake import (
    NO_CLUSTER,
    Hello,
    Identity,
    PeerPolicy,
    Purpose,
    Refusal,
    negotiate,
    version_refusal,
)
from kvdb.peer.links import Inbox, Link
from kvdb.peer.report import Report
from kvdb.peer.snapshots import (
    SnapshotReceiver,
    SnapshotSender,
    SnapshotSink,
)
from kvdb.raft.messages import Message

MAX_HANDSHAKES: Final = 64
"""How many connections may be open whose other side is not known yet; with one
more, the oldest is closed."""

MAX_ACCEPTED: Final = 512
"""How many connections may be open that others made; more are closed."""

MAX_LINKS: Final = 256
"""How many nodes are dialled; peers that are no members are not dialled back
beyond that."""

MAX_COMPLAINTS: Final = 256
"""Of how many peers it is remembered what was last logged about them."""

Listen = Callable[[IProtocolFactory], IListeningPort]
"""
What makes a factory listen at the node's own peer URL.  It does so at once or
raises L{CannotListenError<twisted.internet.error.CannotListenError>}.
"""

log = Logger(namespace="kvdb.peer")


class PeerHandler(PeerPolicy, Protocol):
    """The node, as its connections see it."""

    @property
    def identity(self) -> Identity:
        """What to say of it."""

    def messages_received(self, sender: int, messages: Sequence[Message]) -> None:
        """
        Messages for this node, at least one, in order, from member C{sender}.

        They bear that member's id, but for those in
        L{FORWARDED<kvdb.peer.links.FORWARDED>}.
        """

    def report(self) -> Report:
        """What this node says of itself; asked for each member, each second."""

    def report_received(self, sender: int, report: Report) -> None:
        """What a member says of itself; comes about once a second."""

    def connected(self, node_id: int) -> None:
        """Messages to that member will be sent from now on."""

    def has_room(self, node_id: int) -> None:
        """The connection to that member takes more again, after it had enough."""

    def disconnected(self, node_id: int) -> None:
        """
        A connection with that member is gone, by no doing of this node: the
        one to it or the one from it, so this may come twice.
        """

    def process_gone(self, node_id: int) -> None:
        """
        That member has hung up, and its port is closed: no process of it is
        there.  Comes again while that lasts.
        """

    def unreachable(self, node_id: int) -> None:
        """
        Messages to that member were dropped, or may have been lost.  Comes in
        a later turn than the loss, and once for all of a turn's.
        """

    def refused(self, node_id: int, refusal: Refusal) -> None:
        """That member will not talk to this node; comes at each attempt."""

    def cluster_learned(self, cluster_id: int) -> None:
        """
        This node, which was joining, has met a member of its cluster;
        C{identity} must say so when this returns.
        """

    def begin_snapshot(self, message: Message) -> SnapshotSink:
        """
        A member sends a snapshot, which C{message} announces.

        @raise SnapshotRefused: it is not wanted.
        """


@frozen(slots=True)
class PeerStatus:
    """
    What is known of the way to one peer.

    @ivar is_member: it is in the membership; else it was met as a stranger.
    @ivar is_connected: messages to it are sent.
    @ivar queued_bytes: what waits to be written.
    @ivar bytes_sent, bytes_received: in frames of messages, ever.
    @ivar round_trip_seconds: to it and back; None where that is unknown.
    """

    url: str
    is_member: bool
    is_connected: bool
    queued_bytes: int
    messages_sent: int
    messages_dropped: int
    bytes_sent: int
    bytes_received: int = 0
    round_trip_seconds: float | None = None


class Peers(Service):
    """
    The other members.

    @ivar port: where it listens, while it runs.
    """

    def __init__(
        self,
        clock: IReactorTime,
        random: Random,
        handler: PeerHandler,
        listen: Listen,
        dial: Dial,
        settings: PeerSettings | None = None,
        vouch: Vouch = anybody,
    ) -> None:
        """
        @param random: draws the times between attempts to connect.
        @param dial: makes of a member's URL the endpoint that reaches it.
        @param vouch: says whether who has dialled is who it says.
        """
        self.clock = clock
        self.random = random
        self.dial = dial
        self.settings = settings or PeerSettings()
        self.port: IListeningPort | None = None
        self._handler = handler
        self._listen = listen
        self._vouch = vouch
        self._members: dict[int, str] = {}
        self._links: dict[int, Link] = {}
        self._inboxes: dict[int, Inbox] = {}
        self._received: dict[int, int] = {}
        self._sending: dict[int, SnapshotSender] = {}
        self._receiving: SnapshotReceiver | None = None
        self._connections: dict[Connection, None] = {}
        self._unreachable: dict[int, None] = {}
        self._complaints: dict[str, str] = {}
        self._reporting: IDelayedCall | None = None
        self._ticking: IDelayedCall | None = None
        self._gone: Deferred[None] | None = None

    # The service.

    def startService(self) -> None:
        """
        Listen, and dial the members.

        @raise CannotListenError: as L{Listen} does; nothing was started.
        """
        self.port = self._listen(_Listener(self))
        super().startService()
        self._ticking = self.clock.callLater(self.settings.ping_seconds, self._tick)
        for link in list(self._links.values()):
            link.start()

    def stopService(self) -> Deferred[None]:
        """
        Close everything; fires once all of it is gone, which takes little more
        than C{settings.close_seconds} where a peer does not answer.
        """
        super().stopService()
        gone: Deferred[None] = Deferred()
        self._gone = gone
        for sender in list(self._sending.values()):
            sender.abort("this node is stopping")
        for link in self._links.values():
            link.stop()
        for connection in list(self._connections):
            connection.close()
        if self._reporting is not None:
            self._reporting.cancel()
            self._reporting = None
        port, self.port = self.port, None
        waiting: list[Deferred[Any]] = [gone]
        if port is not None:
            waiting.append(maybeDeferred(port.stopListening))
        self._fire_if_gone()
        return gatherResults(waiting, consumeErrors=True).addBoth(self._stopped)

    # What the node asks for.

    def set_members(self, urls: Mapping[int, str]) -> None:
        """
        From now on these are the members; the handler is asked anew about
        every peer that is connected.

        @param urls: peer URLs by node id; this node's own is left out.
        """
        own_id = self._handler.identity.node_id
        self._members = {n: url for n, url in sorted(urls.items()) if n != own_id}
        self._judge_again()
        for node, link in list(self._links.items()):
            stranger = node not in self._members
            moved = not stranger and self._members[node] != link.url
            if moved or (stranger and node not in self._inboxes):
                self._cut(node)
        for node, url in self._members.items():
            if node not in self._links:
                self._reach(node, url)

    def send(self, to: int, messages: Sequence[Message]) -> None:
        """
        Send one turn's messages to one member, or drop them: then
        L{PeerHandler.unreachable} follows.

        @raise ValueError: a message never leaves a node, or is too long.
        """
        link = self._links.get(to)
        if link is None:
            self._report_unreachable(to)
        else:
            link.send(messages)

    def send_now(self, message: Message) -> bool:
        """
        Hand one message to the connection with its receiver; unlike with L{send}
        it is then never dropped on this side while the connection holds.

        @return: whether that was done.  If not (no connection, or one that has
            enough to send), nothing follows.
        @raise ValueError: as for L{send}.
        """
        link = self._links.get(message.to)
        return link is not None and link.send_now(message)

    def send_snapshot(
        self, to: int, message: Message, chunks: Iterator[bytes]
    ) -> Deferred[None]:
        """
        Send a snapshot to one member.

        @param message: the SNAP that announces it.
        @param chunks: the state, in pieces of at most
            L{MAX_CHUNK_BYTES<kvdb.peer.snapshots.MAX_CHUNK_BYTES>}; read one
            by one as the transport takes them.
        @return: fires once the receiver has installed it; fails with
            L{SnapshotFailed}, or with what reading the chunks raised.
        """
        sender = SnapshotSender(self, to, message, chunks)
        link = self._links.get(to)
        if to in self._sending or link is None or not self.running:
            sender.abort(f"member {to} is not known, or is being sent one")
            return sender.done
        try:
            endpoint = self.dial(link.url)
        except ValueError as error:  # an earlier release may have let it in
            sender.abort(str(error))
            return sender.done
        self._sending[to] = sender
        connection = Dialled(self, sender, to, Purpose.SNAPSHOT)
        connecting = endpoint.connect(OneConnection(connection))
        sender.done.addBoth(self._snapshot_sent, to, connecting)
        connecting.addErrback(lambda f: sender.abort(f.getErrorMessage()))
        return sender.done

    def connected(self) -> list[int]:
        """The peers to whom messages are sent now."""
        return [node for node in sorted(self._links) if self._links[node].is_open]

    def versions(self) -> dict[int, int]:
        """The protocol versions last agreed on with the peers, as far as known."""
        return {n: link.version for n, link in self._links.items() if link.version}

    def status(self) -> dict[int, PeerStatus]:
        """What is known of each peer, by node id in their order."""
        return {
            node: PeerStatus(
                link.url,
                node in self._members,
                link.is_open,
                link.queued_bytes,
                link.messages_sent,
                link.messages_dropped,
                link.bytes_sent,
                self._bytes_received(node),
                link.round_trip_seconds,
            )
            for node, link in sorted(self._links.items())
        }

    @property
    def snapshots_sending(self) -> Mapping[int, SnapshotSender]:
        """The snapshots on their way out, by the receiver's node id."""
        return self._sending

    @property
    def snapshot_receiving(self) -> SnapshotReceiver | None:
        """The snapshot on its way in."""
        receiver = self._receiving
        return receiver if receiver is not None and receiver.is_busy else None

    # What connections and links ask for, see Owner and LinkOwner.

    def now(self) -> float:
        """The time, in seconds."""
        return self.clock.seconds()

    def greeting(self, target: int, purpose: Purpose) -> Hello:
        """What this node says of itself to node C{target}."""
        identity, settings = self._handler.identity, self.settings
        return Hello(
            identity, target, purpose, settings.min_version, settings.max_version
        )

    def judge(self, mine: Hello, theirs: Hello) -> Refusal | None:
        """Whether the peer is refused; a joining node learns its cluster."""
        if negotiate(mine, theirs) is None:
            return version_refusal(mine, theirs)
        refusal = self._handler.judge(theirs)
        cluster_id = theirs.identity.cluster_id
        joining = self._handler.identity.cluster_id == NO_CLUSTER
        if refusal is None and joining and cluster_id != NO_CLUSTER:
            self._handler.cluster_learned(cluster_id)
        return refusal

    def vouch(self, connection: Connection, theirs: Hello) -> Refusal | None:
        """Whether the peer that dialled has not shown that it is who it says:
        by the membership's URL of it, or its own where it is no member yet."""
        peer = theirs.identity
        url = self._members.get(peer.node_id, peer.url)
        return self._vouch(connection.transport, peer.node_id, url)

    def channel_for(self, connection: Connection, hello: Hello) -> Channel:
        """What a connection that a peer made is for."""
        peer, own_id = hello.identity, self._handler.identity.node_id
        if hello.purpose is Purpose.SNAPSHOT:
            return SnapshotReceiver(
                self,
                peer.node_id,
                own_id,
                self._claim_snapshot,
                self._handler.begin_snapshot,
            )
        older = self._inboxes.get(peer.node_id)
        if older is not None and older.connection is not None:
            older.connection.close()
        inbox = Inbox(
            peer.node_id,
            own_id,
            self._handler.messages_received,
            self._handler.report_received,
            self._inbox_lost,
            self._bytes_received(peer.node_id),
        )
        self._inboxes[peer.node_id] = inbox
        link = self._links.get(peer.node_id)
        if link is not None:
            link.hurry()
        elif len(self._links) < MAX_LINKS:
            link = self._reach(peer.node_id, peer.url)
        if link is not None:
            link.version = min(self.settings.max_version, hello.max_version)
        return inbox

    def connection_made(self, connection: Connection) -> None:
        """Look after it."""
        self._connections[connection] = None
        if not self.running:
            connection.close()

    def connection_gone(self, connection: Connection) -> None:
        """Forget it."""
        self._connections.pop(connection, None)
        self._fire_if_gone()

    def report(self) -> Report:
        """What this node says of itself."""
        return self._handler.report()

    def link_opened(self, link: Link) -> None:
        """Messages can be sent."""
        self._complaints.pop(f"member {link.node_id}", None)
        log.info("connected to member {node} at {url}", node=link.node_id, url=link.url)
        self._handler.connected(link.node_id)

    def link_has_room(self, link: Link) -> None:
        """It had enough to send, and has no more."""
        if self.running:
            self._handler.has_room(link.node_id)

    def link_lost(self, link: Link) -> None:
        """A connection that was open is gone, with what was in it."""
        if self.running:
            self._report_unreachable(link.node_id)
            self._handler.disconnected(link.node_id)

    def nobody_listens(self, link: Link) -> None:
        """That member's port is closed; a firewall may say so too, of one that
        goes on talking to this node."""
        if self.running and link.node_id not in self._inboxes:
            self._handler.process_gone(link.node_id)

    def dropped(self, link: Link) -> None:
        """Messages were dropped."""
        self._report_unreachable(link.node_id)

    def refused(self, peer_id: int, refusal: Refusal) -> None:
        """A member refused this node."""
        if self.running:
            self._handler.refused(peer_id, refusal)

    def complain(self, who: str, what: str) -> None:
        """Log a fault of the other side, unless it is the same as last time."""
        if self._complaints.pop(who, None) != what:
            log.warn("{who}: {what}", who=who, what=what)
        self._complaints[who] = what
        if len(self._complaints) > MAX_COMPLAINTS:
            del self._complaints[next(iter(self._complaints))]

    # Within.

    def accept(self) -> Accepted | None:
        """A connection for somebody who has dialled this node, if there may be
        one more."""
        accepted = [c for c in self._connections if isinstance(c, Accepted)]
        if not self.running or len(accepted) >= MAX_ACCEPTED:
            return None
        greeting = [c for c in accepted if c.state is State.GREETING]
        if len(greeting) >= MAX_HANDSHAKES:
            greeting[0].abort()
        return Accepted(self)

    def _reach(self, node: int, url: str) -> Link:
        link = self._links[node] = Link(self, node, url)
        if self.running:
            link.start()
        return link

    def _cut(self, node: int) -> None:
        self._links.pop(node).stop()
        self._received.pop(node, None)

    def _bytes_received(self, node: int) -> int:
        inbox = self._inboxes.get(node)
        return self._received.get(node, 0) if inbox is None else inbox.bytes_received

    def _judge_again(self) -> None:
        for connection in list(self._connections):
            hello = connection.hello
            if hello is not None and connection.state is State.OPEN:
                refusal = self._handler.judge(hello)
                if refusal is None and isinstance(connection, Accepted):
                    refusal = self.vouch(connection, hello)
                if refusal is not None:
                    connection.refuse(refusal)

    def _inbox_lost(self, inbox: Inbox, ours: bool) -> None:
        node = inbox.node_id
        if self._inboxes.get(node) is not inbox:
            return
        del self._inboxes[node]
        if node in self._links:
            self._received[node] = inbox.bytes_received
        if node not in self._members and node in self._links:
            self._cut(node)
        if self.running and not ours:
            link = self._links.get(node)
            if link is not None:
                link.hurry()  # to find out whether its process is there
            self._handler.disconnected(node)

    def _claim_snapshot(self, receiver: SnapshotReceiver) -> bool:
        if self.snapshot_receiving is not None:
            return False
        self._receiving = receiver
        return True

    def _snapshot_sent(
        self, result: object, to: int, connecting: Deferred[IProtocol]
    ) -> Any:
        del self._sending[to]
        connecting.cancel()
        return result

    def _report_unreachable(self, node: int) -> None:
        self._unreachable[node] = None
        if self._reporting is None and self.running:
            self._reporting = self.clock.callLater(0, self._report)

    def _report(self) -> None:
        self._reporting = None
        nodes = sorted(self._unreachable)
        self._unreachable.clear()
        for node in nodes:
            self._handler.unreachable(node)

    def _tick(self) -> None:
        self._ticking = self.clock.callLater(self.settings.ping_seconds, self._tick)
        now = self.clock.seconds()
        for connection in list(self._connections):
            connection.tick(now)

    def _fire_if_gone(self) -> None:
        if self._gone is not None and not self._connections:
            gone, self._gone = self._gone, None
            gone.callback(None)

    def _stopped(self, result: object) -> Any:
        if self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None
        return result


class _Listener(Factory):
    """Makes a connection for each that comes in."""

    noisy = False

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    def buildProtocol(self, addr: object) -> Accepted | None:
        """None closes it."""
        return self._peers.accept()

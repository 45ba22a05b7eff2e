"""
One connection with a member: handshake, signs of life, last words.

A L{Connection} greets, is open, then closes::

    GREETING --HELLO accepted--> OPEN
    GREETING, OPEN --close, refuse, be refused--> CLOSING
    any --the transport is gone, silence, a bad frame--> lost

While it is open its frames go to its L{Channel}, which knows what the
connection is for.

Rules:

* Both sides send a PING when they have had nothing else to send for a while,
  and give up on a side that has been silent for longer.  So a peer whose
  machine lost power, or whose packets are lost one way only, is noticed within
  seconds, on every platform and through TLS; TCP alone needs minutes.
* Who has a last word to say (a refusal, a result) says it, ignores what still
  arrives, and lets the other side hang up: to close with unread bytes makes
  TCP discard the word.
* A connection that broke the protocol once is not used again.

It decides nothing: its L{Owner} judges who may connect.
"""

from __future__ import annotations

import enum
from typing import Final, Protocol

from attrs import frozen
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure

from kvdb.peer.framing import (
    MAX_FRAME_BYTES,
    MAX_HELLO_BYTES,
    FrameProtocol,
    FrameTooLong,
    FrameType,
    ProtocolError,
)
from kvdb.peer.handshake import (
    MAX_VERSION,
    MIN_VERSION,
    NOT_A_PEER_RESPONSE,
    Hello,
    Purpose,
    Refusal,
    decode_hello,
    decode_refusal,
    encode_hello,
    encode_refusal,
    negotiate,
)
from kvdb.tls.reasons import of_lost

MAX_QUEUE_BYTES: Final = 64 * 2**20
"""Entries that may wait to be written to one member; more are dropped."""

MAX_CONTROL_BYTES: Final = 2**20
"""Heartbeats, votes, reads and answers that may wait beside them; more are dropped."""


@frozen(slots=True)
class PeerSettings:
    """
    Times in seconds, sizes in bytes.

    @ivar ping_seconds: how often signs of life are sent and looked for.
    @ivar silence_seconds: after how long a silent peer is given up.
    @ivar handshake_seconds: how long a handshake may take.
    @ivar close_seconds: how long the other side has to read a last word.
    @ivar retry_first_seconds: about how long after a connection is lost it is
        dialled again; each failure doubles the time.
    @ivar retry_most_seconds: what that time grows to at most.
    @ivar snapshot_progress_seconds: after how long without progress a snapshot
        is given up.
    @ivar snapshot_install_seconds: how long the receiver may take to install
        a snapshot that it has received whole.
    @ivar min_version: the lowest protocol version to speak.
    @ivar max_version: the highest.
    """

    ping_seconds: float = 1.0
    silence_seconds: float = 4.0
    handshake_seconds: float = 5.0
    close_seconds: float = 2.0
    retry_first_seconds: float = 0.05
    retry_most_seconds: float = 2.0
    max_queue_bytes: int = MAX_QUEUE_BYTES
    max_control_bytes: int = MAX_CONTROL_BYTES
    snapshot_progress_seconds: float = 30.0
    snapshot_install_seconds: float = 300.0
    min_version: int = MIN_VERSION
    max_version: int = MAX_VERSION


class State(enum.Enum):
    """Where a connection stands."""

    GREETING = "greeting"
    OPEN = "open"
    CLOSING = "closing"


class Channel(Protocol):
    """What an open connection is for."""

    def opened(self, connection: Connection) -> None:
        """The handshake is done."""

    def frame_received(self, kind: FrameType, body: bytes) -> None:
        """
        A frame has come that is not about the connection itself.

        @raise ProtocolError: it should not have.
        """

    def tick(self, now: float) -> None:
        """About C{ping_seconds} have passed; C{now} is in seconds."""

    def closed(self, reason: str, ours: bool) -> None:
        """
        The connection is gone; also called when it never opened.

        @param ours: this side closed it, or was asked to: nothing failed.
        """


class Owner(Protocol):
    """What a connection asks of those who made it."""

    @property
    def settings(self) -> PeerSettings:
        """Times and sizes."""

    def now(self) -> float:
        """The time, in seconds."""

    def greeting(self, target: int, purpose: Purpose) -> Hello:
        """What this node says of itself to node C{target}."""

    def judge(self, mine: Hello, theirs: Hello) -> Refusal | None:
        """Whether the peer that sent C{theirs} is refused."""

    def vouch(self, connection: Connection, theirs: Hello) -> Refusal | None:
        """Whether the peer that dialled has not shown that it is who it says."""

    def channel_for(self, connection: Connection, hello: Hello) -> Channel:
        """What a connection that a peer made is for."""

    def connection_made(self, connection: Connection) -> None:
        """It exists."""

    def connection_gone(self, connection: Connection) -> None:
        """It no longer does."""

    def refused(self, peer_id: int, refusal: Refusal) -> None:
        """A member that was dialled refused this node."""

    def complain(self, who: str, what: str) -> None:
        """Log a fault of the other side, unless it is the same as last time."""


class Connection(FrameProtocol):
    """
    What both sides of a connection do; L{Dialled} and L{Accepted} begin
    differently.

    @ivar hello: the other side's, once it has come.
    @ivar version: the protocol version agreed on, then.
    """

    def __init__(self, owner: Owner, channel: Channel | None = None) -> None:
        super().__init__(MAX_HELLO_BYTES)
        self.state = State.GREETING
        self.hello: Hello | None = None
        self.version = 0
        self._owner = owner
        self._channel = channel
        self._deadline = 0.0
        self._last_received = 0.0
        self._sent_since_tick = False
        self._fault = ""
        self._ours = False

    def connectionMade(self) -> None:
        """Begin the handshake."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        now = self._owner.now()
        self._last_received = now
        self._deadline = now + self._owner.settings.handshake_seconds
        self._owner.connection_made(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell whom it concerns."""
        self.finished = True
        self.state = State.CLOSING
        self._owner.connection_gone(self)
        if self._channel is not None:
            fault = self._fault or of_lost(self.transport, reason)
            self._channel.closed(fault, self._ours)

    def dataReceived(self, data: bytes) -> None:
        """Note the sign of life."""
        self._last_received = self._owner.now()
        super().dataReceived(data)

    def send_frame(self, kind: FrameType, body: bytes = b"") -> None:
        """Note that no PING is needed."""
        self._sent_since_tick = True
        super().send_frame(kind, body)

    def frame_received(self, kind: FrameType, body: bytes) -> None:
        """Tell the handshake from what comes after it."""
        if kind is FrameType.REFUSE:
            self.refused(decode_refusal(body))
        elif self.state is State.GREETING:
            if kind is not FrameType.HELLO:
                raise ProtocolError(f"a {kind.name} frame before a HELLO")
            self.greeted(decode_hello(body))
        elif kind is not FrameType.PING:
            assert self._channel is not None, "an open connection has a channel"
            self._channel.frame_received(kind, body)

    def greeted(self, theirs: Hello) -> None:
        """The other side's HELLO has come: refuse it, or L{open}."""
        raise NotImplementedError

    def refused(self, refusal: Refusal) -> None:
        """The other side will not talk to this node."""
        self.note(f"it refuses this node: {refusal.text}")
        self._ours = True
        self._end()
        self.transport.loseConnection()

    def tick(self, now: float) -> None:
        """Give a sign of life; give up on a side that gives none."""
        settings = self._owner.settings
        if self.state is not State.OPEN:
            if now >= self._deadline:
                if self.state is State.GREETING:
                    self.note(f"no handshake in {settings.handshake_seconds:g} s")
                self.abort()
            return
        silent = now - self._last_received
        if silent >= settings.silence_seconds and not self.held:
            self.note(f"silent for {settings.silence_seconds:g} s")
            self.abort()
            return
        if not self._sent_since_tick:
            self.send_frame(FrameType.PING)
        self._sent_since_tick = False
        assert self._channel is not None, "an open connection has a channel"
        self._channel.tick(now)

    def note(self, fault: str) -> None:
        """Keep why it ends; the channel is told."""
        self._fault = fault

    def close(self) -> None:
        """Close it once all that was written is sent."""
        if self.state is not State.CLOSING:
            self._ours = True
            self._end()
            self.transport.loseConnection()

    def abort(self) -> None:
        """Close it now, for a fault of the other side or of the network."""
        if self.state is not State.CLOSING:
            self._end()
        self.transport.abortConnection()

    def part(self, kind: FrameType, body: bytes) -> None:
        """Say a last word, and let the other side hang up."""
        if self.state is not State.CLOSING:
            self.send_frame(kind, body)
            self._ours = True
            self._end()

    def refuse(self, refusal: Refusal) -> None:
        """Tell the other side why this node will not talk to it."""
        if self.state is not State.CLOSING:
            self.note(f"refused: {refusal.text}")
            self.part(FrameType.REFUSE, encode_refusal(refusal))

    def protocol_broken(self, error: ProtocolError) -> None:
        """Hang up."""
        self.note(f"it broke the protocol: {error.reason}")
        self.abort()

    def open(self, mine: Hello, theirs: Hello) -> None:
        """The handshake is done: from now on all frames may come."""
        version = negotiate(mine, theirs)
        assert version is not None, "a peer without a common version is refused"
        assert self._channel is not None, "an open connection has a channel"
        self.version = version
        self.state = State.OPEN
        self.parser.max_body = MAX_FRAME_BYTES
        self._channel.opened(self)

    def _end(self) -> None:
        """Look at nothing more, and let what was written go out."""
        self.state = State.CLOSING
        self.finished = True
        self._deadline = self._owner.now() + self._owner.settings.close_seconds
        self.transport.unregisterProducer()  # type: ignore[attr-defined]
        if self.held:
            self.transport.resumeProducing()  # type: ignore[attr-defined]


class Dialled(Connection):
    """
    A connection that this node made.

    @ivar target: the node it wanted to reach.
    """

    def __init__(
        self, owner: Owner, channel: Channel, target: int, purpose: Purpose
    ) -> None:
        super().__init__(owner, channel)
        self.target = target
        self._purpose = purpose

    def connectionMade(self) -> None:
        """Greet first."""
        super().connectionMade()
        self._mine = self._owner.greeting(self.target, self._purpose)
        self.send_frame(FrameType.HELLO, encode_hello(self._mine))

    def greeted(self, theirs: Hello) -> None:
        """The answer: it must come from whom this node wanted to reach."""
        answerer = theirs.identity.node_id
        if answerer != self.target:
            raise ProtocolError(f"it answers as member {answerer}")
        self.hello = theirs
        refusal = self._owner.judge(self._mine, theirs)
        if refusal is not None:
            self.refuse(refusal)
        else:
            self.open(self._mine, theirs)

    def refused(self, refusal: Refusal) -> None:
        """Here a refusal comes from whom the membership names: heed it."""
        super().refused(refusal)
        self._owner.refused(self.target, refusal)

    def protocol_broken(self, error: ProtocolError) -> None:
        """Explain the commonest cause."""
        if self.state is State.GREETING and isinstance(error, FrameTooLong):
            error = ProtocolError(
                "what answers is no kvdb peer; is its peer URL the port for"
                " clients, or another program's?"
            )
        super().protocol_broken(error)


class Accepted(Connection):
    """A connection that a peer made, or something that is no peer."""

    @property
    def who(self) -> str:
        """The other side and whence it came, for people."""
        peer = self.transport.getPeer()
        host = str(getattr(peer, "host", peer))
        if self.hello is None:
            return host
        return f"member {self.hello.identity.node_id} at {host}"

    def note(self, fault: str) -> None:
        """Log it too: before the handshake there is no channel to tell."""
        super().note(fault)
        self._owner.complain(self.who, fault)

    def greeted(self, theirs: Hello) -> None:
        """Answer in kind, or refuse."""
        self.hello = theirs
        mine = self._owner.greeting(theirs.identity.node_id, theirs.purpose)
        # Nothing is learned from who has not shown who it is.
        refusal = self._owner.vouch(self, theirs) or self._owner.judge(mine, theirs)
        if refusal is not None:
            self.refuse(refusal)
            return
        self._channel = self._owner.channel_for(self, theirs)
        self.send_frame(FrameType.HELLO, encode_hello(mine))
        self.open(mine, theirs)

    def refused(self, refusal: Refusal) -> None:
        """
        Log it only: whoever finds this port may say that, and a node stops
        itself when it hears that it was removed.
        """
        if self.state is State.GREETING:
            raise ProtocolError("a REFUSE frame before a HELLO")
        super().refused(refusal)

    def protocol_broken(self, error: ProtocolError) -> None:
        """Tell somebody's curl where it is."""
        if self.state is State.GREETING and isinstance(error, FrameTooLong):
            self.note(
                "it speaks TLS, and this member's peer URL is not https://"
                if error.is_tls
                else "it is no kvdb peer; told so in HTTP"
            )
            self.transport.write(NOT_A_PEER_RESPONSE)
            self._ours = True
            self._end()
        else:
            super().protocol_broken(error)


class OneConnection(Factory):
    """Gives an endpoint the one connection that is to be made."""

    noisy = False

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def buildProtocol(self, addr: object) -> Connection:
        """The connection."""
        return self._connection

"""
Connections over TLS, from either side.

L{Server} and L{Dialler} wrap what speaks over a connection, as L{Reloaded}
files say at the moment when it is made.  A L{Secured} connection knows why it
failed (C{fault}), in words for people.

Rules:

* A handshake has a bounded time.
* Who speaks plain text to a TLS port is told so in plain text, and hung up on.
* A certificate that is asked for must be signed by the trusted CA; that of the
  side that was dialled must be valid for the host in its address.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import extract_patterns
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from kvdb.complaints import Complaints
from kvdb.reloading import Reloaded
from kvdb.tls import reasons
from kvdb.tls.files import Material

HANDSHAKE_SECONDS: Final = 10.0
"""How long a handshake may take."""

CLOSE_SECONDS: Final = 15.0
"""How long the other side may take to agree that a connection is over."""

MAX_SHOWN_NAMES: Final = 10
"""Of how many names of a certificate it is said that it is valid for them."""

MAX_SHOWN_BYTES: Final = 255
"""How much is said of each: as long as a host name may be (RFC 1035, 2.3.4)."""

_TLS_RECORD: Final = b"\x16"
"""What a TLS connection begins with: a record of the handshake (RFC 8446, 5.1)."""


def valid_for(certificate: crypto.X509, host: str) -> bool:
    """Whether a certificate's subject alternative names hold C{host} (RFC 9525)."""
    address = isIPAddress(host) or isIPv6Address(host)
    try:
        wanted: Any = IPAddress_ID(host) if address else DNS_ID(host)
        patterns = extract_patterns(certificate.to_cryptography())
        verify_service_identity(patterns, [wanted], [])
    except (VerificationError, CertificateError, ValueError):
        return False
    return True


def names_of(certificate: crypto.X509) -> str:
    """What a certificate is valid for, for people."""
    try:
        patterns = extract_patterns(certificate.to_cryptography())
    except (CertificateError, ValueError):
        patterns = []
    names = []
    for entry in patterns:
        pattern: Any = getattr(entry, "pattern", "")
        name = pattern if isinstance(pattern, bytes) else str(pattern).encode()
        # Whoever made it wrote what they liked, and it is read in logs.
        names.append(repr(name[:MAX_SHOWN_BYTES])[2:-1])
    return ", ".join(names[:MAX_SHOWN_NAMES]) or "no host"


class Secured(TLSMemoryBIOProtocol):
    """
    One connection.

    What is written is not gathered for the next turn, as Twisted's own wrapper
    does: whole answers and frames are written here.

    @ivar fault: why it failed, where that is known better than OpenSSL tells.
    """

    factory: SecuredFactory
    fault = ""
    _closing: IDelayedCall | None = None

    @property
    def established(self) -> bool:
        """Whether the handshake is over."""
        connection = self.getHandle()
        return connection is not None and connection.get_peer_finished() is not None

    def peer_certificate(self) -> crypto.X509 | None:
        """What the other side has shown."""
        found = self.getHandle().get_peer_certificate()
        return found if isinstance(found, crypto.X509) else None

    def loseConnection(self) -> None:
        """See L{ITransport<twisted.internet.interfaces.ITransport>}: the other
        side has a bounded time to agree."""
        super().loseConnection()
        if self._closing is None and self.connected:
            clock = self.factory.clock
            self._closing = clock.callLater(CLOSE_SECONDS, self._cut)

    def loseWriteConnection(self) -> None:
        """See L{ITCPTransport<twisted.internet.interfaces.ITCPTransport>}: what is
        read until the other side agrees is given to who speaks within."""
        self.loseConnection()

    def _cut(self) -> None:
        self._closing = None
        self.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See L{IProtocol<twisted.internet.interfaces.IProtocol>}."""
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        super().connectionLost(reason)


class SecuredFactory(TLSMemoryBIOFactory):
    """Makes them."""

    protocol: Any = Secured

    def __init__(
        self,
        creator: Any,
        is_client: bool,
        wrapped: IProtocolFactory,
        clock: IReactorTime,
    ) -> None:
        super().__init__(creator, is_client, wrapped, clock)
        self.clock = clock


def _verify(protocol: Secured, host: str | None) -> Callable[..., bool]:
    """
    What OpenSSL asks about each certificate of the other side.

    @param host: what the last must be valid for, if that is known now.
    """

    def verify(_: Any, certificate: Any, number: int, depth: int, ok: int) -> bool:
        try:
            if not ok:
                who = names_of(certificate)
                problem = reasons.of_certificate(number)
                protocol.fault = f"TLS: the certificate for {who}: {problem}"
                return False
            if depth == 0 and host is not None and not valid_for(certificate, host):
                protocol.fault = (
                    f"TLS: the certificate is valid for {names_of(certificate)}, and"
                    f" not for {host}, the host in the URL"
                )
                return False
        except Exception as error:
            # OpenSSL would take it for a yes, or lose it.
            protocol.fault = f"TLS: the certificate could not be read ({error})"
            return False
        return True

    return verify


# The side that connects.


@implementer(IOpenSSLClientConnectionCreator)
class Dialler:
    """What a connection to C{host} needs."""

    def __init__(self, material: Reloaded[Material], host: str) -> None:
        self._material = material
        self._host = host

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """See L{IOpenSSLClientConnectionCreator}."""
        connection = SSL.Connection(self._material.value.client, None)
        if not (isIPAddress(self._host) or isIPv6Address(self._host)):
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        connection.set_verify(
            SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
            _verify(protocol, self._host),
        )
        return connection


@implementer(IStreamClientEndpoint)
class SecuredEndpoint:
    """Connects by way of another endpoint."""

    def __init__(
        self,
        inner: IStreamClientEndpoint,
        creator: Dialler,
        clock: IReactorTime,
    ) -> None:
        self._inner = inner
        self._creator = creator
        self._clock = clock

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """See L{IStreamClientEndpoint}; what is given is what speaks within."""
        factory = SecuredFactory(self._creator, True, protocolFactory, self._clock)
        connecting: Deferred[Any] = self._inner.connect(factory)
        return connecting.addCallback(lambda secured: secured.wrappedProtocol)


# The side that listens.


class Accepted(Secured):
    """A connection that somebody made."""

    factory: Server
    _handshake: IDelayedCall | None = None
    _looked = False
    _is_plain = False

    def makeConnection(self, transport: Any) -> None:
        """See there: its time begins."""
        clock = self.factory.clock
        self._handshake = clock.callLater(HANDSHAKE_SECONDS, self._late)
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        """Tell TLS from plain text."""
        if not self._looked and data:
            self._looked = True
            if not data.startswith(_TLS_RECORD):
                self._is_plain = True
                self._plain(data)
        if not self._is_plain:
            super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Say why there was no handshake."""
        if self._handshake is not None and self._handshake.active():
            self._handshake.cancel()
        self._handshake = None
        if self._looked and not self.established:
            # What OpenSSL said is kept by Twisted, and told within.
            why = self.fault or reasons.of_failure(self._reason or reason)
            kind = "plain text" if self._is_plain else "handshake"
            self.factory.complain(kind, f"no handshake with {self.who}: {why}")
        super().connectionLost(reason)

    @property
    def who(self) -> str:
        """Whence it comes, for people."""
        peer: Any = self.transport.getPeer() if self.transport is not None else None
        return str(getattr(peer, "host", peer))

    def _late(self) -> None:
        if not self.established:
            self.fault = self.fault or f"none in {HANDSHAKE_SECONDS:g} s"
            self.abortConnection()

    def _plain(self, data: bytes) -> None:
        self.fault = f"it speaks plain text to {self.factory.what}, which speaks TLS"
        assert self.transport is not None, "bytes without a connection"
        self.transport.write(self.factory.plain_answer(data))
        self.transport.loseConnection()


@implementer(IOpenSSLServerConnectionCreator)
class Server(SecuredFactory):
    """
    Wraps what listens.

    @ivar what: what listens, for the log.
    @ivar plain_answer: what somebody is told who begins with these bytes, which
        are not TLS.
    @param is_full: whether there may be no more connections.
    """

    protocol: Any = Accepted

    def __init__(
        self,
        material: Reloaded[Material],
        client_cert_auth: bool,
        wrapped: IProtocolFactory,
        clock: IReactorTime,
        complaints: Complaints,
        what: str,
        plain_answer: Callable[[bytes], bytes],
        is_full: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(self, False, wrapped, clock)
        self.what = what
        self.plain_answer = plain_answer
        self._is_full = is_full
        self._material = material
        self._client_cert_auth = client_cert_auth
        self._complaints = complaints

    def buildProtocol(self, addr: Any) -> Any:
        """Whoever is too many is not worth a handshake."""
        if self._is_full():
            return None
        wrapped = self.wrappedFactory.buildProtocol(addr)
        return None if wrapped is None else self.protocol(self, wrapped)

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """See L{IOpenSSLServerConnectionCreator}."""
        connection = SSL.Connection(self._material.value.server, None)
        if self._client_cert_auth:
            connection.set_verify(
                SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
                _verify(protocol, None),
            )
        return connection

    def complain(self, kind: str, text: str) -> None:
        """Log what somebody did wrong."""
        self._complaints.say(f"{self.what}: {kind}", f"{self.what}: {text}")

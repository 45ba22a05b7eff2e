"""Real sockets: TLS, names that are none, members that are none."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.web.resource import Resource
from twisted.web.server import Site

from kvdb.client import TLS, Client, NotTrusted, Unavailable
from kvdb.client.command import main
from tests.timed import timed

LONG_AGO = datetime.datetime(2020, 1, 1)
FAR_OFF = datetime.datetime(2120, 1, 1)


@frozen
class Identity:
    """A certificate and its key, in PEM."""

    certificate: x509.Certificate
    private: ec.EllipticCurvePrivateKey

    @property
    def cert(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key(self) -> bytes:
        return self.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


def identity(
    name: str,
    signer: Identity | None = None,
    *others: x509.GeneralName,
    is_named: bool = True,
    ends: datetime.datetime = FAR_OFF,
) -> Identity:
    """Made now; signed by itself, if by nobody else."""
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = subject if signer is None else signer.certificate.subject
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(LONG_AGO)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(signer is None, None), critical=True)
    )
    if is_named:
        names = x509.SubjectAlternativeName([x509.DNSName(name), *others])
        builder = builder.add_extension(names, False)
    signing = private if signer is None else signer.private
    certificate = builder.sign(signing, hashes.SHA256())
    return Identity(certificate, private)


class Answering(Resource):
    """Says what kvdb says of a write."""

    isLeaf = True

    def render(self, request: Any) -> bytes:
        """See there."""
        request.setHeader(b"etag", b'"1"')
        return b"value"


@pytest.fixture(scope="module")
def authority() -> Identity:
    return identity("authority.test")


class OpenSite(Site):
    """Knows its connections."""

    def __init__(self) -> None:
        super().__init__(Answering())
        self.open: set[Any] = set()

    def buildProtocol(self, addr: Any) -> Any:
        channel: Any = super().buildProtocol(addr)
        lost = channel.connectionLost

        def connection_lost(reason: Any) -> None:
            self.open.discard(channel)
            lost(reason)

        channel.connectionLost = connection_lost
        self.open.add(channel)
        return channel


@asynccontextmanager
async def serving(
    own: Identity | None, trusted: Identity | None = None
) -> AsyncIterator[int]:
    """The port of a server, until its clients are gone."""
    endpoint: Any = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    if own is not None:
        both = ssl.PrivateCertificate.loadPEM(own.cert + own.key)
        roots = [] if trusted is None else [ssl.Certificate.loadPEM(trusted.cert)]
        options = both.options(*roots)
        endpoint = SSL4ServerEndpoint(reactor, 0, options, interface="127.0.0.1")
    site = OpenSite()
    port = await endpoint.listen(site)
    try:
        yield port.getHost().port
    finally:
        await port.stopListening()
        while site.open:
            await deferLater(reactor, 0.01, lambda: None)


@timed(20)
async def test_a_member_is_verified_by_whom_one_trusts(
    authority: Identity,
) -> None:
    async with serving(identity("localhost", authority)) as port:
        tls = TLS(cacert=authority.cert)
        async with Client(reactor, f"localhost:{port}", tls=tls) as client:
            assert (await client.get("/k")).value == b"value"
            assert client.endpoints == (f"https://localhost:{port}",)


@timed(20)
async def test_a_member_that_is_not_trusted_is_sent_nothing(
    authority: Identity,
) -> None:
    async with serving(identity("localhost", authority)) as port:
        other = TLS(cacert=identity("another.test").cert)
        for tls in (other, None):
            url = f"https://localhost:{port}"
            async with Client(reactor, url, tls=tls) as client:
                with pytest.raises(Unavailable, match="not signed by whom") as caught:
                    await client.put("/k", b"secret")
                assert "cacert" in caught.value.hint


ADDRESS = x509.IPAddress(ipaddress.ip_address("192.0.2.1"))
URL = x509.UniformResourceIdentifier("https://x.test/")


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (
            {"others": [ADDRESS, URL]},
            "is for another name: elsewhere.test, that of no host, 192.0.2.1",
        ),
        ({"is_named": False}, "is for another name: it has none"),
        ({"ends": LONG_AGO + datetime.timedelta(1)}, "has expired"),
    ],
)
@timed(20)
async def test_a_certificate_that_is_of_no_use_is_refused_and_said_why(
    authority: Identity, more: dict[str, Any], why: str
) -> None:
    others = more.pop("others", [])
    async with serving(identity("elsewhere.test", authority, *others, **more)) as port:
        tls = TLS(cacert=authority.cert)
        for host in ("localhost", "127.0.0.1"):
            url = f"https://{host}:{port}"
            async with Client(reactor, url, tls=tls) as client:
                with pytest.raises(NotTrusted) as caught:
                    await client.put("/k", b"secret")
                assert str(caught.value) == f"{url}: its certificate {why}"
                assert "--cacert" in main.line_of(caught.value)


@timed(20)
async def test_a_member_is_named_by_its_address(authority: Identity) -> None:
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    async with serving(identity("elsewhere.test", authority, address)) as port:
        tls = TLS(cacert=authority.cert)
        async with Client(reactor, f"127.0.0.1:{port}", tls=tls) as client:
            assert (await client.get("/k")).value == b"value"


@timed(20)
async def test_one_can_show_a_certificate_of_ones_own(
    authority: Identity, tmp_path: Path
) -> None:
    async with serving(identity("localhost", authority), authority) as port:
        mine = identity("me.test", authority)
        for name, data in (
            ("ca.pem", authority.cert),
            ("cert.pem", mine.cert),
            ("key.pem", mine.key),
            ("both.pem", mine.cert + mine.key),
        ):
            (tmp_path / name).write_bytes(data)
        cacert = str(tmp_path / "ca.pem")
        cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
        for tls in (
            TLS.from_files(cacert, cert, key),
            TLS.from_files(cacert, str(tmp_path / "both.pem")),
        ):
            async with Client(reactor, f"localhost:{port}", tls=tls) as client:
                assert (await client.get("/k")).value == b"value"
        without = TLS.from_files(cacert)
        url = f"localhost:{port}"
        async with Client(reactor, url, tls=without, timeout=0.5) as client:
            with pytest.raises(Unavailable):
                await client.get("/k")
        with pytest.raises(ValueError, match=r"private key.*cert\.pem"):
            TLS.from_files(cacert, cert)
        (tmp_path / "key.pem").write_bytes(identity("me.test").key)
        with pytest.raises(ValueError, match=r"private key.*cert\.pem.*key\.pem"):
            TLS.from_files(cacert, cert, key)
        with pytest.raises(ValueError, match="no certificate"):
            TLS.from_files(key)
        assert "PRIVATE" not in repr(TLS(key=mine.key))


@timed(20)
async def test_a_member_that_speaks_no_tls_is_no_member() -> None:
    async with serving(None) as port:
        url = f"https://127.0.0.1:{port}"
        async with Client(reactor, url, timeout=0.5) as client:
            with pytest.raises(Unavailable):
                await client.get("/k")


class FallingSilent(Protocol):
    """Answers once, and then hears nothing more."""

    def connectionMade(self) -> None:
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.write(b'HTTP/1.1 204 OK\r\nETag: "1"\r\n\r\n')
        transport.pauseProducing()

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.callback(None)


@timed(20)
async def test_a_client_does_not_wait_for_a_silent_member_to_close(
    authority: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvdb.client.transport.CLOSE_SECONDS", 0.05)
    own = identity("localhost", authority)
    both = ssl.PrivateCertificate.loadPEM(own.cert + own.key)
    member = FallingSilent()
    factory = Factory.forProtocol(lambda: member)
    endpoint = SSL4ServerEndpoint(reactor, 0, both.options(), interface="127.0.0.1")
    port = await endpoint.listen(factory)
    url = f"localhost:{port.getHost().port}"
    async with Client(reactor, url, tls=TLS(cacert=authority.cert)) as client:
        await client.put("/k", b"v")
    assert not member.lost.called, "it did not close"
    transport: Any = member.transport
    transport.abortConnection()
    await member.lost
    await port.stopListening()


@timed(20)
async def test_a_connection_is_used_again() -> None:
    async with serving(None) as port, Client(reactor, f"127.0.0.1:{port}") as client:
        for _ in range(3):
            await client.get("/k")
        agent = client._calls.transport._http._agent
        assert len(agent._pool._connections) == 1  # type: ignore[attr-defined]


@timed(20)
async def test_an_address_that_is_none_is_said_to_be_none() -> None:
    url = "http://no-such-host.invalid:1"
    async with Client(reactor, url, timeout=0.3) as client:
        with pytest.raises(Unavailable, match="no such host"):
            await client.put("/k", b"")
    async with Client(reactor, "http://127.0.0.1:1", timeout=0.3) as client:
        with pytest.raises(Unavailable, match="connection refused"):
            await client.put("/k", b"")


# The command's outermost part, without a process of its own.


def test_help_needs_no_cluster(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, status in ((["--help"], 0), (["get"], 2)):
        monkeypatch.setattr("sys.argv", ["kvdbctl", *arguments])
        with pytest.raises(SystemExit) as caught:
            main.main()
        assert caught.value.code == status
    assert "Talk to a kvdb cluster" in capsys.readouterr().out

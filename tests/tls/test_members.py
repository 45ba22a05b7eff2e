"""Members that look at each other's certificates, on real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from twisted.internet import reactor as default_reactor

from kvdb.host import RealHost
from kvdb.node.settings import NodeSettings
from kvdb.peer.addresses import tcp_dial
from kvdb.peer.handshake import Identity, Refusal, RefusalCode
from kvdb.peer.peers import Peers
from kvdb.raft.messages import Message, MessageType, Snapshot
from kvdb.security import Security
from kvdb.settings import Settings
from kvdb.tls.settings import TLSFiles
from tests.peer.network import heartbeat
from tests.peer.test_sockets import Node, until
from tests.timed import timed
from tests.tls.certificates import CLIENT, SERVER, Authority, Pair

reactor: Any = default_reactor
HERE = "127.0.0.1"


class Member(Node):
    """
    One that speaks TLS.

    @ivar refusals: what it was told by those it dialled.
    """

    def __init__(
        self,
        number: int,
        pair: Pair | None,
        authority: Authority,
        host: str = HERE,
        auth: bool = True,
    ) -> None:
        super().__init__(number)
        self.refusals: list[Refusal] = []
        scheme = "http" if pair is None else "https"
        self.url = f"{scheme}://{host}:{self.port}"
        self.identity = Identity(number, 1, 1, self.url)
        named = None
        if pair is not None:
            named = TLSFiles(
                prefix="peer-",
                cert=pair.cert,
                key=pair.key,
                ca=authority.path,
                client_cert_auth=auth,
            )
        settings = Settings(
            node_id=number,
            cluster={number: self.url},
            join=False,
            data_dir="/nowhere",
            host=HERE,
            port=0,
            max_key_bytes=1,
            max_value_bytes=1,
            node=NodeSettings(),
            peer_tls=named,
        )
        self.host = RealHost(reactor)
        self.security = security = Security(self.host, settings)
        security.startService()
        self.logged: list[str] = []
        security._complaints.log = type(
            "Log", (), {"warn": lambda _, form, text: self.logged.append(text)}
        )()
        listen = self._listen
        self.peers = Peers(
            reactor,
            Random(number),
            self,
            lambda factory: listen(security.for_members(self.url, factory)),
            security.dial(tcp_dial(reactor)),
            vouch=security.vouch(self.url),
        )

    def refused(self, node_id: int, refusal: Refusal) -> None:
        self.refusals.append(refusal)

    @property
    def complaints(self) -> str:
        """What it logs about its peers."""
        return str(self.peers._complaints)


@asynccontextmanager
async def running(*members: Member) -> AsyncIterator[None]:
    """They know each other, and dial."""
    urls = {member.identity.node_id: member.url for member in members}
    try:
        for member in members:
            member.peers.startService()
            member.peers.set_members(urls)
        yield
    finally:
        for member in members:
            await member.peers.stopService()
            member.security.stopService()
            member.host.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "other", "another CA")


def connected(one: Member, other: Member) -> Callable[[], bool]:
    return lambda: other.identity.node_id in one.peers.connected()


def both_ways(a: Member, b: Member) -> Callable[[], bool]:
    return lambda: connected(a, b)() and connected(b, a)()


@timed(20)
async def test_messages_and_a_snapshot(authority: Authority) -> None:
    a = Member(1, authority.issue(HERE), authority)
    b = Member(2, authority.issue("localhost"), authority, "localhost")
    async with running(a, b):
        await until(both_ways(a, b))
        a.peers.send(2, [heartbeat(1, 2, n) for n in range(100)])
        await until(lambda: len(b.received) == 100)
        chunks = [bytes([n]) * (256 << 10) for n in range(40)]
        message = Message(MessageType.SNAP, 2, 1, snapshot=Snapshot(1, 1))
        await a.peers.send_snapshot(2, message, iter(chunks))
        assert b.sink.data == b"".join(chunks)


@timed(20)
async def test_one_of_another_ca(authority: Authority, stranger: Authority) -> None:
    """Neither lets the other in, and each says why."""
    a = Member(1, authority.issue(HERE), authority)
    b = Member(2, stranger.issue(HERE), stranger)
    async with running(a, b):
        for one in (a, b):
            await until(
                lambda one=one: "it is not signed by the CA" in one.complaints  # type: ignore[misc]
            )
            await until(lambda one=one: any("no handshake" in t for t in one.logged))  # type: ignore[misc]
        assert a.peers.connected() == b.peers.connected() == []
    assert a.received == b.received == []


@timed(20)
async def test_one_whose_name_is_wrong_where_it_is_dialled(
    authority: Authority,
) -> None:
    a = Member(1, authority.issue(HERE), authority)
    b = Member(2, authority.issue("10.0.0.2"), authority)
    async with running(a, b):
        await until(
            lambda: (
                f"the certificate is valid for 10.0.0.2, and not for {HERE}"
                in a.complaints
            )
        )
        # And where it dials, it is told so.
        await until(lambda: bool(b.refusals))
        [refusal] = b.refusals[:1]
        assert refusal.code is RefusalCode.WRONG_CERTIFICATE
        assert "the certificate that was shown is valid for 10.0.0.2" in refusal.text
        assert "refused" in a.complaints
        assert a.peers.connected() == b.peers.connected() == []


@timed(20)
async def test_one_that_claims_to_be_another(authority: Authority) -> None:
    """A member's key speaks for no other on another host."""
    a = Member(1, authority.issue(HERE), authority)
    victim = Member(2, authority.issue("localhost"), authority, "localhost")
    thief = Member(3, authority.issue(HERE), authority)
    thief.identity = Identity(2, 1, 1, victim.url)
    async with running(a, victim):
        await until(both_ways(a, victim))
        thief.peers.startService()
        thief.peers.set_members({1: a.url})
        await until(lambda: bool(thief.refusals))
        assert thief.refusals[0].code is RefusalCode.WRONG_CERTIFICATE
        assert "localhost" in thief.refusals[0].text
        await thief.peers.stopService()
        assert both_ways(a, victim)()
    thief.security.stopService()
    thief.host.close()


@timed(20)
async def test_certificates_are_judged_again_when_members_change(
    authority: Authority,
) -> None:
    """One that was believed as to its address, until the membership knew."""
    a = Member(1, authority.issue(HERE), authority)
    b = Member(2, authority.issue(HERE), authority)
    async with running(a, b):
        await until(both_ways(a, b))
        a.peers.set_members({1: a.url, 2: f"https://localhost:{b.port}"})
        await until(lambda: bool(b.refusals))
        assert b.refusals[0].code is RefusalCode.WRONG_CERTIFICATE


@timed(20)
async def test_plain_to_tls_and_tls_to_plain(authority: Authority) -> None:
    """Each side says what the other did."""
    plain = Member(1, None, authority)
    tls = Member(2, authority.issue(HERE), authority)
    urls = {1: f"https://{HERE}:{plain.port}", 2: f"http://{HERE}:{tls.port}"}
    try:
        for one in (plain, tls):
            one.peers.startService()
        plain.peers.set_members(urls)  # the other is http, it thinks
        await until(lambda: bool(plain.refusals))
        assert "its URL in the membership must be https://" in plain.refusals[0].text
        assert "it speaks plain text to the peer URL, which speaks TLS" in str(
            tls.logged
        )
        tls.peers.set_members(urls)  # the other is https, it thinks
        await until(lambda: "does not speak TLS there" in tls.complaints)
        await until(lambda: "it speaks TLS" in plain.complaints)
    finally:
        for one in (plain, tls):
            await one.peers.stopService()
            one.security.stopService()
            one.host.close()


@timed(20)
async def test_without_a_certificate_no_https_is_dialled(authority: Authority) -> None:
    plain = Member(1, None, authority)
    tls = Member(2, authority.issue(HERE), authority)
    async with running(plain, tls):
        await until(lambda: "--peer-cert-file: is needed" in plain.complaints)


@timed(20)
async def test_members_that_need_show_none(authority: Authority) -> None:
    """Without --peer-client-cert-auth only the dialled side is looked at."""
    a = Member(1, authority.issue(HERE), authority, auth=False)
    b = Member(2, authority.issue(HERE, usages=(SERVER,)), authority, auth=False)
    async with running(a, b):
        await until(both_ways(a, b))


@timed(20)
async def test_a_certificate_that_may_not_dial(authority: Authority) -> None:
    """Members' certificates are for servers and for clients."""
    a = Member(1, authority.issue(HERE), authority)
    b = Member(2, authority.issue(HERE, usages=(SERVER,)), authority)
    c = Member(3, authority.issue(HERE, usages=(CLIENT,)), authority)
    async with running(a, b, c):
        await until(connected(a, b))
        await until(lambda: "extended key usage" in str(a.logged))
        await until(lambda: "its extended key usage" in a.complaints)
        assert not connected(b, a)()


@timed(20)
async def test_nobody_listens(authority: Authority) -> None:
    """A closed port is still known to be one: elections are hastened by it."""
    a = Member(1, authority.issue(HERE), authority)
    async with running(a):
        a.peers.set_members({2: f"https://{HERE}:1"})
        await until(lambda: ("process gone", 2) in a.events)
        assert "onnection was refused" in a.complaints

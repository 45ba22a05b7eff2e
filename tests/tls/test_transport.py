"""Handshakes that succeed, and each way in which they do not."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from OpenSSL import SSL
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from kvdb.tls import reasons
from kvdb.tls.transport import CLOSE_SECONDS, HANDSHAKE_SECONDS, names_of, valid_for
from tests.tls.certificates import CLIENT, DAY, SERVER, Authority
from tests.tls.memory import Listening, Recorder, carry, dialled, drop, material

HOST = "db1.example.org"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "stranger", "another CA")


def within(secured: Any) -> Recorder:
    found = secured.within
    assert isinstance(found, Recorder)
    return found


def why(secured: Any) -> str:
    """Why it ended, as whoever speaks over it is told."""
    lost = within(secured).lost
    assert lost is not None, "it lives"
    return reasons.of_lost(secured, lost)


def test_both_sides_verified(authority: Authority) -> None:
    found = material(authority.issue(HOST), authority)
    listening = Listening(found, auth=True)
    server, client = listening.accept(), dialled(found, HOST, Clock())
    client[0].write(b"hello")
    carry(client, server)
    assert within(server[0]).heard == b"hello"
    assert server[0].established
    assert names_of(server[0].peer_certificate()) == HOST
    server[0].write(b"x" * 100_000)
    carry(client, server)
    assert within(client[0]).heard == b"x" * 100_000
    client[0].loseConnection()
    carry(client, server)
    assert within(server[0]).lost is not None
    listening.clock.advance(HANDSHAKE_SECONDS + CLOSE_SECONDS)
    assert listening.said == ""
    assert not listening.clock.getDelayedCalls()


@pytest.mark.parametrize("case", ["ca", "expired", "early", "name", "usage"])
def test_the_dialled_sides_certificate(
    case: str, authority: Authority, stranger: Authority
) -> None:
    """The dialling side says what is wrong with it; so does the other's log."""
    hour = datetime.timedelta(hours=1)
    pair, mine, theirs = {
        "ca": (
            stranger.issue(HOST),
            f"the certificate for {HOST}: it is not signed by the CA",
            "does not trust the CA",
        ),
        "expired": (
            authority.issue(HOST, begins=-2 * DAY, ends=-hour),
            f"the certificate for {HOST}: it has expired",
            "says that this certificate expired",
        ),
        "early": (
            authority.issue(HOST, begins=hour),
            "it is not valid yet",
            "does not take this side's certificate",
        ),
        "name": (
            authority.issue("db2.example.org", "10.0.0.7"),
            f"is valid for db2.example.org, 10.0.0.7, and not for {HOST}",
            "",
        ),
        "usage": (
            authority.issue(HOST, usages=(CLIENT,)),
            "its extended key usage is for something else",
            "is not for this use",
        ),
    }[case]
    listening = Listening(material(pair, authority))
    server = listening.accept()
    client = dialled(material(authority.issue("client"), authority), HOST, Clock())
    client[0].write(b"secret")
    carry(client, server)
    assert mine in why(client[0])
    assert theirs in listening.said
    assert "no handshake with 192.168.1.1: TLS: " in listening.said
    assert within(server[0]).heard == b""


@pytest.mark.parametrize("case", ["none", "ca", "expired", "usage"])
def test_the_dialling_sides_certificate(
    case: str, authority: Authority, stranger: Authority
) -> None:
    """The side that listens logs what is wrong; the other hears an alert."""
    pair, mine, theirs = {
        "none": (None, "it gave no certificate", "wants a certificate"),
        "ca": (
            stranger.issue(HOST),
            "it is not signed by the CA that is trusted here",
            "does not trust the CA of this side's certificate",
        ),
        "expired": (
            authority.issue(HOST, begins=-2 * DAY, ends=-DAY),
            "it has expired",
            "says that this certificate expired",
        ),
        "usage": (
            authority.issue(HOST, usages=(SERVER,)),
            "its extended key usage is for something else",
            "is not for this use",
        ),
    }[case]
    listening = Listening(material(authority.issue(HOST), authority), auth=True)
    found = material(pair or authority.issue(HOST), authority)
    if pair is None:
        bare = SSL.Context(SSL.TLS_METHOD)
        bare.get_cert_store().add_cert(  # type: ignore[union-attr]
            __import__("OpenSSL").crypto.X509.from_cryptography(authority.certificate)
        )
        found.value = evolve(found.value, client=bare)
    server, client = listening.accept(), dialled(found, HOST, Clock())
    carry(client, server)
    assert mine in listening.said
    assert theirs in why(client[0])
    assert within(server[0]).heard == b""


def test_old_protocols_and_ciphers_are_refused(authority: Authority) -> None:
    found = material(authority.issue(HOST), authority)
    for limit in ("version", "cipher"):
        listening = Listening(found)
        old = material(authority.issue(HOST), authority)
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        if limit == "version":
            context.set_cipher_list(b"ALL:@SECLEVEL=0")
            context.set_max_proto_version(SSL.TLS1_1_VERSION)
        else:
            context.set_cipher_list(b"ECDHE-ECDSA-AES128-SHA")
        old.value = evolve(old.value, client=context)
        server, client = listening.accept(), dialled(old, HOST, Clock())
        carry(client, server)
        expected = "TLS 1.2" if limit == "version" else "shares no cipher"
        assert expected in listening.said
        assert why(client[0]).startswith("TLS: the other side")


def test_tls_1_2_still_works(authority: Authority) -> None:
    found = material(authority.issue(HOST), authority)
    listening = Listening(found, auth=True)
    old = material(authority.issue(HOST), authority)
    old.value.client.set_max_proto_version(SSL.TLS1_2_VERSION)
    server, client = listening.accept(), dialled(old, HOST, Clock())
    client[0].write(b"hello")
    carry(client, server)
    assert within(server[0]).heard == b"hello"
    assert server[0].getHandle().get_protocol_version_name() == "TLSv1.2"
    assert "ECDHE" in server[0].getHandle().get_cipher_name()


def test_plain_text_is_answered_in_kind(authority: Authority) -> None:
    asked: list[bytes] = []

    def answer(data: bytes) -> bytes:
        asked.append(data)
        return b"speak TLS"

    listening = Listening(material(authority.issue(HOST), None), plain_answer=answer)
    for _ in range(3):
        protocol, wire = listening.accept()
        protocol.dataReceived(b"GET / HTTP/1.1\r\n")
        protocol.dataReceived(b"Host: x\r\n\r\n")
        assert wire.value() == b"speak TLS"
        assert wire.disconnecting
        drop((protocol, wire))
    assert asked == [b"GET / HTTP/1.1\r\n"] * 3
    assert listening.said.count("it speaks plain text to the port") == 1
    listening.clock.advance(10)
    protocol, wire = listening.accept()
    protocol.dataReceived(b"GET /")
    drop((protocol, wire))
    assert "2 more of this kind were not logged" in listening.said


def test_a_handshake_that_never_ends(authority: Authority) -> None:
    """Neither with nothing said, nor byte after byte."""
    found = material(authority.issue(HOST), authority)
    listening = Listening(found)
    silent, dribbling = listening.accept(), listening.accept()
    hello = dialled(found, HOST, Clock())[1].value()
    for second in range(int(HANDSHAKE_SECONDS)):
        assert not silent[1].disconnecting
        assert not dribbling[1].disconnecting
        dribbling[0].dataReceived(hello[second : second + 1])
        listening.clock.advance(1)
    for protocol, wire in (silent, dribbling):
        assert wire.aborted
        drop((protocol, wire))
        assert within(protocol).lost is not None
    assert listening.said.endswith("no handshake with 192.168.1.1: none in 10 s")
    assert not listening.clock.getDelayedCalls()


def test_who_does_not_agree_to_the_end_is_cut(authority: Authority) -> None:
    found = material(authority.issue(HOST), authority)
    listening = Listening(found)
    server, client = listening.accept(), dialled(found, HOST, Clock())
    client[0].write(b"hello")
    carry(client, server)
    server[0].loseConnection()
    listening.clock.advance(CLOSE_SECONDS - 1)
    assert not server[1].aborted
    listening.clock.advance(1)
    assert server[1].aborted


def test_one_too_many_gets_no_handshake(authority: Authority) -> None:
    found = material(authority.issue(HOST), None)
    full = Listening(found, is_full=lambda: True)
    assert full.factory.buildProtocol(None) is None


def test_new_files_are_for_new_connections(
    authority: Authority, stranger: Authority
) -> None:
    pair = authority.issue(HOST)
    found = material(pair, None)
    listening = Listening(found)
    client_files = material(authority.issue("client"), authority)
    old = listening.accept(), dialled(client_files, HOST, Clock())
    carry(*old)
    pair.take(stranger.issue(HOST))
    found.check()
    old[1][0].write(b"still here")
    carry(*old)
    assert within(old[0][0]).heard == b"still here"
    new = listening.accept(), dialled(client_files, HOST, Clock())
    carry(*new)
    assert "not signed by the CA" in why(new[1][0])


def test_names(authority: Authority) -> None:
    listening = Listening(material(authority.issue(HOST), None))
    certificate: Any = None
    for names, host, is_valid in (
        (("a.example.org",), "a.example.org", True),
        (("A.example.org",), "a.example.org", True),
        (("*.example.org",), "a.example.org", True),
        (("*.example.org",), "a.b.example.org", False),
        (("10.0.0.1",), "10.0.0.1", True),
        (("10.0.0.1",), "10.0.0.2", False),
        (("::1",), "::1", True),
        (("10.0.0.1",), "a.example.org", False),
        ((), "a.example.org", False),
    ):
        found = material(authority.issue(*names), authority)
        certificate = SSL.Connection(found.value.server, None).get_certificate()
        assert valid_for(certificate, host) is is_valid, (names, host)
    assert names_of(certificate) == "no host"
    del listening


def test_a_ca_between(authority: Authority, tmp_path: Path) -> None:
    """It is sent along; and may itself be what is trusted."""
    middle = authority.delegate(tmp_path / "middle", "a CA between")
    pair = middle.issue(HOST)
    alone = Path(pair.cert).read_bytes()
    client_files = material(authority.issue("client"), authority)
    for chain, trusts, is_good in (
        (alone + Path(middle.path).read_bytes(), authority, True),
        (alone, authority, False),
        (alone, middle, True),
    ):
        Path(pair.cert).write_bytes(chain)
        listening = Listening(material(pair, None))
        client_files = material(authority.issue("client"), trusts)
        server, client = listening.accept(), dialled(client_files, HOST, Clock())
        client[0].write(b"hello")
        carry(client, server)
        assert (within(server[0]).heard == b"hello") is is_good
        if not is_good:
            assert "it is not signed by the CA" in why(client[0])


def test_a_certificate_that_cannot_be_read(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes wrong in looking at it is a no."""
    found = material(authority.issue(HOST), authority)

    def fail(*_: object) -> bool:
        raise RuntimeError("odd")

    monkeypatch.setattr("kvdb.tls.transport.valid_for", fail)
    listening = Listening(found)
    server, client = listening.accept(), dialled(found, HOST, Clock())
    client[0].write(b"hello")
    carry(client, server)
    assert "the certificate could not be read (odd)" in why(client[0])
    assert within(server[0]).heard == b""


def test_reasons_that_are_not_known() -> None:
    for entries, expected in (
        ([("SSL routines", "", "something new")], "TLS: something new"),
        ([], "TLS: Error"),
    ):
        assert reasons.of_failure(Failure(SSL.Error(entries))) == expected
    assert reasons.of_certificate(9999) == "OpenSSL's verification error 9999"
    assert reasons.of_failure(Failure(ValueError("x"))) == "x"


def test_addresses_that_cannot_be_names(authority: Authority) -> None:
    found = material(authority.issue(HOST), authority)
    certificate: Any = SSL.Connection(found.value.server, None).get_certificate()
    for host in ("", ".", "a_b", "a..b", "-"):
        assert not valid_for(certificate, host)


def test_what_a_stranger_writes_into_a_certificate_is_no_log(
    authority: Authority, stranger: Authority
) -> None:
    """Not a line of its own, no command to a terminal, and not without end."""
    listening = Listening(material(authority.issue(HOST), authority), auth=True)
    server = listening.accept()
    pair = stranger.issue("a\n[kvdb] all is well\x1b[2J", *["b" * 9000] * 2)
    client = dialled(material(pair, authority), HOST, Clock())
    carry(client, server)
    assert "is not signed by the CA" in listening.said
    assert "a\\n[kvdb] all is well\\x1b[2j, bbb" in listening.said
    assert listening.said.isprintable()
    assert len(listening.said) < 2000

"""The clients' port over TLS: the same answers, by the lane and the long way."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from kvdb.rest.site import ARRIVE_SECONDS, IDLE_SECONDS, RestSettings
from kvdb.security import _plain_client, _plain_peer
from kvdb.tls.transport import CLOSE_SECONDS
from tests.rest.local import Conversation, Server
from tests.tls.certificates import Authority
from tests.tls.memory import End, Listening, carry, dialled, drop, material

HOST = "n"


class Talk:
    """A client over TLS."""

    def __init__(self, server: Server, directory: Path) -> None:
        authority = Authority(directory)
        found = material(authority.issue(HOST), authority)
        self.site = server.site()
        self.listening = Listening(
            found,
            wrapped=self.site,
            plain_answer=_plain_client,
            is_full=lambda: self.site.is_full,
        )
        self.listening.clock = self.listening.factory.clock = server.clock
        self.found = found
        self.client: End
        self.server: End

    def connect(self) -> Talk:
        self.client = dialled(self.found, HOST, Clock())
        self.server = self.listening.accept()
        return self

    def say(self, data: bytes) -> bytes:
        """Send, and what is answered."""
        within = self.client[0].within
        before = len(within.heard)
        self.client[0].write(data)
        carry(self.client, self.server)
        return bytes(within.heard[before:])

    @property
    def channel(self) -> Any:
        return self.server[0].within


DATE = re.compile(rb"Date: [^\r]*")
PUT = b"PUT /k HTTP/1.1\r\nHost: n\r\nContent-Length: 5\r\n\r\nvalue"
GET = b"GET /k HTTP/1.1\r\nHost: n\r\n\r\n"
DELETE = b"DELETE /k HTTP/1.1\r\nHost: n\r\n\r\n"
LARGE = b"PUT /l HTTP/1.1\r\nHost: n\r\nContent-Length: 1048576\r\n\r\n" + bytes(
    1 << 20
)


@pytest.mark.parametrize("fast", [True, False])
def test_answers_are_those_of_plain_http(fast: bool, tmp_path: Path) -> None:
    settings = RestSettings(fast_lane=fast)
    secured = Talk(Server(settings), tmp_path).connect()
    plain = Conversation(Server(settings).site())
    for said in (
        PUT,
        GET,
        PUT + GET + GET,
        PUT[:20],
        PUT[20:] + GET + DELETE + GET,
        LARGE,
        GET.replace(b"/k", b"/l"),
        GET.replace(b"/k", b"/_/members"),
        b"BAD\r\n\r\n",
    ):
        plain.transport.clear()
        plain.say(said)
        expected = DATE.sub(b"", plain.transport.value())
        assert DATE.sub(b"", secured.say(said)) == expected, said[:50]
    assert plain.transport.disconnecting
    assert secured.client[0].within.lost is not None
    assert (secured.channel._answered > 3) is fast


def test_idle_and_slow_ones_are_closed(tmp_path: Path) -> None:
    server = Server()
    for first, seconds in (
        (b"", 2 * IDLE_SECONDS),
        (PUT[:20], int(ARRIVE_SECONDS) + 1),
    ):
        talk = Talk(server, tmp_path).connect()
        talk.say(GET)
        talk.say(first)
        server.clock.pump([1.0] * (seconds + 1))
        carry(talk.client, talk.server)
        assert talk.client[0].within.lost is not None
        assert b"408 " in talk.client[0].within.heard or not first
        talk.listening.clock.advance(CLOSE_SECONDS)
    assert not server.clock.getDelayedCalls()


def test_one_that_never_shakes_hands_leaves_nothing(tmp_path: Path) -> None:
    server = Server()
    talk = Talk(server, tmp_path)
    talk.server = talk.listening.accept()
    assert len(talk.site.open) == 1
    server.clock.pump([1.0] * 11)
    assert talk.server[1].aborted
    drop(talk.server)
    assert not talk.site.open
    assert not server.clock.getDelayedCalls()


def test_one_too_many(tmp_path: Path) -> None:
    talk = Talk(Server(RestSettings(max_connections=1)), tmp_path).connect()
    assert talk.listening.factory.buildProtocol(None) is None
    assert talk.say(GET).startswith(b"HTTP/1.1 404")


def test_what_those_who_speak_plain_text_are_told() -> None:
    answer = _plain_client(b"GET / HTTP/1.1\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nConnection: close" in head
    assert json.loads(body)["hint"] == "Write https:// in the URL."
    assert b"port on which the members" in _plain_peer(b"GET / HTTP/1.1\r\n")
    assert b"must be https://" in _plain_peer(b"\0\0\0\x40")

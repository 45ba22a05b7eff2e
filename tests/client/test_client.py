"""The client's calls, on a cluster in memory and on members that misbehave."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from kvdb.client import (
    BadRequest,
    Client,
    Compacted,
    Conflict,
    Forbidden,
    NoSpace,
    NotFound,
    OutcomeUnknown,
    Refused,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
)
from kvdb.client.calls import MAX_REQUESTS
from kvdb.client.errors import RETRY_STATUSES
from kvdb.client.testing import FakeCluster, NeverFinished
from kvdb.interfaces import OutcomeUnknown as UnknownInside
from kvdb.interfaces import Unavailable as UnavailableInside
from kvdb.store.backup import BackupReader
from tests.client.scripted import answer, backup, cut, put_script, stream, then_cut

PROBLEM = b'{"detail": "why", "hint": "what to do"}'


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def client(cluster: FakeCluster) -> Client:
    return cluster.client()


# Keys.


def test_a_key_is_written_read_and_removed(
    cluster: FakeCluster, client: Client
) -> None:
    assert cluster.run(client.put("/k", b"v")) == 1
    found = cluster.run(client.get("/k"))
    assert (found.value, found.revision) == (b"v", 1)
    assert cluster.run(client.put(b"/k", b"")) == 2
    assert cluster.run(client.get("/k", stale=True)).value == b""
    assert cluster.run(client.get("/k", revision=1)).value == b"v"
    assert cluster.run(client.delete("/k")) == 3
    with pytest.raises(NotFound, match="no such key") as caught:
        cluster.run(client.get("/k"))
    assert (caught.value.status, caught.value.endpoint) == (404, cluster.endpoints[0])
    with pytest.raises(NotFound):
        cluster.run(client.delete("/k"))


def test_a_write_can_insist_on_what_is_there(
    cluster: FakeCluster, client: Client
) -> None:
    with pytest.raises(Conflict) as absent:
        cluster.run(client.put("/k", b"0", if_present=True))
    assert absent.value.revision == 0
    assert cluster.run(client.compare_and_set("/k", b"1", 0)) == 1
    with pytest.raises(Conflict) as there:
        cluster.run(client.compare_and_set("/k", b"2", 0))
    assert there.value.revision == 1
    assert cluster.run(client.compare_and_set("/k", b"2", 1)) == 2
    with pytest.raises(Conflict):
        cluster.run(client.delete("/k", if_revision=1))
    assert cluster.run(client.put("/k", b"3", if_present=True)) == 3
    assert cluster.run(client.delete("/k", if_revision=3)) == 4


def test_history_that_was_cut_is_gone(cluster: FakeCluster, client: Client) -> None:
    for value in (b"1", b"2", b"3"):
        cluster.run(client.put("/k", value))
    cluster.compact(2)
    with pytest.raises(Compacted):
        cluster.run(client.get("/k", revision=1))


def test_pages_are_followed_to_the_end(cluster: FakeCluster, client: Client) -> None:
    for number in range(250):
        cluster.run(client.put(f"/many/{number:03}", b"%d" % number))
    cluster.run(client.put("/other", b""))

    async def pages(**more: Any) -> list[int]:
        found = client.pages("/many/", **more)
        return [len(page.entries) async for page in found]

    async def keys(**more: Any) -> list[bytes]:
        return [entry.key async for entry in client.list("/many/", **more)]

    assert cluster.run(pages()) == [100, 100, 50]
    assert cluster.run(pages(page_keys=1000)) == [250]
    wanted = [b"/many/%03d" % number for number in range(250)]
    assert cluster.run(keys()) == wanted
    assert cluster.run(keys(start="/many/248", stale=True)) == wanted[248:]

    async def bare() -> Any:
        return await anext(client.pages("/many/", keys_only=True, page_keys=1))

    page = cluster.run(bare())
    assert (page.revision, page.next) == (251, b"/many/001")
    [entry] = page.entries
    assert (entry.value, entry.mod_revision, entry.version) == (None, 1, 1)


def test_a_list_that_goes_backwards_is_not_followed_for_ever(
    cluster: FakeCluster, client: Client
) -> None:
    page = json.dumps({"revision": 1, "keys": [], "next": "/"}).encode()
    put_script(cluster, 1, answer(200, page))

    async def pages() -> int:
        return len([page async for page in client.pages()])

    with pytest.raises(UnexpectedAnswer, match="before this one"):
        cluster.run(pages())


# Whom it asks.


def test_a_member_that_is_gone_is_left_for_another(
    cluster: FakeCluster, client: Client
) -> None:
    cluster.run(client.put("/k", b"v"))
    cluster.members[1].stop()
    assert cluster.run(client.get("/k")).value == b"v"
    assert cluster.reactor.seconds() == 0, "there was no need to wait"


def test_who_took_too_long_to_read_it_is_left_for_another(
    cluster: FakeCluster, client: Client
) -> None:
    put_script(cluster, 1, answer(408, PROBLEM))
    assert cluster.run(client.put("/k", b"v")) == 1


def test_one_members_view_takes_no_longer_than_a_call_may(
    cluster: FakeCluster,
) -> None:
    cluster.members[1].freeze()
    client = cluster.client(timeout=1)
    with pytest.raises(Unavailable):
        cluster.run(client.status(cluster.endpoints[0]))
    assert not cluster.run(client.health(cluster.endpoints[0])).healthy
    assert cluster.reactor.seconds() == pytest.approx(2)


def test_who_has_no_space_is_left_for_another(
    cluster: FakeCluster, client: Client
) -> None:
    cluster.members[1].is_full = True
    assert cluster.run(client.put("/k", b"v")) == 1
    assert client._calls.endpoints.current == cluster.endpoints[1]
    cluster.run(client.add_member(4, "http://10.0.0.4:12379"))
    # It stays where it found space, for reads too.
    found = cluster.run(client.get("/k"))
    assert found.value == b"v"
    assert client._calls.endpoints.current == cluster.endpoints[1]


def test_where_nobody_has_space_that_is_said_without_waiting(
    cluster: FakeCluster, client: Client
) -> None:
    for member in cluster.members.values():
        member.is_full = True
    before = cluster.reactor.seconds()
    with pytest.raises(NoSpace, match="no space on the disk") as caught:
        cluster.run(client.put("/k", b"v"))
    assert caught.value.status == 507
    assert all(url in str(caught.value) for url in cluster.endpoints)
    assert cluster.reactor.seconds() - before < 1.0
    cluster.members[3].is_full = False
    assert cluster.run(client.put("/k", b"v")) == 1


def test_one_without_space_and_others_that_are_gone_are_unavailable(
    cluster: FakeCluster, client: Client
) -> None:
    put_script(cluster, 1, answer(507, PROBLEM))
    for number in (2, 3):
        cluster.members[number].stop()
    with pytest.raises(Unavailable) as caught:
        cluster.run(client.put("/k", b"v"))
    assert type(caught.value) is Unavailable
    assert "why" in str(caught.value)


@pytest.mark.parametrize("status", sorted(RETRY_STATUSES))
def test_whatever_was_not_done_is_asked_of_another(
    cluster: FakeCluster, client: Client, status: int
) -> None:
    put_script(cluster, 1, answer(status, PROBLEM))
    assert cluster.run(client.put("/k", b"v")) == 1
    assert client._calls.endpoints.current == cluster.endpoints[1]


def test_who_says_503_is_left_for_another(cluster: FakeCluster, client: Client) -> None:
    cluster.members[1].failure = UnavailableInside("too busy")
    assert cluster.run(client.put("/k", b"v")) == 1


def test_who_says_nothing_is_left_for_another_in_time(
    cluster: FakeCluster, client: Client
) -> None:
    cluster.members[1].freeze()
    assert cluster.run(client.put("/k", b"v")) == 1
    assert cluster.reactor.seconds() == pytest.approx(3)
    cluster.run(client.get("/k"))
    assert cluster.reactor.seconds() == pytest.approx(3), "it was not asked again"


def test_a_cluster_without_a_majority_is_unavailable_when_time_is_over(
    cluster: FakeCluster, client: Client
) -> None:
    cluster.members[1].stop()
    cluster.members[2].stop()
    with pytest.raises(Unavailable) as caught:
        cluster.run(client.put("/k", b"v"))
    assert cluster.reactor.seconds() == pytest.approx(10, abs=0.1)
    text = str(caught.value)
    assert "http://member1.test:12380: connection refused" in text
    assert "http://member3.test:12380: no leader is known" in text
    assert "majority" in caught.value.hint
    cluster.members[1].start()
    assert cluster.run(client.put("/k", b"v")) == 1


def test_a_call_waits_for_a_cluster_that_comes_back(
    cluster: FakeCluster, client: Client
) -> None:
    cluster.members[1].stop()
    cluster.members[2].stop()
    cluster.reactor.callLater(5, cluster.members[2].start)
    assert cluster.run(client.put("/k", b"v")) == 1
    assert 5 <= cluster.reactor.seconds() <= 6.1


def test_more_requests_than_may_be_under_way_wait_for_their_turn(
    cluster: FakeCluster, client: Client
) -> None:
    calls = [
        Deferred.fromCoroutine(client.put(f"/{number}k", b""))
        for number in range(3 * MAX_REQUESTS)
    ]
    together: Any = gatherResults(calls)
    assert sorted(cluster.run(together)) == list(range(1, 3 * MAX_REQUESTS + 1))


def test_who_never_gets_a_turn_gives_up_with_nothing_done(
    cluster: FakeCluster,
) -> None:
    client = cluster.client(timeout=2, attempt_timeout=2)
    for member in cluster.members.values():
        member.freeze()
    first = [Deferred.fromCoroutine(client.put("/k", b"")) for _ in range(MAX_REQUESTS)]
    for one in first:
        one.addErrback(lambda failure: failure.trap(OutcomeUnknown))
    with pytest.raises(Unavailable):
        cluster.run(client.put("/k", b""))


def test_a_cancelled_call_ends_at_once_and_is_not_retried(
    cluster: FakeCluster, client: Client
) -> None:
    for member in cluster.members.values():
        member.freeze()
    call = Deferred.fromCoroutine(client.put("/k", b""))
    cluster.advance(0.1)
    call.cancel()
    with pytest.raises(CancelledError):
        cluster.run(call)
    for member in cluster.members.values():
        member.thaw()
    with pytest.raises(NotFound):
        cluster.run(client.get("/k"))


# What became of a write.


def test_a_write_whose_answer_is_lost_is_carried_out_once(
    cluster: FakeCluster, client: Client
) -> None:
    cluster.members[1].answers_to_lose = 1
    assert cluster.run(client.put("/k", b"v")) == 1
    assert cluster.store.revision == 1
    cluster.members[2].answers_to_lose = 1
    assert cluster.run(client.compare_and_set("/k", b"w", 1)) == 2
    cluster.members[3].answers_to_lose = 1
    assert cluster.run(client.delete("/k")) == 3
    assert cluster.store.revision == 3


def test_a_write_that_nobody_answers_is_of_unknown_outcome(
    cluster: FakeCluster, client: Client
) -> None:
    for member in cluster.members.values():
        member.answers_to_lose = 10**6
    with pytest.raises(OutcomeUnknown) as caught:
        cluster.run(client.put("/k", b"v"))
    for member in cluster.members.values():
        member.answers_to_lose = 0
    token = caught.value.idempotency_key
    assert cluster.run(client.put("/k", b"v", idempotency_key=token)) == 1
    assert cluster.store.revision == 1


def test_a_member_that_does_not_know_is_asked_no_more(
    cluster: FakeCluster, client: Client
) -> None:
    cluster.members[1].failure = UnknownInside("it was not in time")
    assert cluster.run(client.put("/k", b"v")) == 1
    for member in cluster.members.values():
        member.failure = UnknownInside("it was not in time")
    with pytest.raises(OutcomeUnknown, match="not in time"):
        cluster.run(client.put("/k", b"v"))
    with pytest.raises(Unavailable):
        cluster.run(client.status("http://nobody.test:1"))


def test_a_refusal_says_nothing_of_an_attempt_before(
    cluster: FakeCluster, client: Client
) -> None:
    put_script(cluster, 1, cut)
    put_script(cluster, 2, answer(403, PROBLEM))
    with pytest.raises(OutcomeUnknown, match="why"):
        cluster.run(client.put("/k", b"v"))
    with pytest.raises(Forbidden):
        cluster.run(client.put("/k", b"v"))


def test_a_read_is_never_of_unknown_outcome(cluster: FakeCluster) -> None:
    [url] = cluster.endpoints[:1]
    client = cluster.client([url])
    put_script(cluster, 1, answer(504, PROBLEM))
    for read in (client.get("/k"), client.status(url), client.health(url)):
        with pytest.raises(Unavailable, match="why"):
            cluster.run(read)


def test_a_write_that_is_answered_without_a_revision_may_have_been_done(
    cluster: FakeCluster, client: Client
) -> None:
    put_script(cluster, 1, answer(204))
    with pytest.raises(OutcomeUnknown, match="ETag") as caught:
        cluster.run(client.put("/k", b"v", idempotency_key="mine"))
    assert caught.value.idempotency_key == "mine"


@pytest.mark.parametrize("token", ["mine", '"', '"mine"', 'mine"'])
def test_an_unknown_outcome_tells_the_key_that_was_given(
    cluster: FakeCluster, client: Client, token: str
) -> None:
    cluster.members[1].answers_to_lose = 1
    lone = cluster.client(cluster.endpoints[:1], timeout=0.01)
    cluster.members[1].latency = 0.004
    with pytest.raises(OutcomeUnknown) as caught:
        cluster.run(lone.put("/k", b"v", idempotency_key=token))
    assert caught.value.idempotency_key == token
    assert "same idempotency key" in caught.value.hint
    again = client.put("/k", b"v", idempotency_key=caught.value.idempotency_key)
    assert cluster.run(again) == 1


def test_a_removal_of_unknown_outcome_has_no_key_to_try_with(
    cluster: FakeCluster, client: Client
) -> None:
    for member in cluster.members.values():
        member.failure = UnknownInside("it was not in time")
    with pytest.raises(OutcomeUnknown) as caught:
        cluster.run(client.remove_member(3))
    assert caught.value.idempotency_key == ""
    assert caught.value.hint == "Look how things are before you try again."


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequest),
        (401, Unauthorized),
        (403, Forbidden),
        (409, Refused),
        (413, BadRequest),
        (302, UnexpectedAnswer),
    ],
)
def test_a_refusal_is_raised_at_once(
    cluster: FakeCluster, client: Client, status: int, kind: type[Exception]
) -> None:
    script = put_script(cluster, 1, answer(status, PROBLEM, Location="http://x.test/"))
    with pytest.raises(kind, match="why"):
        cluster.run(client.put("/k", b"v"))
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    "broken",
    [
        cut,
        then_cut(b""),
        then_cut(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nETag: "),
        then_cut(b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\nETag: "1"\r\n\r\nhalf'),
        then_cut(b'HTTP/1.1 200 OK\r\nETag: "1"\r\n\r\nwithout a length'),
        then_cut(stream(b"not all", whole=False)),
        b"SSH-2.0-OpenSSH\r\n\r\n",
        None,
    ],
)
def test_half_an_answer_is_none(
    cluster: FakeCluster, client: Client, broken: Any
) -> None:
    cluster.run(client.put("/k", b"value"))
    fresh = cluster.client()
    put_script(cluster, 1, broken)
    assert cluster.run(fresh.get("/k")).value == b"value"


def test_an_answer_without_a_revision_is_not_kvdbs(
    cluster: FakeCluster, client: Client
) -> None:
    put_script(cluster, 1, answer(200, b"hello"))
    with pytest.raises(UnexpectedAnswer, match="ETag"):
        cluster.run(client.get("/k"))
    put_script(cluster, 2, answer(200, b"<html>"))
    with pytest.raises(UnexpectedAnswer, match="no JSON"):
        cluster.run(cluster.client([cluster.endpoints[1]]).status())


def test_an_answer_without_end_is_given_up(
    cluster: FakeCluster, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvdb.client.transport.MAX_ANSWER_BYTES", 1000)
    put_script(cluster, 1, stream(b"x" * 1001, whole=False))
    with pytest.raises(NotFound):
        cluster.run(client.get("/k"))  # of another member


# Who one is.


@pytest.mark.parametrize(
    ("more", "header"),
    [
        ({"token": "abc"}, b"Bearer abc"),
        (
            {"user": "ann", "password": "p:ä"},
            b"Basic " + base64.b64encode("ann:p:ä".encode()),
        ),
    ],
)
def test_credentials_go_with_each_request(
    cluster: FakeCluster, more: dict[str, str], header: bytes
) -> None:
    client = cluster.client(**more)
    script = put_script(cluster, 1, answer(204, b"", ETag='"1"'))
    cluster.run(client.put("/k", b"v"))
    assert b"Authorization: " + header + b"\r\n" in script.requests[0]


def test_each_write_has_a_key_of_its_own(cluster: FakeCluster, client: Client) -> None:
    script = put_script(cluster, 1, answer(204, b"", ETag='"1"'))
    for _ in range(2):
        cluster.run(client.put("/k", b"v"))
    cluster.run(client.put("/k", b"v", idempotency_key="mine"))
    first, second, third = (
        line
        for request in script.requests
        for line in request.split(b"\r\n")
        if line.lower().startswith(b"idempotency-key")
    )
    assert first != second
    assert third == b'Idempotency-Key: "mine"'


def test_a_member_has_an_address_of_ipv6(cluster: FakeCluster) -> None:
    cluster.members[2].url = "http://[2001:db8::1]:12380"
    client = cluster.client(["[2001:db8::1]:12380"])
    key = b"/\xff %41%2f?#[::1]"
    assert cluster.run(client.put(key, b"v")) == 1
    assert cluster.run(client.get(key)).value == b"v"
    assert cluster.run(client.status(client.endpoints[0])).id == 2


def test_credentials_do_not_stand_in_what_is_logged(cluster: FakeCluster) -> None:
    client = cluster.client(token="secret")
    assert "secret" not in repr(client._calls)
    with pytest.raises(ValueError, match="without a user") as caught:
        cluster.client(["http://ann:secret@h:1"])
    assert "secret" not in str(caught.value)


# The cluster.


def test_members_come_and_go(cluster: FakeCluster, client: Client) -> None:
    cluster.run(client.add_member(4, "http://h:4"))
    roles = {m.id: m.role for m in cluster.run(client.members())}
    assert roles == {1: "leader", 2: "follower", 3: "follower", 4: "learner"}
    cluster.advance(2)
    assert {m.role for m in cluster.run(client.members())} == {"leader", "follower"}
    with pytest.raises(Refused, match="exists"):
        cluster.run(client.add_member(4, "http://h:4"))
    cluster.run(client.remove_member(4))
    with pytest.raises(NotFound):
        cluster.run(client.remove_member(4))
    with pytest.raises(BadRequest):
        cluster.run(client.add_member(5, "no url"))


def test_a_removal_whose_answer_is_lost_is_done(
    cluster: FakeCluster, client: Client
) -> None:
    script = put_script(cluster, 1, cut)
    cluster.remove(3)
    cluster.run(client.remove_member(3))
    assert b"idempotency" not in script.requests[0].lower(), "it would not be checked"


def test_the_leader_is_asked_how_far_others_are(
    cluster: FakeCluster, client: Client
) -> None:
    cluster.hand_over(2)
    seen = cluster.run(client.members())
    assert {m.lag for m in seen} == {None}
    seen = cluster.run(client.members(of_leader=True))
    assert {m.lag for m in seen} == {0}
    one = cluster.client([cluster.endpoints[2]])
    assert {m.lag for m in cluster.run(one.members(of_leader=True))} == {0}
    cluster.members[1].stop()
    cluster.members[2].stop()
    assert {m.lag for m in cluster.run(one.members(of_leader=True))} == {None}


def test_leadership_is_handed_over(cluster: FakeCluster, client: Client) -> None:
    assert cluster.run(client.transfer_leadership(3)) == 3
    assert cluster.run(client.transfer_leadership()) == 1
    with pytest.raises(NotFound):
        cluster.run(client.transfer_leadership(9))


def test_a_handover_to_anybody_is_not_asked_for_twice(
    cluster: FakeCluster, client: Client
) -> None:
    put_script(cluster, 1, cut)
    with pytest.raises(OutcomeUnknown, match=r"closed|lost"):
        cluster.run(client.transfer_leadership())
    fresh = cluster.client()
    assert cluster.run(fresh.transfer_leadership(2)) == 2


def test_a_member_tells_its_status_and_health(
    cluster: FakeCluster, client: Client
) -> None:
    cluster.run(client.put("/k", b"v"))
    status = cluster.run(client.status())
    assert (status.id, status.role, status.leader, status.revision) == (
        *(1, "leader", 1, 1),
    )
    for ask in (client.status, client.health):
        with pytest.raises(ValueError, match="without a user"):
            cluster.run(ask("http://u:secret@h:1"))
    other = cluster.run(client.status(cluster.endpoints[1]))
    assert (other.id, other.role, [m.id for m in other.members]) == (
        *(2, "follower", [1, 2, 3]),
    )
    assert cluster.run(client.health()).healthy
    cluster.members[1].stop()
    cluster.members[2].stop()
    gone = cluster.run(client.health(cluster.endpoints[0]))
    assert (gone.healthy, gone.reason) == (False, "connection refused")
    alone = cluster.run(client.health(cluster.endpoints[2]))
    assert (alone.healthy, alone.reason) == (False, "no leader is known")
    with pytest.raises(Unavailable, match="connection refused"):
        cluster.run(client.status(cluster.endpoints[0]))
    put_script(cluster, 3, answer(401, PROBLEM))
    cluster.members[3].cut()
    with pytest.raises(Unauthorized):
        cluster.run(client.health(cluster.endpoints[2]))
    with pytest.raises(Unauthorized):
        cluster.run(client.status(cluster.endpoints[2]))


# Snapshots.


def test_a_snapshot_is_written_as_it_comes(
    cluster: FakeCluster, client: Client
) -> None:
    whole = backup(bytes(range(256)) * 4000)
    pieces = [whole[i : i + 100_001] for i in range(0, len(whole), 100_001)]
    put_script(cluster, 1, stream(*pieces))
    file = io.BytesIO()
    told: list[int] = []
    size = cluster.run(client.snapshot(file, progress=told.append))
    assert file.getvalue() == whole
    assert size == len(whole) == told[-1]
    assert told == sorted(told)


def test_a_snapshot_is_one_that_kvdb_reads(
    cluster: FakeCluster, client: Client
) -> None:
    cluster.run(client.put("/k", b"v"))
    file = io.BytesIO()
    cluster.run(client.snapshot(file))
    reader = BackupReader()
    for _ in reader.feed(file.getvalue()):
        pass
    assert reader.finish().revision == 1


WHOLE = backup(b"some bytes")


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (then_cut(stream(b"half", whole=False)), "broke off after 4 bytes: the conn"),
        (stream(b"half", whole=False), "nothing was heard for 30 s"),
        (stream(b"half"), "after 4 bytes: its end is missing"),
        (stream(WHOLE[:-1]), "its end is missing"),
        (stream(b"S" + WHOLE[1:]), "its end is missing"),
        (stream(WHOLE + b"\n"), "its end is missing"),
    ],
)
def test_a_snapshot_that_breaks_off_is_said_to(
    cluster: FakeCluster, client: Client, broken: Any, why: str
) -> None:
    put_script(cluster, 1, broken)
    with pytest.raises(Unavailable, match=why):
        cluster.run(client.snapshot(io.BytesIO()))


def test_a_snapshot_is_asked_of_who_can_give_it(
    cluster: FakeCluster, client: Client
) -> None:
    put_script(cluster, 1, answer(503, PROBLEM))
    put_script(cluster, 2, stream(WHOLE))
    assert cluster.run(client.snapshot(io.BytesIO())) == 46
    put_script(cluster, 3, answer(403, PROBLEM))
    with pytest.raises(Forbidden):
        cluster.run(cluster.client([cluster.endpoints[2]]).snapshot(io.BytesIO()))
    for node in (1, 2, 3):
        cluster.members[node].stop()
    with pytest.raises(Unavailable, match="refused"):
        cluster.run(client.snapshot(io.BytesIO()))


def test_a_fake_cluster_says_when_something_never_comes(cluster: FakeCluster) -> None:
    waiting: Deferred[None] = Deferred()
    with pytest.raises(NeverFinished):
        cluster.run(waiting, seconds=10)


def test_a_client_is_closed_when_it_is_left(cluster: FakeCluster) -> None:
    async def use() -> int:
        async with cluster.client() as client:
            return await client.put("/k", b"")

    assert cluster.run(use()) == 1

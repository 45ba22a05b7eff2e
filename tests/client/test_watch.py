"""Watches: every change once, in order, whatever becomes of the members."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from kvdb.client import (
    Client,
    ClientError,
    Compacted,
    Delete,
    Event,
    Put,
    Unavailable,
    UnexpectedAnswer,
    Watch,
)
from kvdb.client.testing import FakeCluster
from tests.client.scripted import answer, put_script, stream, then_cut


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def client(cluster: FakeCluster) -> Client:
    return cluster.client()


async def take(watch: Watch, count: int) -> list[Event]:
    return [await anext(watch) for _ in range(count)]


def sse(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def put_event(revision: int) -> bytes:
    data = {"key": "/k", "value": "v", "create_revision": 1, "version": revision}
    more = {"previous_revision": revision - 1, "time": 0.5}
    return sse("put", revision=revision, **data, **more)


def test_changes_are_told_as_they_happen(cluster: FakeCluster, client: Client) -> None:
    cluster.run(client.put("/before", b""))

    async def story() -> list[Event]:
        async with client.watch(prefix="/w/") as watch:
            assert watch.revision == 1
            await client.put("/w/a", b"\xff")
            await client.put("/other", b"")
            await client.delete("/w/a")
            return await take(watch, 2)

    put, delete = cluster.run(story())
    assert put == Put(b"/w/a", b"\xff", 2, 2, 1, 0, 0.0)
    assert delete == Delete(b"/w/a", 4, 2, 0.0)


def test_the_values_before_are_told_to_who_asks(
    cluster: FakeCluster, client: Client
) -> None:
    cluster.run(client.put("/a", b"\xff"))

    async def story() -> list[Event]:
        async with client.watch(prefix="/a", previous=True) as watch:
            await client.put("/a", b"two")
            await client.delete("/a")
            await client.put("/a", b"")
            return await take(watch, 3)

    told = cluster.run(story())
    assert [event.previous_value for event in told] == [b"\xff", b"two", None]


def test_one_key_is_watched_alone(cluster: FakeCluster, client: Client) -> None:
    async def story() -> list[Event]:
        for key in ("/k", "/k2", "/k"):
            await client.put(key, b"")
        return await take(client.watch(key="/k", since=0), 2)

    assert [event.revision for event in cluster.run(story())] == [1, 3]


def test_a_watch_goes_on_elsewhere_when_its_member_dies(
    cluster: FakeCluster, client: Client
) -> None:
    async def story() -> list[int]:
        seen = []
        async with client.watch() as watch:
            for turn in range(30):
                await client.put("/k", b"%d" % turn)
                await client.put("/l", b"%d" % turn)
                seen += [event.revision for event in await take(watch, 1)]
                member = cluster.members[turn % 3 + 1]
                member.stop()
                await client.put("/m", b"%d" % turn)
                member.start()
            while len(seen) < 90:
                seen += [event.revision for event in await take(watch, 1)]
            assert watch.connections > 5
            assert watch.revision == 90
        return seen

    assert cluster.run(story()) == list(range(1, 91))


@pytest.mark.parametrize("seed", range(5))
def test_every_change_is_told_once_whatever_happens(seed: int) -> None:
    source = random.Random(seed)
    cluster = FakeCluster()
    writer, reader = cluster.client(), cluster.client()
    seen: list[int] = []

    async def watch() -> None:
        async for event in reader.watch(since=0):
            seen.append(event.revision)
            if event.key == b"/end":
                return

    watching = Deferred.fromCoroutine(watch())
    for number in range(150):
        member = cluster.members[source.randint(1, 3)]
        what = source.choice(["stop", "freeze", "end", "cut", "lose", "", "", ""])
        if what == "stop":
            member.stop()
        elif what == "freeze":
            member.freeze()
        elif what == "end":
            member.end_watches()
        elif what == "cut":
            member.cut()
        elif what == "lose":
            member.answers_to_lose = 1
        cluster.run(writer.put("/k", b"%d" % number))
        if source.random() < 0.5:
            cluster.advance(source.choice([0.001, 0.1, 3.0, 40.0]))
        member.start()
        member.thaw()
    cluster.run(writer.put("/end", b""))
    cluster.run(watching)
    assert seen == list(range(1, cluster.store.revision + 1))
    assert len(seen) == 151


def test_a_member_that_ends_its_watches_is_left(
    cluster: FakeCluster, client: Client
) -> None:
    async def story() -> list[Event]:
        async with client.watch() as watch:
            await client.put("/k", b"1")
            cluster.members[1].end_watches()
            await client.put("/k", b"2")
            events = await take(watch, 2)
            assert watch.connections == 2
            return events

    assert [event.revision for event in cluster.run(story())] == [1, 2]


def test_a_silent_member_is_left_in_time(cluster: FakeCluster, client: Client) -> None:
    async def story() -> int:
        async with client.watch() as watch:
            cluster.members[1].freeze()
            await cluster.client(cluster.endpoints[1:]).put("/k", b"")
            return (await anext(watch)).revision

    assert cluster.run(story()) == 1
    assert 25 <= cluster.reactor.seconds() <= 29


def test_an_idle_watch_stays_where_it_is(cluster: FakeCluster, client: Client) -> None:
    watch = client.watch(prefix="/quiet/")
    cluster.run(watch.__aenter__())
    waiting = Deferred.fromCoroutine(watch.__anext__())
    cluster.run(client.put("/k", b""))
    cluster.advance(300)
    assert (watch.connections, watch.revision) == (1, 1), "progress was heard"
    cluster.run(watch.close())
    with pytest.raises(StopAsyncIteration):
        cluster.run(waiting)


def test_what_was_cut_is_not_passed_over(cluster: FakeCluster, client: Client) -> None:
    for number in range(10):
        cluster.run(client.put("/k", b"%d" % number))
    cluster.compact(5)
    with pytest.raises(Compacted):
        cluster.run(take(client.watch(since=3), 1))
    with pytest.raises(Compacted):
        cluster.run(client.watch(since=3).__aenter__())


def test_the_end_can_say_that_history_was_cut(
    cluster: FakeCluster, client: Client
) -> None:
    end = sse("end", status=410, detail="too slow")
    put_script(cluster, 1, stream(sse("ready", revision=0), put_event(1), end))
    watch = client.watch()
    assert [event.revision for event in cluster.run(take(watch, 1))] == [1]
    with pytest.raises(Compacted, match="too slow"):
        cluster.run(take(watch, 1))


def test_what_a_member_repeats_is_told_once(
    cluster: FakeCluster, client: Client
) -> None:
    put_script(
        cluster,
        1,
        then_cut(
            stream(sse("ready", revision=0), put_event(1), put_event(2), whole=False)
        ),
    )
    script = put_script(
        cluster,
        2,
        stream(
            sse("ready", revision=2),
            put_event(2),
            sse("news", of="a later release"),
            sse("progress", revision=3),
            put_event(3),
            put_event(4),
            whole=False,
        ),
    )
    seen = cluster.run(take(client.watch(), 3))
    assert [event.revision for event in seen] == [1, 2, 4]
    assert b"since=2" in script.requests[0]


def test_what_lies_behind_since_is_yet_to_come_whatever_ready_says(
    cluster: FakeCluster, client: Client
) -> None:
    put_script(cluster, 1, stream(sse("ready", revision=9), put_event(8), whole=False))
    assert cluster.run(take(client.watch(since=7), 1))[0].revision == 8


def test_half_an_event_is_none(cluster: FakeCluster, client: Client) -> None:
    half = put_event(2)[:-1]
    put_script(
        cluster,
        1,
        then_cut(stream(sse("ready", revision=0), put_event(1), half, whole=False)),
    )
    put_script(cluster, 2, stream(sse("ready", revision=1), put_event(2), whole=False))
    assert [e.revision for e in cluster.run(take(client.watch(), 2))] == [1, 2]


def test_a_member_that_always_fails_is_not_asked_without_pause(
    cluster: FakeCluster,
) -> None:
    script = put_script(cluster, 1, then_cut(stream(sse("ready", revision=0))))
    watch = cluster.client([cluster.endpoints[0]]).watch()
    waiting = Deferred.fromCoroutine(watch.__anext__())
    cluster.advance(60)
    assert 30 < len(script.requests) < 130
    cluster.run(watch.close())
    with pytest.raises(StopAsyncIteration):
        cluster.run(waiting)


def test_the_first_connection_is_tried_for_a_calls_time_only(
    cluster: FakeCluster, client: Client
) -> None:
    for member in cluster.members.values():
        member.stop()
    with pytest.raises(Unavailable, match="refused"):
        cluster.run(take(client.watch(), 1))
    assert cluster.reactor.seconds() == pytest.approx(10)


@pytest.mark.parametrize("timeout", [1, 10])
def test_members_that_say_nothing_do_not_make_the_first_connection_take_longer(
    cluster: FakeCluster, timeout: float
) -> None:
    for member in cluster.members.values():
        member.freeze()
    with pytest.raises(Unavailable):
        cluster.run(cluster.client(timeout=timeout).watch().__aenter__())
    assert cluster.reactor.seconds() == pytest.approx(timeout)


def test_a_later_connection_is_waited_for(cluster: FakeCluster, client: Client) -> None:
    async def story() -> int:
        async with client.watch() as watch:
            for member in cluster.members.values():
                member.stop()
            for member in cluster.members.values():
                cluster.reactor.callLater(120, member.start)
            cluster.reactor.callLater(
                121, lambda: Deferred.fromCoroutine(client.put("/k", b""))
            )
            return (await anext(watch)).revision

    assert cluster.run(story()) == 1
    assert cluster.reactor.seconds() > 120


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (answer(400, b'{"detail": "why"}'), ClientError),
        (stream(b"data: x\n\nevent: put\ndata: no JSON\n\n"), UnexpectedAnswer),
        (stream(sse("ready", revision="x")), UnexpectedAnswer),
        (stream(sse("put", key="/k")), UnexpectedAnswer),
        (stream(sse("end", detail="?")), UnexpectedAnswer),
    ],
)
def test_what_is_no_watch_is_said_to_be_none(
    cluster: FakeCluster, client: Client, script: bytes, kind: type[Exception]
) -> None:
    put_script(cluster, 1, script)
    with pytest.raises(kind):
        cluster.run(take(client.watch(), 1))


def test_an_event_beyond_all_bounds_ends_the_watch(
    cluster: FakeCluster, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvdb.client.watch.MAX_EVENT_BYTES", 100)
    put_script(cluster, 1, stream(b"data: " + b"x" * 200, whole=False))
    with pytest.raises(UnexpectedAnswer, match="more than 100"):
        cluster.run(take(client.watch(), 1))


def test_a_slow_reader_loses_nothing(cluster: FakeCluster, client: Client) -> None:
    async def story() -> list[int]:
        async with client.watch() as watch:
            for _ in range(60):
                await client.put("/k", b"x" * 50_000)
            seen = []
            for _ in range(60):
                waiting = Deferred.fromCoroutine(watch.__anext__())
                seen.append((await waiting).revision)
                later: Deferred[None] = Deferred()
                cluster.reactor.callLater(1, later.callback, None)
                await later
            return seen

    assert cluster.run(story()) == list(range(1, 61))


def test_a_cancelled_wait_loses_nothing(cluster: FakeCluster, client: Client) -> None:
    watch = client.watch()
    cluster.run(watch.__aenter__())
    waiting = Deferred.fromCoroutine(watch.__anext__())
    cluster.advance(1)
    waiting.cancel()
    with pytest.raises(CancelledError):
        cluster.run(waiting)
    cluster.run(client.put("/k", b""))
    assert cluster.run(take(watch, 1))[0].revision == 1
    assert watch.connections == 1


def test_a_watch_that_is_closed_while_it_connects_is_over(
    cluster: FakeCluster, client: Client
) -> None:
    watch = client.watch()
    waiting = Deferred.fromCoroutine(watch.__anext__())
    cluster.run(watch.close())
    with pytest.raises(StopAsyncIteration):
        cluster.run(waiting)
    assert watch.connections == 0


@pytest.mark.parametrize("what", ["stop", "freeze"])
def test_a_watch_that_is_closed_while_nobody_is_there_is_over_at_once(
    cluster: FakeCluster, client: Client, what: str
) -> None:
    watch = client.watch()
    cluster.run(watch.__aenter__())
    for member in cluster.members.values():
        getattr(member, what)()
    waiting = Deferred.fromCoroutine(watch.__anext__())
    cluster.advance(40.1)
    now = cluster.reactor.seconds()
    cluster.run(watch.close())
    with pytest.raises(StopAsyncIteration):
        cluster.run(waiting)
    assert cluster.reactor.seconds() == now


def test_a_watch_that_is_closed_says_nothing_against_its_member(
    cluster: FakeCluster, client: Client
) -> None:
    watch = client.watch()
    cluster.run(watch.__aenter__())
    waiting = Deferred.fromCoroutine(watch.__anext__())
    cluster.run(watch.close())
    with pytest.raises(StopAsyncIteration):
        cluster.run(waiting)
    assert cluster.run(client.status()).id == 1


def test_a_connection_that_was_not_waited_for_is_made_later(
    cluster: FakeCluster, client: Client
) -> None:
    cluster.members[1].freeze()
    watch = client.watch(since=0)
    waiting = Deferred.fromCoroutine(watch.__anext__())
    cluster.advance(1)
    waiting.cancel()
    with pytest.raises(CancelledError):
        cluster.run(waiting)
    cluster.members[1].thaw()
    cluster.run(client.put("/k", b""))
    assert cluster.run(take(watch, 1))[0].revision == 1


def connections(cluster: FakeCluster) -> int:
    cluster.advance(0.1)
    return sum(
        end.connected
        for member in cluster.members.values()
        for end in member._connections
    )


@pytest.mark.parametrize(
    "said",
    [
        None,
        stream(whole=False),
        stream(b"event: re", whole=False),
        stream(sse("ready", revision="x"), whole=False),
    ],
)
def test_a_watch_that_is_not_entered_leaves_no_connection(
    cluster: FakeCluster, client: Client, said: bytes | None
) -> None:
    put_script(cluster, 1, said)
    entering = Deferred.fromCoroutine(client.watch().__aenter__())
    cluster.advance(1)
    entering.cancel()
    with pytest.raises((CancelledError, UnexpectedAnswer)):
        cluster.run(entering)
    assert connections(cluster) == 0


def test_what_is_no_event_is_not_passed_over(
    cluster: FakeCluster, client: Client
) -> None:
    broken = stream(put_event(1), sse("put", key="/k"), put_event(3), whole=False)
    put_script(cluster, 1, broken, stream(put_event(2), whole=False))
    watch = client.watch(since=0)
    assert cluster.run(take(watch, 1))[0].revision == 1
    with pytest.raises(UnexpectedAnswer):
        cluster.run(take(watch, 1))
    assert connections(cluster) == 0
    assert cluster.run(take(watch, 1))[0].revision == 2

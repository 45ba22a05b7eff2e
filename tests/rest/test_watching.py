"""Watches over HTTP, as Server-Sent Events."""

from __future__ import annotations

import json
from typing import Any

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

from kvdb.interfaces import Unavailable
from kvdb.node import watches
from kvdb.rest import streaming
from kvdb.store.commands import Compact, Delete, Put
from tests.rest.local import Conversation, Server


@define
class Viewer:
    """One who watches, and reads what has come."""

    talk: Conversation
    head: bytes = b""
    _body: bytes = b""
    ended: bool = field(default=False, init=False)

    def read(self) -> list[tuple[str, str, Any]]:
        """The events that came since: name, id and data."""
        data = self.talk.transport.value()
        self.talk.transport.clear()
        if not self.head:
            self.head, _, data = data.partition(b"\r\n\r\n")
        while data:
            size, _, data = data.partition(b"\r\n")
            length = int(size, 16)
            self._body += data[:length]
            assert data[length : length + 2] == b"\r\n", data
            data = data[length + 2 :]
            self.ended = self.ended or not length
        *events, self._body = self._body.split(b"\n\n")
        found = []
        for event in events:
            lines = dict(line.split(": ", 1) for line in event.decode().split("\n"))
            text = lines["data"]
            found.append((lines["event"], lines.get("id", ""), json.loads(text)))
        return found


class WatchingTests(SynchronousTestCase):
    """C{GET /_/watch}."""

    def setUp(self) -> None:
        self.server = Server()
        self.database = self.server.database

    def put(self, key: bytes, value: bytes = b"v") -> None:
        self.database.write(Put(key, value))

    def watch(self, query: str = "", *headers: bytes) -> Viewer:
        talk = self.server.connect()
        lines = [
            b"GET /_/watch" + query.encode() + b" HTTP/1.1",
            b"Host: node",
            *headers,
        ]
        talk.say(b"\r\n".join(lines) + b"\r\n\r\n")
        return Viewer(talk)

    def test_changes_as_they_happen(self) -> None:
        self.put(b"/a")
        viewer = self.watch("?prefix=/a")
        self.assertEqual(viewer.read(), [("ready", "1", {"revision": 1})])
        self.assertIn(b"Content-Type: text/event-stream", viewer.head)
        self.assertIn(b"Cache-Control: no-store", viewer.head)
        self.put(b"/a", b"\xff")
        self.put(b"/b")
        self.database.write(Delete(b"/a"))
        self.assertEqual(
            viewer.read(),
            [
                (
                    "put",
                    "2",
                    {
                        "key": "/a",
                        "value_base64": "/w==",
                        "revision": 2,
                        "create_revision": 1,
                        "version": 2,
                        "previous_revision": 1,
                        "time": 0.0,
                    },
                ),
                (
                    "delete",
                    "4",
                    {"key": "/a", "revision": 4, "previous_revision": 2, "time": 0.0},
                ),
            ],
        )

    def test_with_the_values_before(self) -> None:
        self.put(b"/a", b"one")
        viewers = [self.watch("?prefix=/a&previous=true"), self.watch("?prefix=/a")]
        self.put(b"/a", b"\xff")
        self.database.write(Delete(b"/a"))
        self.put(b"/a")
        told = viewers[0].read()[1:]
        before = [
            {name: data[name] for name in data if name.startswith("previous_value")}
            for _, _, data in told
        ]
        self.assertEqual(
            before,
            [
                {"previous_value": "one"},
                {"previous_value_base64": "/w=="},
                {"previous_value": None},
            ],
        )
        plain = viewers[1].read()[1:]
        for (name, place, whole), value in zip(told, before, strict=True):
            data = {key: whole[key] for key in whole if key not in value}
            self.assertIn((name, place, data), plain)
        again = self.watch("?prefix=/a&previous=true&since=1")
        self.server.clock.advance(0)
        self.assertEqual(again.read()[1:], told, "from history as when it happened")
        refused = self.server.ask("GET", "/_/watch?previous=yes")
        self.assertEqual(refused.status, 400)

    def test_from_a_past_revision_and_on(self) -> None:
        for number in range(4):
            self.put(b"/%d" % number)
        for viewer in (
            self.watch("?since=2"),
            self.watch("", b"Last-Event-ID: 2"),
            self.watch("?since=0", b"Last-Event-ID: 2"),
        ):
            self.server.clock.advance(0)
            self.put(b"/new")
            events = viewer.read()
            self.assertEqual(events[0][:2], ("ready", "2"))
            self.assertEqual([event[1] for event in events[1:3]], ["3", "4"])
            self.assertEqual(events[-1][2]["key"], "/new")

    def test_one_key(self) -> None:
        viewer = self.watch("?key=/a%2Fb")
        for key in (b"/a/b", b"/a/b/c", b"/a"):
            self.put(key)
        self.assertEqual([event[1] for event in viewer.read()], ["0", "1"])

    def test_what_was_forgotten_is_410_and_no_stream(self) -> None:
        for _ in range(3):
            self.put(b"/a")
        self.database.write(Compact(2))
        reply = self.server.ask("GET", "/_/watch?since=1")
        self.assertEqual(reply.status, 410)
        self.assertIn(b"history begins at 2", reply.body)

    def test_a_slow_reader_is_paused_and_goes_on_from_history(self) -> None:
        viewer = self.watch()
        viewer.talk.protocol.pauseProducing()
        for _ in range(3):
            self.put(b"/a")
        self.assertEqual([event[0] for event in viewer.read()], ["ready"])
        viewer.talk.protocol.resumeProducing()
        self.server.clock.advance(0)
        self.assertEqual([event[1] for event in viewer.read()], ["1", "2", "3"])

    def test_a_slow_reader_whose_history_is_cut_is_told_so(self) -> None:
        viewer = self.watch()
        viewer.talk.protocol.pauseProducing()
        for _ in range(3):
            self.put(b"/a")
        self.database.write(Compact(2))
        viewer.talk.protocol.resumeProducing()
        self.server.clock.advance(0)
        name, place, problem = viewer.read()[-1]
        self.assertEqual((name, place, problem["status"]), ("end", "", 410))
        self.assertIn("watch from the list's revision", problem["hint"])
        self.assertTrue(viewer.ended)
        self.assertTrue(viewer.talk.transport.disconnecting)

    def test_a_reader_that_takes_nothing_is_cut_off(self) -> None:
        viewer = self.watch()
        viewer.talk.protocol.pauseProducing()
        self.server.clock.advance(watches.STALL_SECONDS)
        self.database.watches.ticked(True, 3)
        self.assertEqual(viewer.read()[-1][0], "end")
        self.assertFalse(viewer.talk.transport.disconnected)
        self.server.clock.advance(streaming.LINGER_SECONDS)
        self.assertTrue(viewer.talk.transport.disconnected)

    def test_one_that_hangs_up_is_forgotten(self) -> None:
        viewer = self.watch()
        self.assertEqual(len(self.database.watches), 1)
        viewer.talk.hang_up()
        self.assertEqual(len(self.database.watches), 0)

    def test_one_that_hangs_up_before_it_begins_is_never_there(self) -> None:
        self.database.hold = True
        viewer = self.watch()
        viewer.talk.hang_up()
        self.assertEqual(len(self.database.watches), 0)

    def test_progress(self) -> None:
        viewer = self.watch("?key=/quiet")
        self.put(b"/a")
        self.server.clock.advance(watches.PROGRESS_SECONDS)
        self.database.watches.ticked(True, 3)
        self.assertEqual(viewer.read()[-1], ("progress", "1", {"revision": 1}))

    def test_the_end_says_why(self) -> None:
        viewer = self.watch()
        self.database.watches.end_all(Unavailable("this member stops", "Go elsewhere."))
        name, place, problem = viewer.read()[-1]
        self.assertEqual((name, place), ("end", ""))
        self.assertEqual(
            (problem["status"], problem["detail"], problem["hint"]),
            (503, "this member stops", "Go elsewhere."),
        )
        self.assertTrue(viewer.ended)

    def test_what_many_watch_is_encoded_once(self) -> None:
        viewers = [self.watch() for _ in range(3)]
        self.put(b"/a")
        bodies = {
            viewer.talk.transport.value().split(b"\r\n\r\n")[1] for viewer in viewers
        }
        self.assertEqual(len(bodies), 1)

    def test_without_a_quorum_there_is_none(self) -> None:
        self.database.failure = Unavailable("no leader")
        self.assertEqual(self.server.ask("GET", "/_/watch").status, 503)

    def test_what_is_wrong_is_said(self) -> None:
        for query, header, detail in (
            ("?key=/a&prefix=/b", "", "key and prefix are given together"),
            ("?since=-1", "", "since is a number from 0 to 9223372036854775807"),
            ("?since=5", "", "revision 5 is in the future: the newest is 0"),
            ("?key=a", "", "key begins with a slash, as every key does"),
            ("?bogus=1", "", "unknown query parameter 'bogus'"),
            ("", "x", "Last-Event-ID is a revision, as the ids of events are"),
        ):
            more: dict[str, Any] = {"Last_Event_ID": header} if header else {}
            reply = self.server.ask("GET", "/_/watch" + query, **more)
            self.assertEqual(
                (reply.status, json.loads(reply.body)["detail"]), (400, detail)
            )

    def test_head_and_other_methods(self) -> None:
        reply = self.server.ask("HEAD", "/_/watch")
        self.assertEqual(
            (reply.status, reply.headers["content-type"]), (200, "text/event-stream")
        )
        self.assertEqual(len(self.database.watches), 0)
        self.assertEqual(self.server.ask("POST", "/_/watch").status, 405)

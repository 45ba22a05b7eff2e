"""The first frame each way, and who is refused."""

from __future__ import annotations

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvdb.peer.addresses import MAX_URL_BYTES
from kvdb.peer.framing import MAX_HELLO_BYTES, ProtocolError
from kvdb.peer.handshake import (
    MAGIC,
    MAX_REFUSAL_BYTES,
    NO_CLUSTER,
    NOT_A_PEER_RESPONSE,
    Hello,
    Identity,
    Purpose,
    Refusal,
    RefusalCode,
    admit,
    decode_hello,
    decode_refusal,
    encode_hello,
    encode_refusal,
    negotiate,
    version_refusal,
)
from kvdb.raft.messages import APPEND_THREAD, APPLY_THREAD
from kvdb.storage.starts import NO_INSTANCE, PeerStart, Start, Starts

LOCAL = Identity(1, 101, 7, "http://h1:1")
PEER = Identity(2, 102, 7, "http://h2:1")
HELLO = Hello(PEER, 1, Purpose.MESSAGES)

u64 = st.integers(0, 2**64 - 1)
versions = st.integers(0, 2**16 - 1)


def encoded(**changes: int) -> bytes:
    """A HELLO with some of its fields replaced by raw numbers."""
    places = {"low": (8, 2), "high": (10, 2), "node": (20, 8), "purpose": (44, 1)}
    places |= {"length": (45, 2)}
    body = bytearray(encode_hello(HELLO))
    for name, number in changes.items():
        at, size = places[name]
        body[at : at + size] = number.to_bytes(size, "big")
    return bytes(body)


class Hellos(SynchronousTestCase):
    @settings(deadline=None, max_examples=100)
    @given(st.data())
    def test_a_hello_arrives_as_it_was_sent(self, data: st.DataObject) -> None:
        node = data.draw(st.integers(1, APPLY_THREAD - 1))
        low, high = sorted([data.draw(versions), data.draw(versions)])
        identity = Identity(node, data.draw(u64), data.draw(u64), "http://h:1")
        purpose = data.draw(st.sampled_from(Purpose))
        hello = Hello(identity, data.draw(u64), purpose, low, high)
        self.assertEqual(decode_hello(encode_hello(hello)), hello)

    def test_it_begins_with_magic_and_versions_as_documented(self) -> None:
        body = encode_hello(HELLO)
        self.assertEqual(body[:12], b"kvdbpeer\0\x01\0\x03")
        self.assertEqual(body[47:], b"http://h2:1" + bytes(9))

    def test_what_a_later_version_adds_is_ignored(self) -> None:
        self.assertEqual(decode_hello(encode_hello(HELLO) + b"more"), HELLO)

    def test_the_longest_hello_fits_a_first_frame(self) -> None:
        url = "http://" + "h" * (MAX_URL_BYTES - 9) + ":1"
        body = encode_hello(Hello(evolve(PEER, url=url), 1, Purpose.MESSAGES))
        self.assertLessEqual(len(body), MAX_HELLO_BYTES)
        longer = evolve(PEER, url=url + "1")
        self.assertRaises(ValueError, encode_hello, Hello(longer, 1, Purpose.MESSAGES))

    def test_what_no_peer_sends_is_an_error(self) -> None:
        for what, body in {
            "magic": b"kvdbpear" + encode_hello(HELLO)[8:],
            "empty": b"",
            "only magic": MAGIC,
            "versions": encoded(low=2, high=1),
            "node 0": encoded(node=0),
            "append thread": encoded(node=APPEND_THREAD),
            "apply thread": encoded(node=APPLY_THREAD),
            "purpose": encoded(purpose=3),
            "no URL": encoded(length=0),
            "cut URL": encoded(length=12),
            "bad URL": encode_hello(HELLO)[:-1] + b"x",
            "not ASCII": encode_hello(HELLO)[:-1] + b"\xff",
        }.items():
            with self.assertRaises(ProtocolError, msg=what):
                decode_hello(body)

    @settings(deadline=None, max_examples=200)
    @given(st.binary(max_size=80), st.booleans())
    def test_any_bytes_are_a_hello_or_an_error(self, body: bytes, magic: bool) -> None:
        try:
            decode_hello(MAGIC + body if magic else body)
        except ProtocolError:
            pass


class Refusals(SynchronousTestCase):
    def test_a_refusal_arrives_as_it_was_sent(self) -> None:
        for code in RefusalCode:
            refusal = Refusal(code, "né")
            self.assertEqual(decode_refusal(encode_refusal(refusal)), refusal)

    def test_the_reason_of_a_later_version_can_be_read(self) -> None:
        body = b"\xff\x00\x00\x03new"
        self.assertEqual(decode_refusal(body), Refusal(RefusalCode.OTHER, "new"))

    def test_a_long_text_is_cut(self) -> None:
        refusal = decode_refusal(encode_refusal(Refusal(RefusalCode.OTHER, "x" * 9999)))
        self.assertEqual(len(refusal.text), MAX_REFUSAL_BYTES)

    @settings(deadline=None, max_examples=200)
    @given(st.binary(max_size=40))
    def test_any_bytes_are_a_refusal_or_an_error(self, body: bytes) -> None:
        try:
            decode_refusal(body)
        except ProtocolError:
            pass

    def test_a_cut_refusal_is_an_error(self) -> None:
        body = encode_refusal(Refusal(RefusalCode.REMOVED_MEMBER, "text"))
        for end in range(len(body)):
            self.assertRaises(ProtocolError, decode_refusal, body[:end])

    def test_somebodys_curl_gets_one_readable_answer(self) -> None:
        head, text = NOT_A_PEER_RESPONSE.split(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 400 Bad Request\r\n"))
        self.assertIn(b"Content-Length: %d\r\n" % len(text), head)
        self.assertEqual(text.count(b"\n"), 1)
        self.assertIn(b"--port", text)


class Versions(SynchronousTestCase):
    def test_the_highest_common_version_is_spoken(self) -> None:
        for mine, theirs, spoken in (
            ((1, 1), (1, 1), 1),
            ((1, 3), (2, 5), 3),
            ((2, 5), (1, 3), 3),
            ((1, 2), (2, 2), 2),
            ((1, 1), (2, 3), None),
            ((2, 3), (1, 1), None),
        ):
            a = Hello(LOCAL, 2, Purpose.MESSAGES, *mine)
            b = Hello(PEER, 1, Purpose.MESSAGES, *theirs)
            self.assertEqual(negotiate(a, b), spoken, (mine, theirs))

    def test_without_one_both_ranges_and_the_remedy_are_named(self) -> None:
        a = Hello(LOCAL, 2, Purpose.MESSAGES, 1, 2)
        b = Hello(PEER, 1, Purpose.MESSAGES, 4, 5)
        refusal = version_refusal(a, b)
        self.assertIs(refusal.code, RefusalCode.UNSUPPORTED_VERSION)
        for part in ("1 to 2", "4 to 5", "upgrade"):
            self.assertIn(part, refusal.text)


class Admission(SynchronousTestCase):
    def judge(
        self,
        hello: Hello = HELLO,
        local: Identity = LOCAL,
        instances: dict[int, int] | None = None,
        removed: frozenset[int] = frozenset(),
        starts: dict[int, PeerStart] | None = None,
    ) -> Refusal | None:
        known = {1: 101, 2: 102} if instances is None else instances
        return admit(hello, local, known, removed, starts or {})

    def assert_refused(
        self, refusal: Refusal | None, code: RefusalCode, *parts: str
    ) -> None:
        assert refusal is not None, "it was let in"
        self.assertIs(refusal.code, code)
        for part in parts:
            self.assertIn(part, refusal.text)

    def test_a_member_is_let_in(self) -> None:
        self.assertIsNone(self.judge())

    def with_starts(self, *ids: int) -> Hello:
        starts = Starts(len(ids), ids)
        return evolve(HELLO, identity=evolve(PEER, starts=starts))

    def test_a_directory_that_remembers_the_start_that_was_met_is_let_in(self) -> None:
        met = {2: PeerStart(102, Start(2, 22))}
        for hello in (self.with_starts(21, 22), self.with_starts(21, 22, 23)):
            self.assertIsNone(self.judge(hello, starts=met))

    def test_an_older_copy_of_a_directory_is_refused(self) -> None:
        met = {2: PeerStart(102, Start(2, 22))}
        for ids in ((21,), (21, 99), (21, 98, 99)):
            self.assert_refused(
                self.judge(self.with_starts(*ids), starts=met),
                RefusalCode.ROLLED_BACK,
                "an older copy of itself",
                "has met start 2",
                "DELETE /2",
                "http://h2:1",
            )

    def test_starts_of_another_directory_or_member_say_nothing(self) -> None:
        hello = self.with_starts(21)
        self.assertIsNone(self.judge(hello, starts={2: PeerStart(7, Start(9, 9))}))
        self.assertIsNone(self.judge(hello, starts={3: PeerStart(102, Start(9, 9))}))

    def test_a_release_that_tells_no_starts_is_let_in(self) -> None:
        met = {2: PeerStart(102, Start(2, 22))}
        self.assertIsNone(self.judge(HELLO, starts=met))

    def test_starts_are_told_from_version_3_on(self) -> None:
        hello = self.with_starts(21, 22)
        self.assertEqual(decode_hello(encode_hello(hello)), hello)
        older = evolve(hello, max_version=2)
        body = encode_hello(older)
        self.assertEqual(decode_hello(body), evolve(older, identity=PEER))
        self.assertEqual(decode_hello(body + b"more").identity, PEER)

    def test_bad_starts_are_no_hello(self) -> None:
        body = encode_hello(HELLO)
        for end in (b"", bytes(7) + b"\1\2", bytes(8) + b"\1" + bytes(8)):
            with self.assertRaisesRegex(ProtocolError, "bad starts"):
                decode_hello(body[:-9] + end)

    def test_a_member_whose_instance_is_not_recorded_yet_is_let_in(self) -> None:
        self.assertIsNone(self.judge(instances={2: NO_INSTANCE}))

    def test_another_cluster_is_refused_before_ids_are_compared(self) -> None:
        foreign = Hello(evolve(PEER, cluster_id=8), 3, Purpose.MESSAGES)
        self.assert_refused(
            self.judge(foreign, removed=frozenset({2})),
            RefusalCode.WRONG_CLUSTER,
            f"{7:016x}",
            f"{8:016x}",
            "--cluster",
        )

    def test_who_wants_another_node_is_refused(self) -> None:
        refusal = self.judge(evolve(HELLO, target=3))
        self.assert_refused(refusal, RefusalCode.WRONG_TARGET, "1", "3", "--id")

    def test_a_removed_member_is_refused_though_it_joins_anew(self) -> None:
        for cluster_id in (7, NO_CLUSTER):
            hello = evolve(HELLO, identity=evolve(PEER, cluster_id=cluster_id))
            refusal = self.judge(hello, instances={}, removed=frozenset({2}))
            self.assert_refused(
                refusal, RefusalCode.REMOVED_MEMBER, "removed", "--join", "POST /ID"
            )

    def test_another_data_directory_is_refused_with_the_commands(self) -> None:
        hello = evolve(HELLO, identity=evolve(PEER, instance_id=999))
        self.assert_refused(
            self.judge(hello),
            RefusalCode.WRONG_INSTANCE,
            "DELETE /2",
            "POST /ID",
            PEER.url,
            "--join",
        )

    def test_who_joins_before_it_is_added_is_refused(self) -> None:
        hello = evolve(HELLO, identity=evolve(PEER, cluster_id=NO_CLUSTER))
        self.assert_refused(
            self.judge(hello, instances={1: 101}),
            RefusalCode.UNKNOWN_MEMBER,
            "POST /2",
            PEER.url,
        )

    def test_who_joins_once_it_is_added_is_let_in(self) -> None:
        hello = evolve(HELLO, identity=evolve(PEER, cluster_id=NO_CLUSTER))
        self.assertIsNone(self.judge(hello))

    def test_a_stranger_of_this_cluster_is_let_in(self) -> None:
        self.assertIsNone(self.judge(instances={1: 101}))

    def test_a_joining_node_lets_any_member_in(self) -> None:
        joining = evolve(LOCAL, cluster_id=NO_CLUSTER)
        self.assertIsNone(self.judge(local=joining, instances={}))

    def test_two_joining_nodes_do_not_make_a_cluster(self) -> None:
        joining = evolve(LOCAL, cluster_id=NO_CLUSTER)
        hello = evolve(HELLO, identity=evolve(PEER, cluster_id=NO_CLUSTER))
        self.assert_refused(
            self.judge(hello, local=joining, instances={}), RefusalCode.UNKNOWN_MEMBER
        )

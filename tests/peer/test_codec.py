"""Messages as bytes."""

from __future__ import annotations

import struct

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvdb.peer import codec
from kvdb.peer.codec import (
    FRAME_SOFT_BYTES,
    MAX_CONTEXT_BYTES,
    TRAVELLING,
    decode_messages,
    encode_frames,
    encode_message,
)
from kvdb.peer.framing import MAX_FRAME_BYTES, ProtocolError
from kvdb.raft.messages import (
    ConfState,
    Entry,
    EntryType,
    Message,
    MessageType,
    Snapshot,
)
from kvdb.storage.records import MAX_ENTRY_BYTES, encode_entry

FIXED = 68

u64 = st.integers(0, 2**64 - 1)
ids = st.lists(u64, max_size=4).map(tuple)
entries = st.lists(
    st.builds(Entry, u64, u64, st.sampled_from(EntryType), st.binary(max_size=40)),
    min_size=1,
    max_size=4,
)
conf_states = st.builds(ConfState, ids, ids, ids, ids, st.booleans())
snapshots = st.builds(Snapshot, u64, u64, conf_states, st.binary(max_size=20))
messages = st.builds(
    Message,
    type=st.sampled_from(sorted(TRAVELLING.values())),
    to=u64,
    from_=u64,
    term=u64,
    log_term=u64,
    index=u64,
    commit=u64,
    reject=st.booleans(),
    reject_hint=u64,
    entries=st.just(()) | entries,
    snapshot=st.none() | snapshots,
    context=st.binary(max_size=20),
)

LOCAL = set(MessageType) - set(TRAVELLING.values())


def sample() -> Message:
    """One with all there can be."""
    return Message(
        MessageType.APP,
        to=1,
        from_=2,
        term=3,
        log_term=4,
        index=5,
        commit=6,
        reject=True,
        reject_hint=7,
        entries=[Entry(8, 9, EntryType.NORMAL, b"data"), Entry(8, 10)],
        snapshot=Snapshot(11, 12, ConfState((1, 2), (3,), (4,), (5,), True), b"s"),
        context=b"context",
    )


class RoundTrip(SynchronousTestCase):
    @settings(deadline=None, max_examples=200)
    @given(st.lists(messages, min_size=1, max_size=4))
    def test_messages_arrive_as_they_were_sent(self, sent: list[Message]) -> None:
        bodies = [body for body, _ in encode_frames(sent)]
        self.assertEqual([m for b in bodies for m in decode_messages(b)], sent)

    def test_the_layout_is_the_documented_one(self) -> None:
        encoded = encode_message(sample())
        records = b"".join(encode_entry(entry) for entry in sample().entries)
        head = struct.pack(">BBHII", 3, 3, 7, 2, len(records))
        numbers = struct.pack(">7Q", 1, 2, 3, 4, 5, 6, 7)
        snapshot = struct.pack(">QQBHHHHI", 11, 12, 1, 2, 1, 1, 1, 1)
        members = struct.pack(">5Q", 1, 2, 3, 4, 5)
        self.assertEqual(
            encoded,
            head + numbers + records + snapshot + members + b"s" + b"context",
        )

    def test_an_entry_is_sent_as_it_was_first_encoded(self) -> None:
        entry = Entry(1, 2, EntryType.NORMAL, b"value")
        once = encode_entry(entry)
        entry.data = b"changed"
        encoded = encode_message(Message(MessageType.APP, entries=[entry]))
        self.assertIn(once, encoded)

    def test_an_entry_received_can_be_written_without_encoding_it(self) -> None:
        entry = Entry(1, 2, EntryType.NORMAL, b"value")
        encoded = encode_message(Message(MessageType.APP, entries=[entry]))
        (received,) = decode_messages(encoded)[0].entries
        self.assertEqual(received.encoded, encode_entry(entry))

    def test_what_a_node_tells_itself_never_leaves_it(self) -> None:
        for kind in LOCAL:
            self.assertRaises(ValueError, encode_message, Message(kind))
        for local in (
            Message(MessageType.APP, vote=1),
            Message(MessageType.APP, responses=[Message(MessageType.APP_RESP)]),
        ):
            self.assertRaises(ValueError, encode_message, local)

    def test_messages_are_split_into_frames_of_about_the_soft_bound(self) -> None:
        entry = Entry(1, 1, EntryType.NORMAL, bytes(FRAME_SOFT_BYTES // 3))
        sent = [Message(MessageType.APP, index=i, entries=[entry]) for i in range(5)]
        frames = list(encode_frames(sent))
        self.assertEqual([count for _, count in frames], [2, 2, 1])
        self.assertTrue(all(len(body) <= FRAME_SOFT_BYTES for body, _ in frames))
        self.assertEqual([m for b, _ in frames for m in decode_messages(b)], sent)

    def test_no_message_makes_no_frame(self) -> None:
        self.assertEqual(list(encode_frames([])), [])

    def test_the_longest_entry_fits_a_frame(self) -> None:
        entry = Entry(1, 1, EntryType.NORMAL, bytes(MAX_ENTRY_BYTES))
        message = Message(MessageType.APP, entries=[entry], context=b"c")
        ((body, _),) = encode_frames([message])
        self.assertLessEqual(len(body), MAX_FRAME_BYTES)
        self.assertEqual(decode_messages(body), [message])

    def test_what_fits_no_frame_is_refused_by_the_sender(self) -> None:
        entry = Entry(1, 1, EntryType.NORMAL, bytes(MAX_ENTRY_BYTES))
        two = Message(MessageType.APP, entries=[entry, entry])
        self.assertRaises(ValueError, encode_message, two)
        wide = Message(MessageType.READ_INDEX, context=bytes(MAX_CONTEXT_BYTES + 1))
        self.assertRaises(ValueError, encode_message, wide)


class BadBytes(SynchronousTestCase):
    @settings(deadline=None, max_examples=300)
    @given(st.binary(max_size=300))
    def test_any_bytes_are_messages_or_an_error(self, body: bytes) -> None:
        try:
            self.assertTrue(decode_messages(body))
        except ProtocolError:
            pass

    @settings(deadline=None, max_examples=300)
    @given(messages, st.data())
    def test_mutilated_messages_are_messages_or_an_error(
        self, message: Message, data: st.DataObject
    ) -> None:
        body = bytearray(encode_message(message))
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(body) - 1))
            body[at] = data.draw(st.integers(0, 255))
        try:
            self.assertTrue(decode_messages(bytes(body)))
        except ProtocolError:
            pass

    def test_a_message_cut_anywhere_is_an_error(self) -> None:
        encoded = encode_message(sample())
        for end in range(len(encoded)):
            with self.assertRaises(ProtocolError, msg=str(end)):
                decode_messages(encoded[:end])

    def test_a_bit_flipped_in_an_entry_is_an_error(self) -> None:
        entry = Entry(1, 2, EntryType.NORMAL, b"value")
        message = Message(MessageType.APP, entries=[entry])
        encoded = encode_message(message)
        for bit in range(8 * FIXED, 8 * len(encoded)):
            broken = bytearray(encoded)
            broken[bit // 8] ^= 1 << bit % 8
            with self.assertRaises(ProtocolError, msg=str(bit)):
                decode_messages(bytes(broken))

    def test_types_that_do_not_travel_are_an_error(self) -> None:
        encoded = encode_message(Message(MessageType.HEARTBEAT))
        for kind in [*LOCAL, 99]:
            with self.assertRaises(ProtocolError, msg=str(kind)):
                decode_messages(bytes([kind]) + encoded[1:])

    def test_unknown_flags_are_an_error(self) -> None:
        encoded = bytearray(encode_message(Message(MessageType.HEARTBEAT)))
        encoded[1] = 4
        self.assertRaises(ProtocolError, decode_messages, bytes(encoded))

    def test_a_count_without_its_entries_costs_nothing(self) -> None:
        fixed = struct.pack(">BBHII7Q", 3, 0, 0, 2**32 - 1, 0, *[0] * 7)
        self.assertRaises(ProtocolError, decode_messages, fixed)

    def test_entries_must_fill_their_place_exactly(self) -> None:
        record = encode_entry(Entry(1, 2))
        for said, count in ((len(record) - 1, 1), (len(record), 2), (len(record), 0)):
            fixed = struct.pack(">BBHII7Q", 3, 0, 0, count, said, *[0] * 7)
            self.assertRaises(ProtocolError, decode_messages, fixed + record)

    def test_a_snapshot_flag_other_than_auto_leave_is_an_error(self) -> None:
        message = Message(MessageType.SNAP, snapshot=Snapshot(1, 1))
        encoded = bytearray(encode_message(message))
        encoded[FIXED + 16] = 2
        self.assertRaises(ProtocolError, decode_messages, bytes(encoded))

    def test_an_empty_frame_of_messages_is_an_error(self) -> None:
        self.assertRaises(ProtocolError, decode_messages, b"")


class Types(SynchronousTestCase):
    def test_every_type_travels_or_is_local(self) -> None:
        self.assertEqual(
            {kind.name for kind in LOCAL},
            {
                "HUP",
                "BEAT",
                "CHECK_QUORUM",
                "UNREACHABLE",
                "SNAP_STATUS",
                "STORAGE_APPEND",
                "STORAGE_APPEND_RESP",
                "STORAGE_APPLY",
                "STORAGE_APPLY_RESP",
                "FORGET_LEADER",
            },
        )

    def test_a_message_takes_no_more_than_its_fixed_part(self) -> None:
        self.assertEqual(len(encode_message(Message(MessageType.HEARTBEAT))), FIXED)
        self.assertEqual(codec._FIXED.size, FIXED)

    def test_a_changed_message_is_other_bytes(self) -> None:
        one = sample()
        other = evolve(one, reject=False)
        self.assertNotEqual(encode_message(one), encode_message(other))

"""Records: what is written is read; what is not a record is refused."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvdb.raft.messages import Entry, EntryType
from kvdb.storage import records
from kvdb.storage.records import (
    HEAD,
    BadRecord,
    RecordType,
    decode_entries,
    decode_record,
    encode_entry,
    encode_record,
)

U64 = st.integers(0, 2**64 - 1)
ENTRIES = st.builds(Entry, U64, U64, st.sampled_from(EntryType), st.binary())
KINDS = st.sampled_from(RecordType)
EXAMPLES = settings(deadline=None, max_examples=100)


class RecordTests(SynchronousTestCase):
    """Records of any type."""

    @EXAMPLES
    @given(st.lists(st.tuples(KINDS, st.binary())))
    def test_records_are_read_as_they_were_written(
        self, written: list[tuple[RecordType, bytes]]
    ) -> None:
        buffer = b"".join([encode_record(kind, body) for kind, body in written])
        read, offset = [], 0
        while offset < len(buffer):
            kind, body, offset = decode_record(buffer, offset)
            read.append((kind, body))
        self.assertEqual(read, written)

    @EXAMPLES
    @given(st.binary(), st.integers(0, 100))
    def test_any_bytes_are_a_record_or_a_bad_one(
        self, buffer: bytes, offset: int
    ) -> None:
        try:
            kind, body, end = decode_record(buffer, offset)
        except BadRecord as error:
            self.assertEqual(error.offset, offset)
        else:
            again = HEAD.size + 1 + len(body)
            self.assertEqual(end, offset + again)
            self.assertEqual(buffer[offset + HEAD.size], kind)

    @EXAMPLES
    @given(KINDS, st.binary(max_size=64), st.data())
    def test_a_flipped_bit_is_noticed(
        self, kind: RecordType, body: bytes, data: st.DataObject
    ) -> None:
        buffer = bytearray(encode_record(kind, body))
        bit = data.draw(st.integers(0, 8 * len(buffer) - 1))
        buffer[bit // 8] ^= 1 << bit % 8
        with self.assertRaises(BadRecord):
            decode_record(bytes(buffer), 0)

    def test_zeros_are_no_record(self) -> None:
        with self.assertRaises(BadRecord):
            decode_record(bytes(100), 0)


class EntryTests(SynchronousTestCase):
    """Records of entries."""

    @EXAMPLES
    @given(st.lists(ENTRIES))
    def test_entries_are_read_as_they_were_written(self, entries: list[Entry]) -> None:
        buffer = b"xx" + b"".join([encode_entry(entry) for entry in entries])
        read = decode_entries(buffer, 2, len(entries))
        self.assertEqual(read, entries)
        self.assertEqual([e.encoded for e in read], [e.encoded for e in entries])

    @EXAMPLES
    @given(st.binary(), st.integers(0, 30), st.integers(1, 3))
    def test_any_bytes_are_entries_or_bad_records(
        self, buffer: bytes, offset: int, count: int
    ) -> None:
        with self.assertRaises(BadRecord):
            decode_entries(buffer, offset, count)

    @EXAMPLES
    @given(ENTRIES, st.data())
    def test_a_flipped_bit_is_noticed(self, entry: Entry, data: st.DataObject) -> None:
        buffer = bytearray(encode_entry(entry))
        bit = data.draw(st.integers(0, 8 * len(buffer) - 1))
        buffer[bit // 8] ^= 1 << bit % 8
        with self.assertRaises(BadRecord):
            decode_entries(bytes(buffer), 0, 1)

    @EXAMPLES
    @given(ENTRIES, st.data())
    def test_a_cut_entry_is_noticed(self, entry: Entry, data: st.DataObject) -> None:
        encoded = encode_entry(entry)
        cut = data.draw(st.integers(0, len(encoded) - 1))
        with self.assertRaises(BadRecord):
            decode_entries(encoded[:cut], 0, 1)

    def test_a_record_that_is_no_entrys_is_refused(self) -> None:
        for record in (
            encode_record(RecordType.MARK, bytes(17)),
            encode_record(RecordType.ENTRY, bytes(16) + b"\x77"),
            encode_record(RecordType.ENTRY, bytes(3)) + bytes(40),
        ):
            with self.assertRaises(BadRecord):
                decode_entries(record, 0, 1)

    def test_an_entry_is_encoded_once(self) -> None:
        entry = Entry(1, 2, data=b"x")
        self.assertIs(encode_entry(entry), encode_entry(entry))

    def test_an_entry_too_long_to_be_read_again_is_not_written(self) -> None:
        self.patch(records, "MAX_ENTRY_BYTES", 10)
        encode_entry(Entry(1, 1, data=bytes(10)))
        with self.assertRaisesRegex(ValueError, "11 bytes, at most 10"):
            encode_entry(Entry(1, 1, data=bytes(11)))

"""Backups as bytes."""

from __future__ import annotations

from itertools import pairwise

from google_crc32c import value as crc32c
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvdb.store.backup import (
    HEADER_BYTES,
    BackupHeader,
    BackupReader,
    BadBackup,
    backup_pieces,
    decode_header,
    encode_header,
)

U64 = st.integers(0, 2**64 - 1)
HEADERS = st.builds(BackupHeader, U64, U64, U64, U64, U64, U64)
CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


def read(data: bytes, cuts: list[int]) -> tuple[BackupHeader, list[bytes], str]:
    """A backup, from pieces cut there."""
    reader = BackupReader()
    chunks: list[bytes] = []
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in pairwise(places):
        chunks += reader.feed(data[start:end])
    return reader.finish(), chunks, reader.digest


class BackupTests(SynchronousTestCase):
    """See kvdb.store.backup."""

    @given(HEADERS, CHUNKS, st.lists(st.integers(0, 10**6), max_size=5))
    def test_what_is_written_is_read(
        self, header: BackupHeader, chunks: list[bytes], cuts: list[int]
    ) -> None:
        data = b"".join(backup_pieces(header, iter(chunks)))
        found, read_chunks, digest = read(data, cuts)
        self.assertEqual((found, read_chunks), (header, chunks))
        self.assertEqual(len(digest), 64)

    @given(HEADERS, CHUNKS, st.data())
    def test_any_flipped_bit_is_found(
        self, header: BackupHeader, chunks: list[bytes], data: st.DataObject
    ) -> None:
        whole = bytearray(b"".join(backup_pieces(header, iter(chunks))))
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place] ^= 1 << data.draw(st.integers(0, 7))
        with self.assertRaises(BadBackup):
            read(bytes(whole), [])

    @given(HEADERS, CHUNKS, st.data())
    def test_any_cut_is_found(
        self, header: BackupHeader, chunks: list[bytes], data: st.DataObject
    ) -> None:
        whole = b"".join(backup_pieces(header, iter(chunks)))
        place = data.draw(st.integers(0, len(whole) - 1))
        with self.assertRaises(BadBackup):
            read(whole[:place], [])

    @given(HEADERS, CHUNKS, st.binary(min_size=1, max_size=9))
    def test_more_behind_the_end_is_found(
        self, header: BackupHeader, chunks: list[bytes], more: bytes
    ) -> None:
        with self.assertRaises(BadBackup):
            read(b"".join(backup_pieces(header, iter(chunks))) + more, [])

    @given(st.binary(max_size=300))
    def test_any_bytes_are_refused_and_nothing_else(self, data: bytes) -> None:
        with self.assertRaises(BadBackup):
            read(data, [])

    def test_messages_say_where(self) -> None:
        header = BackupHeader(1, 2, 3, 4, 5, 6)
        whole = b"".join(backup_pieces(header, iter([b"one", b"two"])))
        second = HEADER_BYTES + 8 + 3
        for place, text in (
            (1, "this is no backup"),
            (9, "first 62 bytes are not as they were written, unless"),
            (20, "first 62 bytes"),
            (second, f"the chunk at byte {second} has a wrong length"),
            (second + 9, f"the chunk at byte {second} is not as it was written"),
            (len(whole) - 1, "the whole is not as it was written"),
        ):
            broken = bytearray(whole)
            broken[place] ^= 0xFF if place != 9 else 0
            if place == 9:
                broken[8] = 1
            with self.assertRaises(BadBackup) as caught:
                read(bytes(broken), [])
            self.assertIn(text, str(caught.exception))
        with self.assertRaises(BadBackup) as caught:
            read(whole[:-1], [])
        self.assertIn(f"breaks off after {len(whole) - 1} bytes", str(caught.exception))

    def test_a_later_format_is_told_from_a_harmed_one(self) -> None:
        fixed = b"kvdbbkup\0\x02" + bytes(48)
        later = fixed + crc32c(fixed).to_bytes(4, "big")
        with self.assertRaisesRegex(BadBackup, "has format 2, .*use a later release"):
            read(later, [])

    def test_the_layout_is_as_documented(self) -> None:
        header = encode_header(BackupHeader(1, 2, 3, 4, 5, 6))
        self.assertEqual(header[:10], b"kvdbbkup\0\x01")
        self.assertEqual(header[10:18], bytes(7) + b"\x01")
        self.assertEqual(len(header), 62)
        self.assertEqual(decode_header(header).time_ms, 6)

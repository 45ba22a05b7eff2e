"""Reports as bytes."""

from __future__ import annotations

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvdb.peer.framing import ProtocolError
from kvdb.peer.report import ROLES, Report, decode_report, encode_report

U64 = st.integers(0, 2**64 - 1)
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)
REPORTS = st.builds(
    Report,
    st.sampled_from(ROLES),
    U64,
    U64,
    U64,
    U64,
    U64,
    U64,
    U64,
    U64,
    TEXT,
    TEXT,
    st.lists(U64, max_size=9).map(tuple),
    st.lists(st.tuples(U64, U64), max_size=9).map(tuple),
    st.booleans(),
    st.booleans(),
)


class ReportTests(SynchronousTestCase):
    """See kvdb.peer.report."""

    @given(REPORTS, st.binary(max_size=20))
    def test_what_is_written_is_read(self, report: Report, later: bytes) -> None:
        self.assertEqual(decode_report(encode_report(report)), report)
        self.assertEqual(decode_report(encode_report(report) + later), report)

    @given(REPORTS, st.data())
    def test_one_that_is_cut_is_refused(
        self, report: Report, data: st.DataObject
    ) -> None:
        body = encode_report(report)
        cut = data.draw(st.integers(0, len(body) - 2))
        with self.assertRaises(ProtocolError):
            decode_report(body[:cut])

    @given(REPORTS)
    def test_of_an_earlier_release_it_has_no_flags(self, report: Report) -> None:
        earlier = decode_report(encode_report(report)[:-1])
        self.assertEqual(earlier, evolve(report, takes_writes=True, syncs_first=True))

    @given(st.binary(max_size=200))
    def test_any_bytes_are_a_report_or_refused(self, body: bytes) -> None:
        try:
            decode_report(body)
        except ProtocolError:
            pass

    def test_the_layout_is_as_documented(self) -> None:
        report = Report(
            "leader",
            1,
            2,
            3,
            4,
            5,
            6,
            7,
            8,
            "v",
            "http://h",
            (9,),
            ((256, 10),),
            False,
            False,
        )
        numbers = b"".join(number.to_bytes(8, "big") for number in range(1, 9))
        self.assertEqual(
            encode_report(report),
            b"\x02" + numbers + b"\x01v" + b"\0\x08http://h" + b"\x01" + bytes(7)
            + b"\x09\x01" + (256).to_bytes(8, "big") + (10).to_bytes(8, "big")
            + b"\x03",
        )  # fmt: skip

    def test_what_is_too_long_is_cut_and_still_read(self) -> None:
        report = Report(
            "leader", 1, 2, 3, 4, 5, 6, 7, 8, "v" * 400, "u" * 400, (1,) * 300
        )
        read = decode_report(encode_report(report))
        self.assertEqual((len(read.version), len(read.links)), (255, 255))

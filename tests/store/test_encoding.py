"""Commands and records as bytes, and back."""

from __future__ import annotations

import struct

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvdb.raft.messages import ConfState
from kvdb.store.commands import (
    ALWAYS,
    Command,
    Compact,
    Condition,
    ConditionKind,
    Delete,
    Member,
    Outcome,
    OutcomeStatus,
    Put,
    Reason,
    Record,
    RegisterInstance,
)
from kvdb.store.encoding import (
    MAX_REACHED,
    Event,
    Judged,
    Operation,
    UnknownCommand,
    decode_command,
    decode_conf_state,
    decode_events,
    decode_member,
    decode_member_change,
    decode_outcome,
    decode_record,
    encode_command,
    encode_conf_state,
    encode_event,
    encode_member,
    encode_member_change,
    encode_outcome,
    encode_record,
)
from kvdb.times import MAX_TIME_MS, time_ms_of

U64 = st.integers(0, 2**64 - 1)
BYTES = st.binary(max_size=40)
CONDITIONS = st.one_of(
    st.just(ALWAYS),
    st.builds(Condition, st.sampled_from(list(ConditionKind)[1:]), U64),
)
COMMANDS = st.one_of(
    st.builds(Put, BYTES, BYTES, CONDITIONS, BYTES, U64),
    st.builds(Delete, BYTES, CONDITIONS, BYTES),
    st.builds(Compact, U64),
    st.builds(RegisterInstance, U64, U64),
)
JUDGED = st.none() | st.builds(Judged, st.lists(U64, max_size=9).map(tuple), U64)
DONE_OR_NOT = (
    OutcomeStatus.DONE,
    OutcomeStatus.NOT_FOUND,
    OutcomeStatus.CONDITION_FAILED,
)
IDS = st.lists(U64, max_size=4).map(tuple)
WRITE_HEAD = 48
EXAMPLES = settings(deadline=None, max_examples=60)


class CommandTests(SynchronousTestCase):
    """The data of entries."""

    @EXAMPLES
    @given(U64, U64, U64, COMMANDS)
    def test_commands_are_read_as_they_were_written(
        self, session: int, sequence: int, time_ms: int, command: Command
    ) -> None:
        data = encode_command(session, sequence, time_ms, command)
        envelope, read = decode_command(data)
        self.assertEqual(read, command)
        self.assertEqual(
            (envelope.session, envelope.sequence, envelope.time_ms),
            (session, sequence, time_ms),
        )

    @EXAMPLES
    @given(COMMANDS)
    def test_a_cut_command_is_none(self, command: Command) -> None:
        data = encode_command(1, 2, 3, command)
        value = command.value if isinstance(command, Put) else b""
        for length in range(len(data) - len(value)):
            self.assertRaises(UnknownCommand, decode_command, data[:length])

    @EXAMPLES
    @given(BYTES)
    def test_any_bytes_are_a_command_or_unknown(self, data: bytes) -> None:
        try:
            decode_command(data)
        except UnknownCommand:
            pass

    def test_an_operation_of_a_later_release_is_refused(self) -> None:
        data = bytearray(encode_command(1, 2, 3, Compact(4)))
        data[24] = 77
        with self.assertRaisesRegex(UnknownCommand, "operation 77.*later"):
            decode_command(bytes(data))

    def test_a_condition_of_a_later_release_is_refused(self) -> None:
        data = bytearray(encode_command(1, 2, 3, Put(b"k", b"v")))
        data[25] = 77
        self.assertRaises(UnknownCommand, decode_command, bytes(data))

    @given(st.floats())
    def test_any_clock_can_be_written_down(self, seconds: float) -> None:
        time_ms = time_ms_of(seconds)
        self.assertTrue(0 <= time_ms <= MAX_TIME_MS)
        if 0 <= seconds * 1000 < MAX_TIME_MS:
            self.assertEqual(time_ms, int(seconds * 1000))
        data = encode_command(1, 2, time_ms, Put(b"k", b"v"))
        self.assertEqual(decode_command(data)[0].time_ms, time_ms)

    def test_the_bytes_of_a_write_are_those_of_the_page(self) -> None:
        put = Put(b"key", b"value", Condition(ConditionKind.REVISION, 7), b"token", 9)
        data = encode_command(1, 2, 3, put)
        head = struct.pack(">QQQBBQQHI", 1, 2, 3, 1, 3, 7, 9, 5, 3)
        self.assertEqual(data, head + b"token" + b"key" + b"value")
        self.assertEqual(len(head), WRITE_HEAD)

    def test_the_payload_tells_commands_apart_but_not_their_tries(self) -> None:
        def payload(command: Command, sequence: int) -> bytes:
            data = encode_command(1, sequence, sequence, command)
            return decode_command(data)[0].payload

        one = Put(b"k", b"v", idempotency_key=b"t")
        self.assertEqual(payload(one, 1), payload(one, 2))
        for other in (
            Put(b"k", b"w", idempotency_key=b"t"),
            Put(b"l", b"v", idempotency_key=b"t"),
            Put(b"kv", b"", idempotency_key=b"t"),
            Put(b"k", b"v", idempotency_key=b"t", lease=1),
            Put(b"k", b"v", Condition(ConditionKind.ABSENT), b"t"),
            Delete(b"k", idempotency_key=b"t"),
        ):
            self.assertNotEqual(payload(one, 1), payload(other, 1))


class MemberChangeTests(SynchronousTestCase):
    """The context of membership changes."""

    @EXAMPLES
    @given(U64, U64, U64, U64, st.text(max_size=20), BYTES, JUDGED)
    def test_changes_are_read_as_they_were_written(
        self,
        session: int,
        sequence: int,
        time: int,
        node: int,
        url: str,
        token: bytes,
        judged: Judged | None,
    ) -> None:
        data = encode_member_change(session, sequence, time, node, url, token, judged)
        change = decode_member_change(data)
        self.assertEqual(
            (change.session, change.sequence, change.time_ms, change.member_id),
            (session, sequence, time, node),
        )
        self.assertEqual((change.url, change.idempotency_key), (url, token))
        self.assertEqual(change.judged, judged)

    def test_a_cut_change_is_none(self) -> None:
        for judged in (None, Judged((1, 2), 9)):
            data = encode_member_change(1, 2, 3, 4, "http://a:1", b"token", judged)
            for length in range(len(data)):
                self.assertRaises(UnknownCommand, decode_member_change, data[:length])

    def test_an_earlier_release_stops_at_what_a_change_was_judged_on(self) -> None:
        # As it reads the context: the idempotency key is as long as its head says.
        data = encode_member_change(1, 2, 3, 4, "http://a:1", b"token", Judged((1, 2)))
        head = struct.Struct(">QQQQHH")
        *_, url_length, token_length = head.unpack_from(data)
        self.assertLess(len(data[head.size + url_length :]), token_length)

    def test_the_members_that_a_change_names_are_bounded(self) -> None:
        reached = tuple(range(MAX_REACHED + 1))
        with self.assertRaisesRegex(ValueError, "at most 4096"):
            encode_member_change(1, 2, 3, 4, "", b"", Judged(reached))

    def test_a_url_that_is_no_text_is_none(self) -> None:
        data = encode_member_change(1, 2, 3, 4, "x", b"").replace(b"x", b"\xff")
        self.assertRaises(UnknownCommand, decode_member_change, data)


class AtRestTests(SynchronousTestCase):
    """What rests in the engine."""

    @EXAMPLES
    @given(st.builds(Record, BYTES, U64, U64, U64, U64))
    def test_records(self, record: Record) -> None:
        self.assertEqual(decode_record(encode_record(record)), record)

    @EXAMPLES
    @given(st.builds(Event, st.sampled_from(Operation), U64, U64, BYTES))
    def test_events(self, event: Event) -> None:
        self.assertEqual(decode_events(encode_event(event) * 2), [event, event])

    @EXAMPLES
    @given(
        st.builds(Outcome, st.sampled_from(DONE_OR_NOT), U64)
        | st.builds(
            Outcome, st.just(OutcomeStatus.REFUSED), U64, st.sampled_from(Reason), U64
        ),
        st.binary(min_size=8, max_size=8),
    )
    def test_outcomes(self, outcome: Outcome, mark: bytes) -> None:
        self.assertEqual(decode_outcome(encode_outcome(outcome, mark)), (outcome, mark))

    @EXAMPLES
    @given(st.text())
    def test_of_a_refusal_of_an_earlier_release_the_text_is_not_read(
        self, text: str
    ) -> None:
        assume(not text[:1].isdigit())
        data = struct.pack(">BQ8s", OutcomeStatus.REFUSED, 0, b"12345678")
        outcome, mark = decode_outcome(data + text.encode())
        self.assertEqual(outcome, Outcome(OutcomeStatus.REFUSED))
        self.assertEqual(mark, b"12345678")

    @EXAMPLES
    @given(st.builds(Member, U64, st.text(), U64))
    def test_members(self, member: Member) -> None:
        self.assertEqual(decode_member(encode_member(member)), member)

    @EXAMPLES
    @given(st.builds(ConfState, IDS, IDS, IDS, IDS, st.booleans()))
    def test_memberships(self, state: ConfState) -> None:
        self.assertEqual(decode_conf_state(encode_conf_state(state)), state)

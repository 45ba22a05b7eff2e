"""
What became of requests that carried an idempotency key, so that a retry is
answered as the first was, and carried out no more.

=====  =======================================  ==================================
``i``  idempotency key                          its outcome
``j``  number                                   the idempotency key, oldest first
=====  =======================================  ==================================

Rules: bounded by number, the oldest goes first, and the same on every member,
or they would answer differently.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

from attrs import define

from kvdb.raft.messages import ConfChangeV2
from kvdb.store.batch import WriteBatch
from kvdb.store.commands import Outcome, OutcomeStatus, Reason
from kvdb.store.encoding import Envelope, MemberChange, decode_outcome, encode_outcome

MAX_IDEMPOTENCY_KEYS: Final = 100_000
"""Outcomes remembered for retries; the oldest goes first.  The same on every
member, or they would forget differently: changing it is a new format."""

_U64: Final = struct.Struct(">Q")


def fingerprint(envelope: Envelope) -> bytes:
    """What tells one command from another under the same idempotency key."""
    return hashlib.blake2b(envelope.payload, digest_size=8).digest()


def fingerprint_of_change(change: ConfChangeV2, record: MemberChange) -> bytes:
    """The same of a membership change."""
    kinds = [int(single.type) for single in change.changes]
    text = f"[{', '.join(map(str, kinds))}] {record.member_id} {record.url}"
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


@define(slots=True, eq=False)
class Outcomes:
    """
    @ivar first: the number of the oldest that is remembered.
    @ivar next: the number of the next.
    """

    first: int = 0
    next: int = 0

    def known(self, batch: WriteBatch, token: bytes, mark: bytes) -> Outcome | None:
        """What the idempotency key C{token} was answered with before, if it is
        remembered."""
        data = batch.read(b"i" + token)
        if data is None:
            return None
        outcome, first_mark = decode_outcome(data)
        if mark != first_mark:
            return Outcome(OutcomeStatus.REFUSED, reason=Reason.OTHER_REQUEST)
        return outcome

    def remember(
        self, batch: WriteBatch, token: bytes, outcome: Outcome, mark: bytes
    ) -> None:
        """A request with C{token} was carried out."""
        changes = batch.changes
        changes[b"i" + token] = encode_outcome(outcome, mark)
        changes[b"j" + _U64.pack(self.next)] = token
        self.next += 1
        if self.next - self.first > MAX_IDEMPOTENCY_KEYS:
            oldest = b"j" + _U64.pack(self.first)
            forgotten = batch.read(oldest)
            assert forgotten is not None, f"no idempotency key {self.first}"
            changes[b"i" + forgotten] = None
            changes[oldest] = None
            self.first += 1

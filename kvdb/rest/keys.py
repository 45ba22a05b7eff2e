"""
Reading and writing keys.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, inlineCallbacks

from kvdb.interfaces import Database
from kvdb.rest.call import Call
from kvdb.rest.parsing import (
    check_query,
    condition_of,
    consistency_of,
    idempotency_key_of,
    key_of,
    not_modified,
    revision_of,
)
from kvdb.rest.problems import Answer, Problem
from kvdb.store.commands import Delete, Outcome, OutcomeStatus, Put, Record
from kvdb.store.membership import explain

_TEXT = b"text/plain; charset=utf-8"
_BYTES = b"application/octet-stream"
_CONTROLS = bytes(set(range(32)) - {9, 10, 13})


def etag(revision: int) -> bytes:
    """A revision as an entity tag."""
    return b'"%d"' % revision


def content_type(value: bytes) -> bytes:
    """
    Text where it is text, so that a browser shows it; never HTML, so that it
    does not run it.
    """
    if value.translate(None, _CONTROLS) != value:
        return _BYTES
    try:
        value.decode()
    except UnicodeDecodeError:
        return _BYTES
    return _TEXT


def found(record: Record) -> Answer:
    """The answer to a GET of a key that is there."""
    return Answer(
        200,
        record.value,
        {
            b"content-type": content_type(record.value),
            b"etag": etag(record.mod_revision),
        },
    )


def written(outcome: Outcome) -> Answer:
    """The answer to a write."""
    if outcome.status is OutcomeStatus.DONE:
        return Answer(204, headers={b"etag": etag(outcome.revision)})
    if outcome.status is OutcomeStatus.NOT_FOUND:
        raise Problem(404, "there is no such key")
    if outcome.status is OutcomeStatus.REFUSED:
        raise Problem(422, explain(outcome), "Use a new Idempotency-Key.")
    if outcome.revision:
        raise Problem(
            412,
            f"the key was last changed at revision {outcome.revision}",
            "Read it again, and decide anew.",
            {b"etag": etag(outcome.revision)},
        )
    raise Problem(412, "there is no such key")


@frozen(slots=True)
class Keys:
    """
    @ivar max_key_bytes, max_value_bytes: beyond them a request is refused.
    """

    database: Database
    max_key_bytes: int
    max_value_bytes: int

    @inlineCallbacks
    def get(self, call: Call) -> Generator[Deferred[Any], Any, Answer]:
        """C{GET} and C{HEAD}."""
        check_query(call.args, ("consistency", "revision"))
        linearizable = consistency_of(call.args)
        revision = revision_of(call.args)
        key = key_of(call.path, self.max_key_bytes)
        if linearizable:
            yield self.database.read_barrier()
        try:
            record = self.database.get(key, revision)
        except ValueError as error:
            raise Problem(400, str(error)) from error
        if record is None:
            raise Problem(404, "there is no such key")
        if not_modified(call.header("if-none-match"), record.mod_revision):
            return Answer(304, headers={b"etag": etag(record.mod_revision)})
        return found(record)

    @inlineCallbacks
    def put(self, call: Call) -> Generator[Deferred[Any], Any, Answer]:
        """C{PUT}."""
        check_query(call.args, ())
        key = key_of(call.path, self.max_key_bytes)
        condition = condition_of(call.header("if-match"), call.header("if-none-match"))
        token = idempotency_key_of(call.header("idempotency-key"))
        value = yield call.read()
        if len(value) > self.max_value_bytes:
            raise too_large(self.max_value_bytes, f"{len(value)} bytes")
        outcome = yield self.database.write(Put(key, value, condition, token))
        return written(outcome)

    @inlineCallbacks
    def delete(self, call: Call) -> Generator[Deferred[Outcome], Outcome, Answer]:
        """C{DELETE}."""
        check_query(call.args, ())
        command = Delete(
            key_of(call.path, self.max_key_bytes),
            condition_of(call.header("if-match"), call.header("if-none-match")),
            idempotency_key_of(call.header("idempotency-key")),
        )
        outcome = yield self.database.write(command)
        return written(outcome)


def too_large(limit: int, what: str) -> Problem:
    """A value over the limit."""
    return Problem(
        413,
        f"the value has {what}, the limit is {limit} bytes",
        "The limit is the server's --max-value-bytes.",
    )

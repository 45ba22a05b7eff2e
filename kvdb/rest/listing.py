"""
Pages of keys.

Rules: a page is of one revision; it is bounded in keys, in bytes, and in what is
read for it, so that no prefix, however much is under it, holds up the node or fills
its memory.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred, inlineCallbacks

from kvdb.interfaces import Database
from kvdb.rest.call import Call
from kvdb.rest.fields import text_field
from kvdb.rest.parsing import (
    check_query,
    consistency_of,
    flag_of,
    number_of,
    parameter_of,
)
from kvdb.rest.problems import Answer, json_answer
from kvdb.rest.turns import Turns
from kvdb.store.commands import Record

MAX_KEYS: Final = 1000
"""On one page."""

DEFAULT_KEYS: Final = 100

MAX_PAGE_BYTES: Final = 1 << 20
"""Keys and values on one page, but for the first of them."""

MAX_READ_BYTES: Final = 4 << 20
"""Read for one page: also where values are not wanted, they are read."""


def prefix_end(prefix: bytes) -> bytes:
    """The first key behind all that begin with C{prefix}, which is not empty and
    begins with a slash."""
    bare = prefix.rstrip(b"\xff")
    return bare[:-1] + bytes([bare[-1] + 1])


@frozen(slots=True)
class Listing:
    """C{GET /_/kv}."""

    database: Database
    max_key_bytes: int
    turns: Turns

    @inlineCallbacks
    def get(self, call: Call) -> Generator[Deferred[Any], Any, Answer]:
        """A page."""
        args = call.args
        check_query(args, ("prefix", "start", "limit", "keys_only", "consistency"))
        linearizable = consistency_of(args)
        prefix = parameter_of(args, "prefix", self.max_key_bytes) or b"/"
        # One more than a key: behind the longest stands itself and a byte.
        start = parameter_of(args, "start", self.max_key_bytes + 1) or prefix
        limit = number_of(args, "limit", 1, MAX_KEYS) or DEFAULT_KEYS
        keys_only = flag_of(args, "keys_only")
        if linearizable:
            yield self.database.read_barrier()
        # The reads of many may be answered in one turn.
        yield self.turns.turn()
        revision, found, following = self._page(
            max(prefix, start), prefix_end(prefix), limit, keys_only
        )
        keys = [_entry(key, record, keys_only) for key, record in found]
        page: dict[str, Any] = {"revision": revision, "keys": keys}
        page |= {"next": None} if following is None else text_field("next", following)
        return json_answer(200, page)

    def _page(
        self, low: bytes, high: bytes, limit: int, keys_only: bool
    ) -> tuple[int, list[tuple[bytes, Record]], bytes | None]:
        """The revision, what is on the page, and the first key behind it."""
        most = MAX_READ_BYTES if keys_only else MAX_PAGE_BYTES
        page: list[tuple[bytes, Record]] = []
        size = 0
        revision, found = self.database.range(low, high, limit + 1)
        for key, record in found:
            size += len(key) + len(record.value)
            if len(page) == limit or (page and size > most):
                return revision, page, key
            page.append((key, record))
        return revision, page, None


def _entry(key: bytes, record: Record, keys_only: bool) -> dict[str, Any]:
    fields: dict[str, Any] = text_field("key", key)
    if not keys_only:
        fields |= text_field("value", record.value)
    fields["create_revision"] = record.create_revision
    fields["mod_revision"] = record.mod_revision
    fields["version"] = record.version
    return fields

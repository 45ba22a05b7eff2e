"""
Members, leadership, and what a node says of itself.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any, Final

from attrs import asdict, frozen
from twisted.internet.defer import Deferred, TimeoutError, inlineCallbacks
from twisted.internet.interfaces import IReactorTime

from kvdb import __version__
from kvdb.interfaces import Database, DatabaseError, UnknownMember
from kvdb.rest.call import Call
from kvdb.rest.parsing import check_query, idempotency_key_of, member_id_of
from kvdb.rest.problems import Answer, Problem, json_answer
from kvdb.store.urls import url_problem

HEALTH_SECONDS: Final = 2.0
"""How long a health check waits for a linearizable read."""


@frozen(slots=True)
class Members:
    """@ivar clock: for the time of a health check."""

    database: Database
    clock: IReactorTime

    # As in the original: POST /4 with the URL as body, DELETE /3.

    @inlineCallbacks
    def post_root(self, call: Call) -> Generator[Deferred[Any], Any, Answer]:
        """C{POST /ID}."""
        check_query(call.args, ())
        text = call.path[1:]
        if not text.isdigit():
            raise Problem(
                400,
                "POST adds a member, and is addressed by the member's id: POST /4 with"
                " the peer URL as body",
                "A value is written with PUT.",
            )
        node_id = member_id_of(text)
        token = idempotency_key_of(call.header("idempotency-key"))
        url = yield call.read()
        answer: Answer = yield self._add(node_id, url, token, 204)
        return answer

    @inlineCallbacks
    def delete_root(self, call: Call) -> Generator[Deferred[Any], Any, Answer]:
        """C{DELETE /ID}, where there is no key of that name."""
        check_query(call.args, ())
        name = call.path.decode()
        member_id_of(call.path[1:])
        yield self.database.read_barrier()
        if self.database.get(call.path) is not None:
            raise Problem(
                409,
                f"{name} is a key, and the address of a member; nothing was done",
                f"The key is deleted as /_/kv{name}, the member is removed as"
                f" /_/members{name}.",
            )
        try:
            answer = yield self._remove(call, call.path[1:])
        except UnknownMember as error:
            raise Problem(
                404,
                str(error),
                f"A key made of digits is deleted as /_/kv{name}.",
            ) from error
        return answer  # type: ignore[no-any-return]

    # The explicit addresses.

    def list(self, call: Call) -> Answer:
        """C{GET /_/members}."""
        check_query(call.args, ())
        status = self.database.status()
        members = [asdict(member) for member in status.members]
        return json_answer(200, {"members": members}, _leader_header(status.leader))

    @inlineCallbacks
    def post(self, call: Call) -> Generator[Deferred[Any], Any, Answer]:
        """C{POST /_/members} with C{{"id": 4, "url": "http://..."}}."""
        check_query(call.args, ())
        token = idempotency_key_of(call.header("idempotency-key"))
        value = _json_object((yield call.read()))
        node_id, url = value.get("id"), value.get("url")
        if type(node_id) is not int or not isinstance(url, str):
            raise Problem(400, 'the body is {"id": NUMBER, "url": "http://host:port"}')
        number = member_id_of(str(node_id).encode())
        answer: Answer = yield self._add(
            number, url.encode("utf-8", "replace"), token, 201
        )
        return answer

    def delete(self, call: Call, node: bytes) -> Deferred[Answer]:
        """C{DELETE /_/members/ID}."""
        return self._remove(call, node)

    @inlineCallbacks
    def _add(
        self, node_id: int, body: bytes, token: bytes, status: int
    ) -> Generator[Deferred[None], None, Answer]:
        try:
            url = body.decode("ascii").strip(" \t\r\n").rstrip("/")
        except UnicodeDecodeError:
            url = repr(body[:100])
        problem = url_problem(url) if url else "the body holds no URL"
        if problem is not None:
            raise Problem(
                400,
                f"a member needs a peer URL: {problem}",
                f"curl -d http://127.0.0.1:42379 -X POST .../{node_id}",
            )
        yield self.database.add_member(node_id, url, token)
        if status == 204:
            return Answer(204)
        return json_answer(status, {"id": node_id, "url": url})

    @inlineCallbacks
    def _remove(
        self, call: Call, node: bytes
    ) -> Generator[Deferred[None], None, Answer]:
        check_query(call.args, ())
        token = idempotency_key_of(call.header("idempotency-key"))
        yield self.database.remove_member(member_id_of(node), token)
        return Answer(204)

    @inlineCallbacks
    def lead(self, call: Call) -> Generator[Deferred[Any], Any, Answer]:
        """C{POST /_/leader}, to whoever is best or C{{"id": 2}}."""
        check_query(call.args, ())
        body = yield call.read()
        to = _json_object(body).get("id") if body.strip() else None
        if to is not None and type(to) is not int:
            raise Problem(400, 'the body is empty or {"id": NUMBER}')
        leader = yield self.database.transfer_leadership(to)
        return json_answer(200, {"leader": leader}, _leader_header(leader))

    # What a node says of itself.

    def status(self, call: Call) -> Answer:
        """C{GET /_/status}."""
        check_query(call.args, ())
        status = self.database.status()
        return json_answer(200, asdict(status), _leader_header(status.leader))

    def version(self, call: Call) -> Answer:
        """C{GET /version}."""
        return json_answer(200, {"kvdb": __version__})

    def live(self, call: Call) -> Answer:
        """C{GET /_/live}."""
        return json_answer(200, {"live": True})

    def ready(self, call: Call) -> Answer:
        """C{GET /_/ready}."""
        ready = self.database.is_ready()
        return json_answer(200 if ready else 503, {"ready": ready})

    @inlineCallbacks
    def health(self, call: Call) -> Generator[Deferred[None], None, Answer]:
        """C{GET /health}."""
        barrier = self.database.read_barrier()
        barrier.addTimeout(HEALTH_SECONDS, self.clock)
        try:
            yield barrier
        except (DatabaseError, TimeoutError) as error:
            slow = "no quorum has answered in time"
            reason = str(error) if isinstance(error, DatabaseError) else slow
            return json_answer(503, {"health": "false", "reason": reason})
        return json_answer(200, {"health": "true", "reason": ""})


def _leader_header(leader: int | None) -> dict[bytes, bytes]:
    return {} if leader is None else {b"x-kvdb-leader": b"%d" % leader}


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Problem(400, "the body is not a JSON object")
    return value

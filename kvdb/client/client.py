"""
The client: calls on a cluster, whichever of its members answers.

Rules:

* a call goes to one endpoint until that does not answer, or answers that nothing was
  done and another may do it; then to the next, to which later calls go too.  After a
  round without success it waits a moment, and gives up when its time is over;
* what is handed over is looked at before anything is sent (L{kvdb.client.arguments});
* a write carries an Idempotency-Key, so that a retry is carried out once
  however many attempts of it arrive;
* an error says what became of a write: L{OutcomeUnknown} alone means that
  nobody knows.

It knows HTTP only, and nothing of how a member works.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, BinaryIO, Final

from attrs import evolve
from twisted.web.iweb import IAgent

from kvdb import __version__
from kvdb.client import arguments, model
from kvdb.client.addresses import (
    Key,
    endpoint_url,
    endpoint_urls,
    key_path,
    query,
)
from kvdb.client.arguments import Bytes, key_of, value_bytes
from kvdb.client.backups import EndCheck
from kvdb.client.calls import Attempts, Calls, Endpoints
from kvdb.client.errors import (
    ClientError,
    NotFound,
    OutcomeUnknown,
    Unavailable,
    UnexpectedAnswer,
    error_of_read,
    revision_of_etag,
)
from kvdb.client.model import Entry, Health, Member, Page, Status, Value
from kvdb.client.tls import TLS
from kvdb.client.transport import Answer, NoAnswer, Request, Transport
from kvdb.client.watch import Watch

TIMEOUT: Final = 10.0
"""Seconds that a call may take, with all its attempts."""

ATTEMPT_TIMEOUT: Final = 3.0
"""Seconds for an endpoint to answer before another is asked."""

STREAM_SECONDS: Final = 30.0
"""How long a snapshot's stream may be silent."""

PAGE_KEYS: Final = 100
MAX_PAGE_KEYS: Final = 1000
"""Keys in a page; what the server gives, and its most."""

TOKEN_BYTES: Final = 16


class Client:
    """
    A cluster's client.

    Its methods are coroutines: C{await} them, or hand them to
    L{Deferred.fromCoroutine}.  Keys are bytes or text, with their leading
    slash.  Every method raises what L{kvdb.client.errors} names.
    """

    def __init__(
        self,
        reactor: Any,
        endpoints: str | Iterable[str],
        *,
        tls: TLS | None = None,
        timeout: float = TIMEOUT,
        attempt_timeout: float = ATTEMPT_TIMEOUT,
        token: str | None = None,
        user: str | None = None,
        password: str | None = None,
        agent: IAgent | None = None,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """
        @param endpoints: C{http://HOST:PORT} of some members, or of all; text
            has several between commas.
        @param tls: whom to trust, for C{https} endpoints; the system's
            authorities if left out.
        @param timeout: seconds that a call may take in all.
        @param attempt_timeout: seconds for one endpoint to answer.
        @param token: sent as C{Authorization: Bearer}.
        @param user: with C{password}, sent as C{Authorization: Basic}.
        @param agent: whose connections to use, instead of one's own.
        @param entropy: so many bytes that nobody can foretell: for
            idempotency keys.
        @raise TypeError, ValueError: an argument is wrong; the text says which.
        """
        timeout = arguments.seconds("timeout", timeout)
        attempt_timeout = arguments.seconds("attempt_timeout", attempt_timeout)
        arguments.function("entropy", entropy)
        if not (tls is None or isinstance(tls, TLS)):
            raise TypeError("tls: requires a TLS, or None")
        self._reactor = reactor
        self._entropy = entropy
        urls = endpoint_urls(endpoints, tls is not None)
        headers = {
            "User-Agent": f"kvdb-client/{__version__}",
            **_authorization(token, user, password),
        }
        if agent is not None:
            transport = Transport.over_agent(reactor, headers, agent)
        else:
            policy = None if tls is None else tls.policy()
            transport = Transport.over_sockets(reactor, headers, policy)
        self._calls = Calls(
            reactor,
            transport,
            Endpoints(urls),
            timeout,
            min(attempt_timeout, timeout),
            entropy,
        )

    @property
    def endpoints(self) -> Sequence[str]:
        """Whom it asks."""
        return tuple(self._calls.endpoints.urls)

    async def close(self) -> None:
        """Drop the connections."""
        await self._calls.transport.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def new_idempotency_key(self) -> str:
        """One that no write has had: for whoever must know it before the answer."""
        return self._entropy(TOKEN_BYTES).hex()

    # Keys.

    async def get(
        self, key: Key, *, stale: bool = False, revision: int | None = None
    ) -> Value:
        """
        Read a key.

        @param stale: be content with what the member that answers has.
        @param revision: as of a revision that was.
        @raise NotFound: there is no such key, or was none.
        @raise Compacted: that revision is forgotten.
        """
        if revision is not None:
            arguments.number("revision", revision, 1)
        parameters = {
            "consistency": "stale" if arguments.flag("stale", stale) else None,
            "revision": revision,
        }
        answer = await self._calls.call(
            Request("GET", key_path(key) + query(parameters))
        )
        return Value(answer.body, self._revision(answer))

    async def put(
        self,
        key: Key,
        value: Bytes,
        *,
        if_revision: int | None = None,
        if_present: bool = False,
        idempotency_key: str | None = None,
    ) -> int:
        """
        Write a key; the answer is the revision this made.

        @param if_revision: only if the key was last changed at this revision;
            0: only if it is absent.
        @param if_present: only if the key is there.
        @param idempotency_key: if an earlier call with it was carried out, its
            answer is given again; a new one if left out.
        @raise Conflict: the condition does not hold.
        @raise OutcomeUnknown: it may have been done, or may yet be.
        """
        headers = _conditions(if_revision, if_present)
        request = Request("PUT", key_path(key), value_bytes(value), headers)
        return await self._write_key(request, idempotency_key)

    async def compare_and_set(
        self,
        key: Key,
        value: Bytes,
        revision: int,
        *,
        idempotency_key: str | None = None,
    ) -> int:
        """
        Write a key that was last changed at C{revision}; 0: that is absent.

        @raise Conflict: it was changed since; its C{revision} says when.
        """
        arguments.number("revision", revision, 0)
        return await self.put(
            key, value, if_revision=revision, idempotency_key=idempotency_key
        )

    async def delete(
        self,
        key: Key,
        *,
        if_revision: int | None = None,
        idempotency_key: str | None = None,
    ) -> int:
        """
        Remove a key; the answer is the revision this made.

        @raise NotFound: there is no such key.
        @raise Conflict: the condition does not hold.
        @raise OutcomeUnknown: it may have been done, or may yet be.
        """
        if if_revision is not None:
            arguments.number("if_revision", if_revision, 1)
        headers = _conditions(if_revision, False)
        request = Request("DELETE", key_path(key), b"", headers)
        return await self._write_key(request, idempotency_key)

    async def pages(
        self,
        prefix: Key = b"/",
        *,
        start: Key | None = None,
        page_keys: int = PAGE_KEYS,
        keys_only: bool = False,
        stale: bool = False,
    ) -> AsyncIterator[Page]:
        """
        The keys that begin with C{prefix}, in byte order, page by page.

        Each page is of one revision, and a later page may be of a later one.

        @param start: from this key on.
        @param page_keys: at most so many in a page, 1 to 1000.
        @param keys_only: leave the values out.
        """
        arguments.number("page_keys", page_keys, 1, MAX_PAGE_KEYS)
        arguments.flag("keys_only", keys_only)
        arguments.flag("stale", stale)
        wanted = key_of("prefix", prefix)
        following = None if start is None else key_of("start", start)
        while True:
            parameters = {
                "prefix": wanted,
                "start": following,
                "limit": page_keys,
                "keys_only": "true" if keys_only else None,
                "consistency": "stale" if stale else None,
            }
            answer = await self._calls.call(Request("GET", "/_/kv" + query(parameters)))
            value = model.json_of(answer.body, "keys", answer.endpoint)
            page = model.page_of(value, answer.endpoint)
            if page.next is not None and page.next <= (following or b""):
                raise UnexpectedAnswer(
                    "the next page would begin before this one",
                    endpoint=answer.endpoint,
                )
            yield page
            if page.next is None:
                return
            following = page.next

    async def list(
        self,
        prefix: Key = b"/",
        *,
        start: Key | None = None,
        keys_only: bool = False,
        stale: bool = False,
    ) -> AsyncIterator[Entry]:
        """As L{pages}, key by key."""
        pages = self.pages(prefix, start=start, keys_only=keys_only, stale=stale)
        async for page in pages:
            for entry in page.entries:
                yield entry

    def watch(
        self,
        *,
        key: Key | None = None,
        prefix: Key | None = None,
        since: int | None = None,
        previous: bool = False,
    ) -> Watch:
        """
        The changes of a key, or of keys with a prefix, or of all.

        @param since: those behind this revision; now, if left out.
        @param previous: with the values before, as C{previous_value}.
        """
        if key is not None and prefix is not None:
            raise ValueError("a watch is of a key or of a prefix, not of both")
        if since is not None:
            arguments.number("since", since, 0)
        parameters: dict[str, bytes | str | int | None] = {
            "key": None if key is None else key_of("key", key),
            "prefix": None if prefix is None else key_of("prefix", prefix),
            "previous": "true" if arguments.flag("previous", previous) else None,
        }
        return Watch(self._calls, parameters, since)

    # The cluster.

    async def members(self, *, of_leader: bool = False) -> Sequence[Member]:
        """
        Who is a member, as one of them sees it.

        @param of_leader: as the leader sees it, where it can be found: it alone
            knows C{match_index} and C{lag}.
        """
        arguments.flag("of_leader", of_leader)
        request = Request("GET", "/_/members")
        answer = await self._calls.call(request)
        found = self._members(answer)
        if not of_leader or any(member.match_index is not None for member in found):
            return found
        known = [m.client_url for m in found if m.role == "leader" and m.client_url]
        secure = answer.endpoint.startswith("https:")
        # The credentials go nowhere less safe than where they were sent.
        urls = [url for url in known if url.startswith("https:") or not secure]
        for url in dict.fromkeys([*urls, *self._calls.endpoints.urls]):
            try:
                seen = self._members(await self._calls.ask_one(url, request))
            except ClientError:
                continue
            if any(member.match_index is not None for member in seen):
                return seen
        return found

    def _members(self, answer: Answer) -> Sequence[Member]:
        value = model.json_of(answer.body, "members", answer.endpoint)
        return model.members_of(value, answer.endpoint)

    async def add_member(
        self, node: int, url: str, *, idempotency_key: str | None = None
    ) -> None:
        """
        Add a member as a learner, which the leader makes a voter once it has
        caught up.

        @param url: its peer URL.
        @raise Refused: it does not fit; the text says why.
        """
        about = {"id": _member_id("node", node), "url": arguments.text("url", url)}
        body = json.dumps(about).encode()
        kind = {"Content-Type": "application/json"}
        request = Request("POST", "/_/members", body, kind)
        await self._write(request, idempotency_key)

    async def remove_member(self, node: int) -> None:
        """
        Remove a member, which then stops by itself.

        @raise NotFound: there is no such member.
        @raise Refused: too few would be left within reach.
        """
        # Without an Idempotency-Key, with which a member takes it for a retry
        # and does not look who is within reach.  Ids are never given twice, so
        # a member that is gone after an attempt was removed by it.
        request = Request("DELETE", f"/_/members/{_member_id('node', node)}")
        attempts = Attempts(request)
        try:
            await self._calls.call(request, attempts)
        except NotFound:
            if not attempts.unknown:
                raise

    async def transfer_leadership(self, to: int | None = None) -> int:
        """
        Hand leadership over; the answer is the new leader's id.

        @param to: to whom; to whoever has the most of the log, if left out.
        @raise NotFound, Refused: that is no member, or no voter.
        @raise OutcomeUnknown: it may have been done; C{status} tells.
        """
        body = b""
        if to is not None:
            body = json.dumps({"id": _member_id("to", to)}).encode()
        kind = {"Content-Type": "application/json"} if body else {}
        request = Request("POST", "/_/leader", body, kind)
        # To one that leads already nothing happens; to anybody, it moves on.
        attempts = Attempts(request, repeatable=to is not None)
        answer = await self._calls.call(request, attempts)
        value = model.json_of(answer.body, "the leader", answer.endpoint)
        return model.leader_of(value, answer.endpoint)

    async def status(self, endpoint: str | None = None) -> Status:
        """
        A member's own view.

        @param endpoint: whose; of whoever answers, if left out.
        """
        request = Request("GET", "/_/status")
        if endpoint is None:
            answer = await self._calls.call(request)
        else:
            answer = await self._calls.ask_one(endpoint_url(endpoint), request)
        value = model.json_of(answer.body, "status", answer.endpoint)
        return model.status_of(value, answer.endpoint)

    async def health(self, endpoint: str | None = None) -> Health:
        """
        Whether a member can serve a linearizable read; one that does not
        answer cannot.

        @param endpoint: whose; of the one that is asked first, if left out.
        """
        url = endpoint_url(endpoint or self._calls.endpoints.current)
        try:
            answer = await self._calls.transport.ask(
                url, Request("GET", "/health"), self._calls.attempt_timeout
            )
        except NoAnswer as error:
            return Health(False, str(error))
        if answer.status not in (200, 503):
            raise error_of_read(answer.status, answer.headers, answer.body, url)
        return model.health_of(model.json_of(answer.body, "health", url), url)

    async def snapshot(
        self,
        file: BinaryIO,
        *,
        progress: Callable[[int], None] = lambda size: None,
    ) -> int:
        """
        Write a backup of the whole store to C{file}; the answer is its size in
        bytes.

        @param progress: told the size so far.
        @raise Unavailable: the stream broke off; what was written is of no
            use.
        """
        arguments.function("file.write", getattr(file, "write", None))
        arguments.function("progress", progress)
        request = Request("GET", "/_/snapshot")
        endpoint, body = await self._calls.connect(request, patient=False)
        check = EndCheck()
        why = "its end is missing"
        try:
            while data := await body.read(STREAM_SECONDS):
                file.write(data)
                check.feed(data)
                progress(check.size)
        except NoAnswer as error:
            why = str(error)
        finally:
            body.close()
        if not check.is_whole():
            raise Unavailable(
                f"the snapshot broke off after {check.size} bytes: {why}",
                endpoint=endpoint,
                hint="Take it again, from the start.",
            )
        return check.size

    async def _write_key(self, request: Request, token: str | None) -> int:
        """The revision that a write made."""
        token = self.new_idempotency_key() if token is None else token
        answer = await self._write(request, token)
        try:
            return self._revision(answer)
        except UnexpectedAnswer as error:
            raise OutcomeUnknown(
                f"nobody knows whether it was done: {error}",
                token,
                endpoint=error.endpoint,
                hint=error.hint,
            ) from error

    async def _write(self, request: Request, token: str | None) -> Answer:
        token = self.new_idempotency_key() if token is None else token
        headers = {
            **request.headers,
            "Idempotency-Key": f'"{arguments.idempotency_key(token)}"',
        }
        return await self._calls.call(evolve(request, headers=headers))

    def _revision(self, answer: Answer) -> int:
        revision = revision_of_etag(answer.headers.get("etag"))
        if revision == 0:
            raise UnexpectedAnswer(
                "an answer came without a revision in its ETag",
                endpoint=answer.endpoint,
                hint="Look whether the endpoint is a kvdb member.",
            )
        return revision


def _authorization(
    token: str | None, user: str | None, password: str | None
) -> dict[str, str]:
    for name, said in (("token", token), ("user", user), ("password", password)):
        if said is not None:
            arguments.text(name, said)
    if token is not None:
        if user is not None or password is not None:
            raise ValueError("credentials are a token, or a user and a password")
        if not token.isascii() or not token.isprintable() or " " in token or not token:
            raise ValueError("a token is printable ASCII, without spaces")
        return {"Authorization": f"Bearer {token}"}
    if user is None and password is None:
        return {}
    if user is None or password is None or ":" in user:
        raise ValueError("a user, without colons, and a password go together")
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def _conditions(if_revision: int | None, if_present: bool) -> dict[str, str]:
    arguments.flag("if_present", if_present)
    if if_revision is not None:
        if if_present:
            raise ValueError("if_revision and if_present exclude each other")
        arguments.number("if_revision", if_revision, 0)
        if if_revision == 0:
            return {"If-None-Match": "*"}
        return {"If-Match": f'"{if_revision}"'}
    return {"If-Match": "*"} if if_present else {}


def _member_id(name: str, node: int) -> int:
    return arguments.number(name, node, 1)

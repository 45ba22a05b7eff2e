"""
The tree of addresses, as Klein routes.

Thin on purpose: a route names a method and an address, and what is done stands
in the modules it names, which know neither Klein nor Twisted's requests.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import parse_qs

from attrs import evolve
from klein import Klein
from klein.resource import KleinResource
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import BaseConverter

from kvdb.access.guard import Guard
from kvdb.rest.backing_up import BackingUp
from kvdb.rest.call import Call
from kvdb.rest.keys import Keys
from kvdb.rest.lane import KEY_ROUTE
from kvdb.rest.listing import Listing
from kvdb.rest.members import Members
from kvdb.rest.parsing import (
    KV_PREFIX,
    check_expect,
    check_host,
    check_local,
    check_origin,
    check_query,
    is_reserved,
    target_path,
)
from kvdb.rest.permissions import check_access
from kvdb.rest.problems import REASONS, Answer, Problem, answer_to
from kvdb.rest.streaming import Sink, Stream
from kvdb.rest.ui import Dashboard
from kvdb.rest.watching import Watching

Exposition = Callable[[str], tuple[bytes, str]]
"""Makes of an C{Accept} header metrics, and their content type."""

Handled = (
    Answer | Stream | Deferred[Answer] | Deferred[Stream] | Deferred[Answer | Stream]
)
Handler = Callable[[Call], Handled]


class PathConverter(BaseConverter):
    """All that is left of the path, slashes too.  Its value is not used: what
    was sent is in the request."""

    regex = ".*?"
    part_isolating = False
    weight = 200


class RawPathResource(KleinResource):
    """Routes on the path as it was sent, with nothing decoded or merged."""

    def render(self, request: Any) -> Any:
        """See L{IResource<twisted.web.resource.IResource>}."""
        try:
            path = target_path(request.uri)
        except Problem:
            path = b"/"  # to the handler of keys, which refuses it
        if not is_reserved(path) or path.startswith(KV_PREFIX):
            # One for all keys, which are read from the request itself: the router
            # takes slashes off a path's beginning, and //health is a key.
            path = b"/key"
        # Latin-1 as UTF-8: the router wants text, and gets it in any case.
        safe = path.decode("latin-1").encode()
        request.prepath, request.postpath = [], safe[1:].split(b"/")
        if request.method != request.method.upper():
            # Methods have a case (RFC 9110, section 9.1); the router does not.
            return send(request, _refusal(request).answer())
        return super().render(request)


class API:
    """What clients see of a node."""

    app = Klein()
    app.url_map.converters["path"] = PathConverter
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = False

    def __init__(
        self,
        keys: Keys,
        members: Members,
        listing: Listing,
        watching: Watching,
        backing_up: BackingUp,
        dashboard: Dashboard,
        exposition: Exposition | None = None,
    ) -> None:
        self.keys = keys
        self.members = members
        self.listing = listing
        self.watching = watching
        self.backing_up = backing_up
        self.dashboard = dashboard
        self.exposition = exposition

    # Addresses of kvdb's own.

    @app.route("/_/status", methods=["GET"])
    def status(self, request: Request) -> Deferred[bytes]:
        """A node's own view."""
        return answer(request, self.members.status)

    @app.route("/_/members", methods=["GET"])
    def list_members(self, request: Request) -> Deferred[bytes]:
        """Who is a member."""
        return answer(request, self.members.list)

    @app.route("/_/members", methods=["POST"])
    def add_member(self, request: Request) -> Deferred[bytes]:
        """Add one."""
        return answer(request, self.members.post)

    @app.route("/_/members/<node>", methods=["DELETE"])
    def remove_member(self, request: Request, node: str) -> Deferred[bytes]:
        """Remove one."""
        return answer(request, lambda call: self.members.delete(call, node.encode()))

    @app.route("/_/leader", methods=["POST"])
    def lead(self, request: Request) -> Deferred[bytes]:
        """Hand leadership over."""
        return answer(request, self.members.lead)

    @app.route("/_/live", methods=["GET"])
    def live(self, request: Request) -> Deferred[bytes]:
        """Whether the process answers."""
        return answer(request, self.members.live)

    @app.route("/_/ready", methods=["GET"])
    def ready(self, request: Request) -> Deferred[bytes]:
        """Whether it has caught up."""
        return answer(request, self.members.ready)

    @app.route("/health", methods=["GET"])
    def health(self, request: Request) -> Deferred[bytes]:
        """Whether it can serve a linearizable read."""
        return answer(request, self.members.health)

    @app.route("/version", methods=["GET"])
    def version(self, request: Request) -> Deferred[bytes]:
        """Which release it is."""
        return answer(request, self.members.version)

    @app.route("/_/kv", methods=["GET"])
    def list_keys(self, request: Request) -> Deferred[bytes]:
        """A page of keys."""
        return answer(request, self.listing.get)

    @app.route("/_/watch", methods=["GET"])
    def watch(self, request: Request) -> Deferred[bytes]:
        """Changes of keys, as they happen."""
        return answer(request, self.watching.get)

    @app.route("/_/snapshot", methods=["GET"])
    def back_up(self, request: Request) -> Deferred[bytes]:
        """The whole store."""
        return answer(request, self.backing_up.get)

    @app.route("/_/ui")
    @app.route("/_/ui/")
    @app.route("/_/ui/<name>")
    def show(self, request: Request, name: str = "") -> Deferred[bytes]:
        """The dashboard, which says itself what methods it takes."""
        return answer(request, self.dashboard.get)

    @app.route("/metrics", methods=["GET"])
    def metrics(self, request: Request) -> Deferred[bytes]:
        """What the node counts."""

        def handle(call: Call) -> Answer:
            if self.exposition is None:
                raise Problem(404, "there is nothing at this address")
            check_query(call.args, ())
            text, content_type = self.exposition(call.header("accept") or "")
            return Answer(200, text, {b"content-type": content_type.encode()})

        return answer(request, handle)

    # Keys, and members as in the original.

    @app.route("/<path:rest>", methods=["GET"])
    def get(self, request: Request, rest: str) -> Deferred[bytes]:
        """Read a key."""
        return answer(request, lambda call: self.keys.get(_of_key(call)))

    @app.route("/<path:rest>", methods=["PUT"])
    def put(self, request: Request, rest: str) -> Deferred[bytes]:
        """Write a key."""
        return answer(request, lambda call: self.keys.put(_of_key(call)))

    @app.route("/<path:rest>", methods=["DELETE"])
    def delete(self, request: Request, rest: str) -> Deferred[bytes]:
        """Delete a key, or a member where the path is a number."""

        def handle(call: Call) -> Deferred[Answer]:
            if call.path[1:].isdigit():
                return self.members.delete_root(call)
            return self.keys.delete(_of_key(call))

        return answer(request, handle)

    @app.route("/<path:rest>", methods=["POST"])
    def post(self, request: Request, rest: str) -> Deferred[bytes]:
        """Add a member."""
        return answer(request, lambda call: self.members.post_root(_of_key(call)))

    @app.handle_errors(HTTPException)
    def refused(self, request: Any, failure: Failure) -> bytes:
        """What no route takes."""
        if failure.check(MethodNotAllowed):
            return send(request, _refusal(request).answer())
        error: Any = failure.value
        return send(request, Problem(error.code, error.name.lower()).answer())


_METHODS = {
    b"/_/kv": "GET, HEAD",
    b"/_/snapshot": "GET, HEAD",
    b"/_/status": "GET, HEAD",
    b"/_/watch": "GET, HEAD",
    b"/_/members": "GET, HEAD, POST",
    b"/_/leader": "POST",
    b"/_/live": "GET, HEAD",
    b"/_/ready": "GET, HEAD",
    b"/_/ui": "GET, HEAD",
    b"/_/ui/": "GET, HEAD",
    b"/health": "GET, HEAD",
    b"/metrics": "GET, HEAD",
    b"/version": "GET, HEAD",
}
"""What kvdb's own addresses take."""


def route_of(uri: bytes) -> str:
    """What an address is called where requests are counted: one of a few."""
    try:
        path = target_path(uri)
    except Problem:
        return "none"
    if path.startswith(KV_PREFIX) or not is_reserved(path):
        return KEY_ROUTE
    for name in ("members", "ui"):
        if path.startswith(b"/_/" + name.encode() + b"/"):
            return name
    if path in _METHODS:
        return _ROUTES.get(path, path.rpartition(b"/")[2].decode())
    return "none"


_ROUTES = {b"/_/kv": "list"}
"""Those that are not called by the end of their path."""


def _of_key(call: Call) -> Call:
    """C{call}, if it is about a key."""
    path = call.path
    if path.startswith(KV_PREFIX):
        if call.method == b"POST":
            raise _not_for(call.method, "DELETE, GET, HEAD, PUT")
        return call
    if not is_reserved(path):
        return call
    allowed = _allowed(path)
    if call.method in (b"PUT", b"DELETE") or path.startswith(b"/v3/"):
        if allowed is not None and call.method == b"DELETE":
            raise _not_for(call.method, allowed)
        raise Problem(
            409,
            "this address is kvdb's own, and no key",
            "A key of this name is addressed as /_/kv/ and the key.",
        )
    if allowed is not None:
        raise _not_for(call.method, allowed)
    raise Problem(404, "there is nothing at this address")


def _allowed(path: bytes) -> str | None:
    """What an address takes; None where there is nothing."""
    if path.startswith(b"/_/members/"):
        return "DELETE"
    if path.startswith(KV_PREFIX):
        return "DELETE, GET, HEAD, PUT"
    if is_reserved(path):
        return _METHODS.get(path)
    return "DELETE, GET, HEAD, POST, PUT"


def _refusal(request: Any) -> Problem:
    """What a method is told that an address does not take."""
    try:
        allowed = _allowed(target_path(request.uri))
    except Problem as problem:
        return problem
    if allowed is None:
        return Problem(404, "there is nothing at this address")
    return _not_for(request.method, allowed)


def _not_for(method: bytes, allowed: str) -> Problem:
    return Problem(
        405,
        f"{method.decode('latin-1')} is not for this address",
        "",
        {b"allow": allowed.encode()},
    )


def answer(request: Request, handle: Handler) -> Deferred[bytes]:
    """Have C{handle} answer C{request}, or say why it could not."""

    def begin() -> Handled:
        call = _call_of(request)
        check_expect(call.header("expect"))
        check_host(call.header("host"))
        if request.local_only:  # type: ignore[attr-defined]
            check_local(call.header("host"))
        check_origin(call.method, call.header("origin"), call.header("host"))
        guard: Guard | None = request.guard  # type: ignore[attr-defined]
        if guard is None:
            return handle(call)
        address = str(getattr(request.getClientAddress(), "host", ""))
        generation = guard.generation

        def check(made: Any) -> Any:
            """Again, for what was allowed before it had to wait."""
            if guard.generation == generation:
                return made
            allowed: Deferred[Any] = check_access(guard, call, address)
            return allowed.addCallback(lambda _: made)

        def check_stream(made: Answer | Stream) -> Any:
            if isinstance(made, Answer):
                return made
            checked = maybeDeferred(check, made)
            return checked.addErrback(_drop, made)

        def handle_it(_: object) -> Any:
            waiting = evolve(call, read=lambda: call.read().addCallback(check))
            done: Deferred[Any] = maybeDeferred(handle, waiting)
            return done.addCallback(check_stream)

        return check_access(guard, call, address).addCallback(handle_it)

    done: Deferred[Any] = maybeDeferred(begin)
    return done.addErrback(answer_to).addCallback(partial(_deliver, request))


def _drop(failure: Failure, stream: Stream) -> Failure:
    """A stream is refused after all."""
    stream.drop()
    return failure


_ONCE = frozenset(
    {
        "authorization",
        "host",
        "idempotency-key",
        "if-match",
        "last-event-id",
        "origin",
    }
)
"""Headers of which two would leave it open which is meant."""


def _call_of(request: Any) -> Call:
    headers = {}
    for raw, values in request.requestHeaders.getAllRawHeaders():
        name = raw.decode("latin-1").lower()
        if name in _ONCE and len(values) > 1:
            raise Problem(400, f"the header {name} stands there {len(values)} times")
        headers[name] = values[-1].decode("latin-1")
    query = request.uri.partition(b"?")[2]
    # Twisted's own reading drops a parameter without "=".
    args = {
        name.encode("latin-1"): [value.encode("latin-1") for value in values]
        for name, values in parse_qs(
            query.decode("latin-1"), keep_blank_values=True, encoding="latin-1"
        ).items()
    }
    return Call(
        request.method, target_path(request.uri), args, headers, request.read_body
    )


def _deliver(request: Any, made: Answer | Stream) -> bytes | Deferred[bytes]:
    if isinstance(made, Answer):
        return send(request, made)
    request.setResponseCode(200)
    for name, value in made.headers.items():
        request.setHeader(name, value)
    request.setHeader(b"x-content-type-options", b"nosniff")
    # What is cut off must not look like the next answer's beginning.
    request.setHeader(b"connection", b"close")
    request.channel.persistent = False
    if request.method == b"HEAD":
        made.drop()
        return b""
    return Sink(request, made.clock).start(made)


def send(request: Request, made: Answer) -> bytes:
    """Write an answer's head; its body is for Klein to write."""
    request.setResponseCode(made.status, REASONS.get(made.status))
    for name, value in made.headers.items():
        request.setHeader(name, value)
    request.setHeader(b"x-content-type-options", b"nosniff")
    if made.status in (204, 304):
        request.responseHeaders.removeHeader(b"content-type")
    else:
        request.setHeader(b"content-length", b"%d" % len(made.body))
    return made.body

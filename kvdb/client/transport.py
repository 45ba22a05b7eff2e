"""
One request to one endpoint, over treq.

Rules:

* what is not heard in time is given up, and its connection with it;
* nothing is retried here, and no redirect is followed: both would send a write
  again without anybody's knowing;
* an idle connection is dropped before a member does so (60 seconds), for a
  request that meets a closing one is lost with it.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import define, field, frozen
from hyperlink import EncodedURL
from treq.client import HTTPClient
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    TimeoutError,
    succeed,
)
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    DNSLookupError,
)
from twisted.internet.error import TimeoutError as ConnectionTimeout
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    HTTPConnectionPool,
    ResponseDone,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import (
    IAgent,
    IAgentEndpointFactory,
    IBodyProducer,
    IPolicyForHTTPS,
)
from zope.interface import implementer

from kvdb.client.tls import TLS, Untrusted

IDLE_SECONDS: Final = 30.0
"""After how long an unused connection is closed; members do so after 60."""

IDLE_CONNECTIONS: Final = 32
"""Unused connections that are kept to one endpoint."""

CONNECT_SECONDS: Final = 2.0
"""How long a connection may take to come about."""

CLOSE_SECONDS: Final = 1.0
"""How long it is waited for members to close idle connections too, as TLS has it."""

NAME_DELAY: Final = 0.1
LITERAL_DELAY: Final = 0.01
"""Seconds before a host's next address is tried beside the first (RFC 8305).  A
host whose last address has refused is known to have refused only after this."""

HIGH_BYTES: Final = 256 << 10
"""How much of a stream is held before its sender is made to wait."""

MAX_ANSWER_BYTES: Final = 64 << 20
"""The longest answer that is read whole: a page of keys whose values are 8 MiB,
in JSON."""


class NoAnswer(Exception):
    """
    An endpoint did not answer.

    @ivar sent: whether the request may have reached it.
    @ivar hopeless: whether asking it again would end the same: its certificate
        is not trusted.
    @ivar late: whether there was just no time.
    """

    def __init__(
        self, why: str, sent: bool, hopeless: bool = False, late: bool = False
    ) -> None:
        super().__init__(why)
        self.sent = sent
        self.hopeless = hopeless
        self.late = late


@frozen(slots=True)
class Request:
    """
    @ivar target: path and query, encoded.
    """

    method: str
    target: str
    body: bytes = b""
    headers: dict[str, str] = field(factory=dict)


@frozen(slots=True)
class Answer:
    """
    @ivar headers: the last of each, by lower-case name.
    """

    endpoint: str
    status: int
    headers: Mapping[str, str]
    body: bytes


class Body(Protocol):
    """The body of an answer, read as fast as it is asked for."""

    transport: Any

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._paused = False
        self._ended: Failure | None = None
        self._waiting: Deferred[None] | None = None

    def dataReceived(self, data: bytes) -> None:
        """See L{Protocol}."""
        self._chunks.append(data)
        self._held += len(data)
        if self._held > HIGH_BYTES and not self._paused:
            self._paused = True
            self.transport.pauseProducing()
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See L{Protocol}."""
        self._ended = reason
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def _forget(self, waiting: Deferred[None]) -> None:
        self._waiting = None

    async def read(self, seconds: float | None = None) -> bytes:
        """
        What has come; empty at the proper end.

        @param seconds: how long it may take.
        @raise NoAnswer: the connection was lost, or nothing came.
        """
        if not self._chunks and self._ended is None:
            waiting: Deferred[None] = Deferred(self._forget)
            self._waiting = waiting
            if seconds is not None:
                waiting.addTimeout(seconds, self._reactor)
            try:
                await waiting
            except TimeoutError:
                raise NoAnswer(f"nothing was heard for {seconds:g} s", True) from None
        if self._chunks:
            data = b"".join(self._chunks)
            self._chunks.clear()
            self._held = 0
            if self._paused:
                self._paused = False
                self.transport.resumeProducing()
            return data
        assert self._ended is not None, "woken for nothing"
        if self._ended.check(ResponseDone):
            return b""
        raise _no_answer(self._ended.value or self._ended)

    def close(self) -> None:
        """Want no more of it."""
        if self._ended is None:
            self.transport.stopProducing()


@implementer(IBodyProducer)
class _Bytes:
    """A body that is there at once."""

    def __init__(self, data: io.BytesIO) -> None:
        self._data = data.getvalue()
        self.length = len(self._data)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        """See L{IBodyProducer}."""
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """See L{IBodyProducer}."""

    def resumeProducing(self) -> None:
        """See L{IBodyProducer}."""

    def stopProducing(self) -> None:
        """See L{IBodyProducer}."""


class _Encoded(EncodedURL):
    """A URL that stays as it is: treq would read its host as a name of IDNA 2008, which
    no address of IPv6 is."""

    def to_uri(self) -> EncodedURL:
        """See L{EncodedURL}."""
        return self


@implementer(IAgentEndpointFactory)
@frozen(slots=True)
class _Ways:
    """How an endpoint is reached."""

    _reactor: Any
    _policy: IPolicyForHTTPS

    def endpointForURI(self, uri: URI) -> Any:
        """See L{IAgentEndpointFactory}."""
        host = uri.host.decode("ascii").strip("[]")
        is_literal = isIPAddress(host) or isIPv6Address(host)
        way = HostnameEndpoint(
            self._reactor,
            host,
            uri.port,
            timeout=CONNECT_SECONDS,
            attemptDelay=LITERAL_DELAY if is_literal else NAME_DELAY,
        )
        if uri.scheme != b"https":
            return way
        return wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), way)


@define(slots=True, eq=False)
class Transport:
    """
    @ivar headers: sent with each request.
    """

    reactor: Any
    headers: dict[str, str] = field(repr=False)  # credentials are among them
    _http: HTTPClient
    _close: Callable[[], Deferred[Any]]

    @classmethod
    def over_sockets(
        cls, reactor: Any, headers: dict[str, str], policy: IPolicyForHTTPS | None
    ) -> Transport:
        """With connections of its own."""
        pool = HTTPConnectionPool(reactor)
        pool.cachedConnectionTimeout = IDLE_SECONDS  # type: ignore[assignment]
        pool.maxPersistentPerHost = IDLE_CONNECTIONS
        pool.retryAutomatically = False
        ways = _Ways(reactor, policy or TLS().policy())
        agent = Agent.usingEndpointFactory(reactor, ways, pool)
        http = HTTPClient(agent, data_to_body_producer=_Bytes)
        return cls(reactor, headers, http, pool.closeCachedConnections)

    @classmethod
    def over_agent(
        cls, reactor: Any, headers: dict[str, str], agent: IAgent
    ) -> Transport:
        """With somebody else's, who closes them."""
        http = HTTPClient(agent, data_to_body_producer=_Bytes)
        return cls(reactor, headers, http, lambda: succeed(None))

    def close(self) -> Deferred[Any]:
        """Drop the connections that are idle; fires once they are gone, or soon."""
        over: Deferred[None] = Deferred()
        waiting = self.reactor.callLater(CLOSE_SECONDS, over.callback, None)

        def closed(_: object) -> None:
            if waiting.active():
                waiting.cancel()
                over.callback(None)

        self._close().addCallback(closed)
        return over

    async def ask(self, endpoint: str, request: Request, seconds: float) -> Answer:
        """
        Send it, and read all of the answer.

        @raise NoAnswer: there is none.
        """
        answer: Answer = await self._in_time(self._ask(endpoint, request), seconds)
        return answer

    async def open(
        self, endpoint: str, request: Request, seconds: float
    ) -> tuple[Answer, Body | None]:
        """
        Send it; where it is answered with 200, leave the body to be read.

        @param seconds: until the answer begins.
        @raise NoAnswer: it does not.
        """
        opened: tuple[Answer, Body | None] = await self._in_time(
            self._open(endpoint, request), seconds
        )
        return opened

    async def _in_time(self, coroutine: Any, seconds: float) -> Any:
        asking: Deferred[Any] = Deferred.fromCoroutine(coroutine)
        is_late = is_cancelled = False

        def give_up() -> None:
            nonlocal is_late
            is_late = True
            asking.cancel()

        def cancel(_: Deferred[Any]) -> None:
            nonlocal is_cancelled
            is_cancelled = True
            asking.cancel()

        # What a cancelled request ends with is now this and now that, so it is
        # noted here who cancelled it.
        answered: Deferred[Any] = Deferred(cancel)
        asking.addBoth(answered.callback)
        call = self.reactor.callLater(seconds, give_up)
        try:
            return await answered
        except (CancelledError, NoAnswer) as error:
            if is_late:
                sent = not isinstance(error, NoAnswer) or error.sent
                why = f"no answer within {seconds:.2g} s"
                raise NoAnswer(why, sent, late=True) from None
            if is_cancelled:
                raise CancelledError() from None
            raise
        finally:
            if call.active():
                call.cancel()

    async def _send(self, endpoint: str, request: Request) -> Any:
        try:
            return await self._http.request(
                request.method,
                _Encoded.from_text(endpoint + request.target),
                headers=Headers(
                    {k: [v] for k, v in (self.headers | request.headers).items()}
                ),
                data=io.BytesIO(request.body) if request.body else None,
                allow_redirects=False,
                unbuffered=True,
                reactor=self.reactor,
            )
        except CancelledError:
            raise
        except Exception as error:  # whatever sockets, TLS and parsers raise
            raise _no_answer(error) from error

    async def _open(
        self, endpoint: str, request: Request
    ) -> tuple[Answer, Body | None]:
        response = await self._send(endpoint, request)
        body = Body(self.reactor)
        response.deliverBody(body)
        headers = _headers(response)
        if response.code == 200:
            return Answer(endpoint, 200, headers, b""), body
        data = await _whole(body)
        return Answer(endpoint, response.code, headers, data), None

    async def _ask(self, endpoint: str, request: Request) -> Answer:
        response = await self._send(endpoint, request)
        body = Body(self.reactor)
        response.deliverBody(body)
        data = await _whole(body)
        return Answer(endpoint, response.code, _headers(response), data)


def _headers(response: Any) -> dict[str, str]:
    return {
        name.decode("latin-1").lower(): values[-1].decode("latin-1")
        for name, values in response.headers.getAllRawHeaders()
    }


async def _whole(body: Body) -> bytes:
    parts, size = [], 0
    try:
        while data := await body.read():
            parts.append(data)
            size += len(data)
            if size > MAX_ANSWER_BYTES:
                raise NoAnswer(
                    f"its answer has more than {MAX_ANSWER_BYTES} bytes", True
                )
    finally:
        body.close()
    return b"".join(parts)


_NOT_SENT: Final = (
    ConnectError,
    ConnectingCancelledError,
    ConnectionTimeout,
    DNSLookupError,
)
"""There was no connection to send anything over."""


def _no_answer(error: object) -> NoAnswer:
    """Why there is none, in words."""
    reasons = getattr(error, "reasons", None)
    inner = reasons[0].value if reasons else error
    if isinstance(inner, _NOT_SENT):
        return NoAnswer(_words(inner), False)
    if isinstance(inner, Untrusted):
        return NoAnswer(f"its certificate {inner}", False, True)
    if type(inner).__name__ == "VerificationError":  # of an agent that was given
        return NoAnswer("its certificate is for another name", False, True)
    text = _words(inner)
    if "certificate verify failed" in text:
        why = "its certificate is not signed by whom you trust"
        return NoAnswer(why, False, True)
    return NoAnswer(text, True)


_WORDS: Final = {
    "ConnectionRefusedError": "connection refused",
    "ConnectionDone": "the connection was closed before an answer",
    "ConnectionLost": "the connection was lost",
    "ConnectionAborted": "the connection was lost",
    "DNSLookupError": "no such host",
    "NoRouteError": "no route there",
    "ResponseNeverReceived": "the connection was closed before an answer",
    "TimeoutError": f"no connection within {CONNECT_SECONDS:g} s",
}


def _words(error: object) -> str:
    known = _WORDS.get(type(error).__name__)
    if known is not None:
        return known
    return " ".join((str(error) or type(error).__name__).split())

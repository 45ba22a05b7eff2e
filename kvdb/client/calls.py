"""
One call, whichever endpoint answers it.

Rules:

* a call goes to one endpoint until that does not answer, or answers that nothing was
  done and another may do it (L{kvdb.client.errors.Fate}), then to the next, to which
  later calls go too; after a round without success it waits a moment, and gives up
  when its time is over, or when no endpoint has space;
* what was sent and not answered is of unknown outcome, and stays so until an
  answer that only the replicated log can give says what became of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredSemaphore, TimeoutError
from twisted.internet.task import deferLater

from kvdb.client.errors import (
    DECIDED_STATUSES,
    RETRY_STATUSES,
    UNKNOWN_STATUSES,
    ClientError,
    NoSpace,
    NotTrusted,
    OutcomeUnknown,
    Unavailable,
    error_of,
    error_of_read,
)
from kvdb.client.transport import Answer, Body, NoAnswer, Request, Transport

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0
"""Seconds between two rounds over the endpoints; doubled each time, and
shortened at random by up to a half."""

MAX_REQUESTS: Final = 64
"""Requests under way at once; further ones wait, within their time."""


SAME_KEY: Final = "Try again with the same idempotency key, or read it back."
LOOK_FIRST: Final = "Look how things are before you try again."
"""What to do about a write of unknown outcome, with an idempotency key and
without one."""


@define(slots=True, eq=False)
class Endpoints:
    """Which endpoint is asked next."""

    urls: list[str]
    _next: int = 0

    @property
    def current(self) -> str:
        """Whom to ask now."""
        return self.urls[self._next % len(self.urls)]

    def failed(self, url: str) -> None:
        """Go on to the next, unless another call has done so."""
        if url == self.current:
            self._next = (self._next + 1) % len(self.urls)


@define(slots=True, eq=False)
class Attempts:
    """
    What came of the attempts of one call.

    @ivar repeatable: whether to send it again does no harm.
    @ivar unknown: whether one of them may have been carried out.
    @ivar hopeless: whether the last one would end the same again soon.
    @ivar untrusted: whether it was for its endpoint's certificate.
    @ivar full: the endpoints whose last answer was that there is no space.
    @ivar last: the last that was heard of each endpoint.
    """

    request: Request
    repeatable: bool = True
    unknown: bool = False
    hopeless: bool = False
    untrusted: bool = False
    full: set[str] = field(factory=set)
    last: dict[str, str] = field(factory=dict)

    @property
    def changes(self) -> bool:
        """Whether it may change anything."""
        return self.request.method not in ("GET", "HEAD")

    def not_answered(self, endpoint: str, error: NoAnswer) -> None:
        """
        @raise OutcomeUnknown: it may have been carried out, and cannot be sent again.
        """
        if not (error.late and endpoint in self.last):
            self.last[endpoint] = str(error)  # else what was heard before says more
        self.hopeless = self.untrusted = error.hopeless
        self.full.discard(endpoint)
        if error.sent and self.changes:
            self._not_known(endpoint)

    def not_done(self, answer: Answer) -> None:
        """As L{not_answered}, where there was an answer."""
        why = error_of(answer.status, answer.headers, answer.body, answer.endpoint)
        self.last[answer.endpoint] = str(why)
        self.hopeless, self.untrusted = isinstance(why, NoSpace), False
        if self.hopeless:
            self.full.add(answer.endpoint)
        else:
            self.full.discard(answer.endpoint)
        if answer.status in UNKNOWN_STATUSES and self.changes:
            self._not_known(answer.endpoint)

    def _not_known(self, endpoint: str) -> None:
        self.unknown = True
        if not self.repeatable:
            raise OutcomeUnknown(
                f"nobody knows whether it was done: {self.last[endpoint]}",
                endpoint=endpoint,
                hint=LOOK_FIRST,
            )

    def given_up(self) -> ClientError:
        """What to raise when there is no time left, or no hope."""
        told = "; ".join(f"{url}: {why}" for url, why in self.last.items())
        if self.unknown:
            token = self.request.headers.get("Idempotency-Key", "")[1:-1]
            return OutcomeUnknown(
                f"nobody knows whether it was done: {told or 'no answer in time'}",
                token,
                endpoint=",".join(self.last),
                hint=SAME_KEY if token else LOOK_FIRST,
            )
        if self.full and self.full == set(self.last):
            return NoSpace(
                told,
                endpoint=",".join(self.last),
                hint="Free some space on the disks of these members.",
                status=507,
            )
        if self.untrusted:
            return NotTrusted(
                told,
                endpoint=",".join(self.last),
                hint="Name the certificate to trust (cacert), and the endpoint as its"
                " certificate does.",
            )
        return Unavailable(
            told or "no answer in time",
            endpoint=",".join(self.last),
            hint="Look whether a majority of the members runs and can be reached.",
        )


@define(slots=True, eq=False)
class Calls:
    """
    @ivar timeout: seconds that a call may take in all.
    @ivar attempt_timeout: seconds for one endpoint to answer.
    @ivar entropy: so many bytes, for pauses of different lengths.
    """

    reactor: Any
    transport: Transport
    endpoints: Endpoints
    timeout: float
    attempt_timeout: float
    entropy: Callable[[int], bytes]
    _slots: DeferredSemaphore = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._slots = DeferredSemaphore(MAX_REQUESTS)

    async def call(self, request: Request, attempts: Attempts | None = None) -> Answer:
        """
        An answer of success.

        @param attempts: told what came of each.
        @raise ClientError: there is none.
        """
        attempts = attempts or Attempts(request)
        deadline = self.reactor.seconds() + self.timeout
        rounds = 0
        while True:
            hopeless = True
            for _ in self.endpoints.urls:
                answer = await self._attempt(request, attempts, deadline)
                if answer is not None:
                    return _settled(answer, attempts)
                hopeless = hopeless and attempts.hopeless
            if hopeless:
                raise attempts.given_up()
            await self.pause(rounds, deadline)
            rounds += 1

    async def _attempt(
        self, request: Request, attempts: Attempts, deadline: float
    ) -> Answer | None:
        """One attempt's answer; None if another endpoint is to be asked."""
        turn: Deferred[Any] = self._slots.acquire()
        turn.addTimeout(max(deadline - self.reactor.seconds(), 0), self.reactor)
        try:
            await turn
        except TimeoutError:
            raise attempts.given_up() from None
        endpoint = self.endpoints.current
        try:
            seconds = self._seconds(attempts, deadline)
            answer = await self.transport.ask(endpoint, request, seconds)
        except NoAnswer as error:
            self.endpoints.failed(endpoint)
            attempts.not_answered(endpoint, error)
            return None
        finally:
            self._slots.release()
        return self._passed_on(answer, attempts)

    def _seconds(self, attempts: Attempts, deadline: float | None) -> float:
        """How long the next attempt may take."""
        if deadline is None:
            return self.attempt_timeout
        left: float = deadline - self.reactor.seconds()
        if left <= 0:
            raise attempts.given_up()
        return min(left, self.attempt_timeout)

    def _passed_on(self, answer: Answer, attempts: Attempts) -> Answer | None:
        """C{answer}; None if another endpoint may have a better one."""
        if answer.status not in RETRY_STATUSES | UNKNOWN_STATUSES:
            return answer
        self.endpoints.failed(answer.endpoint)
        attempts.not_done(answer)
        return None

    async def ask_one(self, endpoint: str, request: Request) -> Answer:
        """
        A question that one endpoint alone can answer.

        @raise ClientError: it does not.
        """
        try:
            answer = await self.transport.ask(endpoint, request, self.attempt_timeout)
        except NoAnswer as error:
            raise Unavailable(
                f"{endpoint}: {error}",
                endpoint=endpoint,
                hint="Look whether that member runs and can be reached.",
            ) from error
        if answer.status != 200:
            raise error_of_read(answer.status, answer.headers, answer.body, endpoint)
        return answer

    async def connect(self, request: Request, patient: bool) -> tuple[str, Body]:
        """
        Open a stream: who answers, and its body.

        @param patient: try for ever, not just for a call's time.
        @raise ClientError: it could not be opened.
        """
        attempts = Attempts(request)
        deadline = None if patient else self.reactor.seconds() + self.timeout
        rounds = 0
        while True:
            hopeless = True
            for _ in self.endpoints.urls:
                opened = await self._open(request, attempts, deadline)
                if opened is not None:
                    return opened
                hopeless = hopeless and attempts.hopeless
            if hopeless:
                raise attempts.given_up()
            await self.pause(rounds, deadline)
            rounds += 1

    async def _open(
        self, request: Request, attempts: Attempts, deadline: float | None
    ) -> tuple[str, Body] | None:
        endpoint = self.endpoints.current
        seconds = self._seconds(attempts, deadline)
        try:
            answer, body = await self.transport.open(endpoint, request, seconds)
        except NoAnswer as error:
            self.endpoints.failed(endpoint)
            attempts.not_answered(endpoint, error)
            return None
        if body is not None:
            return endpoint, body
        refused = self._passed_on(answer, attempts)
        if refused is not None:
            raise error_of(refused.status, refused.headers, refused.body, endpoint)
        return None

    def failed(self, endpoint: str) -> None:
        """A stream of C{endpoint} is lost: ask another one next."""
        self.endpoints.failed(endpoint)

    async def pause(self, rounds: int, deadline: float | None = None) -> None:
        """Wait before another round; the longer, the more there were."""
        pause = min(FIRST_PAUSE * 2 ** min(rounds, 16), LONGEST_PAUSE)
        pause *= 1 - int.from_bytes(self.entropy(2), "big") / 2**17
        if deadline is not None:
            pause = min(pause, max(deadline - self.reactor.seconds(), 0))
        await deferLater(self.reactor, pause)


def _settled(answer: Answer, attempts: Attempts) -> Answer:
    """C{answer}, if it is one that was hoped for."""
    if 200 <= answer.status < 300:
        return answer
    if attempts.unknown and answer.status not in DECIDED_STATUSES:
        attempts.not_done(answer)
        raise attempts.given_up()
    raise error_of(answer.status, answer.headers, answer.body, answer.endpoint)

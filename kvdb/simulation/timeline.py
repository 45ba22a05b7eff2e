"""
Virtual time: one line of events for all machines, and each machine's clock.

Nothing happens but by an event, and events happen in the order of their times;
those of one time in the order in which they were asked for.  So a seed gives
the same run again.

A machine has a clock of its own, which may run fast or slow, but never jumps.
While the machine is paused its events wait; when it stops, they are gone.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from attrs import define, field
from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

Work = Callable[..., Any]


@implementer(IDelayedCall)
class Timer:
    """What a machine's C{callLater} returns."""

    __slots__ = ("_args", "_clock", "_kw", "_token", "_work", "called", "time")

    def __init__(
        self, clock: MachineClock, work: Work, args: Any, kw: dict[str, Any]
    ) -> None:
        self._clock = clock
        self._work: Work | None = work
        self._args = args
        self._kw = kw
        self._token = 0
        self.time = 0.0
        self.called = False

    def start(self, delay: float) -> None:
        """Be due so many seconds from now, by the machine's clock."""
        clock = self._clock
        self.time = clock.seconds() + delay
        self._token += 1
        clock.timeline.at(
            clock.timeline.now + delay / clock.rate, self._due, self._token, clock.life
        )

    def _due(self, token: int, life: int) -> None:
        clock = self._clock
        if token != self._token or life != clock.life or self._work is None:
            return
        if clock.paused:
            clock.waiting.append((self._due, (token, life)))
            return
        self.called = True
        # Rounding must not have it called before its time.
        clock.reached = max(clock.reached, self.time)
        work, self._work = self._work, None
        work(*self._args, **self._kw)
        clock.worked()

    def getTime(self) -> float:
        """See L{IDelayedCall}, as for all below."""
        return self.time

    def _check(self) -> None:
        if self.called:
            raise AlreadyCalled
        if self._work is None:
            raise AlreadyCancelled

    def cancel(self) -> None:
        """See there."""
        self._check()
        self._work = None

    def reset(self, secondsFromNow: float) -> None:
        """See there."""
        self._check()
        self.start(secondsFromNow)

    def delay(self, secondsLater: float) -> None:
        """See there."""
        self._check()
        self.start(self.time + secondsLater - self._clock.seconds())

    def active(self) -> bool:
        """See there."""
        return self._work is not None


@define(slots=True, eq=False)
class Timeline:
    """
    @ivar now: true time, in seconds.
    @ivar events: how many have happened.
    """

    now: float = 0.0
    events: int = 0
    stopped: bool = False
    _heap: list[tuple[float, int, Work, tuple[Any, ...]]] = field(factory=list)
    _count: int = 0

    def at(self, when: float, work: Work, *args: Any) -> None:
        """Have C{work} done at a time, which must not be past."""
        self._count += 1
        heappush(self._heap, (max(when, self.now), self._count, work, args))

    def after(self, delay: float, work: Work, *args: Any) -> None:
        """Have C{work} done in so many seconds."""
        self.at(self.now + delay, work, *args)

    def run(self, until: float) -> None:
        """Let time pass up to C{until}, or until L{stop}."""
        heap = self._heap
        self.stopped = False
        while heap and heap[0][0] <= until and not self.stopped:
            self.now, _, work, args = heappop(heap)
            self.events += 1
            work(*args)
        if not self.stopped:
            self.now = max(self.now, until)

    def stop(self) -> None:
        """Let no more time pass."""
        self.stopped = True


@implementer(IReactorTime)
@define(slots=True, eq=False)
class MachineClock:
    """
    @ivar rate: how fast it runs, 1 being right.
    @ivar life: counts the machine's starts; events of an earlier one are gone.
    @ivar waiting: what was due while it was paused.
    @ivar worked: told after each piece of work.
    @ivar reached: it shows no less any more.
    """

    timeline: Timeline
    worked: Callable[[], None]
    rate: float = 1.0
    life: int = 0
    paused: bool = False
    waiting: list[tuple[Work, tuple[Any, ...]]] = field(factory=list)
    reached: float = 0.0
    _base: float = 0.0
    _since: float = 0.0

    def seconds(self) -> float:
        """See L{IReactorTime}, as for all below."""
        now = self._base + (self.timeline.now - self._since) * self.rate
        return now if now > self.reached else self.reached

    def run_at(self, rate: float) -> None:
        """Run so fast from now on; what is due already is due as it was."""
        self._base = self.seconds()
        self._since = self.timeline.now
        self.rate = rate

    def callLater(self, delay: float, callable: Work, *args: Any, **kw: Any) -> Timer:
        """See there."""
        timer = Timer(self, callable, args, kw)
        timer.start(delay)
        return timer

    def getDelayedCalls(self) -> list[Timer]:
        """See there; not kept here."""
        raise NotImplementedError

    def pause(self) -> None:
        """Do nothing until L{resume}."""
        self.paused = True

    def resume(self) -> None:
        """Do all that was due meanwhile."""
        self.paused = False
        waiting, self.waiting = self.waiting, []
        for work, args in waiting:
            self.timeline.after(0, work, *args)

    def end(self) -> None:
        """Drop all that is due: the machine is gone."""
        self.life += 1
        self.paused = False
        self.waiting = []

    def arrange(self, work: Work, *args: Any) -> None:
        """Do C{work} for this machine now, or when it is no longer paused."""
        if self.paused:
            self.waiting.append((self.arrange, (work, *args)))
        else:
            work(*args)
            self.worked()

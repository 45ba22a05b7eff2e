"""
Whether a history can be that of one copy of the data: linearizability.

Each key is looked at on its own, which is enough (Herlihy and Wing, 1990,
theorem 1).  The search is that of Wing and Gong (1993) with the memory of
Lowe (2017): choose, among the operations that no unfinished one must precede,
one that the state allows; remember which sets with which state led nowhere.

Three things make it quick: an operation that changes nothing and fits is taken
at once, for it could be moved to here from any later place; every write has a
value of its own and, once seen, a revision, so the state says which write it
is; and operations of unknown outcome, which may be left out, come last.

Beside it, what holds over all keys: L{check} looks at the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import frozen

from kvdb.simulation.history import History, Kind, Operation, Result

MAX_STEPS: Final = 400_000
"""Choices tried for one key; beyond them it stays undecided, and the check
fails, saying so."""

SHOWN_OPERATIONS: Final = 24
"""Of a history that is refused, so many operations are shown."""


class Violation(AssertionError):
    """A rule does not hold; the text says which, and shows it."""


@frozen(slots=True)
class _State:
    """
    A key.

    @ivar value: of the write that made it; None while there is none.
    @ivar revision: its own or that of its deletion; None where nobody saw it.
    """

    value: str | None = None
    revision: int | None = 0


def _after(state: _State, revision: int | None) -> bool:
    """Whether a change at C{revision} may follow."""
    return revision is None or state.revision is None or revision > state.revision


def _allowed(state: _State, operation: Operation) -> bool:
    """Whether what the condition speaks of is so."""
    expected = operation.expected
    if expected is None:
        return True
    if expected == 0:
        return state.value is None
    return state.value is not None and state.revision == expected


def _step(state: _State, operation: Operation, revision: int | None) -> _State | None:
    """
    The state after C{operation}; None where it cannot come now.

    @param revision: that of the change, if anybody saw it.
    """
    result, present = operation.result, state.value is not None
    if operation.kind is Kind.GET:
        return state if operation.value == state.value else None
    if result is Result.ABSENT:
        return None if present else state
    if result is Result.CONDITION_FAILED:
        if (operation.revision == 0) == present or operation.expected is None:
            return None
        seen = operation.revision if present else 0
        fits = not present or state.revision in (None, seen)
        return state if fits and operation.expected != seen else None
    if not _allowed(state, operation) or not _after(state, revision):
        return None
    if operation.kind is Kind.PUT:
        return _State(operation.value, revision)
    return _State(None, revision) if present else None


def _is_change(operation: Operation) -> bool:
    return operation.kind is not Kind.GET and (
        operation.result is Result.DONE or not operation.is_definite
    )


def check_key(operations: Sequence[Operation]) -> None:
    """
    Check what was done to one key.

    @param operations: without stale reads and without what was refused.
    @raise Violation: no order explains it, or none was found in L{MAX_STEPS}.
    """
    ops = sorted(
        (o for o in operations if o.is_definite or o.kind is not Kind.GET),
        key=lambda o: o.invoked,
    )
    # A write of unknown outcome has the revision at which it was read.
    seen = {o.value: o.revision for o in ops if o.kind is Kind.GET and o.value}
    revisions = [
        o.revision if o.result is Result.DONE else seen.get(o.value or "") for o in ops
    ]
    search = _Search(ops, revisions)
    if not search.run():
        raise Violation(search.complaint())


class _Search:
    def __init__(
        self, ops: Sequence[Operation], revisions: Sequence[int | None]
    ) -> None:
        self.ops = ops
        self.revisions = revisions
        self.definite = sum(1 << i for i, o in enumerate(ops) if o.is_definite)
        self.deepest: tuple[int, int, _State] = (0, 0, _State())
        self.steps = 0

    def run(self) -> bool:
        """Whether an order is found; goes deep first, by a stack of its own."""
        done, state = self._settle(0, _State())
        tried = {(done, state)}
        stack = [(done, state, self._choices(done))]
        while stack:
            done, state, choices = stack[-1]
            if done & self.definite == self.definite:
                return True
            if not choices:
                stack.pop()
                continue
            self.steps += 1
            if self.steps > MAX_STEPS:
                return False
            index = choices.pop()
            after = _step(state, self.ops[index], self.revisions[index])
            if after is None:
                continue
            following = self._settle(done | 1 << index, after)
            if following not in tried:
                tried.add(following)
                stack.append((*following, self._choices(following[0])))
        return False

    def _open(self, done: int) -> list[int]:
        """Which operations may come next: no unfinished one ended before."""
        ops = self.ops
        bound = float("inf")
        found = []
        index = (~done & (done + 1)).bit_length() - 1  # the first not done
        while index < len(ops) and ops[index].invoked <= bound:
            if not done >> index & 1:
                bound = min(bound, ops[index].returned)
                found.append(index)
            index += 1
        return [i for i in found if ops[i].invoked <= bound]

    def _choices(self, done: int) -> list[int]:
        """The changes that may come next, the best to try last in the list."""
        found = [i for i in self._open(done) if _is_change(self.ops[i])]
        return sorted(found, key=lambda i: self.ops[i].returned, reverse=True)

    def _settle(self, done: int, state: _State) -> tuple[int, _State]:
        """Take all that changes nothing and fits."""
        more = True
        while more:
            more = False
            for index in self._open(done):
                operation = self.ops[index]
                if not _is_change(operation) and _step(state, operation, None):
                    done |= 1 << index
                    more = True
        count = done.bit_count()
        if count > self.deepest[0]:
            self.deepest = (count, done, state)
        return done, state

    def complaint(self) -> str:
        """What went on where no order leads further."""
        count, done, state = self.deepest
        why = "no order explains" if self.steps <= MAX_STEPS else "undecided:"
        stuck = self._open(done)
        around = max(0, min(stuck, default=0) - SHOWN_OPERATIONS // 2)
        shown = range(around, min(len(self.ops), around + SHOWN_OPERATIONS))
        lines = [
            f"linearizability: {why} what was done to {self.ops[0].key};"
            f" {count} of {len(self.ops)} operations fit, the last state being"
            f" {state.value} at {state.revision}.  Those marked > do not follow:"
        ]
        for index in shown:
            mark = ">" if index in stuck else " " if done >> index & 1 else "?"
            lines.append(f"  {mark} {self.ops[index]}")
        return "\n".join(lines)


def check(history: History) -> None:
    """
    Check a whole history: linearizability key by key, and over all keys that
    revisions are given once and in the order of time, that nothing is read that
    was refused or never written, and that stale reads are of the past.

    @raise Violation: something does not hold.
    """
    _check_values(history)
    _check_revisions(history)
    _check_stale_reads(history)
    for operations in history.by_key().values():
        check_key(
            [o for o in operations if not o.stale and o.result is not Result.REFUSED]
        )


def _check_values(history: History) -> None:
    writes = {
        (o.key, o.value): o
        for o in history
        if o.kind is Kind.PUT and o.result is not Result.CONDITION_FAILED
    }
    for read in history:
        if read.kind is Kind.GET and read.value is not None:
            write = writes.get((read.key, read.value))
            if write is None:
                raise Violation(f"a value was read that nobody wrote:\n  {read}")
            if write.result is Result.REFUSED:
                raise Violation(f"a refused write was done:\n  {write}\n  {read}")
            if write.invoked > read.returned:
                raise Violation(f"a read of the future:\n  {write}\n  {read}")
            if write.result is Result.DONE and write.revision != read.revision:
                raise Violation(f"two revisions of one write:\n  {write}\n  {read}")


def _check_revisions(history: History) -> None:
    changes = [
        o
        for o in history
        if o.kind is not Kind.GET and o.result is Result.DONE and o.revision is not None
    ]
    taken: dict[int | None, Operation] = {}
    for change in changes:
        other = taken.setdefault(change.revision, change)
        if other is not change:
            raise Violation(f"one revision given twice:\n  {other}\n  {change}")
    newest = 0
    last: Operation | None = None
    ended = sorted(changes, key=lambda o: o.returned)
    position = 0
    for change in sorted(changes, key=lambda o: o.invoked):
        while position < len(ended) and ended[position].returned < change.invoked:
            if (ended[position].revision or 0) > newest:
                last = ended[position]
                newest = last.revision or 0
            position += 1
        if (change.revision or 0) < newest:
            raise Violation(f"revisions against the time:\n  {last}\n  {change}")


def _check_stale_reads(history: History) -> None:
    newest: dict[tuple[int, int, str], Operation] = {}
    for read in sorted(
        (o for o in history if o.stale and o.result is Result.DONE and o.revision),
        key=lambda o: o.returned,
    ):
        place = (read.node, read.life, read.key)
        before = newest.get(place)
        if before is not None and (before.revision or 0) > (read.revision or 0):
            if before.returned < read.invoked:
                raise Violation(f"a member went back in time:\n  {before}\n  {read}")
            continue
        newest[place] = read

"""
Whether a history can be that of one copy of the data: linearizability.

Each key is looked at on its own, which is enough (Herlihy and Wing, 1990,
theorem 1).  The search is that of Wing and Gong (1993) with the memory of
Lowe (2017): choose, among the operations that no unfinished one must precede,
one that the state allows; remember which sets with which state led nowhere.

Three things make it quick: an operation that changes nothing and fits is taken
at once, for it could be moved to here from any later place; every write has a
value of its own and, once seen, a revision, so the state says which write it
is; and operations of unknown outcome, which may be left out, come last.  Writes
of unknown outcome whose value nobody read are all alike: they are taken
together, as something that may stand there since the first of them was begun.
This lets pass what exact account of them might not, and nothing else: where a
key was seen to be there only by a condition or a deletion.

Beside it, what holds over all keys: L{check} looks at the whole.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final

from attrs import frozen

from kvdb.simulation.history import NEVER, History, Kind, Operation, Result

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


_UNREAD: Final = _State("a value that nobody read", None)


def _after(state: _State, revision: int | None) -> bool:
    """Whether a change at C{revision} may follow."""
    return revision is None or state.revision is None or revision > state.revision


def _is_at(state: _State, revision: int, known: Container[int | None]) -> bool:
    """
    Whether a state may be that of C{revision}, 0 for no such key.

    @param known: the revisions of which it is known whose they are; a write
        that nobody read may have any other, seen where a condition failed.
    """
    if state.value is None or revision == 0:
        return state.value is None and revision == 0
    if state.revision is None:
        return revision not in known
    return state.revision == revision


def _step(
    state: _State,
    operation: Operation,
    revision: int | None,
    known: Container[int | None],
) -> _State | None:
    """
    The state after C{operation}; None where it cannot come now.

    @param revision: that of the change, if anybody saw it.
    """
    result, present = operation.result, state.value is not None
    if operation.kind is Kind.GET:
        return state if operation.value == state.value else None
    if result is Result.ABSENT:
        return None if present else state
    expected = operation.expected
    if result is Result.CONDITION_FAILED:
        seen = operation.revision or 0
        if expected is None or expected == seen:
            return None
        return state if _is_at(state, seen, known) else None
    if expected is not None and not _is_at(state, expected, known):
        return None
    if not _after(state, revision):
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
    read = {o.value: o.revision for o in operations if o.kind is Kind.GET}
    ops, spare = [], []
    for operation in sorted(operations, key=lambda o: o.invoked):
        if operation.is_definite:
            ops.append(operation)
        elif operation.kind is Kind.DELETE or operation.value in read:
            if operation.kind is not Kind.GET:
                ops.append(operation)
        elif operation.kind is Kind.PUT:
            spare.append(operation)
    # A write of unknown outcome has the revision at which it was read.
    revisions = [
        o.revision if o.result is Result.DONE else read.get(o.value or "") for o in ops
    ]
    search = _Search(ops, revisions, spare)
    if not search.run():
        raise Violation(search.complaint())


class _Search:
    def __init__(
        self,
        ops: Sequence[Operation],
        revisions: Sequence[int | None],
        spare: Sequence[Operation],
    ) -> None:
        self.ops = ops
        self.revisions = revisions
        self.spare = spare
        self.known = set(revisions)
        seen = [i for i, r in enumerate(revisions) if r and _is_change(ops[i])]
        self.by_revision = sorted(seen, key=lambda i: revisions[i] or 0)
        self.definite = sum(1 << i for i, o in enumerate(ops) if o.is_definite)
        self.deepest: tuple[int, int, _State] = (0, 0, _State())
        self.steps = 0

    def run(self) -> bool:
        """Whether an order is found; goes deep first, by a stack of its own."""
        first = self._settle(0, _State())
        tried = {first}
        stack = [(first, self._choices(*first))]
        while stack:
            (done, _), choices = stack[-1]
            if done & self.definite == self.definite:
                return True
            if not choices:
                stack.pop()
                continue
            self.steps += 1
            if self.steps > MAX_STEPS:
                return False
            following = self._settle(*choices.pop())
            if following not in tried:
                tried.add(following)
                stack.append((following, self._choices(*following)))
        return False

    def _open(self, done: int) -> tuple[list[int], float]:
        """
        Which operations may come next: no unfinished one ended before; and
        when the first of those ended.
        """
        ops = self.ops
        bound = NEVER
        found = []
        index = (~done & (done + 1)).bit_length() - 1  # the first not done
        while index < len(ops) and ops[index].invoked <= bound:
            if not done >> index & 1:
                bound = min(bound, ops[index].returned)
                found.append(index)
            index += 1
        return [i for i in found if ops[i].invoked <= bound], bound

    def _choices(self, done: int, state: _State) -> list[tuple[int, _State]]:
        """What a change may lead to next, the best to try last in the list."""
        found = []
        open_, bound = self._open(done)
        for one in self.spare:
            if one.invoked > bound or state == _UNREAD:
                break
            if one.expected is None or _is_at(state, one.expected, self.known):
                found.append((done, _UNREAD))
                break
        open_.sort(key=lambda i: self.ops[i].returned, reverse=True)
        lowest = self._next_seen(done)
        for index in open_:
            operation = self.ops[index]
            revision = self.revisions[index]
            if _is_change(operation) and (revision is None or index == lowest):
                after = _step(state, operation, self.revisions[index], self.known)
                if after is not None:
                    found.append((done | 1 << index, after))
        return found

    def _next_seen(self, done: int) -> int | None:
        """
        The change that comes next of those whose revision was seen: all of
        them happened, and in the order of their revisions.
        """
        for index in self.by_revision:
            if not done >> index & 1:
                return index
        return None

    def _settle(self, done: int, state: _State) -> tuple[int, _State]:
        """Take all that changes nothing and fits."""
        more = True
        while more:
            more = False
            for index in self._open(done)[0]:
                operation = self.ops[index]
                if not _is_change(operation) and _step(
                    state, operation, None, self.known
                ):
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
        stuck, _ = self._open(done)
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

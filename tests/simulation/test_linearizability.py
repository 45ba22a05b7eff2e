"""
The checker of histories, held against one that tries every order.
"""

from __future__ import annotations

import io
import itertools
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from kvdb.simulation.history import NEVER, History, Kind, Operation, Result
from kvdb.simulation.linearizability import Violation, check, check_key


def op(
    kind: Kind, invoked: float, returned: float = NEVER, **fields: object
) -> Operation:
    result = Result.UNKNOWN if returned == NEVER else Result.DONE
    fields = {"result": result, "client": 1, "key": "k", **fields}
    return Operation(kind=kind, invoked=invoked, returned=returned, **fields)  # type: ignore[arg-type]


def put(at: float, until: float, value: str, revision: int | None = None) -> Operation:
    return op(Kind.PUT, at, until, value=value, revision=revision)


def get(at: float, until: float, value: str | None, revision: int = 0) -> Operation:
    result = Result.ABSENT if value is None else Result.DONE
    return op(
        Kind.GET, at, until, value=value, revision=revision or None, result=result
    )


def holds(operations: list[Operation]) -> bool:
    history = History(operations)
    try:
        check(history)
    except Violation:
        return False
    return True


def brute_force(operations: list[Operation]) -> bool:
    """Every order of every choice of what unknown ones were done."""
    definite = [o for o in operations if o.is_definite]
    unknown = [o for o in operations if not o.is_definite]
    for count in range(len(unknown) + 1):
        for chosen in itertools.combinations(unknown, count):
            for order in itertools.permutations([*definite, *chosen]):
                if explains(order):
                    return True
    return False


def explains(order: tuple[Operation, ...]) -> bool:
    for earlier, later in itertools.combinations(order, 2):
        if later.returned < earlier.invoked:
            return False
    value: str | None = None
    revision = 0
    known = {o.value: o.revision for o in order if o.kind is Kind.GET and o.revision}
    for one in order:
        if one.kind is Kind.GET:
            if one.value != value:
                return False
            continue
        here = 0 if value is None else revision
        fits = one.expected is None or one.expected == here
        if one.result is Result.CONDITION_FAILED:
            if fits or one.revision != here:
                return False
        elif one.result is Result.ABSENT:
            if value is not None:
                return False
        else:
            own = one.revision or known.get(one.value) or 0
            if not fits or own <= revision:
                return False
            if one.kind is Kind.DELETE and value is None:
                return False
            value = one.value if one.kind is Kind.PUT else None
            revision = own
    return True


def made_up(seed: int, lies: bool) -> list[Operation]:
    """A history of one register, with some answers changed where it lies."""
    random = Random(seed)
    now = 0.0
    value, revision = None, 0
    found = []
    for number in range(random.randint(1, 6)):
        now += 1
        begun = now - random.choice([0.2, 0.6, 1.5, 3.1])
        ended = now + random.choice([0.1, 0.7, 1.4, 2.9])
        kind = random.choice(list(Kind))
        made = op(kind, begun, ended, client=number)
        here = 0 if value is None else revision
        if kind is Kind.GET:
            made.value, made.revision = value, here or None
            made.result = Result.DONE if value else Result.ABSENT
        else:
            if random.random() < 0.5:
                made.expected = random.choice([here, here, 0, 2])
            if kind is Kind.PUT:
                made.value = f"v{number}"
            if made.expected not in (None, here):
                made.result, made.revision = Result.CONDITION_FAILED, here
            elif kind is Kind.DELETE and value is None:
                made.result = Result.ABSENT
                made.revision = None
                made.expected = None
            else:
                revision += random.randint(1, 2)
                made.revision = revision
                value = made.value if kind is Kind.PUT else None
        found.append(made)
    if lies:
        liar = random.choice(found)
        if liar.kind is Kind.GET:
            other = random.choice(found)
            if other.kind is Kind.PUT and other.result is Result.DONE:
                liar.value, liar.revision = other.value, other.revision
                liar.result = Result.DONE
            else:
                liar.value, liar.revision, liar.result = None, None, Result.ABSENT
        else:
            liar.invoked += random.choice([-2, 2])
            liar.returned = max(liar.returned, liar.invoked)
    return found


class Register(SynchronousTestCase):
    """Against every order there is."""

    def test_true_histories_and_false_ones_are_told_apart(self) -> None:
        told = {True: 0, False: 0}

        for seed in range(5000):
            lies = seed % 3 > 0
            operations = made_up(seed, lies)
            expected = brute_force(operations)
            try:
                check_key(operations)
                found = True
            except Violation:
                found = False
            self.assertEqual(found, expected, [str(o) for o in operations])
            self.assertTrue(found or lies)
            told[expected] += 1
        self.assertGreater(told[True], 100)
        self.assertGreater(told[False], 100)

    def test_a_read_of_what_was_overwritten(self) -> None:
        writes = [put(0, 1, "a", 1), put(2, 3, "b", 2)]
        self.assertTrue(holds([*writes, get(4, 5, "b", 2)]))
        self.assertFalse(holds([*writes, get(4, 5, "a", 1)]))
        self.assertTrue(holds([*writes, get(2.5, 5, "a", 1)]))

    def test_an_unknown_write_may_come_late_or_never(self) -> None:
        writes = [put(0, NEVER, "a"), put(1, 2, "b", 1)]
        self.assertTrue(holds([*writes, get(3, 4, "b", 1)]))
        self.assertTrue(holds([*writes, get(3, 4, "b", 1), get(5, 6, "a", 2)]))
        back = [get(3, 4, "b", 1), get(5, 6, "a", 2), get(7, 8, "b", 1)]
        self.assertFalse(holds([*writes, *back]))

    def test_an_unknown_write_carried_out_twice(self) -> None:
        writes = [put(0, NEVER, "a"), put(3, 4, "b", 2)]
        reads = [get(1, 2, "a", 1), get(5, 6, "a", 3)]
        self.assertFalse(holds([*writes, *reads]))

    def test_a_condition_that_should_have_failed(self) -> None:
        first = put(0, 1, "a", 1)
        second = op(Kind.PUT, 2, 3, value="b", expected=1, revision=2)
        third = op(Kind.PUT, 4, 5, value="c", expected=1, revision=3)
        self.assertTrue(holds([first, second]))
        self.assertFalse(holds([first, second, third]))
        third.result, third.revision = Result.CONDITION_FAILED, 2
        self.assertTrue(holds([first, second, third]))
        third.revision = 1
        self.assertFalse(holds([first, second, third]))

    def test_a_long_history_with_many_unknown_writes(self) -> None:
        operations = []
        for number in range(400):
            at = float(number)
            if number % 5 == 0:
                operations.append(put(at, NEVER, f"u{number}"))
            else:
                operations.append(put(at, at + 3.5, f"v{number}", number + 1))
            if number > 5:
                last = number - 1 if (number - 1) % 5 else number - 2
                operations.append(get(at + 3.6, at + 3.7, f"v{last + 4}", last + 5))
        operations = [o for o in operations if not (o.value or "").startswith("v40")]
        reads = [o for o in operations if o.kind is Kind.GET]
        written = {o.value for o in operations if o.kind is Kind.PUT}
        self.assertGreater(len(reads), 300)
        operations = [o for o in operations if o.value in written]
        self.assertTrue(holds(operations))


class Whole(SynchronousTestCase):
    """What holds over all keys."""

    def test_refused_means_never(self) -> None:
        write = put(0, 1, "a")
        write.result = Result.REFUSED
        self.assertTrue(holds([write, get(2, 3, None)]))
        self.assertFalse(holds([write, get(2, 3, "a", 1)]))

    def test_nobody_wrote_it(self) -> None:
        self.assertFalse(holds([get(2, 3, "a", 1)]))

    def test_the_future(self) -> None:
        read = get(2, 3, "a", 1)
        read.stale = True
        self.assertFalse(holds([read, put(4, 5, "a", 1)]))

    def test_revisions_are_given_once_and_in_order(self) -> None:
        def other(write: Operation) -> Operation:
            write.key = "other"
            return write

        self.assertFalse(holds([put(0, 1, "a", 1), other(put(0, 1, "b", 1))]))
        self.assertTrue(holds([put(0, 1, "a", 1), other(put(2, 3, "b", 2))]))
        self.assertFalse(holds([put(0, 1, "a", 2), other(put(2, 3, "b", 1))]))

    def test_a_stale_read_is_of_the_past_and_goes_on(self) -> None:
        writes = [put(0, 1, "a", 1), put(2, 3, "b", 2)]
        reads = [get(4, 5, "a", 1), get(6, 7, "b", 2)]
        for read in reads:
            read.stale = True
        self.assertTrue(holds([*writes, *reads]))
        reads[1].value, reads[1].revision = "a", 1
        reads[0].value, reads[0].revision = "b", 2
        self.assertFalse(holds([*writes, *reads]))
        reads[1].life = 1
        self.assertTrue(holds([*writes, *reads]))

    def test_it_is_kept_in_lines(self) -> None:
        history = History(made_up(3, False))
        file = io.StringIO()
        history.write(file)
        again = History.read(file.getvalue().splitlines())
        self.assertEqual([str(o) for o in again], [str(o) for o in history])

"""What the simulator's watchers hold against a cluster."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from attrs import evolve

from kvdb.node.watches import Watches
from kvdb.simulation.history import History, Kind, Operation, Result
from kvdb.simulation.linearizability import Violation
from kvdb.simulation.run import run
from kvdb.simulation.swarm import draw_case
from kvdb.simulation.watchers import Chronicle, Watcher


class Quiet:
    """No reactor: nothing is waited for."""

    def callLater(self, *_: Any) -> Any:
        class Call:
            def active(self) -> bool:
                return False

        return Call()


def watcher(place: int | None) -> Watcher:
    one = Watcher(
        reactor=Quiet(),  # type: ignore[arg-type]
        random=Random(1),
        chronicle=Chronicle(),
        members=lambda: [1],
        counts=Counter(),
        place=place,
    )
    one._stream = "the stream"  # type: ignore[assignment]
    return one


def event(name: str, revision: int, value: str = "v") -> dict[str, str]:
    data = f'{{"key": "/k", "value": "{value}"}}'
    return {"event": name, "id": str(revision), "data": data}


@pytest.mark.parametrize(
    ("name", "revision"),
    [("put", 7), ("put", 9), ("delete", 5), ("progress", 8), ("ready", 6)],
)
def test_one_that_is_missing_or_repeated_is_seen(name: str, revision: int) -> None:
    one = watcher(7)
    with pytest.raises(Violation):
        one.heard("the stream", event(name, revision))  # type: ignore[arg-type]
    assert one.place == 7


def test_two_who_are_told_otherwise_are_seen() -> None:
    chronicle = Chronicle()
    chronicle.note(3, ("put", "/k", "v"))
    chronicle.note(3, ("put", "/k", "v"))
    with pytest.raises(Violation):
        chronicle.note(3, ("put", "/k", "w"))


@pytest.mark.parametrize("told", [("put", "/k", "w"), ("delete", "/k", None)])
def test_what_is_told_otherwise_than_it_was_answered_is_seen(told: Any) -> None:
    history = History()
    write = history.begin(Operation(1, Kind.PUT, "k", 0.0, value="v"))
    write.end(1.0, Result.DONE, 3)
    right, wrong = Chronicle(), Chronicle()
    right.note(3, ("put", "/k", "v"))
    assert right.check(history) == 1
    wrong.note(3, told)
    with pytest.raises(Violation):
        wrong.check(history)


@pytest.mark.parametrize("fault", ["a change left out", "a change told twice"])
def test_a_node_that_tells_wrong_is_found(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = Watches._tell
    counted = Counter[str]()

    def wrong(self: Watches, *told: Any) -> bool:
        counted["changes"] += 1
        times = 1
        if counted["changes"] == 20:
            times = 0 if fault == "a change left out" else 2
        return all(tell(self, *told) for _ in range(times))

    monkeypatch.setattr(Watches, "_tell", wrong)
    case = draw_case(1, 20.0)
    plan = case.plan
    plan = evolve(plan, workload=evolve(plan.workload, watchers=3))
    report = run(evolve(case, plan=plan, faults=[]))
    assert report.violation is not None
    assert "comes to one who is at" in report.violation

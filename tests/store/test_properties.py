"""What holds of any commands."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvdb.store import outcomes
from kvdb.store.commands import (
    Command,
    Compact,
    Condition,
    ConditionKind,
    Delete,
    Outcome,
    OutcomeStatus,
    Put,
    Record,
)
from kvdb.store.store import Compacted, Store
from tests.store.entries import bootstrap, do
from tests.store.suite import OnRocks, StoreTestCase

DONE, NOT_FOUND = OutcomeStatus.DONE, OutcomeStatus.NOT_FOUND
FAILED, REFUSED = OutcomeStatus.CONDITION_FAILED, OutcomeStatus.REFUSED


COMMANDS = st.one_of(
    st.builds(
        Put,
        st.sampled_from([b"", b"a", b"a\0", b"a\0\xff", b"b"]),
        st.binary(max_size=3),
        st.builds(Condition, st.sampled_from(ConditionKind), st.integers(0, 8)),
        st.sampled_from([b"", b"", b"1", b"2", b"3"]),
    ),
    st.builds(
        Delete,
        st.sampled_from([b"", b"a", b"a\0", b"a\0\xff", b"b"]),
        st.builds(Condition, st.sampled_from(ConditionKind), st.integers(0, 8)),
        st.sampled_from([b"", b"", b"1", b"2", b"3"]),
    ),
    st.builds(Compact, st.integers(0, 12)),
)


FEW = settings(deadline=None, max_examples=50, suppress_health_check=list(HealthCheck))


class Model:
    """What a store is: a list of states, one for each revision."""

    def __init__(self) -> None:
        self.states: list[dict[bytes, Record]] = [{}]
        self.compacted = 0
        self.tokens: dict[bytes, tuple[object, Outcome]] = {}

    def apply(self, command: Command) -> Outcome:
        if isinstance(command, Compact):
            self.compacted = max(self.compacted, min(command.revision, self.newest))
            return Outcome(DONE, self.compacted)
        assert isinstance(command, Put | Delete)
        token = command.idempotency_key
        if token in self.tokens:
            first, outcome = self.tokens[token]
            if first != normal(command):
                return Outcome(REFUSED)
            return outcome
        outcome = self.write(command)
        if token:
            self.tokens[token] = (normal(command), outcome)
            if len(self.tokens) > 2:
                del self.tokens[next(iter(self.tokens))]
        return outcome

    def write(self, command: Put | Delete) -> Outcome:
        state = dict(self.states[-1])
        current = state.get(command.key)
        at = current.mod_revision if current else 0
        holds = {
            ConditionKind.ALWAYS: True,
            ConditionKind.EXISTS: current is not None,
            ConditionKind.ABSENT: current is None,
            ConditionKind.REVISION: at == command.condition.revision and at > 0,
        }
        if not holds[command.condition.kind]:
            return Outcome(FAILED, at)
        revision = len(self.states)
        if isinstance(command, Put):
            created = current.create_revision if current else revision
            version = current.version + 1 if current else 1
            state[command.key] = Record(command.value, created, revision, version)
        elif current is None:
            return Outcome(NOT_FOUND)
        else:
            del state[command.key]
        self.states.append(state)
        return Outcome(DONE, revision)

    @property
    def newest(self) -> int:
        return len(self.states) - 1


def normal(command: Put | Delete) -> object:
    """What makes two commands the same."""
    condition = command.condition
    return (type(command), command.key, getattr(command, "value", b""), condition)


class PropertiesTests(StoreTestCase):
    """What holds of any commands."""

    def fresh(self) -> Store:
        store = Store.open(self.make_engines())
        bootstrap(store)
        return store

    @FEW
    @given(st.lists(COMMANDS, max_size=20), st.data())
    def test_batches_in_any_split_give_the_same(
        self, commands: list[Command], data: st.DataObject
    ) -> None:
        self.patch(outcomes, "MAX_IDEMPOTENCY_KEYS", 2)
        whole, split = self.fresh(), self.fresh()
        expected = do(whole, *commands)
        found: list[Outcome] = []
        rest = commands
        while rest:
            count = data.draw(st.integers(1, len(rest)))
            found += do(split, *rest[:count])
            rest = rest[count:]
        self.assertEqual(found, expected)
        if commands:
            self.assertEqual(split.digest(), whole.digest())
        whole.close()
        split.close()

    @FEW
    @given(st.lists(COMMANDS, max_size=25), st.data())
    def test_a_store_is_a_list_of_states(
        self, commands: list[Command], data: st.DataObject
    ) -> None:
        self.patch(outcomes, "MAX_IDEMPOTENCY_KEYS", 2)
        store, model = self.fresh(), Model()
        for command in commands:
            [outcome] = do(store, command)
            expected = model.apply(command)
            self.assertEqual(
                (outcome.status, outcome.revision), (expected.status, expected.revision)
            )
            if data.draw(st.booleans()):
                store.compact_slice(data.draw(st.integers(1, 3)))
        self.check(store, model)
        while store.compact_slice(2):
            pass
        self.check(store, model)
        store.close()

    def check(self, store: Store, model: Model) -> None:
        self.assertEqual(store.revision, model.newest)
        self.assertEqual(store.compacted_revision, model.compacted)
        found = dict(store.range(b"", b"\xff", 100))
        self.assertEqual(found, model.states[-1])
        for key in (b"", b"a", b"a\0", b"a\0\xff", b"b"):
            for revision in range(model.newest + 1):
                if revision < model.compacted:
                    self.assertRaises(Compacted, store.get, key, revision)
                else:
                    self.assertEqual(
                        store.get(key, revision), model.states[revision].get(key)
                    )
        self.assertEqual(
            [revision for revision, _ in store.events(model.compacted)],
            list(range(model.compacted + 1, model.newest + 1)),
        )


class PropertiesOnRocksTests(OnRocks, PropertiesTests):
    """On the engine of real members."""

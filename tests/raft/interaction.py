"""
The interaction language: nodes of one group, driven and watched step by step.

An L{Interaction} holds the nodes, the messages in flight between them, and a
transcript to which everything that happens is written.  One command is one
method; C{COMMANDS} lists them.  Nothing happens by itself: no clock runs, no
message moves, no disk is written until a command says so.

State carries over from command to command, and so from case to case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from attrs import define, evolve, field

from kvdb.raft.config import LocalMessage, PeerNotFound, ProposalDropped
from kvdb.raft.messages import (
    APPEND_THREAD,
    APPLY_THREAD,
    ConfChange,
    ConfChangeTransition,
    ConfChangeV2,
    HardState,
    Message,
    MessageType,
    Role,
)
from kvdb.raft.progress import describe_progress_map
from kvdb.raft.state import ROLE_NAMES
from kvdb.raft.storage import Compacted, SnapshotTemporarilyUnavailable, Unavailable
from tests.raft.casefile import Case, CommandFailed, MalformedCase, parse_number
from tests.raft.descriptions import (
    MESSAGE_TYPES,
    describe_entries,
    describe_message,
    describe_messages,
    describe_ready,
    parse_changes,
)
from tests.raft.nodes import (
    ELECTION_TICK,
    FLAGS,
    HEARTBEAT_TICK,
    NewNodes,
    Node,
    NodeLog,
    make_node,
)
from tests.raft.transcript import Transcript

MAX_STABILIZE_ROUNDS: Final = 10_000
"""Rounds after which C{stabilize} gives up on nodes that never come to rest."""

_THREADS = (APPEND_THREAD, APPLY_THREAD)
_TRANSITIONS = {
    "auto": ConfChangeTransition.AUTO,
    "implicit": ConfChangeTransition.JOINT_IMPLICIT,
    "explicit": ConfChangeTransition.JOINT_EXPLICIT,
}


_CORE_ERRORS: dict[type[Exception], str | None] = {
    ProposalDropped: None,
    PeerNotFound: None,
    LocalMessage: None,
    CommandFailed: None,
    Compacted: "requested index is unavailable due to compaction",
    Unavailable: "requested entry at index is unavailable",
    SnapshotTemporarilyUnavailable: "snapshot is temporarily unavailable",
}
"""What a command may fail with, and its text where it has none itself."""

_FAILURES = tuple(_CORE_ERRORS)


def error_text(error: Exception) -> str:
    """What is printed of C{error}."""
    return _CORE_ERRORS[type(error)] or str(error)


@define
class Interaction:
    """See the head of this module."""

    nodes: list[Node] = field(factory=list)
    messages: list[Message] = field(factory=list)
    transcript: Transcript = field(factory=Transcript)

    def run(self, case: Case) -> str:
        """
        What C{case} prints.

        @raise MalformedCase: its arguments are none that the command knows.
        """
        known = NAMED_ARGUMENTS.get(case.command, ())
        for argument in case.named():
            if argument.key not in known:
                raise MalformedCase(f"{case.command} knows no {argument.key}=")
        transcript = self.transcript
        transcript.take()
        try:
            COMMANDS[case.command](self, case)
        except _FAILURES as error:
            return transcript.take() + error_text(error)
        return transcript.take() or "ok"

    # Arguments.

    def node(self, id: int) -> Node:
        """The node with C{id}."""
        if not 1 <= id <= len(self.nodes):
            raise MalformedCase(f"there is no node {id}")
        return self.nodes[id - 1]

    def named_nodes(self, case: Case) -> list[Node]:
        """The nodes whose ids are the plain arguments."""
        return [self.node(id) for id in case.plain_numbers()]

    def one_node(self, case: Case, others: int = 0) -> Node:
        """
        The node whose id is the first plain argument.

        @param others: how many plain arguments follow it.
        """
        plain = case.plain()
        if len(plain) != 1 + others:
            raise MalformedCase(
                f"{case.command} takes {1 + others} arguments without values"
            )
        return self.node(parse_number(plain[0]))

    # Making nodes, and looking at them.

    def add_nodes(self, case: Case) -> None:
        """Make nodes, from nothing or from a snapshot."""
        if len(case.plain()) != 1:
            raise MalformedCase("add-nodes takes the number of nodes")
        new = NewNodes()
        for argument in case.named():
            new.take(argument)
        snapshot = new.snapshot()
        for _ in range(case.plain_numbers()[0]):
            id = len(self.nodes) + 1
            self.nodes.append(make_node(id, snapshot, new.settings, self.transcript))

    def raft_log(self, case: Case) -> None:
        """Print the entries on a node's disk."""
        self._print_log(self.one_node(case).log)

    def _print_log(self, log: NodeLog) -> None:
        if log.last_index() < log.first_index():
            self.transcript.write(
                f"log is empty: first index={log.first_index()},"
                f" last index={log.last_index()}"
            )
        self.transcript.write(describe_entries(log.entries_all()))

    def raft_state(self, case: Case) -> None:
        """Print each node's part, as it sees it."""
        for node in self.nodes:
            core = node.raw.core
            votes = node.id in core.tracker.configuration.voters
            kind = "Voter" if votes else "Non-Voter"
            self.transcript.write(
                f"{node.id}: {ROLE_NAMES[core.role]} ({kind})"
                f" Term:{core.term} Lead:{core.leader}\n"
            )

    def status(self, case: Case) -> None:
        """Print what a leader knows of each member."""
        core = self.one_node(case).raw.core
        if core.role is Role.LEADER:
            self.transcript.write(describe_progress_map(core.tracker.progress))

    def log_level(self, case: Case) -> None:
        """Print no log lines below a level."""
        if len(case.plain()) != 1:
            raise MalformedCase("log-level takes a level")
        self.transcript.set_level(case.plain()[0])

    def breakpoint(self, case: Case) -> None:
        """Nothing: a place for a debugger to stop."""

    # What the outside does to a node.

    def campaign(self, case: Case) -> None:
        """Have a node try to become leader."""
        self.one_node(case).raw.campaign()

    def propose(self, case: Case) -> None:
        """Have an entry proposed by a node."""
        node = self.one_node(case, others=1)
        node.raw.propose([case.plain()[1].encode()])

    def propose_conf_change(self, case: Case) -> None:
        """Have a membership change proposed by a node."""
        raw = self.one_node(case).raw
        v1 = False
        transition = ConfChangeTransition.AUTO
        for argument in case.named():
            value = argument.single()
            if argument.key == "v1":
                v1 = argument.boolean()
            elif value not in _TRANSITIONS:
                raise CommandFailed(f"unknown transition {value}")
            else:
                transition = _TRANSITIONS[value]
        changes = parse_changes(case.input)
        if not v1:
            raw.propose_conf_change(ConfChangeV2(changes, transition))
            return
        if len(changes) != 1 or transition is not ConfChangeTransition.AUTO:
            raise CommandFailed(
                "v1 conf change can only have one operation and no transition"
            )
        raw.propose_conf_change(ConfChange(changes[0].type, changes[0].node_id))

    def tick_heartbeat(self, case: Case) -> None:
        """As many ticks as are between heartbeats."""
        self._tick(self.one_node(case), HEARTBEAT_TICK)

    def tick_election(self, case: Case) -> None:
        """As many ticks as the shortest election timeout has."""
        self._tick(self.one_node(case), ELECTION_TICK)

    def _tick(self, node: Node, count: int) -> None:
        for _ in range(count):
            node.raw.tick()

    def set_randomized_election_timeout(self, case: Case) -> None:
        """Fix the timeout that was drawn, until the next one is."""
        timeout = case.argument("timeout").number()
        if timeout == 0:
            raise MalformedCase("timeout must be above 0")
        self.one_node(case).raw.core.randomized_election_timeout = timeout

    def transfer_leadership(self, case: Case) -> None:
        """Have one node hand leadership to another."""
        to = self.node(case.argument("to").number())
        source = self.node(case.argument("from").number())
        source.raw.transfer_leadership(to.id)

    def forget_leader(self, case: Case) -> None:
        """Have a node follow nobody."""
        self.one_node(case).raw.forget_leader()

    def report_unreachable(self, case: Case) -> None:
        """Tell one node that messages to another were lost."""
        nodes = self.named_nodes(case)
        if len(nodes) != 2:
            raise CommandFailed(
                "must specify exactly two node indexes: node on which to report, and"
                " reported node"
            )
        nodes[0].raw.report_unreachable(nodes[1].id)

    def send_snapshot(self, case: Case) -> None:
        """Put a snapshot of one node on its way to another."""
        nodes = self.named_nodes(case)
        if len(nodes) != 2:
            raise MalformedCase("send-snapshot takes two nodes")
        source, to = nodes
        message = Message(
            MessageType.SNAP,
            to=to.id,
            from_=source.id,
            term=source.raw.core.term,
            snapshot=source.log.snapshot(),
        )
        self.messages.append(message)
        self.transcript.write(describe_message(message))

    def compact(self, case: Case) -> None:
        """Cut a node's log, up to and with an index."""
        log = self.one_node(case, others=1).log
        log.compact(case.plain_numbers()[1])
        self._print_log(log)

    # What a node does.

    def process_ready(self, case: Case) -> None:
        """Carry out what nodes have ready."""
        self._for_each(case, "handling Ready", self._process_ready)

    def process_append_thread(self, case: Case) -> None:
        """Do one piece of work of nodes' append threads."""
        self._for_each(case, "processing append thread", self._process_append)

    def process_apply_thread(self, case: Case) -> None:
        """Do one piece of work of nodes' apply threads."""
        self._for_each(case, "processing apply thread", self._process_apply)

    def _for_each(self, case: Case, what: str, process: Callable[[Node], None]) -> None:
        nodes = self.named_nodes(case)
        if len(nodes) == 1:
            process(nodes[0])
            return
        for node in nodes:
            with self._under(node, what):
                process(node)

    @contextmanager
    def _under(self, node: Node, what: str) -> Iterator[None]:
        self.transcript.write(f"> {node.id} {what}\n")
        with self.transcript.indented():
            yield

    def _process_ready(self, node: Node) -> None:
        ready = node.raw.ready()
        self.transcript.write(describe_ready(ready))
        asynchronous = node.config.async_storage_writes
        if not asynchronous:
            node.write(ready.hard_state, ready.entries, ready.snapshot)
            node.apply(ready.committed_entries)
        for message in ready.messages:
            if message.to == APPEND_THREAD:
                node.append_work.append(message)
            elif message.to == APPLY_THREAD:
                node.apply_work.append(message)
            else:
                self.messages.append(message)
        if not asynchronous:
            node.raw.advance()

    def _process_append(self, node: Node) -> None:
        if not node.append_work:
            self.transcript.write("no append work to perform")
            return
        message = node.append_work.pop(0)
        self._print_work(message)
        hard_state = HardState(message.term, message.vote, message.commit)
        node.write(hard_state, message.entries, message.snapshot)
        self._respond(message)

    def _process_apply(self, node: Node) -> None:
        if not node.apply_work:
            self.transcript.write("no apply work to perform")
            return
        message = node.apply_work.pop(0)
        self._print_work(message)
        node.apply(message.entries)
        self._respond(message)

    def _print_work(self, message: Message) -> None:
        work = describe_message(evolve(message, responses=()))
        self.transcript.write(f"Processing:\n{work}\n")

    def _respond(self, message: Message) -> None:
        self.transcript.write("Responses:\n" + describe_messages(message.responses))
        self.messages.extend(message.responses)

    # What the network does.

    def deliver_msgs(self, case: Case) -> None:
        """Deliver messages in flight, or drop them."""
        kind = None
        receivers: list[tuple[int, bool]] = []
        for argument in case.arguments:
            if not argument.values:
                receivers.append((parse_number(argument.key), False))
            elif argument.key == "drop":
                receivers.extend((id, True) for id in argument.numbers())
            else:
                kind = MESSAGE_TYPES.get(argument.single())
                if kind is None:
                    raise MalformedCase(f"unknown message type {argument.single()}")
        for id, drop in receivers:
            if (id, not drop) in receivers:
                raise MalformedCase(f"can't both deliver and drop msgs to {id}")
        delivered = [self._deliver(id, kind, drop=drop) for id, drop in receivers]
        if not any(delivered):
            self.transcript.write("no messages\n")

    def _deliver(self, to: int, kind: MessageType | None, *, drop: bool) -> bool:
        """Deliver or drop what is in flight to C{to}; whether anything was."""
        wanted = [m for m in self.messages if _is_wanted(m, to, kind, drop)]
        self.messages = [m for m in self.messages if not _is_wanted(m, to, kind, drop)]
        for message in wanted:
            prefix = "dropped: " if drop else ""
            self.transcript.write(f"{prefix}{describe_message(message)}\n")
            if drop:
                continue
            try:
                self.node(to).raw.step(message)
            except _FAILURES as error:
                self.transcript.write(error_text(error) + "\n")
        return bool(wanted)

    # Everything, until nothing is left to do.

    def stabilize(self, case: Case) -> None:
        """Have nodes, their threads and the network work until all rest."""
        level = self.transcript.level
        try:
            for argument in case.named():
                self.transcript.set_level(argument.single())
            nodes = self.named_nodes(case) or self.nodes
            for _ in range(MAX_STABILIZE_ROUNDS):
                if not self._stabilize_round(nodes):
                    return
            raise CommandFailed(
                f"the nodes did not come to rest in {MAX_STABILIZE_ROUNDS} rounds"
            )
        finally:
            self.transcript.level = level

    def _stabilize_round(self, nodes: Sequence[Node]) -> bool:
        """Whether there was anything to do."""
        worked = False
        for node in nodes:
            if node.raw.has_ready():
                worked = True
                with self._under(node, "handling Ready"):
                    self._process_ready(node)
        for node in nodes:
            if any(message.to == node.id for message in self.messages):
                worked = True
                with self._under(node, "receiving messages"):
                    self._deliver(node.id, None, drop=False)
        for node in nodes:
            if node.append_work:
                worked = True
                with self._under(node, "processing append thread"):
                    while node.append_work:
                        self._process_append(node)
        for node in nodes:
            if node.apply_work:
                worked = True
                with self._under(node, "processing apply thread"):
                    while node.apply_work:
                        self._process_apply(node)
        return worked


def _is_wanted(message: Message, to: int, kind: MessageType | None, drop: bool) -> bool:
    if message.to != to or kind not in (None, message.type):
        return False
    # What a node says to itself, or its threads to it, is never lost.
    local = message.from_ == message.to or message.from_ in _THREADS
    return not (drop and local)


COMMANDS: dict[str, Callable[[Interaction, Case], None]] = {
    "_breakpoint": Interaction.breakpoint,
    "add-nodes": Interaction.add_nodes,
    "campaign": Interaction.campaign,
    "compact": Interaction.compact,
    "deliver-msgs": Interaction.deliver_msgs,
    "forget-leader": Interaction.forget_leader,
    "log-level": Interaction.log_level,
    "process-append-thread": Interaction.process_append_thread,
    "process-apply-thread": Interaction.process_apply_thread,
    "process-ready": Interaction.process_ready,
    "propose": Interaction.propose,
    "propose-conf-change": Interaction.propose_conf_change,
    "raft-log": Interaction.raft_log,
    "raft-state": Interaction.raft_state,
    "report-unreachable": Interaction.report_unreachable,
    "send-snapshot": Interaction.send_snapshot,
    "set-randomized-election-timeout": Interaction.set_randomized_election_timeout,
    "stabilize": Interaction.stabilize,
    "status": Interaction.status,
    "tick-election": Interaction.tick_election,
    "tick-heartbeat": Interaction.tick_heartbeat,
    "transfer-leadership": Interaction.transfer_leadership,
}

NAMED_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "add-nodes": (
        "voters",
        "learners",
        "index",
        "content",
        "inflight",
        "max-committed-size-per-ready",
        "read-only",
        *FLAGS,
    ),
    "deliver-msgs": ("drop", "type"),
    "propose-conf-change": ("v1", "transition"),
    "set-randomized-election-timeout": ("timeout",),
    "stabilize": ("log-level",),
    "transfer-leadership": ("from", "to"),
}
"""The arguments with values that a command takes; any other takes none."""

"""
The interaction language: nodes of one group, driven and watched step by step.

An L{Interaction} holds the nodes, the messages in flight between them, and a
L{Transcript} to which everything that happens is written.  One command is one
method; L{COMMANDS} lists them.  Nothing happens by itself: no clock runs, no
message moves, no disk is written until a command says so.

State carries over from command to command, and so from case to case.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from attrs import Factory, define, evolve, field

from kvdb.raft.confchange import decode_conf_change
from kvdb.raft.config import Config, LocalMessage, PeerNotFound, ProposalDropped
from kvdb.raft.memory import MemoryLog
from kvdb.raft.messages import (
    APPEND_THREAD,
    APPLY_THREAD,
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeV2,
    ConfState,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    Role,
    Snapshot,
)
from kvdb.raft.progress import describe_progress_map
from kvdb.raft.rawnode import RawNode
from kvdb.raft.readonly import ReadOnlyOption
from kvdb.raft.storage import Compacted, SnapshotTemporarilyUnavailable, Unavailable
from tests.raft.casefile import Argument, Case, MalformedCase, parse_number
from tests.raft.descriptions import (
    CHANGE_LETTERS,
    INDENT,
    MESSAGE_TYPES,
    ROLES,
    describe_entries,
    describe_list,
    describe_message,
    describe_messages,
    describe_ready,
    quote,
)

ELECTION_TICK: Final = 3
HEARTBEAT_TICK: Final = 1
MAX_INFLIGHT_MSGS: Final = 2**31 - 1

MAX_STABILIZE_ROUNDS: Final = 10_000
"""Rounds after which C{stabilize} gives up on nodes that never come to rest."""

LEVELS: Final = ("DEBUG", "INFO", "WARN", "ERROR", "FATAL", "NONE")

_THREADS = (APPEND_THREAD, APPLY_THREAD)
_TRANSITIONS = {
    "auto": ConfChangeTransition.AUTO,
    "implicit": ConfChangeTransition.JOINT_IMPLICIT,
    "explicit": ConfChangeTransition.JOINT_EXPLICIT,
}


class CommandFailed(Exception):
    """A command could not do what it was told; its text is what it prints."""


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


def parse_changes(text: str) -> tuple[ConfChangeSingle, ...]:
    """
    Membership changes as C{v1 l2 r3 u4}.

    @raise CommandFailed: it is none.
    """
    changes = []
    for word in text.split():
        if len(word) < 2:
            raise CommandFailed(f"unknown token {word}")
        kind = CHANGE_LETTERS.get(word[0])
        if kind is None:
            raise CommandFailed(f"unknown input: {word}")
        if not (word[1:].isascii() and word[1:].isdigit()):
            raise CommandFailed(
                f"strconv.ParseUint: parsing {quote(word[1:].encode())}: invalid syntax"
            )
        changes.append(ConfChangeSingle(kind, int(word[1:])))
    return tuple(changes)


@define
class Transcript:
    """
    What the current command has printed, and the core's logger.

    @ivar level: an index of C{LEVELS}: log lines below it are left out; at the
        highest, everything is.
    """

    level: int = 0
    _text: list[str] = field(factory=list)

    @property
    def quiet(self) -> bool:
        """Whether nothing at all is printed."""
        return LEVELS[self.level] == "NONE"

    def set_level(self, name: str) -> None:
        """Take the level with C{name}, in any case."""
        if name.upper() not in LEVELS:
            raise CommandFailed(f"log levels must be either of {describe_list(LEVELS)}")
        self.level = LEVELS.index(name.upper())

    def write(self, text: str) -> None:
        """Print C{text}, with whatever newlines it has."""
        if not self.quiet:
            self._text.append(text)

    def take(self) -> str:
        """What was printed since the last time."""
        text = "".join(self._text)
        self._text = []
        return text

    @contextmanager
    def indented(self) -> Iterator[None]:
        """What is printed meanwhile is indented, line by line."""
        outer, self._text = self._text, []
        try:
            yield
        finally:
            inner = self.take()
            self._text = outer
            if inner:
                lines = inner.removesuffix("\n").split("\n")
                self._text.append("".join(f"{INDENT}{line}\n" for line in lines))

    def _log(self, level: str, text: str) -> None:
        if self.level <= LEVELS.index(level):
            self.write(f"{level} {text}\n")

    def debug(self, text: str) -> None:
        """See L{RaftLogger<kvdb.raft.logger.RaftLogger>}, as for all below."""
        self._log("DEBUG", text)

    def info(self, text: str) -> None:
        """What happened."""
        self._log("INFO", text)

    def warning(self, text: str) -> None:
        """What should not happen often."""
        self._log("WARN", text)

    def error(self, text: str) -> None:
        """What should not happen."""
        self._log("ERROR", text)


@define(slots=True)
class NodeLog(MemoryLog):
    """
    A log that offers the newest state of the node as a snapshot, not the one
    it began with.

    @ivar history: a snapshot for every entry applied; its data are those of
        all entries so far, one after the other.
    """

    history: list[Snapshot] = Factory(list)

    def snapshot(self) -> Snapshot:
        """The last of the history."""
        return self.history[-1]


@define
class Node:
    """One member, its disk, and the work its threads have been given."""

    raw: RawNode
    log: NodeLog
    config: Config
    append_work: list[Message] = field(factory=list)
    apply_work: list[Message] = field(factory=list)

    @property
    def id(self) -> int:
        """The member's id; the first one made is 1."""
        return self.config.id

    def write(
        self,
        hard_state: HardState | None,
        entries: Sequence[Entry],
        snapshot: Snapshot | None,
    ) -> None:
        """The append thread's work."""
        if hard_state is not None and hard_state != HardState():
            self.log.set_hard_state(hard_state)
        if snapshot is not None and snapshot.index:
            if entries:
                raise CommandFailed("can't apply snapshot and entries at the same time")
            self.log.apply_snapshot(snapshot)
        else:
            self.log.append(entries)

    def apply(self, entries: Sequence[Entry]) -> None:
        """The apply thread's work: append each entry's data to the state."""
        for entry in entries:
            before = self.log.history[-1]
            data = entry.data
            conf_state = before.conf_state
            if entry.type is not EntryType.NORMAL:
                change = decode_conf_change(entry)
                data = change.context
                conf_state = self.raw.apply_conf_change(change)
            self.log.history.append(
                Snapshot(entry.index, entry.term, conf_state, before.data + data)
            )


@define
class _NewNodes:
    """What C{add-nodes} was told."""

    voters: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    index: int = 0
    content: bytes = b""
    settings: dict[str, object] = field(factory=dict)

    def take(self, argument: Argument) -> None:
        key = argument.key
        if key == "voters":
            self.voters = tuple(argument.numbers())
        elif key == "learners":
            self.learners = tuple(argument.numbers())
        elif key == "index":
            self.index = self.settings["applied"] = argument.number()
        elif key == "content":
            self.content = argument.single().encode()
        elif key == "inflight":
            self.settings["max_inflight_msgs"] = argument.number()
        elif key == "max-committed-size-per-ready":
            self.settings["max_committed_size_per_ready"] = argument.number()
        elif key == "read-only":
            try:
                option = ReadOnlyOption(argument.single())
            except ValueError:
                text = quote(argument.single().encode())
                raise CommandFailed(f"invalid read-only option {text}") from None
            self.settings["read_only_option"] = option
        else:
            self.settings[_FLAGS[key]] = argument.boolean()

    def snapshot(self) -> Snapshot | None:
        """What the nodes start from; None for nothing."""
        if not (self.voters or self.learners or self.index or self.content):
            return None
        # A log begins above its snapshot, and the first entry's place is not
        # to be the first of all.
        if self.index <= 1:
            raise CommandFailed("index must be specified as > 1 due to bootstrap")
        conf_state = ConfState(self.voters, self.learners)
        return Snapshot(self.index, 1, conf_state, self.content)


_FLAGS = {
    "async-storage-writes": "async_storage_writes",
    "prevote": "pre_vote",
    "checkquorum": "check_quorum",
    "disable-conf-change-validation": "disable_conf_change_validation",
    "step-down-on-removal": "step_down_on_removal",
}


def _make_node(
    id: int,
    snapshot: Snapshot | None,
    settings: dict[str, object],
    transcript: Transcript,
) -> Node:
    log = NodeLog(history=[snapshot or Snapshot()])
    if snapshot is not None:
        log.apply_snapshot(snapshot)
    defaults: dict[str, object] = {"max_inflight_msgs": MAX_INFLIGHT_MSGS}
    config = Config(
        id=id,
        election_tick=ELECTION_TICK,
        heartbeat_tick=HEARTBEAT_TICK,
        random=random.Random(id),
        logger=transcript,
        **(defaults | settings),  # type: ignore[arg-type]
    )
    try:
        return Node(RawNode(config, log), log, config)
    except ValueError as error:
        raise CommandFailed(str(error)) from error


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
        new = _NewNodes()
        for argument in case.named():
            new.take(argument)
        snapshot = new.snapshot()
        for _ in range(case.plain_numbers()[0]):
            id = len(self.nodes) + 1
            self.nodes.append(_make_node(id, snapshot, new.settings, self.transcript))

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
            voter = node.id in core.tracker.configuration.voters
            self.transcript.write(
                f"{node.id}: {ROLES[core.role]} ({'Voter' if voter else 'Non-Voter'})"
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
        *_FLAGS,
    ),
    "deliver-msgs": ("drop", "type"),
    "propose-conf-change": ("v1", "transition"),
    "set-randomized-election-timeout": ("timeout",),
    "stabilize": ("log-level",),
    "transfer-leadership": ("from", "to"),
}
"""The arguments with values that a command takes; any other takes none."""

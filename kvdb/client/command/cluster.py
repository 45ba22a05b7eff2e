"""
C{member}, C{leader}, C{status}, C{health}: the cluster and its members.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import click
from attrs import asdict
from rich.progress import BarColumn, Progress, TextColumn
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from kvdb.client.addresses import endpoint_url
from kvdb.client.command.options import Amount, Command, Count, Group
from kvdb.client.command.session import (
    DONE,
    NO,
    Job,
    Session,
    printable,
    size_text,
    table,
)
from kvdb.client.errors import ClientError, NotFound
from kvdb.client.model import Health, Member, Status

LOOK_SECONDS: Final = 0.5
"""How often it is looked how far a learner is."""

ID: Final = Count(1, 2**63 - 1)


@click.group("member", cls=Group)
def member() -> None:
    """Who is a member."""


@member.command("list")
def list_members() -> Job:
    """Print the members."""

    async def job(session: Session) -> None:
        members = await session.client.members(of_leader=True)
        if session.as_json:
            session.json({"members": [asdict(one) for one in members]})
            return
        heads = ("ID", "ROLE", "PEERS", "CLIENTS", "LAG", "CONNECTED")
        rows = [
            (m.id, m.role, m.url, m.client_url, m.lag, _yes_no(m.connected))
            for m in members
        ]
        for line in table(heads, rows, ("ID", "LAG")):
            session.line(line)

    return job


@member.command("add")
@click.argument("node", metavar="ID", type=ID)
@click.argument("url")
@click.option("--idempotency-key", help="Carry it out once, however often it is asked.")
def add(node: int, url: str, idempotency_key: str | None) -> Job:
    """
    Add member ID, whose peer URL is URL, as a learner.

    The leader makes it a voter once it has caught up: "member promote" waits
    for that.
    """
    try:
        is_one = "://" in url and endpoint_url(url).rpartition(":")[2].isdigit()
    except ValueError:
        is_one = False
    if not is_one:
        raise click.UsageError(
            "a member's peer URL is http://HOST:PORT or https://HOST:PORT"
        )

    async def job(session: Session) -> None:
        await session.client.add_member(node, url, idempotency_key=idempotency_key)
        if session.as_json:
            session.json({"id": node, "url": url})
        else:
            session.line(f"member {node} is added, as a learner")
            session.note(f"start it with --id {node} --join, and an empty --data-dir")

    return job


@member.command("remove")
@click.argument("node", metavar="ID", type=ID)
def remove(node: int) -> Job:
    """Remove member ID, whose process then ends by itself."""

    async def job(session: Session) -> None:
        await session.client.remove_member(node)
        if session.as_json:
            session.json({"id": node})
        else:
            session.line(f"member {node} is removed")

    return job


@member.command("promote")
@click.argument("node", metavar="ID", type=ID)
@click.option(
    "--wait",
    type=Amount(0),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait.",
)
def promote(node: int, wait: float) -> Job:
    """
    Wait until learner ID is a voter.

    The leader itself makes it one, as soon as it has caught up.
    """

    async def job(session: Session) -> int:
        clock = session.reactor
        deadline = clock.seconds() + wait
        with _Lag(session) as shown:
            while True:
                found = await _find(session, node)
                if found.role != "learner":
                    break
                shown.tell(found.lag)
                if clock.seconds() >= deadline:
                    far = "" if found.lag is None else f", {found.lag} entries behind"
                    session.note(
                        f"member {node} is a learner still{far}: look whether it runs"
                    )
                    return NO
                await deferLater(clock, LOOK_SECONDS)
        if session.as_json:
            session.json({"id": node, "role": found.role})
        else:
            session.line(f"member {node} is a voter")
        return DONE

    return job


async def _find(session: Session, node: int) -> Member:
    for one in await session.client.members(of_leader=True):
        if one.id == node:
            return one
    raise NotFound(
        f"member {node} is not in the cluster", hint='See "kvdbctl member list".'
    )


class _Lag:
    """A learner's lag, going down: a bar on a terminal, lines elsewhere."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._most = 0
        self._told: int | None = None
        console = session.console
        self._bar = Progress(
            TextColumn("catching up"),
            BarColumn(),
            TextColumn("{task.fields[lag]} entries behind"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._moves = console.is_terminal
        self._task: Any = None

    def __enter__(self) -> _Lag:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def tell(self, lag: int | None) -> None:
        """How far it is behind now."""
        if lag is None:
            return
        self._most = max(self._most, lag)
        if not self._moves:
            if lag != self._told and not self._session.as_json:
                self._session.note(f"catching up: {lag} entries behind")
            self._told = lag
            return
        if self._task is None:
            self._task = self._bar.add_task("", total=1, lag=lag)
        done = self._most - lag
        self._bar.update(self._task, total=self._most or 1, completed=done, lag=lag)


@click.group("leader", cls=Group)
def leader() -> None:
    """Who leads."""


@leader.command("transfer")
@click.argument("node", metavar="[ID]", type=ID, required=False)
def transfer(node: int | None) -> Job:
    """Hand leadership to member ID, or to whoever has the most of the log."""

    async def job(session: Session) -> None:
        found = await session.client.transfer_leadership(node)
        if session.as_json:
            session.json({"leader": found})
        else:
            session.line(f"member {found} leads")

    return job


@click.command("status", cls=Command)
def status() -> Job:
    """Print how the members are, with what is wrong with them."""

    async def job(session: Session) -> int:
        members = await session.client.members(of_leader=True)
        views = await _views(session, members)
        leads = any(one.role == "leader" for one in members)
        if session.as_json:
            session.json(
                {
                    "members": [asdict(one) for one in members],
                    "status": [asdict(view) for view in views],
                }
            )
            return DONE if leads else NO
        heads = (
            "ID",
            "ROLE",
            "CLIENTS",
            "TERM",
            "INDEX",
            "LAG",
            "REVISION",
            "SIZE",
            "VERSION",
        )
        rows = [
            (
                m.id,
                "unreachable" if m.connected is False else m.role,
                m.client_url,
                m.term,
                m.applied_index,
                m.lag,
                m.revision,
                size_text(m.store_bytes),
                m.version,
            )
            for m in members
        ]
        right = ("ID", "TERM", "INDEX", "LAG", "REVISION", "SIZE")
        for line in table(heads, rows, right):
            session.line(line)
        for view in views:
            for kind, texts in (("alarm", view.alarms), ("warning", view.warnings)):
                for text in texts:
                    session.line(f"{kind}, member {view.id}: {printable(text)}")
        if not leads:
            session.note("nobody leads: start a majority of the voters")
        return DONE if leads else NO

    return job


async def _views(session: Session, members: Sequence[Member]) -> list[Status]:
    """What each member that can be reached says of itself, by id."""
    endpoints = list(session.client.endpoints)
    secure = endpoints[0].startswith("https:")
    for one in members:
        url = one.client_url
        # The credentials go nowhere less safe than where they were sent.
        if url is not None and (url.startswith("https:") or not secure):
            endpoints.append(url)

    async def view(endpoint: str) -> Status | None:
        try:
            return await session.client.status(endpoint)
        except (ClientError, ValueError):  # what a member says may be no endpoint
            return None

    asked = [Deferred.fromCoroutine(view(url)) for url in dict.fromkeys(endpoints)]
    found = {one.id: one for one in await gatherResults(asked) if one is not None}
    return [found[node] for node in sorted(found)]


@click.command("health", cls=Command)
def health() -> Job:
    """
    Ask each endpoint whether it can serve a linearizable read.

    The exit status is 0 if all can, else 1.
    """

    async def job(session: Session) -> int:
        client = session.client

        async def ask(url: str) -> Health:
            try:
                return await client.health(url)
            except ClientError as error:
                return Health(False, str(error))

        asked = [Deferred.fromCoroutine(ask(url)) for url in client.endpoints]
        found = dict(zip(client.endpoints, await gatherResults(asked), strict=True))
        for endpoint, one in found.items():
            if session.as_json:
                session.json({"endpoint": endpoint, **asdict(one)})
            elif one.healthy:
                session.line(f"{endpoint} is healthy")
            else:
                reason = printable(str(one.reason))
                session.line(f"{endpoint} is not healthy: {reason}")
        return DONE if all(one.healthy for one in found.values()) else NO

    return job


def _yes_no(flag: bool | None) -> str | None:
    return None if flag is None else "yes" if flag else "no"

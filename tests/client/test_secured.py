"""The client and kvdbctl at real members with TLS and an access file."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from twisted.internet import reactor

from kvdb.client import TLS, Client, Forbidden, Unauthorized, Unavailable
from tests.client.test_end_to_end import KVDBCTL, PATIENCE
from tests.end_to_end.test_secured import Secured, secured
from tests.timed import timed

__all__ = ["secured"]  # a fixture


def urls(locked: Secured) -> list[str]:
    return [f"https://127.0.0.1:{node.port}" for node in locked.cluster.nodes.values()]


@timed(60)
async def test_a_client_says_who_it_is(secured: Secured) -> None:
    tls = TLS.from_files(cacert=secured.authority.path)
    ann = Client(reactor, urls(secured), tls=tls, token="ann.apple")
    root = Client(reactor, urls(secured), tls=tls, user="root", password="secret")
    nobody = Client(reactor, urls(secured), tls=tls)
    trusting_others = Client(reactor, urls(secured), token="ann.apple")
    async with ann, root, nobody, trusting_others:
        async with ann.watch(prefix="/app/") as watch:
            revision = await ann.put("/app/k", b"v")
            assert (await anext(watch)).revision == revision
        assert [entry.key async for entry in ann.list("/app/")] == [b"/app/k"]
        with pytest.raises(Forbidden, match="no role"):
            await ann.get("/other")
        with pytest.raises(Forbidden):
            await ann.transfer_leadership()
        with pytest.raises(Unauthorized):
            await nobody.put("/app/k", b"")
        with pytest.raises(Unavailable, match="not signed by whom you trust"):
            await trusting_others.put("/app/k", b"")
        members = await root.members(of_leader=True)
        assert {member.lag is not None for member in members} == {True}
        assert (await root.get("/app/k")).revision == revision


def test_the_command_says_who_it_is(
    secured: Secured,
    tmp_path: Path,
) -> None:
    (tmp_path / "token").write_text("ann.apple\n")

    def kvdbctl(*arguments: str, **more: str) -> tuple[int, bytes]:
        environment = {
            **os.environ,
            "KVDB_ENDPOINTS": ",".join(urls(secured)),
            "KVDB_CACERT": secured.authority.path,
            **more,
        }
        done = subprocess.run(
            [KVDBCTL, *arguments],
            env=environment,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout or done.stderr

    token = ("--token-file", str(tmp_path / "token"))
    assert kvdbctl("put", "/app/k", "v", *token)[0] == 0
    assert kvdbctl("get", "/app/k", KVDB_TOKEN="ann.apple") == (0, b"v")
    assert kvdbctl("get", "/app/k", "--user", "ann", KVDB_PASSWORD="apple")[1] == b"v"
    assert kvdbctl("get", "/other", *token)[0] == 5
    status, said = kvdbctl("get", "/app/k")
    assert (status, said.count(b"\n")) == (5, 1)
    status, said = kvdbctl("status", "--user", "root", KVDB_PASSWORD="secret")
    assert (status, said.count(b"https://127.0.0.1:")) == (0, 3)
    file = str(tmp_path / "backup")
    done = kvdbctl("snapshot", "save", file, "--user=root", KVDB_PASSWORD="secret")
    assert done[0] == 0
    assert kvdbctl("snapshot", "save", file, *token)[0] == 5

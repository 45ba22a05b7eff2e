"""What is typed wrong is said in one line, with status 1."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.end_to_end.cluster import (
    PATIENCE,
    TWISTD,
    LocalCluster,
    Process,
    ask,
    free_ports,
    local_cluster,
    until,
)


def run(directory: Path, *options: str) -> tuple[int, str]:
    """Status and output of a node that should not start."""
    done = subprocess.run(
        [TWISTD, "-n", "--pidfile=", "kvdb", *options],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--id", "4", "--cluster", "http://127.0.0.1:1,http://127.0.0.1:2"],
            "--id: 4",
        ),
        (["--id", "0"], "--id: '0' is not a number"),
        (["--id", "x"], "--id: 'x' is not a number"),
        (["--port", "99999"], "--port: '99999'"),
        (["--cluster", "nonsense"], '--cluster: "nonsense" is not http://host:port'),
        (["--cluster", "http://127.0.0.1"], "is not http://host:port"),
        (["--cluster", "http://127.0.0.1:1/x"], "is not http://host:port"),
        (["--cluster", "http://127.0.0.1:1,"], "empty item"),
        (["--cluster", "http://127.0.0.1:1,http://127.0.0.1:1"], "have one URL"),
        (["--tick", "0"], "--tick:"),
        (["--wrong"], "option --wrong not recognized; see twistd kvdb --help"),
        (["--join", "true"], "'true' belongs to no option; see"),
        (["--cluster", "http://a..b:1"], "a..b is no host name: a part of it is empty"),
    ],
)
def test_wrong_options(tmp_path: Path, options: list[str], words: str) -> None:
    refused(tmp_path, words, *options)


def test_hosts_that_are_not_this_machines(tmp_path: Path) -> None:
    own = ["--cluster", f"http://127.0.0.1:{free_ports(1)[0]}", "--port", "0"]
    refused(tmp_path, "of --host 192.0.2.1: cannot", *own, "--host", "192.0.2.1")
    refused(tmp_path, "--host a..b: a..b is not known", *own, "--host", "a..b")


def refused(directory: Path, words: str, *options: str) -> None:
    """It ends with status 1 and one line that says C{words}."""
    status, output = run(directory, *options)
    assert status == 1
    assert output.count("\n") == 1, output
    assert words in output


def test_ports_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        free = str(free_ports(1)[0])
        url = "http://127.0.0.1:"
        refused(tmp_path, f"--port {port}", "--cluster", url + free, "--port", port)
        refused(tmp_path, "--cluster", "--cluster", url + port, "--port", free)
        refused(tmp_path, "one each", "--cluster", url + free, "--port", free)


def test_data_directories_that_are_not_ours(tmp_path: Path) -> None:
    with local_cluster(tmp_path, 1) as cluster:
        [node] = cluster.nodes.values()
        data = str(tmp_path / "data" / "kvdb-1")
        peer, port = (str(p) for p in free_ports(2))
        other = ["--cluster", f"2=http://127.0.0.1:{peer}", "--id", "2"]
        other += ["--port", port, "--data-dir", data]
        refused(tmp_path, "is in use by another process", *other)
        node.stop()
        status, output = run(tmp_path, *other)
        assert status == 1
        assert "holds the data of member 1" in output
        assert "Traceback" not in output
        (tmp_path / "file").write_text("")
        refused(tmp_path, "cannot be used", *other[:-1], str(tmp_path / "file" / "x"))


def test_corrupt_data_is_refused_with_file_and_offset(tmp_path: Path) -> None:
    with local_cluster(tmp_path, 1) as cluster:
        [node] = cluster.nodes.values()
        for number in range(20):
            node.put(f"k{number}", b"v" * 100)
        node.stop()
        [segment] = (tmp_path / "data/kvdb-1/log").glob("log-*")
        content = bytearray(segment.read_bytes())
        content[400] ^= 1
        segment.write_bytes(content)
        node.start()
        assert node.wait() == 1
        line = next(x for x in node.log.splitlines() if "corrupt" in x)
        assert str(segment) in line
        assert "offset" in line
        assert "Traceback" not in node.log


def test_one_node_as_in_the_readme(tmp_path: Path) -> None:
    peer, port = free_ports(2)
    url = f"http://127.0.0.1:{peer}"
    options = ["--id", "1", "--cluster", url, "--port", str(port)]
    node = Process(1, port, url, tmp_path, options)
    node.start()
    try:
        node.wait_ready()
        assert node.put("my-key", b"hello").status == 204
        assert node.get("my-key") == b"hello"
        assert (tmp_path / "data" / "kvdb-1").is_dir()
        assert node.stop() == -signal.SIGTERM
    finally:
        if node.process is not None and node.process.poll() is None:
            node.kill()


def gone(pid: int) -> bool:
    """Whether there is no such process."""
    return not Path(f"/proc/{pid}").exists()


def test_three_daemons_in_one_directory(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path)
    cluster.prepare(3)
    pids: list[int] = []
    try:
        for node in cluster.nodes.values():
            pid_file = tmp_path / f"{node.number}.pid"
            files = [f"--pidfile={pid_file}", f"--logfile={node.number}.log"]
            done = subprocess.run(
                [TWISTD, *files, "kvdb", *node.options],
                cwd=tmp_path,
                timeout=PATIENCE,
                check=False,
            )
            assert done.returncode == 0
            pids.append(int(until(pid_file.read_text, "the pid file is written")))
        one = cluster.nodes[1]

        def serves() -> bool:
            try:
                return one.put("k", b"v").status == 204
            except OSError:
                return False

        until(serves, "the daemons serve")
        assert cluster.nodes[3].get("k") == b"v"
        assert ask("GET", one.url + "/_/status").json()["version"]
        assert (tmp_path / "data" / "kvdb-3").is_dir()
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        for pid in pids:
            until(partial(gone, pid), "a daemon stops")


@pytest.mark.parametrize(
    ("runner", "more"),
    [
        (["-n", "--pidfile="], []),
        (["-n", "--pidfile="], ["--log-format", "json"]),
        (["-n", "--pidfile=", "--logfile=node.log"], []),
        (["--pidfile=node.pid", "--logfile=node.log"], ["--log-format", "json"]),
    ],
)
def test_the_reason_of_a_failure_is_the_last_line(
    tmp_path: Path, runner: list[str], more: list[str]
) -> None:
    """Of the log, behind what the runner says of its own end; on standard error too."""
    with local_cluster(tmp_path, 1) as cluster:
        node = cluster.nodes[1]
        node.put("k", b"v")
        node.stop()
        first = min((tmp_path / "data/kvdb-1/log").glob("log-*"))
        whole = first.read_bytes()
        first.write_bytes(whole[:20] + b"x" + whole[21:])
    done = subprocess.run(
        [TWISTD, *runner, "kvdb", *node.options, *more],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    log = tmp_path / "node.log"
    reason = f"{first.name} is corrupt at offset"
    if "-n" in runner:
        assert done.returncode == 1
        assert reason in done.stderr.splitlines()[-1]
        start = '{"time"' if "json" in more else "kvdb: "
        assert done.stderr.splitlines()[-1].startswith(start)
    else:
        until(lambda: not (tmp_path / "node.pid").exists(), "the daemon has ended")
    if log.exists():
        until(lambda: reason in log.read_text().splitlines()[-1], "it is last")
    else:
        assert reason in done.stdout.splitlines()[-1]
    assert "Traceback" not in done.stdout + done.stderr

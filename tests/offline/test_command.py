"""The tools from a command line."""

from __future__ import annotations

import errno
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from kvdb.offline import disk
from kvdb.offline.command import recovery, say
from kvdb.offline.command.main import tree
from kvdb.offline.directory import UNFINISHED, new_directory
from kvdb.offline.files import real_filesystem
from kvdb.storage.filesystem import DirectoryInUse, hold_lock
from kvdb.store.commands import Put
from tests.end_to_end.cluster import until
from tests.offline.member import backup_bytes, make_member, some_commands

CLUSTER = "1=http://127.0.0.1:1,2=http://127.0.0.1:2"


def run(*arguments: str | Path, stdin: str | None = None, obj: Any = None) -> Result:
    """A command, as another tree of commands would run it."""
    runner = CliRunner()
    return runner.invoke(
        tree,
        [str(one) for one in arguments],
        input=stdin,
        obj=obj,
        standalone_mode=False,
    )


def status(result: Result) -> int:
    if isinstance(result.exception, SystemExit):
        return int(result.exception.code or 0)
    if result.exception is not None:
        raise result.exception
    value: Any = result.return_value
    return int(value or 0)


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    path = tmp_path / "backup"
    path.write_bytes(backup_bytes(some_commands()))
    return path


@pytest.fixture
def member(tmp_path: Path) -> Path:
    return make_member(tmp_path / "member", some_commands(), applied=10)


def test_verify(backup: Path) -> None:
    result = run("snapshot", "verify", backup)
    assert status(result) == 0
    for line in (
        "revision    66",
        "keys        18",
        "cluster id  0000000001234567",
        "taken       2023-11-14T22:13:20+00:00",
        "members     1=http://127.0.0.1:1",
    ):
        assert line in result.stdout.splitlines()
    found = json.loads(run("snapshot", "verify", backup, "--json").stdout)
    assert found["bytes"] == backup.stat().st_size
    assert len(found["members"]) == 3
    again = run("snapshot", "verify", backup, obj={"json": True})
    assert json.loads(again.stdout) == found


def test_verify_a_bad_one(backup: Path) -> None:
    backup.write_bytes(backup.read_bytes()[:-1])
    result = run("snapshot", "verify", backup)
    assert status(result) == 1
    assert result.stdout == ""
    assert result.stderr.startswith("kvdbctl: ")
    assert "its end is missing" in result.stderr
    assert result.stderr.count("\n") == 1
    result = run("snapshot", "verify", backup.parent / "absent")
    assert status(result) == 2
    assert result.stderr.endswith("absent: no such file or directory\n")


def test_restore(backup: Path, tmp_path: Path) -> None:
    more: list[str | Path] = [
        "--data-dir",
        tmp_path / "2",
        "--id",
        "2",
        "--cluster",
        CLUSTER,
    ]
    result = run("snapshot", "restore", backup, *more)
    assert status(result) == 0
    assert "revision    1000000066" in result.stdout.splitlines()
    assert sorted(os.listdir(tmp_path / "2")) == ["log", "store"]
    result = run("snapshot", "restore", backup, *more)
    assert status(result) == 2
    assert "is not empty" in result.stderr
    digest = json.loads(run("fsck", tmp_path / "2", "--json").stdout)["digest"]
    assert (
        digest
        == json.loads(run("snapshot", "verify", backup, "--json").stdout)["digest"]
    )


@pytest.mark.parametrize("cluster", ["1=http://a", "nonsense", "", "0=http://a:1"])
def test_a_cluster_that_is_none(backup: Path, tmp_path: Path, cluster: str) -> None:
    more: list[str | Path] = [
        "--data-dir",
        tmp_path / "2",
        "--id",
        "2",
        "--cluster",
        cluster,
    ]
    with pytest.raises(Exception, match=r"http:|empty item|not a number"):
        status(run("snapshot", "restore", backup, *more))
    assert os.listdir(tmp_path) == ["backup"]


def test_recover_asks_first(member: Path, tmp_path: Path) -> None:
    more: list[str | Path] = [
        "--data-dir",
        member,
        "--id",
        "1",
        "--cluster",
        "1=http://127.0.0.1:5",
    ]
    result = run("recover", *more)
    assert status(result) == 1
    assert "WARNING: the other members [2, 3] are given up" in result.stderr
    assert "to go on, say --yes" in result.stderr
    assert os.listdir(tmp_path) == ["member"]
    result = run("recover", *more, "--yes", "--json")
    assert status(result) == 0
    made = json.loads(result.stdout)
    assert made["data_dir"] == f"{member}-recovered"
    assert made["entries_applied"] == 57
    assert made["revision"] == 10**9 + 66
    result = run("recover", *more, "--yes", "--to", tmp_path / "other")
    assert status(result) == 0
    assert (tmp_path / "other" / "log").is_dir()


@pytest.mark.parametrize("agrees", [True, False])
def test_recover_on_a_terminal(
    member: Path, monkeypatch: pytest.MonkeyPatch, agrees: bool
) -> None:
    asked: list[str] = []

    def confirm(text: str, *, err: bool) -> bool:
        asked.append(text)
        with pytest.raises(DirectoryInUse):
            hold_lock(str(member / "log" / "lock"))
        return agrees

    monkeypatch.setattr(recovery, "_is_asked", lambda: True)
    monkeypatch.setattr(click, "confirm", confirm)
    result = run(
        *("recover", "--data-dir", member, "--id", "1"),
        *("--cluster", "1=http://127.0.0.1:5"),
    )
    assert status(result) == (0 if agrees else 1)
    assert asked == [f"Make a new cluster of one in {member}-recovered?"]
    assert Path(f"{member}-recovered").exists() == agrees


@pytest.mark.parametrize("cluster", [CLUSTER, "2=http://127.0.0.1:2"])
def test_recover_makes_a_cluster_of_one(member: Path, cluster: str) -> None:
    more: list[str | Path] = [
        "--data-dir",
        member,
        "--id",
        "1",
        "--cluster",
        cluster,
        "--yes",
    ]
    with pytest.raises(Exception, match="is the new member alone: 1="):
        status(run("recover", *more))


def test_fsck(member: Path) -> None:
    result = run("fsck", member)
    assert status(result) == 0
    assert "errors     0" in result.stdout.splitlines()
    segment = sorted((member / "log").glob("log-*"))[0]
    data = bytearray(segment.read_bytes())
    data[100] ^= 1
    segment.write_bytes(data)
    result = run("fsck", member)
    assert status(result) == 1
    assert result.stdout.startswith(f"error: {segment}, offset ")
    lines = [
        json.loads(one) for one in run("fsck", member, "--json").stdout.splitlines()
    ]
    assert lines[0]["path"] == str(segment)
    assert lines[-1]["errors"] == 1


def test_fsck_tells_when_there_is_more(
    member: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvdb.offline.findings.MAX_FINDINGS", 0)
    (member / "log" / "file").write_text("")
    assert "and 1 more" in run("fsck", member).stdout.splitlines()


@pytest.mark.parametrize("name", ["fsck", "dump"])
def test_a_directory_in_use(member: Path, name: str) -> None:
    lock = hold_lock(str(member / "log" / "lock"))
    try:
        result = run(name, member)
    finally:
        lock.release()
    assert status(result) == 2
    assert result.stderr == f"kvdbctl: {member} is in use: stop the node first\n"


def test_dump(member: Path) -> None:
    result = run("dump", member)
    assert status(result) == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith('identity cluster_id="0000000001234567" node_id=1 ')
    assert "key-0" not in result.stdout
    assert "/key-00" in run("dump", member, "--show-keys").stdout
    for line in run("dump", member, "--json").stdout.splitlines():
        assert json.loads(line)["what"]


def test_check_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("check", "disk", tmp_path, "--seconds", "0.1", "--json")
    found = json.loads(result.stdout)
    assert found["fit"] == (status(result) == 0)
    assert 0 < found["p50_ms"] <= found["p99_ms"] <= found["max_ms"]
    assert os.listdir(tmp_path) == []
    slow = disk.Latencies(20, 0.2, 0.8, 0.9)
    monkeypatch.setattr(disk, "measure", lambda *args: slow)
    result = run("check", "disk", tmp_path)
    assert status(result) == 1
    assert "steps down" in result.stderr
    result = run("check", "disk", tmp_path, "--tick", "1000")
    assert status(result) == 0
    assert result.stderr == ""
    result = run("check", "disk", tmp_path / "absent")
    assert status(result) == 2
    assert "is no directory" in result.stderr


def test_a_time_that_is_none() -> None:
    assert say.utc(2**63) == f"{2**63} ms"


PROGRAM = [sys.executable, "-m", "kvdb.offline"]


def test_the_process(backup: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "snapshot", "verify", str(backup)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(
        [*PROGRAM, "snapshot", "verify"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "Missing argument 'FILE'" in done.stderr


def interrupted(words: list[str], begun: Path) -> int:
    """The exit status of a command that has a terminal, and gets Ctrl-C there once
    it has made C{begun}."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(theirs)
    try:
        until(begun.exists, f"{begun.name} is there")
        process.send_signal(signal.SIGINT)
        while True:
            try:
                if not os.read(ours, 4096):
                    break
            except OSError:
                break  # nobody has the other end
        return process.wait(30)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_ctrl_c_on_a_terminal(tmp_path: Path) -> None:
    """Nothing half-made is left."""
    path, data = tmp_path / "backup", tmp_path / "1"
    values = [Put(b"/%06d" % n, os.urandom(1 << 20)) for n in range(192)]
    path.write_bytes(backup_bytes(values))
    words = ["snapshot", "restore", str(path), "--data-dir", str(data)]
    words += ["--id", "1", "--cluster", CLUSTER]
    for _ in range(5):
        status = interrupted(words, tmp_path / f"1{UNFINISHED}")
        if status:
            break
        shutil.rmtree(data)  # on a busy machine it was done before it was told
    assert status == 130
    assert os.listdir(tmp_path) == ["backup"]


def test_sigterm_ends_it_as_ctrl_c_does(tmp_path: Path) -> None:
    """Nothing half-made is left."""
    before = signal.getsignal(signal.SIGTERM)

    def work() -> int:
        with new_directory(real_filesystem(), str(tmp_path / "1")) as made:
            Path(made, "store").mkdir()
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("it went on")

    # Were it not heard, it would end this process.
    ignored = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with pytest.raises(SystemExit) as ended:
            say.one_line(work)()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, ignored)
    assert ended.value.code == say.TERMINATED
    assert os.listdir(tmp_path) == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_of_two_files_the_one_to_be_made_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        os.symlink(tmp_path / "file", tmp_path)
        return 0

    assert say.one_line(work)() == say.UNUSABLE
    assert capsys.readouterr().err == f"kvdbctl: {tmp_path}: file exists\n"


def test_an_error_without_a_file_is_told_without_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work() -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    assert say.one_line(work)() == say.UNUSABLE
    assert "None" not in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_names_of_files_steer_no_terminal(member: Path, more: list[str]) -> None:
    """Nor break a line, nor what writes it."""
    (member / "log" / os.fsdecode(b"a\xff\x1b]0;b\x07\n")).write_text("")
    result = run("fsck", member, *more)
    assert status(result) == 0
    assert result.stdout.replace("\n", "").isprintable()
    first = result.stdout.splitlines()[0]
    assert "a\\udcff\\u001b]0;b\\u0007\\n" in first
    if more:
        assert json.loads(first)["path"].endswith("\x1b]0;b\x07\n")
    result = run("fsck", f"{member}\x1b")
    assert f"{member}\\u001b is no data directory" in result.stderr


def make_foreign(directory: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have another user own C{directory}; user and group, for chown."""
    if os.geteuid() == 0:
        os.chown(directory, 54321, 54322)
        return "54321:54322"
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    return f"{say._user(os.getuid())}:{say._group(os.getgid())}"


@pytest.mark.parametrize("is_there", [False, True])
def test_what_is_made_where_another_user_is_at_home(
    backup: Path,
    member: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_there: bool,
) -> None:
    """A node that runs as that user cannot open it, and that is said."""
    made = [tmp_path / "home" / "1", tmp_path / "home" / "2"]
    made[0].parent.mkdir()
    if is_there:
        made[0].mkdir()
        made[1].mkdir()
        user = make_foreign(made[0], monkeypatch)
        make_foreign(made[1], monkeypatch)
    else:
        user = make_foreign(made[0].parent, monkeypatch)
    one = ["--id", "1", "--cluster", "1=http://127.0.0.1:1"]
    for path, result in (
        (made[0], run("snapshot", "restore", backup, "--data-dir", made[0], *one)),
        (
            made[1],
            run("recover", "--data-dir", member, "--to", made[1], *one, "--yes"),
        ),
    ):
        assert status(result) == 0
        last = result.stderr.splitlines()[-1]
        assert last.startswith(f"kvdbctl: WARNING: {path} belongs to ")
        assert last.endswith(f" Before its start: chown -R {user} {path}")


def test_what_is_made_at_home_belongs_to_nobody_else(
    backup: Path, tmp_path: Path
) -> None:
    one = ["--id", "1", "--cluster", "1=http://127.0.0.1:1"]
    result = run("snapshot", "restore", backup, "--data-dir", tmp_path / "1", *one)
    assert (status(result), result.stderr) == (0, "")


@pytest.mark.parametrize("place", ["log", "store"])
@pytest.mark.parametrize("name", ["fsck", "dump"])
def test_what_may_not_be_looked_at_is_not_taken_for_absent(
    member: Path, place: str, name: str
) -> None:
    shutil.rmtree(member / place)
    (member / place).symlink_to(place)  # stat fails, as where it is not permitted
    result = run(name, member)
    assert status(result) == 2
    assert "too many levels of symbolic links" in result.stderr


def test_an_output_that_is_full(member: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PROGRAM, "dump", str(member)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == (
        "kvdbctl: the output cannot be written: no space left on device\n"
    )


def test_an_output_that_nobody_reads_any_more(member: Path) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        done = subprocess.run(
            [*PROGRAM, "dump", str(member)],
            stdout=theirs,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(theirs)
    assert (done.returncode, done.stderr) == (141, b"")

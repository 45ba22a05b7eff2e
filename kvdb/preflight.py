"""
What can be known to be wrong before anything is started.

Nothing is kept open: whoever typed the command reads the reason, and the start
itself will meet the same trouble again if it is still there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kvdb.peer.addresses import parse_peer_url
from kvdb.reloading import RealFiles, Unusable
from kvdb.security import load_access, load_tls
from kvdb.settings import Settings
from kvdb.storage.filesystem import DirectoryInUse, hold_lock


class Refused(Exception):
    """The node cannot start as it was told to; the text says why."""


RESERVED_FILES: Final = 1024
"""Open files that are not for clients: the engine's, the log's, the members'."""


MAX_CONNECTIONS_LIMIT: Final = 1_000_000
"""The highest C{--max-connections}."""

FEWEST_CONNECTIONS: Final = 64
"""Are allowed whatever the limit of open files is."""


LEAST_FREE_BYTES: Final = 64 << 20
"""What there must be on a disk for a new data directory.  The log takes some 36 MiB of
it beforehand; the rest is kept free for the store."""


def allow_open_files() -> int:
    """
    As many as this process may have: the usual limit is for select(2).

    @return: how many connections of clients that leaves room for.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS_LIMIT
    return max(FEWEST_CONNECTIONS, soft - RESERVED_FILES)


def check(settings: Settings) -> None:
    """@raise Refused: with the reason."""
    _check_files(settings)
    _check_directory(settings.data_dir)
    _check_space(settings.data_dir)
    peer_host, peer_port = parse_peer_url(settings.peer_url)
    if settings.port and (peer_host, peer_port) == (settings.host, settings.port):
        raise Refused(
            f"--port {settings.port} is the port of this member's own peer URL,"
            f" {settings.peer_url}: clients and peers need one each"
        )
    _check_port(peer_host, peer_port, f"the peer URL {settings.peer_url} in --cluster")
    what = f"--port {settings.port} of --host {settings.host}"
    _check_port(settings.host, settings.port, what)


def check_runner(runner: Mapping[str, Any]) -> str | None:
    """
    What twistd itself would say with a traceback, or wrongly: files that it cannot
    write, and a pidfile that an unclean stop has left.

    @param runner: twistd's options.
    @return: a line about a pidfile that was removed, if one was.
    @raise Refused: with the reason.
    """
    if "pidfile" not in runner or runner["chroot"]:
        return None  # twist has none; what is in another root is not seen from here
    base = Path(runner["rundir"] or ".")
    pidfile, logfile = runner["pidfile"], runner["logfile"]
    if not runner["nodaemon"]:
        logfile = logfile or "twistd.log"
    removed = _check_pidfile(base / pidfile) if pidfile else None
    for name, path in (("pidfile", pidfile), ("logfile", logfile)):
        if path and path != "-" and not _can_be_written(base / path):
            hint = "; in the foreground --pidfile= does without" * (name == "pidfile")
            raise Refused(
                f"--{name}: {path} cannot be written: give it a place in a directory"
                f" of this user's{hint}"
            )
    return removed


def _can_be_written(path: Path) -> bool:
    if path.exists():
        return path.is_file() and os.access(path, os.W_OK)
    return os.access(path.parent, os.W_OK | os.X_OK)


def _check_pidfile(path: Path) -> str | None:
    """The runner takes any process for the one that wrote the file, even itself."""
    try:
        process = int(path.read_text())
    except (OSError, ValueError):
        return None  # twistd says so
    if process == os.getpid():
        who = "is this one"
    elif _is_twistd(process):
        raise Refused(
            f"--pidfile: {path} names process {process}, which runs: stop it, or give"
            " this node a --pidfile and a --logfile of its own"
        )
    else:
        who = "is none of twistd's"
    try:
        path.unlink()
    except OSError as error:
        raise Refused(
            f"--pidfile: {path} was left by an unclean stop (process {process} {who}),"
            f" and cannot be removed ({error.strerror}): remove it"
        ) from error
    return (
        f"{path} was left by an unclean stop (process {process} {who}), and was removed"
    )


def _is_twistd(process: int) -> bool:
    """Whether a process runs, and may be one of twistd's."""
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except FileNotFoundError:
        return False
    except OSError:
        return True  # who cannot be asked is taken for one
    return any(b"twistd" in word or b"kvdb" in word for word in words)


def _check_files(settings: Settings) -> None:
    files = RealFiles()
    try:
        for named in (settings.tls, settings.peer_tls):
            if named is not None:
                load_tls(files, named)
        if settings.access_file is not None:
            load_access(files, settings.access_file)
    except Unusable as error:
        raise Refused(str(error)) from error


def _check_directory(path: str) -> None:
    directory = Path(path) / "log"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        _check_lock(directory)
    except OSError as error:
        raise Refused(
            f"--data-dir: {path} cannot be used ({error.strerror})"
        ) from error
    except DirectoryInUse as error:
        raise Refused(
            f"--data-dir: {path} is in use by another process: stop that, or give"
            " another directory"
        ) from error


def _check_space(path: str) -> None:
    """With data there it starts nevertheless: to serve reads, and to be given space."""
    if (Path(path) / "store").exists():
        return
    found = os.statvfs(path)
    free, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    if free < LEAST_FREE_BYTES:
        raise Refused(
            f"--data-dir: {path} is on a disk with {free >> 20} MiB left of"
            f" {total >> 20}: a new one takes {LEAST_FREE_BYTES >> 20} at the least."
            "  Free some space, or give another directory"
        )


def _check_lock(directory: Path) -> None:
    lock = directory / "lock"
    if lock.exists():
        hold_lock(str(lock)).release()


def _check_port(host: str, port: int, what: str) -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # the latter: a name that can be none
        reason = getattr(error, "strerror", None) or "that is no host's name"
        raise Refused(f"{what}: {host} is not known ({reason})") from error
    family, kind, number, _, address = found[0]
    with socket.socket(family, kind, number) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            remedy = _REMEDIES.get(error.errno or 0, "")
            raise Refused(f"{what}: cannot listen there ({reason}){remedy}") from error


_REMEDIES: Final = {
    errno.EADDRINUSE: ".  ss -ltnp tells who does: stop that, or take another port",
    errno.EADDRNOTAVAIL: ".  ip address tells those of this machine",
    errno.EACCES: ".  Ports below 1024 are root's: take another one",
}

"""
What can be known to be wrong before anything is started.

Nothing is kept open: whoever typed the command reads the reason, and the start
itself will meet the same trouble again if it is still there.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from kvdb.peer.addresses import parse_peer_url
from kvdb.settings import Settings
from kvdb.storage.filesystem import DirectoryInUse, hold_lock


class Refused(Exception):
    """The node cannot start as it was told to; the text says why."""


def check(settings: Settings) -> None:
    """@raise Refused: with the reason."""
    _check_directory(settings.data_dir)
    peer_host, peer_port = parse_peer_url(settings.peer_url)
    if settings.port and (peer_host, peer_port) == (settings.host, settings.port):
        raise Refused(
            f"--port {settings.port} is the port of this member's own peer URL,"
            f" {settings.peer_url}: clients and peers need one each"
        )
    _check_port(peer_host, peer_port, f"the peer URL {settings.peer_url} in --cluster")
    if settings.port:
        _check_port(settings.host, settings.port, f"--port {settings.port}")


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
        raise Refused(f"--data-dir: {path} is in use by another process") from error


def _check_lock(directory: Path) -> None:
    lock = directory / "lock"
    if lock.exists():
        hold_lock(str(lock)).release()


def _check_port(host: str, port: int, what: str) -> None:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Refused(f"{what}: {host} is not known ({error.strerror})") from error
    family, kind, number, _, address = found[0]
    with socket.socket(family, kind, number) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            reason = error.strerror or str(error)
            raise Refused(f"{what}: cannot listen there ({reason.lower()})") from error

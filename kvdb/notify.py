"""
Telling systemd how far the node is (C{sd_notify(3)}, C{Type=notify}).

A datagram to the socket that C{NOTIFY_SOCKET} names, which only a service manager
sets; elsewhere nothing happens.  It is sent at once and never waited for: a manager
that does not listen must not hold up a node.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Final

from twisted.logger import Logger

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"

log = Logger(namespace="kvdb.service")


def notify(state: str, environment: Mapping[str, str] = os.environ) -> bool:
    """
    Tell the service manager of this process, if it has one.

    @return: whether it was told.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # Linux' abstract names
    try:
        with socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
        ) as sender:
            sender.setblocking(False)
            sender.sendto(state.encode(), address)
    except (OSError, ValueError) as error:
        log.warn("systemd could not be told {state}: {error}", state=state, error=error)
        return False
    return True

"""
Telling systemd how far the node is, and how it fares (C{sd_notify(3)}, C{Type=notify}).

That it serves and that it stops are the tree of services' to say.  L{Telling} says
between the two who leads and what is wrong, and gives a sign of life where one is
wanted (C{WatchdogSec=}): from the reactor, so that a node which hangs gives none.

A datagram to the socket that C{NOTIFY_SOCKET} names, which only a service manager
sets; elsewhere nothing happens.  It is sent at once and never waited for: a manager
that does not listen must not hold up a node.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from kvdb.interfaces import NodeStatus

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
ALIVE: Final = "WATCHDOG=1"

LOOK_SECONDS: Final = 1.0
"""How often it is looked how the node fares, at least."""

log = Logger(namespace="kvdb.service")


def is_managed(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether there is a service manager that wants to be told."""
    return environment.get("NOTIFY_SOCKET", "").startswith(("/", "@"))


def watchdog_seconds(environment: Mapping[str, str] = os.environ) -> float:
    """How often a sign of life of this process is wanted, at least; 0 for never."""
    own = str(os.getpid())
    microseconds = environment.get("WATCHDOG_USEC", "")
    wanted = environment.get("WATCHDOG_PID", own) == own
    return int(microseconds) / 1e6 if wanted and microseconds.isdecimal() else 0.0


def status_line(text: str) -> str:
    """What C{systemctl status} is to show."""
    return f"STATUS={' '.join(text.splitlines())}"


def notify(state: str, environment: Mapping[str, str] = os.environ) -> bool:
    """
    Tell the service manager of this process, if it has one.

    @param state: lines, as sd_notify(3) has them.
    @return: whether it was told.
    """
    if not is_managed(environment):
        return False
    address = environment["NOTIFY_SOCKET"]
    if address.startswith("@"):
        address = "\0" + address[1:]  # Linux' abstract names
    try:
        with socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
        ) as sender:
            sender.setblocking(False)
            sender.sendto(state.encode(), address)
    except (OSError, ValueError) as error:
        # Signs of life are many, and it will be seen that one is missing.
        level = LogLevel.debug if state.startswith(ALIVE) else LogLevel.warn
        text = "systemd could not be told {state}: {error}"
        log.emit(level, text, state=state, error=error)
        return False
    return True


def summary(status: NodeStatus) -> str:
    """How a node fares, in a line."""
    if status.leader is None:
        text = f"member {status.id} knows no leader"
    elif status.leader == status.id:
        text = f"member {status.id} leads, term {status.term}"
    else:
        text = f"member {status.id} ({status.role}) follows member {status.leader}"
        text += f", term {status.term}"
    return "; ".join([text, *status.alarms])


class Telling(Service):
    """
    Tells how the node fares, for as long as it serves.

    @param tell: as L{notify}.
    @param look: the node's own view.
    @param watchdog: how often a sign of life is wanted, in seconds; 0 for never.
    """

    def __init__(
        self,
        clock: Any,
        tell: Callable[[str], object],
        look: Callable[[], NodeStatus],
        watchdog: float,
    ) -> None:
        self.setName("telling")
        self._notify = tell
        self._look = look
        self._watchdog = watchdog
        self._said = ""
        self._looking = LoopingCall(self._tell)
        self._looking.clock = clock

    def startService(self) -> None:
        """Those before it are started."""
        super().startService()
        often = min(LOOK_SECONDS, self._watchdog / 2 or LOOK_SECONDS)
        self._looking.start(often).addErrback(_note_failed)

    def stopService(self) -> None:
        """Those before it will be stopped."""
        super().stopService()
        if self._looking.running:
            self._looking.stop()

    def _tell(self) -> None:
        lines = [ALIVE] if self._watchdog else []
        said = status_line(summary(self._look()))
        if said != self._said:
            self._said = said
            lines.append(said)
        if lines:
            self._notify("\n".join(lines))


def _note_failed(failure: Failure) -> None:
    log.failure("it cannot be seen how the node fares", failure)

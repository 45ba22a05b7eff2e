"""
A TCP port whose connections send an answer at once, where the kernel takes it.

Twisted gathers what is written and sends it when the reactor has polled: right
for streams, and three system calls dearer for an answer that fits into the
socket's buffer.  What the kernel does not take goes Twisted's way.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet import tcp

BACKLOG: Final = 1024
"""Connections that may wait to be accepted."""


class EagerServer(tcp.Server):
    """A connection that was accepted."""

    def write(self, data: bytes) -> None:
        """See L{ITransport<twisted.internet.interfaces.ITransport>}."""
        waiting = self._tempDataBuffer or self.dataBuffer or self.TLS
        if waiting or not self.connected or self._writeDisconnected:
            super().write(data)
            return
        sent: Any = self.writeSomeData(data)
        if not isinstance(sent, int):
            sent = 0  # it is lost, as the reactor will find out
        if sent < len(data):
            super().write(data[sent:])

    def connectionLost(self, reason: Any) -> None:
        """See there: what is unsent is dropped now, and not when all that knows the
        connection is collected."""
        super().connectionLost(reason)
        self._tempDataBuffer = []
        self._tempDataLen = 0
        self.dataBuffer = b""
        self.offset = 0


class EagerPort(tcp.Port):
    """Listens for such connections."""

    transport = EagerServer

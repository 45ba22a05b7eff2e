"""
How long a word takes to a member and back, as the kernel has measured it.

TCP keeps a smoothed time from each segment to its acknowledgement (RFC 6298), and
Linux tells it (tcp(7), C{TCP_INFO}).  So nothing needs to be sent to find it out, and
what a busy process adds is not in it.
"""

from __future__ import annotations

import socket
import struct
from typing import Any, Final

_ROUND_TRIP = struct.Struct("=68xI")
"""C{tcpi_rtt} of C{struct tcp_info} (linux/tcp.h), in microseconds."""

_OPTION: Final[int | None] = getattr(socket, "TCP_INFO", None)


def round_trip_seconds(transport: Any) -> float | None:
    """The time of a connection, whatever lies over TCP; None where it is unknown."""
    while (below := getattr(transport, "transport", None)) is not None:
        transport = below
    handle = getattr(transport, "getHandle", lambda: None)()
    if not isinstance(handle, socket.socket) or _OPTION is None:
        return None
    try:
        told = handle.getsockopt(socket.IPPROTO_TCP, _OPTION, _ROUND_TRIP.size)
    except OSError:
        return None  # it is closed
    if len(told) < _ROUND_TRIP.size:
        return None
    microseconds: int = _ROUND_TRIP.unpack(told)[0]
    return microseconds / 1e6 or None

"""The kernel's measure of a connection's round trip."""

from __future__ import annotations

import socket
import struct
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kvdb.peer import round_trip
from kvdb.peer.round_trip import round_trip_seconds


class Over:
    """A transport, perhaps over another."""

    def __init__(self, handle: object = None, below: Any = None) -> None:
        self.handle = handle
        self.transport = below

    def getHandle(self) -> object:
        return self.handle


class FakeSocket(socket.socket):
    """Tells what it was given."""

    told = b""

    def getsockopt(self, *_: Any) -> Any:
        return self.told


class RoundTripTests(SynchronousTestCase):
    """Of sockets, and of what is none."""

    def connected(self) -> socket.socket:
        """A connection over the loopback, with a word sent and acknowledged."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = socket.create_connection(server.getsockname())
            self.addCleanup(client.close)
            other, _ = server.accept()
        self.addCleanup(other.close)
        client.sendall(b"word")
        self.assertEqual(other.recv(4), b"word")
        return client

    def test_a_real_connection(self) -> None:
        client = self.connected()
        found = round_trip_seconds(Over(client))
        assert found is not None
        self.assertTrue(0 < found < 1, found)
        self.assertIsNotNone(round_trip_seconds(Over("TLS", Over(client))))

    def test_one_that_is_closed(self) -> None:
        client = self.connected()
        client.close()
        self.assertIsNone(round_trip_seconds(Over(client)))

    def test_what_is_no_socket(self) -> None:
        self.assertIsNone(round_trip_seconds(object()))
        self.assertIsNone(round_trip_seconds(Over("no socket")))

    def test_what_the_kernel_tells(self) -> None:
        handle = FakeSocket()
        self.addCleanup(handle.close)
        for told, seconds in (
            (bytes(68) + struct.pack("=I", 1500), 0.0015),
            (bytes(72), None),  # nothing was acknowledged yet
            (bytes(60), None),  # another kernel
        ):
            handle.told = told
            self.assertEqual(round_trip_seconds(Over(handle)), seconds)

    def test_a_system_that_does_not_tell(self) -> None:
        client = self.connected()
        self.patch(round_trip, "_OPTION", None)
        self.assertIsNone(round_trip_seconds(Over(client)))

"""
A request, without the server it came through.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import field, frozen
from twisted.internet.defer import Deferred


@frozen(slots=True)
class Call:
    """
    @ivar path: as it was sent, without the query.
    @ivar headers: the last value of each, by lower-case name.
    @ivar read: the body, once it has come.  Whoever handles the request refuses
        first what the head alone shows to be wrong: a client that waits for
        C{100 Continue} is told to send the body when it is asked for here.
    """

    method: bytes
    path: bytes
    args: Mapping[bytes, Sequence[bytes]]
    headers: Mapping[str, str] = field(repr=False)  # there are secrets among them
    read: Callable[[], Deferred[bytes]] = field(repr=False)

    def header(self, name: str) -> str | None:
        """A header's value."""
        return self.headers.get(name)

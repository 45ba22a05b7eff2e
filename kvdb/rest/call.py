"""
A request, without the server it came through.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import field, frozen


@frozen(slots=True)
class Call:
    """
    @ivar path: as it was sent, without the query.
    @ivar headers: the last value of each, by lower-case name.
    """

    method: bytes
    path: bytes
    args: Mapping[bytes, Sequence[bytes]]
    headers: Mapping[str, str] = field(repr=False)  # there are secrets among them
    body: bytes = field(repr=False)

    def header(self, name: str) -> str | None:
        """A header's value."""
        return self.headers.get(name)

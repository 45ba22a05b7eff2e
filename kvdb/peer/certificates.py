"""
Whether a member that dials is who it says, by the certificate it shows.

The host in a member's URL is what its certificate must be valid for: as where
it is dialled, so where it dials.  Then whoever has one member's key can speak
for that member, and for no other on another host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvdb.peer.handshake import Refusal, RefusalCode
from kvdb.store.urls import read_url

Vouch = Callable[[Any, int, str], Refusal | None]
"""Given the transport, the id that is claimed, and that member's URL: None if
the other side may bear it."""


def anybody(transport: Any, node_id: int, url: str) -> Refusal | None:
    """As without certificates: the network is trusted."""
    return None


def by_certificate(transport: Any, node_id: int, url: str) -> Refusal | None:
    """The certificate must be valid for the host in the member's URL."""
    from kvdb.tls.transport import names_of, valid_for

    host = read_url(url)[1]
    certificate = transport.peer_certificate()
    if certificate is not None and valid_for(certificate, host):
        return None
    names = "nothing" if certificate is None else names_of(certificate)
    return Refusal(
        RefusalCode.WRONG_CERTIFICATE,
        f"member {node_id} is at {url}, and the certificate that was shown is valid"
        f" for {names}: give it one (--peer-cert-file) with {host} among its subject"
        " alternative names",
    )

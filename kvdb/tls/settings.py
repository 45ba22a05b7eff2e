"""
Which files TLS is made of, as they were typed.
"""

from __future__ import annotations

from attrs import frozen


@frozen(slots=True, kw_only=True)
class TLSFiles:
    """
    @ivar prefix: of the options' names: nothing for clients, C{peer-}.
    @ivar cert: the certificate, with what stands between it and its CA.
    @ivar key: its private key.
    @ivar ca: whose certificates are trusted; None where nobody's is asked for.
    @ivar client_cert_auth: who connects must show a certificate.
    """

    prefix: str
    cert: str
    key: str
    ca: str | None
    client_cert_auth: bool

    @property
    def paths(self) -> list[str]:
        """All of them."""
        return [p for p in (self.cert, self.key, self.ca) if p is not None]

"""
TLS to the members: whom to trust, and who one is.

A member's certificate is always verified, its host name included; there is no
switch that turns this off.  For a certificate of one's own making, name it, or
the authority that signed it, as C{cacert}.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from attrs import field, frozen
from OpenSSL import SSL, crypto
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

_PEM: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL
)


@frozen(slots=True, kw_only=True)
class TLS:
    """
    @ivar cacert: certificates to trust, PEM; none for those of the system.
    @ivar cert: one's own certificate, PEM, where members ask for one.
    @ivar key: its private key, PEM.
    """

    cacert: bytes | None = None
    cert: bytes | None = None
    key: bytes | None = field(default=None, repr=False)

    @classmethod
    def from_files(
        cls,
        cacert: str | None = None,
        cert: str | None = None,
        key: str | None = None,
    ) -> TLS:
        """
        @param key: where the private key is, if not beside the certificate.
        @raise ValueError: a file cannot be read, or holds something else.
        """
        made = cls(cacert=_read(cacert), cert=_read(cert), key=_read(key or cert))
        try:
            made.policy()
        except ValueError as error:
            files = ", ".join(name for name in (cacert, cert, key) if name)
            raise ValueError(f"{error} ({files})") from None
        return made

    def policy(self) -> Policy:
        """
        For Twisted's agent.

        @raise ValueError: what is given is no certificate, or no key.
        """
        return Policy(_trust(self.cacert), _own(self.cert, self.key))


@implementer(IPolicyForHTTPS)
@frozen(slots=True)
class Policy:
    """How each connection is made safe."""

    _trust: Any
    _own: PrivateCertificate | None

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        """See L{IPolicyForHTTPS}."""
        return optionsForClientTLS(
            hostname.decode("ascii"),
            trustRoot=self._trust,
            clientCertificate=self._own,
        )


def _read(path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


def _trust(cacert: bytes | None) -> Any:
    if cacert is None:
        return platformTrust()
    try:
        found = [Certificate.loadPEM(pem) for pem in _PEM.findall(cacert)]
    except (SSL.Error, crypto.Error, ValueError):
        found = []
    if not found:
        raise ValueError("there is no certificate in PEM to trust")
    return trustRootFromCertificates(found)


def _own(cert: bytes | None, key: bytes | None) -> PrivateCertificate | None:
    if cert is None:
        if key is not None:
            raise ValueError("a private key is given without its certificate")
        return None
    try:
        made: PrivateCertificate = PrivateCertificate.loadPEM(
            cert + b"\n" + (key or b"")
        )
    except (SSL.Error, crypto.Error, ValueError):
        raise ValueError(
            "there is no certificate with its private key, both in PEM"
        ) from None
    return made

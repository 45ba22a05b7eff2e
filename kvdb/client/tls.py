"""
TLS to the members: whom to trust, and who one is.

A member's certificate is always verified, its host name included; there is no
switch that turns this off.  For a certificate of one's own making, name it, or
the authority that signed it, as C{cacert}.

The name is looked at here: Twisted's own check takes a certificate that has no
name at all, as C{CertificateError} is none of the errors that it expects.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from attrs import field, frozen
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import extract_patterns
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.error import VerifyError
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    PrivateCertificate,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.python.failure import Failure
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

MAX_SHOWN_NAMES: Final = 10
MAX_SHOWN_BYTES: Final = 255
"""How many names of a certificate are told, and how much of each: as long as a
host's may be (RFC 1035, 2.3.4)."""

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
        own: dict[str, Any] = {}
        if (mine := _own(self.cert, self.key)) is not None:
            own["certificate"] = mine.original
            own["privateKey"] = mine.privateKey.original
        options = CertificateOptions(trustRoot=_trust(self.cacert), **own)
        return Policy(options.getContext())


class Untrusted(Exception):
    """A member's certificate is refused; the text says why, without its subject."""


@implementer(IPolicyForHTTPS)
@frozen(slots=True)
class Policy:
    """How each connection is made safe."""

    _context: SSL.Context

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        """See L{IPolicyForHTTPS}."""
        return _Verifying(self._context, hostname.decode("ascii"))


@implementer(IOpenSSLClientConnectionCreator)
@frozen(slots=True)
class _Verifying:
    """Connections to one host, which shows a certificate for it or is told
    nothing."""

    _context: SSL.Context
    _host: str

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """See L{IOpenSSLClientConnectionCreator}."""
        is_address = isIPAddress(self._host) or isIPv6Address(self._host)
        wanted: Any = IPAddress_ID(self._host) if is_address else DNS_ID(self._host)
        connection = SSL.Connection(self._context, None)
        if not is_address:
            connection.set_tlsext_host_name(self._host.encode("ascii"))

        def verify(
            _: SSL.Connection, found: crypto.X509, error: int, depth: int, ok: int
        ) -> bool:
            # What is raised here is lost on its way through OpenSSL.
            try:
                why = None if ok else _WHY.get(error, _NOT_SIGNED)
                if why is None and depth == 0:
                    why = _why_not_valid_for(found, wanted)
            except Exception:
                why = "cannot be read"
            if why is not None:
                protocol.failVerification(Failure(Untrusted(why)))
            return why is None

        mode = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        connection.set_verify(mode, verify)
        return connection


_NOT_SIGNED: Final = "is not signed by whom you trust"
_WHY: Final = {
    9: "is not valid yet: is a clock wrong?",
    10: "has expired",
}
"""What OpenSSL's numbers mean (X509_V_ERR_*); all others are about who signed."""


def _why_not_valid_for(certificate: crypto.X509, wanted: Any) -> str | None:
    """None where it is (RFC 9525)."""
    patterns = extract_patterns(certificate.to_cryptography())
    try:
        verify_service_identity(patterns, [wanted], [])
    except (CertificateError, VerificationError):
        return f"is for another name: {_names(patterns)}"
    return None


def _names(patterns: Sequence[Any]) -> str:
    """Of hosts, for people."""
    names = []
    for entry in patterns[:MAX_SHOWN_NAMES]:
        name = getattr(entry, "pattern", "that of no host")
        text = name.decode("ascii", "replace") if isinstance(name, bytes) else str(name)
        names.append(text[:MAX_SHOWN_BYTES])
    return ", ".join(names) or "it has none"


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
    except (SSL.Error, crypto.Error, ValueError, VerifyError):
        raise ValueError(
            "there is no certificate with its private key, both in PEM"
        ) from None
    return made

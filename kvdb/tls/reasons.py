"""
Why a TLS connection failed, in words that say what to do.

OpenSSL's own say C{[('SSL routines', '', 'sslv3 alert certificate expired')]}.
Imports nothing of OpenSSL: also a node without TLS meets its errors.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.python.failure import Failure

_OF_A_CERTIFICATE: Final = {
    2: "it is not signed by the CA that is trusted here",
    9: "it is not valid yet: is a clock wrong?",
    10: "it has expired",
    18: "it is self-signed, and not signed by the CA that is trusted here",
    19: "it is not signed by the CA that is trusted here",
    20: "it is not signed by the CA that is trusted here",
    21: "it is not signed by the CA that is trusted here",
    24: "what signed it is no CA",
    26: "its extended key usage is for something else",
    66: "its key is too small",
    68: "it is signed with too weak a hash",
}
"""What OpenSSL's numbers (X509_V_ERR_*) mean."""

_OF_OPENSSL: Final = (
    ("alert certificate expired", "the other side says that this certificate expired"),
    (
        "alert certificate required",
        "the other side wants a certificate, and none was given",
    ),
    (
        "alert unknown ca",
        "the other side does not trust the CA of this side's certificate",
    ),
    (
        "alert certificate unknown",
        "the other side does not take this side's certificate",
    ),
    ("alert bad certificate", "the other side does not take this side's certificate"),
    (
        "alert unsupported certificate",
        "this side's certificate is not for this use (extended key usage)",
    ),
    (
        "alert handshake failure",
        "the other side shares no TLS settings with this one, or wants a certificate",
    ),
    (
        "alert protocol version",
        "the other side does not speak TLS 1.2 or later",
    ),
    ("unsupported protocol", "the other side does not speak TLS 1.2 or later"),
    ("no shared cipher", "the other side shares no cipher with this one"),
    (
        "peer did not return a certificate",
        "it gave no certificate, and one is wanted here",
    ),
    ("wrong version number", "the other side does not speak TLS there"),
    ("http request", "the other side does not speak TLS there"),
    ("packet length too long", "the other side does not speak TLS there"),
    ("record layer failure", "the other side does not speak TLS there"),
    ("bad record type", "the other side does not speak TLS there"),
)


def of_certificate(number: int) -> str:
    """What is wrong with a certificate, by OpenSSL's number."""
    return _OF_A_CERTIFICATE.get(number, f"OpenSSL's verification error {number}")


def of_failure(reason: Failure) -> str:
    """What ended a connection, TLS or not."""
    error: Any = reason.value
    if not type(error).__module__.startswith("OpenSSL"):
        return reason.getErrorMessage()
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    text = "; ".join(str(entry[-1]) for entry in entries) or type(error).__name__
    for sign, meaning in _OF_OPENSSL:
        if sign in text:
            return f"TLS: {meaning} ({text})"
    return f"TLS: {text}"


def of_lost(transport: object, reason: Failure) -> str:
    """The same, where the transport may know better."""
    return getattr(transport, "fault", "") or of_failure(reason)

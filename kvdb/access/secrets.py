"""
Secrets at rest: scrypt (RFC 7914), as C{$scrypt$ln=14,r=8,p=1$SALT$HASH}.

The salt and the hash are Base64 without padding.  The parameters are those of
each entry, so that later ones can be dearer; they are bounded, since whoever
checks a secret spends C{128 * r * 2**ln} bytes on it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from typing import Final

from attrs import field, frozen

LOG_N: Final = 14
BLOCK: Final = 8
PARALLEL: Final = 1
SALT_BYTES: Final = 16
HASH_BYTES: Final = 32

MAX_SECRET_BYTES: Final = 256
"""The longest password."""

_MAX_MEMORY: Final = 64 << 20
_FORM: Final = re.compile(
    r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)"
)


@frozen(slots=True)
class Hashed:
    """A secret that cannot be read back."""

    log_n: int
    block: int
    parallel: int
    salt: bytes = field(repr=False)
    hash: bytes = field(repr=False)

    def matches(self, secret: bytes) -> bool:
        """Whether it is C{secret}; takes tens of milliseconds and 16 MiB."""
        return hmac.compare_digest(self.hash, _scrypt(self, secret))

    def __str__(self) -> str:
        parameters = f"ln={self.log_n},r={self.block},p={self.parallel}"
        return f"$scrypt${parameters}${_encode(self.salt)}${_encode(self.hash)}"


def hash_secret(secret: bytes, salt: bytes) -> Hashed:
    """
    @param salt: L{SALT_BYTES} that nobody can foretell.
    """
    empty = Hashed(LOG_N, BLOCK, PARALLEL, salt, bytes(HASH_BYTES))
    return Hashed(LOG_N, BLOCK, PARALLEL, salt, _scrypt(empty, secret))


def parse_hashed(text: str) -> Hashed:
    """@raise ValueError: it is none."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError("is not of the form $scrypt$ln=14,r=8,p=1$SALT$HASH")
    log_n, block, parallel = (int(match[n]) for n in (1, 2, 3))
    if not (10 <= log_n <= 18 and 1 <= block <= 16 and 1 <= parallel <= 4):
        raise ValueError("has parameters out of bounds (ln 10-18, r 1-16, p 1-4)")
    if 128 * block << log_n > _MAX_MEMORY // 2:
        raise ValueError("would take more than 32 MiB to check")
    try:
        salt, hashed = _decode(match[4]), _decode(match[5])
    except binascii.Error:
        raise ValueError("holds bad Base64") from None
    if len(salt) < 8 or len(hashed) != HASH_BYTES:
        raise ValueError("has a salt or a hash of a wrong length")
    return Hashed(log_n, block, parallel, salt, hashed)


def _scrypt(how: Hashed, secret: bytes) -> bytes:
    return hashlib.scrypt(
        secret,
        salt=how.salt,
        n=1 << how.log_n,
        r=how.block,
        p=how.parallel,
        maxmem=_MAX_MEMORY,
        dklen=HASH_BYTES,
    )


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)

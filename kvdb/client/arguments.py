"""
What callers hand over, looked at before anything is sent.

Rules: a wrong type is a C{TypeError} and a wrong value a C{ValueError}, both with the
argument's name; nothing is converted that was not meant (C{bytes(5)} is five NULs, and
C{True} no number).
"""

from __future__ import annotations

import math
from typing import Final

MAX_NUMBER: Final = 2**63 - 1
"""The highest revision, and the highest member id."""

MAX_IDEMPOTENCY_KEY: Final = 254
"""Characters in an idempotency key."""

Bytes = bytes | bytearray | memoryview
"""A value."""


def value_bytes(value: object) -> bytes:
    """
    A key's value.

    @raise TypeError: it is not bytes-like.
    """
    if not isinstance(value, Bytes):
        raise TypeError(
            f"value: requires bytes, bytearray or memoryview, not {_type(value)}"
            + (": encode it first" if isinstance(value, str) else "")
        )
    return bytes(value)


def key_of(name: str, key: object) -> bytes:
    """
    A key, or the beginning of one: bytes-like, or text for its UTF-8.

    @raise TypeError, ValueError: it is none.
    """
    if isinstance(key, str):
        try:
            raw = key.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{name}: {key!r} cannot be encoded as UTF-8") from None
    elif isinstance(key, Bytes):
        raw = bytes(key)
    else:
        raise TypeError(f"{name}: requires bytes or str, not {_type(key)}")
    if not raw.startswith(b"/"):
        raise ValueError(f"{name}: a key begins with a slash, {key!r} does not")
    return raw


def flag(name: str, value: object) -> bool:
    """@raise TypeError: it is neither True nor False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: requires True or False, not {_type(value)}")
    return value


def number(name: str, value: object, least: int, most: int = MAX_NUMBER) -> int:
    """@raise TypeError, ValueError: it is no such number."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: requires an int, not {_type(value)}")
    if not least <= value <= most:
        raise ValueError(f"{name}: {value} is not a number from {least} to {most}")
    return value


def seconds(name: str, value: object) -> float:
    """@raise TypeError, ValueError: it is no span of time."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name}: requires a number of seconds, not {_type(value)}")
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name}: {value} is not a number of seconds above 0")
    return float(value)


def text(name: str, value: object) -> str:
    """@raise TypeError: it is none."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: requires a str, not {_type(value)}")
    return value


def function(name: str, value: object) -> None:
    """@raise TypeError: it cannot be called."""
    if not callable(value):
        raise TypeError(f"{name}: requires a function, not {_type(value)}")


def idempotency_key(value: object) -> str:
    """@raise TypeError, ValueError: it is none."""
    key = text("idempotency_key", value)
    if not (
        0 < len(key) <= MAX_IDEMPOTENCY_KEY and key.isascii() and key.isprintable()
    ):
        raise ValueError(
            "idempotency_key: requires 1 to"
            f" {MAX_IDEMPOTENCY_KEY} printable ASCII characters"
        )
    return key


def _type(value: object) -> str:
    return type(value).__name__

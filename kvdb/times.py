"""
Times of day, as entries and backups have them.

Rule: any clock can be written down.  The time of a write is for people to read, and no
write depends on it.
"""

from __future__ import annotations

import math
from typing import Final

MAX_TIME_MS: Final = 253_402_300_799_999
"""The end of the year 9999, in milliseconds since 1970: the latest that people's
formats of times have."""


def time_ms_of(seconds: float) -> int:
    """
    A clock's time in milliseconds since 1970.  One before that counts as 1970, one
    behind the year 9999 as its end, and one that is no number as 1970.
    """
    if math.isnan(seconds):
        return 0
    return int(max(0.0, min(seconds * 1000, MAX_TIME_MS)))

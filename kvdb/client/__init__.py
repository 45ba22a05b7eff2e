"""
The client library.  See docs/client.md.

It knows HTTP only: of kvdb's other rooms it imports nothing but the release's
number.  The one exception is L{kvdb.client.testing}, which has a member's own
REST surface in memory.
"""

from kvdb.client.client import Client
from kvdb.client.errors import (
    BadRequest,
    ClientError,
    Compacted,
    Conflict,
    Forbidden,
    NoSpace,
    NotFound,
    NotTrusted,
    OutcomeUnknown,
    Refused,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
)
from kvdb.client.model import (
    Delete,
    Entry,
    Event,
    Health,
    Member,
    Page,
    Put,
    Status,
    Value,
)
from kvdb.client.tls import TLS
from kvdb.client.watch import Watch

__all__ = [
    "TLS",
    "BadRequest",
    "Client",
    "ClientError",
    "Compacted",
    "Conflict",
    "Delete",
    "Entry",
    "Event",
    "Forbidden",
    "Health",
    "Member",
    "NoSpace",
    "NotFound",
    "NotTrusted",
    "OutcomeUnknown",
    "Page",
    "Put",
    "Refused",
    "Status",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "Value",
    "Watch",
]

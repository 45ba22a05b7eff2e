"""
What a request asks for, read from its parts.

Pure functions from bytes to meaning; each either answers or raises a
L{Problem<kvdb.rest.problems.Problem>}.  Whatever answers requests, Klein or a
shorter way, reads them with these, so that all agree.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

from kvdb.rest.problems import Problem
from kvdb.store.commands import (
    ALWAYS,
    MAX_IDEMPOTENCY_KEY_BYTES,
    Condition,
    ConditionKind,
)

KV_PREFIX: Final = b"/_/kv/"
UI_PREFIX: Final = b"/_/ui/"
RESERVED_NAMES: Final = frozenset({b"/health", b"/metrics", b"/version", b"/_"})
RESERVED_PREFIXES: Final = (b"/_/", b"/v3/")

_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
MAX_DIGITS: Final = 19
"""What a number below 2^63 has at most."""

_HOST = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
_HOST_AND_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]*)?")
_ETAG = re.compile(r'\s*(W/)?"([^"]*)"\s*')
_NEVER = 2**64 - 1
_CHANGING = frozenset({b"PUT", b"POST", b"DELETE", b"PATCH"})


def target_path(uri: bytes) -> bytes:
    """
    The path of a request's target, without the query: as it was sent, but for
    kvdb's own addresses and members', which are decoded (a file of the dashboard has
    one spelling).  HTTP libraries and
    proxies decode on the way what another has encoded (RFC 3986, section 6.2.2),
    so all spellings of one path must mean the same.

    The absolute form stands for its path (RFC 9112, section 3.2.2).
    """
    path = uri.partition(b"?")[0]
    if path.startswith(b"/"):
        return _one_spelling(path)
    scheme, separator, rest = path.partition(b"://")
    if separator and scheme.lower() in (b"http", b"https"):
        return _one_spelling(b"/" + rest.partition(b"/")[2])
    raise Problem(400, "the request's target is neither a path nor a URL")


def _one_spelling(path: bytes) -> bytes:
    """See L{target_path}."""
    if b"%" not in path or path.startswith(UI_PREFIX) or _BAD_PERCENT.search(path):
        return path
    decoded = unquote_to_bytes(path)
    if is_reserved(decoded) or decoded[1:].isdigit():
        return decoded.replace(b"%", b"%25")
    return path


def is_reserved(path: bytes) -> bool:
    """Whether C{path} is one of kvdb's own addresses, and no key."""
    return path in RESERVED_NAMES or path.startswith(RESERVED_PREFIXES)


def key_of(path: bytes, max_bytes: int) -> bytes:
    """The key that C{path} names: percent-decoded, with its leading slash."""
    if path.startswith(KV_PREFIX):
        path = path[len(KV_PREFIX) - 1 :]
    if _BAD_PERCENT.search(path):
        raise Problem(400, "a % in the path is not followed by two hexadecimal digits")
    key = unquote_to_bytes(path) if b"%" in path else path
    if len(key) > max_bytes:
        raise Problem(
            414,
            f"the key has {len(key)} bytes, the limit is {max_bytes}",
            "The limit is the server's --max-key-bytes.",
        )
    return key


def parameter_of(
    args: Mapping[bytes, Sequence[bytes]], name: str, max_bytes: int
) -> bytes | None:
    """A key, or what keys begin with, in the query; percent-decoded already."""
    value = args.get(name.encode(), [None])[0]
    if value is None:
        return None
    if len(value) > max_bytes:
        raise Problem(414, f"{name} has {len(value)} bytes, the limit is {max_bytes}")
    if not value.startswith(b"/"):
        raise Problem(400, f"{name} begins with a slash, as every key does")
    return value


def number_of(
    args: Mapping[bytes, Sequence[bytes]], name: str, low: int, high: int
) -> int | None:
    """A number in the query."""
    value = args.get(name.encode(), [None])[0]
    if value is None:
        return None
    if not value.isdigit() or len(value) > MAX_DIGITS or not low <= int(value) <= high:
        raise Problem(400, f"{name} is a number from {low} to {high}")
    return int(value)


def flag_of(args: Mapping[bytes, Sequence[bytes]], name: str) -> bool:
    """Something that is true or false in the query; false if left out."""
    value = args.get(name.encode(), [b"false"])[0]
    if value not in (b"true", b"false"):
        raise Problem(400, f"{name} is true or false")
    return value == b"true"


def check_query(args: Mapping[bytes, Sequence[bytes]], known: Collection[str]) -> None:
    """Refuse a parameter that would be ignored, or one given twice."""
    for raw, values in args.items():
        name = raw.decode("utf-8", "replace")
        if name not in known:
            hint = (
                f"Known here: {', '.join(sorted(known))}."
                if known
                else "There are none here; a ? within a key is written %3F."
            )
            raise Problem(400, f"unknown query parameter {name!r}", hint)
        if len(values) > 1:
            raise Problem(400, f"query parameter {name!r} stands there twice")


def consistency_of(args: Mapping[bytes, Sequence[bytes]]) -> bool:
    """Whether the read must be linearizable."""
    value = args.get(b"consistency", [b"linearizable"])[0]
    if value not in (b"linearizable", b"stale"):
        raise Problem(400, "consistency is linearizable or stale")
    return value == b"linearizable"


def revision_of(args: Mapping[bytes, Sequence[bytes]]) -> int | None:
    """The past revision asked for."""
    value = args.get(b"revision", [None])[0]
    if value is None:
        return None
    if not value.isdigit() or len(value) > MAX_DIGITS or int(value) == 0:
        raise Problem(400, "revision is a number from 1 on")
    return int(value)


def condition_of(if_match: str | None, if_none_match: str | None) -> Condition:
    """What a write is conditional on (RFC 9110, section 13)."""
    if if_match is not None and if_none_match is not None:
        raise Problem(400, "If-Match and If-None-Match are given together")
    if if_none_match is not None:
        if if_none_match.strip() != "*":
            raise Problem(
                400,
                "If-None-Match on a write is *: the key must be absent",
                'If-Match: "REVISION" is for a key that must be unchanged.',
            )
        return Condition(ConditionKind.ABSENT)
    if if_match is None:
        return ALWAYS
    if if_match.strip() == "*":
        return Condition(ConditionKind.EXISTS)
    tags = entity_tags(if_match, "If-Match")
    if len(tags) != 1:
        raise Problem(400, "If-Match takes one entity tag")
    text = tags[0]
    is_number = text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS
    revision = int(text) if is_number else _NEVER
    return Condition(ConditionKind.REVISION, min(revision, _NEVER))


def entity_tags(value: str, header: str) -> list[str]:
    """What stands between the quotes of a list of entity tags."""
    tags = []
    for item in value.split(","):
        match = _ETAG.fullmatch(item)
        if match is None:
            raise Problem(
                400,
                f"{header} holds no entity tag",
                'An entity tag is quoted: "17", as in the ETag of a GET.',
            )
        tags.append(match[2])
    return tags


def not_modified(if_none_match: str | None, revision: int) -> bool:
    """Whether a reader has the value at C{revision} already."""
    if if_none_match is None:
        return False
    if if_none_match.strip() == "*":
        return True
    return str(revision) in entity_tags(if_none_match, "If-None-Match")


def idempotency_key_of(value: str | None) -> bytes:
    """The token, bare or quoted; no bytes where none is given."""
    if value is None:
        return b""
    token = value.strip()
    if len(token) >= 2 and token[0] == token[-1] == '"':
        token = token[1:-1]
    encoded = token.encode("latin-1", "replace")
    if not 0 < len(encoded) <= MAX_IDEMPOTENCY_KEY_BYTES:
        raise Problem(
            400,
            f"an Idempotency-Key has 1 to {MAX_IDEMPOTENCY_KEY_BYTES} bytes, this one"
            f" {len(encoded)}",
        )
    return encoded


def check_host(host: str | None) -> None:
    """Refuse a Host that is none (RFC 9112, section 3.2)."""
    if host is not None and not _HOST.fullmatch(host.strip()):
        raise Problem(400, "the Host header holds no host")


def is_literal(host: str) -> bool:
    """Whether C{host}, without a port, is an address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def check_local(host: str | None) -> None:
    """
    Refuse a Host that is a name of another machine.  A page whose name has been
    pointed at this one sends its own (DNS rebinding), and its browser takes what
    is here for that site's; no address and no C{localhost} (RFC 6761, section
    6.3) can be pointed elsewhere.
    """
    bare = (host or "").strip()
    if not bare:
        return  # no browser
    match = _HOST_AND_PORT.fullmatch(bare)
    name = "" if match is None else (match[1] or match[2]).lower().removesuffix(".")
    if not (is_literal(name) or name == "localhost" or name.endswith(".localhost")):
        raise Problem(
            421,
            f"this server is for its own machine only, and not for {bare[:253]!r}",
            "Ask it as localhost, or by its address; other names are taken with"
            " --access-file.",
        )


def check_origin(method: bytes, origin: str | None, host: str | None) -> None:
    """
    Refuse a change that another site's page asks for: a browser would send it
    in its user's name.
    """
    if origin is None or method not in _CHANGING:
        return
    try:
        netloc = urlsplit(origin).netloc.lower()
    except ValueError:
        netloc = ""
    if not netloc or netloc != (host or "").lower():
        raise Problem(
            403,
            "a page of another origin may not change anything here",
            "Leave the Origin header out, if you are not a browser.",
        )


def check_expect(expect: str | None) -> None:
    """Refuse an expectation that nobody meets (RFC 9110, section 10.1.1)."""
    if expect is not None and expect.strip().lower() != "100-continue":
        raise Problem(417, "the only expectation met here is 100-continue")


def member_id_of(text: bytes) -> int:
    """A member's id."""
    digits = text.lstrip(b"0")
    if not text.isdigit() or not 0 < len(digits) <= MAX_DIGITS or int(digits) >= 2**63:
        raise Problem(
            400,
            f"{text[:40].decode('utf-8', 'replace')!r} is no member's id, which is a"
            " number from 1 to 2^63 - 1",
        )
    return int(digits)

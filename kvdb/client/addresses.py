"""
Keys, endpoints and queries, as they stand in a URL.

A key is bytes with a leading slash, and all of them arrive: what is not an
unreserved character of RFC 3986 is percent-encoded, but for the slash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote_from_bytes, urlsplit

from kvdb.client import arguments
from kvdb.client.arguments import Bytes, key_of

Key = Bytes | str
"""With its leading slash; text stands for its UTF-8."""

MAX_ENDPOINTS: Final = 64
"""More members than any cluster has."""

_OWN_NAMES: Final = frozenset({b"/health", b"/metrics", b"/version", b"/_", b"/v3"})
_ELSEWHERE: Final = (b"/_/", b"/v3/", b"//")


def key_path(key: Key) -> str:
    """
    Where a key is.

    Most stand at the root.  C{/_/kv} is the explicit address: for kvdb's own
    names, for digits, which are members there, and for two slashes, before which
    Twisted's client writes two more, as C{urlunparse} does from Python 3.12.6 on.

    @raise TypeError, ValueError: it is no key.
    """
    raw = key_of("key", key)
    path = quote_from_bytes(raw, safe="/")
    if raw in _OWN_NAMES or raw.startswith(_ELSEWHERE) or raw[1:].isdigit():
        return "/_/kv" + path
    return path


def query(parameters: Mapping[str, bytes | str | int | None]) -> str:
    """The query with those that are not None; empty, or with its C{?}."""
    pairs = []
    for name, value in parameters.items():
        if value is None:
            continue
        raw = value if isinstance(value, bytes) else str(value).encode()
        pairs.append(f"{name}={quote_from_bytes(raw, safe='/')}")
    return "?" + "&".join(pairs) if pairs else ""


def endpoint_url(text: str, secure: bool = False) -> str:
    """
    C{http://HOST:PORT}, C{https://...}, or C{HOST:PORT} for the one that fits.

    @param secure: whether TLS was asked for.
    @raise TypeError, ValueError: it is no endpoint.
    """
    wanted = arguments.text("an endpoint", text).strip()
    if "://" not in wanted:
        wanted = ("https://" if secure else "http://") + wanted
    _no_user(wanted)
    wrong = ValueError(f"{text!r} is not an endpoint: it is http://HOST:PORT")
    try:
        parts = urlsplit(wanted)
        port = parts.port
    except ValueError:
        raise wrong from None
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or not wanted.isascii()
        or any(character.isspace() for character in wanted)
        or parts.query
        or parts.fragment
        or parts.path.strip("/")
    ):
        raise wrong
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "")


def _no_user(text: str) -> None:
    if "@" in text:  # and what is before it is not to be told
        raise ValueError(
            "an endpoint is http://HOST:PORT, without a user and a password: give"
            " those beside it, as user and password"
        )


def endpoint_urls(endpoints: str | Iterable[str], secure: bool = False) -> list[str]:
    """
    Several, each once; text has them between commas.

    @raise ValueError: one is none, or there are none, or too many.
    """
    if isinstance(endpoints, str):
        _no_user(endpoints)  # whose password may have commas
        endpoints = endpoints.split(",")
    elif isinstance(endpoints, (bytes, bytearray)) or not isinstance(
        endpoints, Iterable
    ):
        raise TypeError(f"endpoints: requires text, not {type(endpoints).__name__}")
    items = list(endpoints)
    urls = list(dict.fromkeys(endpoint_url(item, secure) for item in items))
    if not urls:
        raise ValueError("at least one endpoint is needed: http://HOST:PORT")
    if len(urls) > MAX_ENDPOINTS:
        raise ValueError(f"{len(urls)} endpoints are more than {MAX_ENDPOINTS}")
    return urls

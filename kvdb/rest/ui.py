"""
The dashboard: a page and what it needs, from C{kvdb/rest/ui/}.

Rules:

* An address is a file's exact name; no path leads to any other file.
* All of it is read once, and served from memory.
* The page may load, run and ask nothing but what this server has
  (L{CONTENT_SECURITY_POLICY}).  It holds no data: whoever may not read the
  database sees an empty page, so it can be given to anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Final

from attrs import field, frozen

from kvdb.rest.call import Call
from kvdb.rest.parsing import check_query, entity_tags
from kvdb.rest.problems import Answer, Problem

ADDRESS: Final = b"/_/ui/"
PAGE: Final = "index.html"
"""What is at that address itself."""

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        # A script that would put text in as HTML fails instead.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""See https://www.w3.org/TR/CSP3/ and https://www.w3.org/TR/trusted-types/."""

_HEADERS: Final = {
    b"cache-control": b"no-cache",  # kept, but asked for: no mix of two releases
    b"content-security-policy": CONTENT_SECURITY_POLICY.encode(),
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
}
_TYPES: Final = {
    "css": b"text/css; charset=utf-8",
    "html": b"text/html; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
    "txt": b"text/plain; charset=utf-8",
}


@frozen(slots=True)
class Asset:
    """
    A file of the dashboard.

    @ivar tag: its entity tag, without the quotes; changes with the content.
    """

    content_type: bytes
    tag: str
    body: bytes = field(repr=False)


@cache
def assets() -> Mapping[str, Asset]:
    """All files, by name."""
    found = {}
    for entry in files("kvdb.rest").joinpath("ui").iterdir():
        kind = _TYPES.get(entry.name.rpartition(".")[2])
        if kind is not None and entry.is_file():
            body = entry.read_bytes()
            tag = sha256(body).hexdigest()[:32]
            found[entry.name] = Asset(kind, tag, body)
    return found


@frozen(slots=True)
class Dashboard:
    """@ivar files: what is served, by name."""

    files: Mapping[str, Asset] = field(factory=assets)

    def get(self, call: Call) -> Answer:
        """C{GET /_/ui/NAME}."""
        if call.method not in (b"GET", b"HEAD"):
            raise Problem(
                405,
                f"{call.method.decode('latin-1')} is not for this address",
                "",
                {b"allow": b"GET, HEAD"},
            )
        check_query(call.args, ())
        if call.path == ADDRESS[:-1]:
            # The page's own addresses are relative to its slash.
            return Answer(308, headers={b"location": ADDRESS})
        name = call.path.removeprefix(ADDRESS).decode("latin-1")
        found = self.files.get(name or PAGE)
        if found is None:
            raise Problem(404, "there is nothing at this address")
        headers = {**_HEADERS, b"etag": f'"{found.tag}"'.encode()}
        wanted = call.header("if-none-match")
        if wanted is not None and (
            wanted.strip() == "*" or found.tag in entity_tags(wanted, "If-None-Match")
        ):
            return Answer(304, headers=headers)
        return Answer(200, found.body, {**headers, b"content-type": found.content_type})

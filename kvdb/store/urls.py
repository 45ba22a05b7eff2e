"""
Peer URLs: where members dial each other.

The grammar (docs/protocol.md has the same, with reasons)::

    url    = scheme "://" host ":" port [ "/" ]
    scheme = "http" / "https" / "tcp", in any case
    host   = name / four decimal numbers / "[" IPv6 address "]"
    name   = labels of A-Z a-z 0-9 "-" "_", joined by "."; one more "." may follow
    port   = 1 to 65535, without leading zeros

Rules:

* nothing is asked of the platform or of Python's libraries, whose answers differ
  between releases: what is judged here is judged alike by every member, always;
* L{url_problem} is a part of what membership entries mean: another grammar needs
  another form of entry;
* L{read_url} never fails: members that earlier releases let in stay members.
"""

from __future__ import annotations

from typing import Final

MAX_URL_BYTES: Final = 1024
"""The longest peer URL."""

MAX_NAME_CHARACTERS: Final = 253
"""The longest host name (RFC 1035, without the length bytes and the root)."""

MAX_LABEL_CHARACTERS: Final = 63
"""The longest part of one between dots."""

SCHEMES: Final = ("http", "https", "tcp")

_UPPER: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LOWER: Final = "abcdefghijklmnopqrstuvwxyz"
_DIGITS: Final = frozenset("0123456789")
_SHOWN: Final = frozenset(map(chr, range(ord("!"), ord("~") + 1)))
_HEX: Final = frozenset("0123456789abcdef")
_IN_LABELS: Final = frozenset(_LOWER) | _DIGITS | {"-", "_"}
_TO_LOWER: Final = {ord(u): low for u, low in zip(_UPPER, _LOWER, strict=True)}


def read_url(url: str) -> tuple[str, str, str]:
    """
    Scheme and host, in lower case, and the port, each empty where it is missing.
    Of a URL that is none it says something, the same everywhere.
    """
    scheme, _, rest = url.partition("://")
    for end in "/?#":
        rest = rest.partition(end)[0]
    rest = rest.rpartition("@")[2]
    if "[" in rest:
        host, _, rest = rest.partition("[")[2].partition("]")
        port = rest.partition(":")[2]
    else:
        host, _, port = rest.partition(":")
    return scheme.translate(_TO_LOWER), host.translate(_TO_LOWER), port


def url_problem(url: str) -> str | None:
    """Why C{url} is no peer URL, for people; None if it is one."""
    if len(url) > MAX_URL_BYTES:
        return f"a URL of {len(url)} characters; it may have {MAX_URL_BYTES}"
    if not _SHOWN.issuperset(url):
        return _not(url)
    scheme, host, port = read_url(url)
    bare = url.translate(_TO_LOWER)
    if bare not in (made := _made_of(scheme, host, port), made + "/"):
        return _not(url)
    if scheme not in SCHEMES or not host or not port:
        return _not(url)
    number = _number(port, 5)
    if number is None or not 0 < number < 1 << 16:
        return _not(url, "a port is a number from 1 to 65535")
    why = _ipv6_problem(host) if "[" in url else _host_problem(host)
    return None if why is None else _not(url, why)


def _made_of(scheme: str, host: str, port: str) -> str:
    bracketed = f"[{host}]" if ":" in host else host
    return f"{scheme}://{bracketed}:{port}"


def _not(url: str, why: str = "") -> str:
    shown = "".join(c if c in _SHOWN else "?" for c in url)
    if why:
        return f'"{shown}" is no peer URL: {why}'
    return f'"{shown}" is not http://host:port or https://host:port'


def _number(text: str, most_digits: int) -> int | None:
    """What decimal digits say; None where there are none, more, or a leading 0."""
    if not 0 < len(text) <= most_digits or not _DIGITS.issuperset(text):
        return None
    return None if text[0] == "0" and len(text) > 1 else int(text)


# Hosts that are no IPv6 address.


def _host_problem(host: str) -> str | None:
    labels = host.removesuffix(".").split(".")
    last = labels[-1]
    if last and (_DIGITS.issuperset(last) or _is_hex_number(last)):
        # No name ends like that, and whoever resolves it takes it for an address.
        address = _ipv4(host)
        if address is None:
            return f"{host} is no address: an IPv4 address is 4 numbers up to 255"
        return _ipv4_problem(host, address)
    if len(host.removesuffix(".")) > MAX_NAME_CHARACTERS:
        return f"a host name has at most {MAX_NAME_CHARACTERS} characters"
    for label in labels:
        if not label:
            return f"{host} is no host name: a part of it is empty"
        if len(label) > MAX_LABEL_CHARACTERS:
            return (
                f"a part of a host name has at most {MAX_LABEL_CHARACTERS} characters"
            )
        if not _IN_LABELS.issuperset(label):
            return "a host name has letters of ASCII, digits, '-', '_' and '.'"
        if label[0] == "-" or label[-1] == "-":
            return f"{host} is no host name: a part of it begins or ends with '-'"
    return None


def _is_hex_number(label: str) -> bool:
    return label[:2] == "0x" and _HEX.issuperset(label[2:])


def _ipv4(text: str) -> tuple[int, ...] | None:
    """The four numbers of an IPv4 address."""
    numbers = [_number(part, 3) for part in text.split(".")]
    found = tuple(n for n in numbers if n is not None and n < 256)
    return found if len(found) == len(numbers) == 4 else None


def _ipv4_problem(host: str, address: tuple[int, ...]) -> str | None:
    if address[0] == 0:
        return f"nobody can dial {host}: write one of that machine's own addresses"
    if 224 <= address[0] < 240 or address == (255, 255, 255, 255):
        return f"nobody can dial {host}: it is the address of many machines"
    return None


# Hosts that are one.


def _ipv6_problem(host: str) -> str | None:
    if "%" in host:
        return (
            f"{host} has a zone, which means something on one machine only: write an"
            " address that all members can dial"
        )
    groups = _ipv6(host)
    if groups is None:
        return f"{host} is no IPv6 address"
    loopback = (*(0,) * 7, 1)
    if groups[:5] == (0,) * 5 and groups[5] in (0, 0xFFFF) and groups != loopback:
        # The unspecified address, or an IPv4 address in this form.
        return _ipv4_problem(host, tuple(b for g in groups[6:] for b in divmod(g, 256)))
    if groups[0] >= 0xFF00:
        return f"nobody can dial {host}: it is the address of many machines"
    if 0xFE80 <= groups[0] < 0xFEC0:
        return (
            f"{host} is an address within one link, which cannot be dialled without a"
            " zone: write an address that all members can dial"
        )
    return None


def _ipv6(text: str) -> tuple[int, ...] | None:
    """The eight numbers of an IPv6 address (RFC 4291, section 2.2)."""
    before, gap, after = text.partition("::")
    left, right = _groups(before, last=not gap), _groups(after, last=True)
    if left is None or right is None:
        return None
    missing = 8 - len(left) - len(right)
    if missing < 1 if gap else missing != 0:
        return None
    return (*left, *(0,) * missing, *right)


def _groups(text: str, *, last: bool) -> tuple[int, ...] | None:
    """
    Some of the numbers.

    @param last: the address ends here, where an IPv4 address may stand.
    """
    if not text:
        return ()
    found: list[int] = []
    parts = text.split(":")
    if last and "." in parts[-1]:
        address = _ipv4(parts.pop())
        if address is None:
            return None
        found = [address[0] << 8 | address[1], address[2] << 8 | address[3]]
    if not all(0 < len(part) <= 4 and _HEX.issuperset(part) for part in parts):
        return None
    return (*(int(part, 16) for part in parts), *found)

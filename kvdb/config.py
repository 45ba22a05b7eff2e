"""
The configuration file: options by their names, in TOML.

::

    id = 1
    cluster = ["http://10.0.0.1:12379", "http://10.0.0.2:12379"]
    data-dir = "/var/lib/kvdb/1"
    log_format = "json"

It only turns what stands there into words, as they would be typed; what they mean,
and which are wrong, the options' own parsers say.

Rules: a name that is no option's is refused, and so is one that stands there twice
(C{data-dir} and C{data_dir}); what is wrong is said with file, line and name.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

MAX_CONFIG_BYTES: Final = 1 << 20
"""The longest configuration file."""

LISTS: Final = frozenset({"cluster"})
"""Options whose value may stand as an array, or as a table by member ids."""

Check = Callable[[str], object]
"""An option's parser; raises an exception that names the option and its fault."""


class BadConfig(Exception):
    """The file is of no use; the text says which, where and why."""


def read_config(
    path: str, checks: Mapping[str, Check], flags: Collection[str]
) -> dict[str, str | bool]:
    """
    What stands in the file at C{path}, by the options' names.

    @param checks: the parsers of options that take a value.
    @param flags: options that take none.
    @raise BadConfig: see there.
    """
    text = _read(path)
    try:
        found = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # of a number's digits too
        raise BadConfig(f"{path}: is not TOML: {error}") from error
    told: dict[str, str | bool] = {}
    for key, value in found.items():
        name = key.replace("_", "-")
        try:
            if name in told:
                raise ValueError("stands there twice")
            if name in flags:
                told[name] = _flag(value)
            elif name in checks:
                told[name] = _words(name, value)
                checks[name](_words(name, value))
            else:
                raise ValueError("is no option")
        except Exception as error:
            why = str(error).removeprefix(f"--{name}: ")
            shown = key if key.isprintable() else repr(key)
            raise BadConfig(f"{path}{_line_of(text, key)}: {shown}: {why}") from error
    return told


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise BadConfig(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) > MAX_CONFIG_BYTES:
        raise BadConfig(f"{path}: is longer than {MAX_CONFIG_BYTES} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadConfig(f"{path}, line {line}: is not UTF-8") from error


def _line_of(text: str, key: str) -> str:
    """Where a key stands, for people: TOML's reader keeps no places."""
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(rf"""\s*\[?\s*["']?{re.escape(key)}["']?\s*[]=.]""", line):
            return f", line {number}"
    return ""


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("is true or false")


def _words(name: str, value: Any) -> str:
    """A value as it would be typed."""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if name in LISTS:
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return ",".join(value)
        if isinstance(value, dict) and all(isinstance(v, str) for v in value.values()):
            return ",".join(f"{key}={one}" for key, one in value.items())
        raise ValueError("is a text, an array of texts, or a table of them by id")
    raise ValueError("is a text or a number")

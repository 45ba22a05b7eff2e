"""
The command line: C{twistd kvdb --id N --cluster URL,URL,... --port P [--join]}.

Every option can also stand in the environment, as C{KVDB_CLUSTER} for
C{--cluster}, and in the file that C{--config} names.  The command line comes before
the environment, and that before the file.  What is wrong is said in one line that
names the option, the variable, or the file and its line.
"""

from __future__ import annotations

import getopt
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

from twisted.python import usage

from kvdb import __version__
from kvdb.config import BadConfig, read_config
from kvdb.logs import FORMATS, LEVELS
from kvdb.node.settings import NodeSettings
from kvdb.preflight import MAX_CONNECTIONS_LIMIT, Refused, check_runner
from kvdb.rest.site import MAX_CONNECTIONS
from kvdb.settings import Settings
from kvdb.store.urls import read_url, url_problem
from kvdb.tls.settings import TLSFiles

_YES: Final = ("1", "true", "yes", "on")
_NO: Final = ("", "0", "false", "no", "off")
"""What turns an option that takes no value on and off, in the environment."""

MAX_ID: Final = 2**63 - 1
MAX_PORT: Final = 65535
MAX_VALUE_LIMIT: Final = 8 << 20
"""The highest C{--max-value-bytes}: an entry of the log is at most 16 MiB."""

MAX_KEY_LIMIT: Final = 8 << 10
"""The highest C{--max-key-bytes}: a percent-encoded key must fit a request's
line of 16 KiB, with room for the rest of it."""

MAX_SYNC_INTERVAL: Final = 10_000
"""The highest C{--sync-interval}, in milliseconds."""

_PLATFORM_VARIABLE: Final = "port"
"""The option whose variable a platform sets too: where a Service is named kvdb,
Kubernetes has C{KVDB_PORT=tcp://10.0.0.1:12380} in every container, as Docker's links
did."""

_PLATFORM_VALUE: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
"""How its values begin; no port does (RFC 3986, section 3.1)."""

_TLS_FILES: Final = ("cert", "key", "trusted-ca")


def _number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if text.isascii() and text.isdigit() and low <= int(text) <= high:
            return int(text)
        raise ValueError(f"{text!r} is not a number from {low} to {high}")

    return parse


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.05 <= value <= 3600:
        raise ValueError(f"{text!r} is not a number of seconds from 0.05 to 3600")
    return value


def _text(text: str) -> str:
    # A default in its place would be of another directory, or without the file.
    if not text:
        raise ValueError("is empty: leave it out, or say what it is")
    if "\0" in text:
        raise ValueError(f"{text!r} has a NUL in it")
    return text


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text in words:
            return text
        raise ValueError(f"{text!r} is none of {', '.join(words)}")

    return parse


def parse_cluster(text: str) -> dict[int, str]:
    """
    The members: C{URL,URL,...}, numbered from 1, or C{ID=URL,...}.

    @raise ValueError: it is neither.
    """
    cluster: dict[int, str] = {}
    addresses: dict[tuple[str, ...], int] = {}
    for position, raw in enumerate(text.split(","), 1):
        item = raw.strip()
        if not item:
            raise ValueError("there is an empty item between commas, or at an end")
        node, url = position, item
        name, equals, rest = item.partition("=")
        if equals and "/" not in name:
            node, url = _number(1, MAX_ID)(name), rest
        problem = url_problem(url)
        if problem is not None:
            raise ValueError(problem)
        if node in cluster:
            raise ValueError(f"member {node} stands there twice")
        address = read_url(url)[1:]
        if address in addresses:
            raise ValueError(f"members {addresses[address]} and {node} have one URL")
        addresses[address] = node
        cluster[node] = url.rstrip("/")
    return cluster


def _variable(name: str) -> str:
    """What an option is called in the environment."""
    return "KVDB_" + name.upper().replace("-", "_")


def _environment(name: str) -> str | None:
    """What the environment says of an option."""
    value = os.environ.get(_variable(name))
    return None if _is_platform_value(name, value) else value


def _is_platform_value(name: str, value: str | None) -> bool:
    return (
        name == _PLATFORM_VARIABLE
        and value is not None
        and _PLATFORM_VALUE.match(value) is not None
    )


def ignored_variables() -> list[str]:
    """A line for each variable that the platform has set, and that is ignored."""
    variable = _variable(_PLATFORM_VARIABLE)
    value = os.environ.get(variable)
    if not _is_platform_value(_PLATFORM_VARIABLE, value):
        return []
    return [
        f"{variable}={value} is ignored: it is no port, but what Kubernetes sets where"
        f" a Service is named kvdb; use --{_PLATFORM_VARIABLE}, --config, or"
        " enableServiceLinks: false"
    ]


def _flag(name: str) -> bool | None:
    """What the environment says of an option that takes no value."""
    said = _environment(name)
    if said is None:
        return None
    if said.lower() not in (*_YES, *_NO):
        raise usage.UsageError(f"{_variable(name)}: {said!r} is not true or false")
    return said.lower() in _YES


def _coerce(name: str, parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise usage.UsageError(f"--{name}: {error}") from None


def _check_variable(name: str, check: Callable[[str], object], value: str) -> None:
    """@raise usage.UsageError: it is wrong, with the variable's name."""
    try:
        check(value)
    except usage.UsageError as error:
        why = str(error).removeprefix(f"--{name}: ")
        raise usage.UsageError(f"{_variable(name)}: {why}") from None


def _option(
    name: str, default: str | None, doc: str, parse: Callable[[str], Any] = _text
) -> list[Any]:
    return [name, None, default, doc, partial(_coerce, name, parse)]


class Options(usage.Options):
    """What C{twistd kvdb} takes."""

    synopsis = "--id ID --cluster URL[,URL...] --port PORT [--join]"
    longdesc = (
        "One member of a replicated key-value store.  Clients talk HTTP to --port"
        " of any member.  Each option can also be given in the environment"
        " (KVDB_DATA_DIR for --data-dir), and in a file: see --config."
    )
    optParameters = [
        _option("id", "1", "This member's id in --cluster.", _number(1, MAX_ID)),
        _option(
            "cluster",
            "http://127.0.0.1:12379",
            "The members' peer URLs, by position (1, 2, ...) or as ID=URL.",
            parse_cluster,
        ),
        _option("port", "12380", "The clients' port.", _number(0, MAX_PORT)),
        _option("host", None, "The clients' address.  [default: the peer URL's]"),
        _option("data-dir", None, "Where data is kept.  [default: data/kvdb-ID]"),
        _option(
            "snapshot-count",
            "10000",
            "Entries applied between compactions of the log.",
            _number(10, 10**9),
        ),
        _option("tick", "100", "Milliseconds of a tick.", _number(5, 60_000)),
        _option(
            "election-ticks",
            "10",
            "Ticks without a leader before an election, at least.",
            _number(2, 1000),
        ),
        _option(
            "heartbeat-ticks",
            "1",
            "Ticks between a leader's heartbeats.",
            _number(1, 999),
        ),
        _option(
            "sync-interval",
            "0",
            "Milliseconds that writes may be acknowledged before they are on the disk:"
            " faster on slow disks, but see docs/operations.md.  0: never.",
            _number(0, MAX_SYNC_INTERVAL),
        ),
        _option("request-timeout", "5", "Seconds a request waits at most.", _seconds),
        _option(
            "max-key-bytes",
            "4096",
            "The longest key.",
            _number(1, MAX_KEY_LIMIT),
        ),
        _option(
            "max-value-bytes",
            str(1 << 20),
            "The longest value.",
            _number(1, MAX_VALUE_LIMIT),
        ),
        _option(
            "history",
            "100000",
            "Revisions of history that are kept.",
            _number(0, 10**12),
        ),
        _option(
            "history-bytes",
            str(1 << 30),
            "Bytes of history that are kept, where --history is more.",
            _number(0, 10**15),
        ),
        _option(
            "low-space",
            "256",
            "MiB left on the disk below which there is an alarm; 0: never.",
            _number(0, 10**9),
        ),
        _option("cert-file", None, "The clients' port: its certificate (PEM)."),
        _option("key-file", None, "The clients' port: its private key (PEM)."),
        _option("trusted-ca-file", None, "The CA of clients' certificates (PEM)."),
        _option("peer-cert-file", None, "Among members: this one's certificate."),
        _option("peer-key-file", None, "Among members: this one's private key."),
        _option("peer-trusted-ca-file", None, "The CA of members' certificates."),
        _option(
            "access-file", None, "Who may do what (TOML or JSON).  [default: anything]"
        ),
        _option(
            "max-connections",
            str(MAX_CONNECTIONS),
            "Connections of clients at a time.",
            _number(1, MAX_CONNECTIONS_LIMIT),
        ),
        _option("config", None, "A file of these options by their names (TOML)."),
        _option(
            "log-format", None, "text or json.  [default: text]", _one_of(*FORMATS)
        ),
        _option(
            "log-level",
            None,
            "The least important events in the log.  [default: info]",
            _one_of(*LEVELS),
        ),
    ]
    optFlags = [
        ["join", None, "Join a cluster that runs already."],
        ["client-cert-auth", None, "Clients must show a certificate."],
        ["peer-client-cert-auth", None, "Members that connect must show one."],
    ]

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        Defaults, file and environment first, by the same rules as the rest.

        @raise SystemExit: something is wrong, and a runner asks, which would print
            all options before the reason.
        @raise usage.UsageError: the same, where there is no runner.
        """
        try:
            self._parse(options)
        except usage.UsageError as error:
            if self.parent is None:
                raise
            raise SystemExit(f"kvdb: {error}; see twistd kvdb --help") from None
        if self.parent is not None:
            self._check_runner()

    def _check_runner(self) -> None:
        # Here, for twistd looks at its pidfile before it asks for anything else.
        runner: Any = self.parent
        try:
            removed = check_runner(runner)
        except Refused as error:
            raise SystemExit(f"kvdb: {error}") from None
        if removed is not None:
            print(f"kvdb: {removed}", file=sys.stderr)  # noqa: T201

    def _parse(self, options: Sequence[str] | None) -> None:
        typed = list(options or [])
        told = self._told_by_file(typed)
        first = []
        for name, _, default, _, check in self.optParameters:
            value = _environment(name)
            if value is None:
                value = told.get(name, default)
            else:
                _check_variable(name, check, value)
            if value is not None:
                first.append(f"--{name}={value}")
        for name in (str(flag[0]) for flag in self.optFlags):
            said = _flag(name)
            if told.get(name, False) if said is None else said:
                first.append(f"--{name}")
        super().parseOptions([*first, *typed])

    def parseArgs(self, *words: str) -> None:
        """There are none."""
        if words:
            raise usage.UsageError(f"{words[0]!r} belongs to no option")

    def _told_by_file(self, typed: Sequence[str]) -> dict[str, str | bool]:
        """What stands in the configuration file, if one is named."""
        path = _environment("config")
        with suppress(getopt.error):  # which is said when the rest is parsed
            for name, value in getopt.getopt(typed, self.shortOpt, self.longOpt)[0]:
                path = value if name == "--config" else path
        if path is None:
            return {}
        checks = {str(row[0]): row[4] for row in self.optParameters}
        del checks["config"]
        try:
            return read_config(path, checks, {str(flag[0]) for flag in self.optFlags})
        except BadConfig as error:
            raise usage.UsageError(f"--config: {error}") from None

    def postOptions(self) -> None:
        """What options say of each other."""
        cluster = self["cluster"]
        if self["id"] not in cluster:
            known = ", ".join(str(node) for node in cluster)
            raise usage.UsageError(
                f"--id: {self['id']} is not in --cluster, which has {known}"
            )
        if self["heartbeat-ticks"] >= self["election-ticks"]:
            raise usage.UsageError(
                "--heartbeat-ticks: must be fewer than --election-ticks"
            )
        self._check_tls("")
        self._check_tls("peer-")
        secured = [url for url in cluster.values() if read_url(url)[0] == "https"]
        if secured and self["peer-cert-file"] is None:
            raise usage.UsageError(
                f"--peer-cert-file: is needed, for {secured[0]} in --cluster is https"
            )

    def _check_tls(self, prefix: str) -> None:
        cert, key, ca = (f"{prefix}{name}-file" for name in _TLS_FILES)
        auth = f"{prefix}client-cert-auth"
        if (self[cert] is None) != (self[key] is None):
            raise usage.UsageError(f"--{cert} and --{key}: one is of no use alone")
        if self[cert] is None:
            for name in (ca, auth):
                if self[name]:
                    raise usage.UsageError(f"--{name}: is of no use without --{cert}")
        elif prefix and self[ca] is None:
            raise usage.UsageError(
                f"--{ca}: is needed, for members look at each other's certificates"
            )
        elif self[auth] and self[ca] is None:
            raise usage.UsageError(f"--{auth}: is of no use without --{ca}")
        elif not prefix and self[ca] is not None and not self[auth]:
            raise usage.UsageError(
                f"--{ca}: is of no use without --{auth}, which has clients show a"
                " certificate"
            )

    def _tls(self, prefix: str) -> TLSFiles | None:
        cert, key, ca = (self[f"{prefix}{name}-file"] for name in _TLS_FILES)
        if cert is None:
            return None
        return TLSFiles(
            prefix=prefix,
            cert=str(Path(cert).absolute()),
            key=str(Path(key).absolute()),
            ca=None if ca is None else str(Path(ca).absolute()),
            client_cert_auth=bool(self[f"{prefix}client-cert-auth"]),
        )

    def opt_version(self) -> NoReturn:
        """Print kvdb's version and exit."""
        print(f"kvdb {__version__}")  # noqa: T201
        raise SystemExit(0)

    def settings(self) -> Settings:
        """What was said, with paths as of the directory it was said in."""
        node_id = self["id"]
        data_dir = self["data-dir"] or f"data/kvdb-{node_id}"
        host = self["host"] or read_url(self["cluster"][node_id])[1]
        access_file = self["access-file"]
        return Settings(
            node_id=node_id,
            cluster=self["cluster"],
            join=bool(self["join"]),
            data_dir=str(Path(data_dir).absolute()),
            host=host,
            port=self["port"],
            max_key_bytes=self["max-key-bytes"],
            max_value_bytes=self["max-value-bytes"],
            tls=self._tls(""),
            peer_tls=self._tls("peer-"),
            access_file=access_file and str(Path(access_file).absolute()),
            max_connections=self["max-connections"],
            node=NodeSettings(
                tick=self["tick"] / 1000,
                election_ticks=self["election-ticks"],
                heartbeat_ticks=self["heartbeat-ticks"],
                sync_interval=self["sync-interval"] / 1000,
                request_timeout=self["request-timeout"],
                snapshot_count=self["snapshot-count"],
                low_space_bytes=self["low-space"] << 20,
                history_revisions=self["history"],
                history_bytes=self["history-bytes"],
            ),
        )

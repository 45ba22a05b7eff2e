"""
What holds for every command: whom to ask, as whom, and how to answer.

These options can stand before a command or behind it, and most in the
environment.  A secret has no option of its own, for a command line can be read
by every user of the machine: it stands in a file, or in the environment.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from kvdb.client.addresses import endpoint_urls
from kvdb.client.client import Client
from kvdb.client.tls import TLS

ENDPOINTS: Final = "http://127.0.0.1:12380"
TIMEOUT: Final = 5.0


class Count(click.IntRange):
    """A whole number, of whose bounds people are told in words."""

    name = "whole number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        """See L{click.ParamType}."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            raise _not_one(self, value, param, ctx) from None

    def _describe_range(self) -> str:
        return _bounds(self)


class Amount(click.FloatRange):
    """As L{Count}, a number."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        """See L{click.ParamType}."""
        try:
            found = super().convert(value, param, ctx)
        except click.BadParameter:
            found = math.nan
        if math.isnan(found):
            raise _not_one(self, value, param, ctx)
        return found

    def _describe_range(self) -> str:
        return _bounds(self)


def _not_one(
    kind: Count | Amount,
    value: Any,
    param: click.Parameter | None,
    ctx: click.Context | None,
) -> click.BadParameter:
    text = f"{value!r} is not a {kind.name} {_bounds(kind)}".rstrip()
    return click.BadParameter(text, ctx=ctx, param=param)


def _bounds(kind: Count | Amount) -> str:
    if kind.min is None:
        return ""
    return f"from {kind.min} " + ("on" if kind.max is None else f"to {kind.max}")


_SECONDS: Final = Amount()

_OPTIONS: Final[list[tuple[str, str | None, str, Any]]] = [
    ("endpoints", "KVDB_ENDPOINTS", "Members to ask, with commas between.", str),
    ("timeout", "KVDB_TIMEOUT", "Seconds a request may take in all.", _SECONDS),
    ("cacert", "KVDB_CACERT", "Certificates to trust, PEM.", str),
    ("cert", "KVDB_CERT", "One's own certificate, PEM.", str),
    ("key", "KVDB_KEY", "Its private key, if not in the same file.", str),
    ("token-file", "KVDB_TOKEN_FILE", "A file with a token (or: KVDB_TOKEN).", str),
    ("user", "KVDB_USER", "Who one is, with a password.", str),
    (
        "password-file",
        "KVDB_PASSWORD_FILE",
        "A file with the password (or: KVDB_PASSWORD).",
        str,
    ),
]


_MARK: Final = "common_"
"""Before the names of these options, for commands have arguments of the same."""


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """The one nearest to the command holds."""
    kept = context.ensure_object(dict)
    if value is not None and value is not False:
        assert parameter.name is not None, "each has one"
        kept[parameter.name.removeprefix(_MARK)] = value


def _common(outermost: bool) -> list[click.Parameter]:
    """
    @param outermost: whether for the command itself, which alone looks at the
        environment, and shows them in its help.
    """
    made: list[click.Parameter] = [
        click.Option(
            [f"--{name}", _MARK + name.replace("-", "_")],
            envvar=variable if outermost else None,
            show_envvar=outermost,
            help=text,
            type=kind,
            expose_value=False,
            callback=_keep,
            hidden=not outermost,
            metavar="SECONDS" if kind is _SECONDS else "TEXT",
        )
        for name, variable, text, kind in _OPTIONS
    ]
    made.append(
        click.Option(
            ["--json", _MARK + "json"],
            is_flag=True,
            help="Answer in JSON.",
            expose_value=False,
            callback=_keep,
        )
    )
    return made


class Command(click.Command):
    """A command that takes the common options too."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.params += _common(outermost=False)


class Group(click.Group):
    """Commands under one name, which take the common options too."""

    command_class = Command

    def __init__(self, *args: Any, outermost: bool = False, **more: Any) -> None:
        super().__init__(*args, **more)
        self.params += _common(outermost)


Group.group_class = Group


def is_json(kept: dict[str, Any]) -> bool:
    """Whether answers are JSON."""
    return bool(kept.get("json"))


def make_client(
    kept: dict[str, Any], reactor: Any, environment: Callable[[str], str | None]
) -> Client:
    """
    @raise click.UsageError: an option is wrong.
    """
    try:
        tls = None
        files = {name: kept.get(name) for name in ("cacert", "cert", "key")}
        if any(files.values()):
            tls = TLS.from_files(**files)
        token = _secret(kept, "token-file", environment("KVDB_TOKEN"))
        user = kept.get("user")
        password = _secret(kept, "password-file", environment("KVDB_PASSWORD"))
        if user is None:
            if password is not None and (token is None or "password_file" in kept):
                raise ValueError("there is a password, and no --user (or KVDB_USER)")
            password = None
        else:
            if password is None:
                raise ValueError(
                    "--user needs a password: --password-file or KVDB_PASSWORD"
                )
            token = None if "token_file" not in kept else token
        timeout = kept.get("timeout", TIMEOUT)
        named = kept.get("endpoints", ENDPOINTS)
        if "@" in named:  # and what is before it is not to be told
            raise ValueError(
                "--endpoints (or KVDB_ENDPOINTS) has no user and password in it: give"
                " them with --user, and --password-file or KVDB_PASSWORD"
            )
        endpoints = endpoint_urls(named, tls is not None)
        return Client(
            reactor,
            endpoints,
            tls=tls,
            timeout=timeout,
            token=token,
            user=user,
            password=password,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _secret(kept: dict[str, Any], option: str, given: str | None) -> str | None:
    path = kept.get(option.replace("-", "_"))
    if path is None:
        return given or None
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ValueError(f"--{option}: {path} cannot be read: {why}") from None
    return text.strip("\r\n")


def key_argument(text: str) -> bytes:
    """
    A key, as it was typed.

    @raise click.UsageError: it is none.
    """
    key = os.fsencode(text)
    if not key.startswith(b"/"):
        raise click.UsageError(f"a key begins with a slash: /{text}")
    return key

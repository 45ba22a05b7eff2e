"""
C{python -m kvdb.access hash NAME}: an entry for the access file.

Asks for a password, or makes a secret where none is given, and prints what
goes into the file.  The secret itself is read from the terminal or from the
standard input, never from the command line, which others can see.
"""

from __future__ import annotations

import argparse
import base64
import getpass
import os
import sys
from collections.abc import Callable, Sequence
from typing import TextIO

from kvdb.access.rules import NAME
from kvdb.access.secrets import MAX_SECRET_BYTES, SALT_BYTES, hash_secret


def entry(
    name: str, secret: bytes, roles: Sequence[str], entropy: Callable[[int], bytes]
) -> str:
    """
    What the access file needs for a user, with a line end.

    @raise ValueError: the name or the secret cannot be one.
    """
    if NAME.fullmatch(name) is None:
        raise ValueError(
            f"{name!r} is no user's name: 1 to 64 of letters, digits, - and _"
        )
    if not 0 < len(secret) <= MAX_SECRET_BYTES:
        raise ValueError(f"a secret has 1 to {MAX_SECRET_BYTES} bytes")
    if b"\n" in secret or b"\r" in secret:
        raise ValueError("a secret is one line")
    for role in roles:
        if NAME.fullmatch(role) is None:
            raise ValueError(f"{role!r} is no role's name")
    listed = ", ".join(f'"{role}"' for role in roles)
    hashed = hash_secret(secret, entropy(SALT_BYTES))
    return f'[users.{name}]\nsecret = "{hashed}"\nroles = [{listed}]\n'


def main(
    words: Sequence[str],
    entropy: Callable[[int], bytes],
    stdin: TextIO,
    stdout: TextIO,
    stderr: TextIO,
    ask: Callable[[str], str] = getpass.getpass,
) -> int:
    """The command; answers with its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m kvdb.access", description="Entries for --access-file."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    hashing = commands.add_parser(
        "hash", help="make a user's entry; the secret is asked for, or read from stdin"
    )
    hashing.add_argument("name", metavar="NAME")
    hashing.add_argument("--role", action="append", default=[], metavar="ROLE")
    hashing.add_argument(
        "--generate", action="store_true", help="make a secret, and show it once"
    )
    typed = parser.parse_args(words)
    if typed.generate:
        secret = base64.urlsafe_b64encode(entropy(24)).decode()
    elif stdin.isatty():
        secret = ask("secret: ")
        if ask("again: ") != secret:
            stderr.write("kvdb.access: the two differ\n")
            return 1
    else:
        secret = stdin.readline().rstrip("\r\n")
    try:
        text = entry(typed.name, secret.encode(), typed.role, entropy)
    except ValueError as error:
        stderr.write(f"kvdb.access: {error}\n")
        return 1
    if typed.generate:
        stderr.write(f"the secret, shown this once: {secret}\n")
        stderr.write(f"Authorization: Bearer {typed.name}.{secret}\n")
    stdout.write(text)
    return 0


if __name__ == "__main__":
    try:
        status = main(sys.argv[1:], os.urandom, sys.stdin, sys.stdout, sys.stderr)
    except KeyboardInterrupt:
        status = 130  # as shells have it for SIGINT
    sys.exit(status)

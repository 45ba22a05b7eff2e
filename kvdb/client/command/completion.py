"""
C{completion}: what a shell needs to complete C{kvdbctl}'s words.
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from kvdb.client.command.options import Command
from kvdb.client.command.session import NAME


@click.command("completion", cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that has SHELL complete this command's words."""
    kind = get_completion_class(shell)
    assert kind is not None, "the choices are those that Click knows"
    variable = f"_{NAME.upper()}_COMPLETE"
    # At once, whatever endpoints and files the environment names.
    click.echo(kind(context.find_root().command, {}, NAME, variable).source())

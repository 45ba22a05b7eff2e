"""
C{kvdbctl} as it is installed: its command is loaded, and run.

Loading takes half a second, in which Ctrl-C just ends it, as it ends what is written
in other languages: nothing is done yet that would have to be undone.
"""

from __future__ import annotations

import signal
from typing import NoReturn


def main() -> NoReturn:
    """The process."""
    found = signal.getsignal(signal.SIGINT)
    if found is signal.default_int_handler:  # else somebody has it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from kvdb.client.command.main import main as run

    signal.signal(signal.SIGINT, found)
    run()

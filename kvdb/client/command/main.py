"""
Arguments in, exit status out.

Here alone is the process's own: its streams, its signals, its reactor.  What
goes wrong is one line on the standard error: what, at which endpoint, and what
to do.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Final, NoReturn, TextIO

import click
from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from kvdb.client import errors
from kvdb.client.client import Client
from kvdb.client.command.options import is_json, make_client
from kvdb.client.command.session import (
    CONFLICT,
    DONE,
    INTERRUPTED,
    NAME,
    NO,
    NOT_ALLOWED,
    NOT_WRITTEN,
    PIPE_CLOSED,
    REFUSED,
    TERMINATED,
    UNAVAILABLE,
    UNEXPECTED,
    UNKNOWN,
    USAGE,
    Job,
    NotWritten,
    Readable,
    Session,
    say,
)
from kvdb.client.command.tree import tree

STATUSES: Final[Sequence[tuple[type[errors.ClientError], int]]] = (
    (errors.NotFound, NO),
    (errors.Conflict, CONFLICT),
    (errors.Unauthorized, NOT_ALLOWED),
    (errors.Forbidden, NOT_ALLOWED),
    (errors.Unavailable, UNAVAILABLE),
    (errors.OutcomeUnknown, UNKNOWN),
    (errors.UnexpectedAnswer, UNEXPECTED),
    (errors.ClientError, REFUSED),
)

MakeClient = Callable[[dict[str, Any], Any], Client]


@frozen(slots=True)
class Streams:
    """Where a command reads and writes."""

    input: Readable
    output: BinaryIO
    errors: TextIO
    on_terminal: bool

    def complain(self, text: str) -> None:
        """One line."""
        say(self.errors, " ".join(text.split()))


@frozen(slots=True)
class Asked:
    """A job, and the options that hold for it."""

    job: Job
    kept: dict[str, Any]


def read(arguments: Sequence[str], streams: Streams) -> Asked | int:
    """What is asked for; an exit status where nothing is left to do."""
    kept: dict[str, Any] = {}
    output = sys.stdout
    try:
        result = tree.main(
            list(arguments), prog_name=NAME, standalone_mode=False, obj=kept
        )
    except click.exceptions.NoArgsIsHelpError as error:
        try:
            streams.errors.write(error.format_message() + "\n")
            streams.errors.flush()
        except OSError:
            pass  # nobody reads it
        return USAGE
    except click.ClickException as error:
        streams.complain(_usage(error))
        return USAGE
    except click.Abort:
        return INTERRUPTED
    except BrokenPipeError:
        return PIPE_CLOSED
    except OSError as error:  # of help, and the like
        streams.complain(str(NotWritten(error)))
        return NOT_WRITTEN
    except SystemExit as error:
        # A shell was answered; or Click's reader has gone, which it tells by no more
        # than another stream in the place of that one.
        if sys.stdout is not output:
            return PIPE_CLOSED
        return error.code if isinstance(error.code, int) else DONE
    if callable(result):
        return Asked(result, kept)
    return result if isinstance(result, int) else DONE


def _usage(error: click.ClickException) -> str:
    text = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    path = NAME if context is None else context.command_path
    return f"{text}; see {path} --help"


async def perform(
    asked: Asked, reactor: Any, streams: Streams, make: MakeClient
) -> int:
    """Do the job; its exit status."""
    try:
        client = make(asked.kept, reactor)
    except click.UsageError as error:
        streams.complain(_usage(error))
        return USAGE
    session = Session(
        reactor,
        client,
        streams.input,
        streams.output,
        streams.errors,
        is_json(asked.kept),
        streams.on_terminal,
    )
    try:
        return await asked.job(session) or DONE
    except errors.ClientError as error:
        streams.complain(line_of(error))
        return next(status for kind, status in STATUSES if isinstance(error, kind))
    except click.ClickException as error:
        streams.complain(error.format_message())
        return USAGE
    except ValueError as error:
        streams.complain(str(error))
        return USAGE
    except NotWritten as error:
        streams.complain(str(error))
        return NOT_WRITTEN
    except BrokenPipeError:
        return PIPE_CLOSED
    finally:
        await client.close()


def line_of(error: errors.ClientError) -> str:
    """What, at which endpoint, and what to do."""
    text = str(error)
    if error.endpoint and not any(url in text for url in error.endpoint.split(",")):
        text += f" ({error.endpoint})"
    if isinstance(error, errors.OutcomeUnknown) and error.idempotency_key:
        text += f" [--idempotency-key {error.idempotency_key}]"
    hint = _HINTS.get(type(error), error.hint)
    return f"{text.rstrip('.')}. {hint}" if hint else text


_HINTS: Final[dict[type[errors.ClientError], str]] = {
    errors.NotTrusted: "Name who signed it with --cacert, and the member in --endpoints"
    " as its certificate does.",
    errors.Unauthorized: "Say who you are: --user and KVDB_PASSWORD, or KVDB_TOKEN.",
}
"""In the words of the command, where the server has those of HTTP."""


@define(slots=True, eq=False)
class Input:
    """
    The standard input, which is waited for.

    @ivar is_waited_for: whether it is now, and nothing else can be done.
    """

    _file: BinaryIO
    is_waited_for: bool = False

    def read(self, size: int = -1) -> bytes:
        """So many bytes, or all that come."""
        self.is_waited_for = True
        try:
            return self._file.read(size)
        finally:
            self.is_waited_for = False


@define(slots=True, eq=False)
class Run:
    """A job in the process's reactor, which signals can end."""

    reactor: Any
    _input: Input
    _doing: Deferred[int] | None = None
    _signalled: int = 0
    _results: list[Any] = field(factory=list)

    def run(self, work: Callable[[], Any]) -> int:
        """
        The exit status.

        @raise Exception: what C{work} has raised.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            # A shell has its jobs in the background ignore what its user interrupts.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._signal)
        self.reactor.callWhenRunning(self._begin, work)
        self.reactor.run(installSignalHandlers=False)
        [result] = self._results
        if self._signalled:
            return _status_of(self._signalled)
        if isinstance(result, Failure):
            result.raiseException()
        return int(result)

    def _begin(self, work: Callable[[], Any]) -> None:
        self._doing = Deferred.fromCoroutine(work())
        self._doing.addBoth(self._done)
        if self._signalled:
            self._cancel()

    def _done(self, result: Any) -> None:
        if isinstance(result, Failure) and result.check(CancelledError):
            result = INTERRUPTED
        self._results.append(result)
        self.reactor.stop()

    def _signal(self, number: int, frame: Any) -> None:
        if self._signalled:
            os._exit(_status_of(number))  # the second time, at once
        self._signalled = number
        if self._input.is_waited_for:
            raise CancelledError  # out of its read, which would go on else
        self.reactor.callFromThread(self._cancel)

    def _cancel(self) -> None:
        if self._doing is not None:  # else it is not begun, and will be at once over
            self._doing.cancel()


def _status_of(number: int) -> int:
    return INTERRUPTED if number == signal.SIGINT else TERMINATED


def main() -> NoReturn:
    """C{kvdbctl}."""
    _open_what_is_closed()
    given = Input(sys.stdin.buffer)
    streams = Streams(given, sys.stdout.buffer, sys.stderr, sys.stdout.isatty())
    status = _main(sys.argv[1:], streams, given)
    # What cannot be written was told of when it was first met.
    if isinstance(_flush(sys.stdout), BrokenPipeError):
        status = PIPE_CLOSED
    _flush(sys.stderr)
    sys.exit(status)


def _flush(stream: TextIO) -> OSError | None:
    """What keeps C{stream} from being written; then it leads nowhere, or the
    interpreter would complain of it when it ends, with a status of its own."""
    try:
        stream.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error
    return None


def _open_what_is_closed() -> None:
    """A standard stream that is closed is one that fails when it is used, and a socket
    gets no number of theirs."""
    for name, mode, flags in (
        ("stdin", "r", os.O_WRONLY),
        ("stdout", "w", os.O_RDONLY),
        ("stderr", "w", os.O_WRONLY),
    ):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.open(os.devnull, flags), mode))


def _main(arguments: Sequence[str], streams: Streams, given: Input) -> int:
    try:
        asked = read(arguments, streams)
        if isinstance(asked, int):
            return asked
        # The one place where the process's own reactor is taken.
        from twisted.internet import reactor

        def make(kept: dict[str, Any], reactor: Any) -> Client:
            return make_client(kept, reactor, os.environ.get)

        return Run(reactor, given).run(lambda: perform(asked, reactor, streams, make))
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    main()

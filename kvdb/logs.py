"""
The node's log: which events are written, and how.

Events go where the runner's own would: C{twistd} to its standard output or its
C{--logfile}, C{twist} to its C{--log-file}.  What is said of them here is their
level, and their form: Twisted's lines of text, or a JSON object a line, as log
shippers read them.

Rules:

* an event is one line of JSON, whatever is in it: C{time} (RFC 3339, UTC),
  C{level}, C{namespace}, C{message}, then its own fields, as far as they are plain
  (text, numbers, truth), and C{error} and C{traceback} of a failure;
* nothing here raises because of what is in an event: there would be nobody to log it;
* no event of kvdb's holds a key or a value: tests/test_logs.py looks for them.
"""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO, Any, Final, cast

from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    formatEventAsClassicLogText,
    formatTime,
)
from twisted.python.components import Componentized
from twisted.python.logfile import LogFile
from twisted.python.usage import Options

TEXT: Final = "text"
JSON: Final = "json"
FORMATS: Final = (TEXT, JSON)
LEVELS: Final = tuple(level.name for level in LogLevel.iterconstants())
"""From the least to the most important."""

MAX_NUMBER_BITS: Final = 1024
"""Of a field; Python refuses to write very long numbers, and few read them."""

DEFAULT_LEVEL: Final = "info"
DEFAULT_FILE: Final = "twistd.log"
"""Of a daemon, as twistd has it."""


def json_line(event: LogEvent) -> str:
    """An event as one line of JSON, see the head of this module."""
    level, namespace = event.get("log_level"), event.get("log_namespace")
    message = formatEvent(event)
    line: dict[str, object] = {
        "time": _time(event.get("log_time")),
        "level": getattr(level, "name", LogLevel.info.name),
        "namespace": (isinstance(namespace, str) and namespace) or "-",
        "message": message,
    }
    for name, value in event.items():
        if not name.startswith("log_") and _is_plain(value) and value != message:
            line.setdefault(name, value)
    failure = event.get("log_failure")
    if failure is not None:
        line.update(_of_failure(failure))
    return json.dumps(line) + "\n"


def _time(seconds: Any) -> str:
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (OSError, OverflowError, TypeError, ValueError):
        moment = datetime.fromtimestamp(0, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def text_line(event: LogEvent) -> str | None:
    """An event as Twisted has it in text, whatever the clock says."""
    return formatEventAsClassicLogText(event, formatTime=_classic_time)


def _classic_time(seconds: float | None) -> str:
    try:
        return formatTime(seconds)
    except (OSError, OverflowError, TypeError, ValueError):
        return formatTime(None)  # a year that no calendar of Python's has


def _is_plain(value: object) -> bool:
    # Of these types, not of one made from them, which may do anything when asked.
    if type(value) is float:
        return math.isfinite(value)  # JSON knows no other
    if type(value) is int:
        return value.bit_length() <= MAX_NUMBER_BITS
    return value is None or type(value) in (str, bool)


def _of_failure(failure: Any) -> dict[str, str]:
    try:
        return {
            "error": failure.type.__qualname__,
            "traceback": failure.getTraceback(),
        }
    except Exception as error:
        return {"error": f"its failure cannot be shown: {type(error).__qualname__}"}


def json_log_observer(file: IO[Any]) -> FileLogObserver:
    """What writes events to C{file} as lines of JSON."""
    return FileLogObserver(file, json_line)


def text_log_observer(file: IO[Any]) -> FileLogObserver:
    """What writes events to C{file} as lines of text."""
    return FileLogObserver(file, text_line)


_OBSERVERS: Final[dict[str, Callable[[IO[Any]], FileLogObserver]]] = {
    TEXT: text_log_observer,
    JSON: json_log_observer,
}


def observer_to(file: IO[Any], form: str, level: str) -> ILogObserver:
    """
    What writes events to C{file}.

    @param form: one of L{FORMATS}.
    @param level: one of L{LEVELS}; what is below it is left out.
    """
    lowest = LogLevelFilterPredicate(defaultLogLevel=LogLevel.levelWithName(level))
    observer: ILogObserver = FilteringLogObserver(_OBSERVERS[form](file), [lowest])
    return observer


def set_up(
    runner: Options | None, form: str | None, level: str | None, reactor: Any
) -> ILogObserver | None:
    """
    Have the runner log as was asked for.

    @param runner: its options; None where there is none, as in tests.
    @param form, level: None where nothing was asked for.
    @param reactor: in which SIGUSR1 begins another file, as C{twistd} has it.
    @return: for C{twistd}, what is to be put on its application
        (L{put_on_application}); C{twist} needs no more.
    @raise SystemExit: it cannot be done; its text is the reason.
    """
    if runner is None:
        return None
    if "fileLogObserverFactory" in runner:  # twist
        if form is not None:
            runner["fileLogObserverFactory"] = _OBSERVERS[form]
        if level is not None:
            runner["logLevel"] = LogLevel.levelWithName(level)
        return None
    for name in ("logger", "syslog"):
        if runner.get(name):
            if form is None and level is None:
                return None
            raise SystemExit(
                f"kvdb: --log-format and --log-level are of no use with twistd's"
                f" --{name}: leave one or the other out"
            )
    return observer_to(_open(runner, reactor), form or TEXT, level or DEFAULT_LEVEL)


def _open(runner: Options, reactor: Any) -> IO[Any]:
    """Where C{twistd} would log: it takes an observer, or makes its own with its
    own file, but not the one on the other."""
    name, in_foreground = runner.get("logfile"), runner.get("nodaemon")
    if in_foreground and name in (None, "", "-"):
        return sys.stdout  # what it is now: twistd will put its own there
    if name == "-":
        raise SystemExit("kvdb: a daemon has no standard output to log to: see -n")
    try:
        file = LogFile.fromFullPath(name or DEFAULT_FILE)
    except OSError as error:
        raise SystemExit(
            f"kvdb: --logfile: {name or DEFAULT_FILE} cannot be written"
            f" ({error.strerror})"
        ) from None
    if not signal.getsignal(signal.SIGUSR1):

        def rotate(*_: object) -> None:
            reactor.callFromThread(file.rotate)

        signal.signal(signal.SIGUSR1, rotate)
    return cast("IO[Any]", file)


def put_on_application(application: object, observer: ILogObserver | None) -> None:
    """Where C{twistd} looks for an observer, before it makes one."""
    if observer is not None and isinstance(application, Componentized):
        application.setComponent(ILogObserver, observer)

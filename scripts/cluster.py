"""
Start and stop the Procfile's nodes as daemons on this machine.

    python scripts/cluster.py start|stop|status [N]

Pid and log files are kept under run/, data under data/.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUN = ROOT / "run"
START_SECONDS = 30.0
STOP_SECONDS = 15.0


class Node:
    """One line of the Procfile."""

    def __init__(self, name: str, command: str) -> None:
        words = [w for w in shlex.split(command) if w not in ("exec", "-n")]
        words = [w for w in words if not w.startswith("--pidfile")]
        options = words[words.index("kvdb") :]
        self.name = name
        self.number = options[options.index("--id") + 1]
        self.port = int(options[options.index("--port") + 1])
        self.pid_file = RUN / f"{name}.pid"
        self.log_file = RUN / f"{name}.log"
        self.command = [
            str(Path(sys.executable).parent / "twistd"),
            f"--pidfile={self.pid_file}",
            f"--logfile={self.log_file}",
            *options,
        ]

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.port}"

    def pid(self) -> int | None:
        """Its process, if it runs: a pid file alone proves nothing."""
        try:
            pid = int(self.pid_file.read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if f"--pidfile={self.pid_file}".encode() in words else None

    def ask(self, path: str) -> dict[str, object] | None:
        """What it answers, or None."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=1) as answer:
                value: dict[str, object] = json.load(answer)
                return value
        except (OSError, ValueError):
            return None

    def others(self, known: list[str]) -> dict[str, str]:
        """Where the members serve that it knows besides C{known}, by id."""
        found: Any = (self.ask("/_/members") or {}).get("members", [])
        return {
            str(member["id"]): member.get("client_url") or "nothing is heard of it"
            for member in found
            if str(member["id"]) not in known
        }

    def start(self) -> bool:
        """Whether it runs now."""
        if self.pid() is not None:
            print(f"{self.name} runs already")
            return True
        self.pid_file.unlink(missing_ok=True)
        done = subprocess.run(
            self.command, cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(f"{self.name} did not start:")
            print((done.stderr or done.stdout).strip() or self.log_tail())
            return False
        return True

    def wait_ready(self, deadline: float) -> bool:
        """Whether it serves in time."""
        while time.monotonic() < deadline:
            if self.ask("/_/ready") is not None:
                return True
            if self.pid() is None and time.monotonic() > deadline - START_SECONDS + 3:
                break
            time.sleep(0.1)
        return False

    def stop(self) -> bool:
        """Whether it is stopped now."""
        pid = self.pid()
        if pid is None:
            print(f"{self.name} does not run")
            return True
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while self.pid() is not None:
            if time.monotonic() > deadline:
                print(f"{self.name} (process {pid}) does not stop; see {self.log_file}")
                return False
            time.sleep(0.05)
        print(f"{self.name} stopped")
        return True

    def log_tail(self) -> str:
        """The end of its log."""
        try:
            lines = self.log_file.read_text(errors="replace").splitlines()
        except OSError:
            return "(no log)"
        return "\n".join(lines[-15:])


def read_procfile() -> list[Node]:
    """The nodes."""
    text = (ROOT / "Procfile").read_text()
    return [Node(*m.groups()) for m in re.finditer(r"(?m)^(\w+):\s*(.+)$", text)]


def say_who_runs(nodes: list[Node]) -> None:
    """After something went wrong."""
    running = [node.name for node in nodes if node.pid() is not None]
    if running:
        print(f"running nevertheless: {', '.join(running)}; make stop stops all")


def start(nodes: list[Node], everybody: bool) -> int:
    """Start C{nodes} and say what to type next."""
    RUN.mkdir(exist_ok=True)
    started = [node for node in nodes if node.start()]
    if len(started) < len(nodes):
        say_who_runs(nodes)
        return 1
    deadline = time.monotonic() + START_SECONDS
    for node in nodes:
        print(f"{node.name}: waiting for {node.url} ", end="", flush=True)
        if not node.wait_ready(deadline):
            print("- it does not serve.  The end of its log:")
            print(node.log_tail())
            say_who_runs(nodes)
            return 1
        print("- ready")
    if everybody:
        first, last = nodes[0], nodes[-1]
        print(
            "\nTry:\n"
            f"  curl -L {first.url}/my-key -XPUT -d hello\n"
            f"  curl -L {last.url}/my-key\n"
            "\nmake stop N=2 stops member 2, make stop stops all."
            "\nLogs are in run/, data in data/."
        )
    return 0


def show(nodes: list[Node], everybody: bool) -> int:
    """Say what C{nodes} do, and who else is a member."""
    others: dict[str, str] = {}
    for node in nodes:
        state = node.ask("/_/status") or {}
        role = state.get("role", "runs, does not serve" if node.pid() else "stopped")
        print(f"{node.name}  {node.url}  {role}")
        others = others or node.others([other.number for other in nodes])
    if everybody:
        for number, url in sorted(others.items()):
            print(f"member {number}, which is not in the Procfile: {url}")
    return 0


def main(words: list[str]) -> int:
    """The exit status."""
    nodes = read_procfile()
    verb = words[0] if words else ""
    if verb not in ("start", "stop", "status") or len(words) > 2:
        print(__doc__.strip())
        return 2
    chosen = nodes
    if len(words) == 2:
        chosen = [node for node in nodes if node.number == words[1]]
        if not chosen:
            numbers = ", ".join(node.number for node in nodes)
            print(f"there is no member {words[1]} in the Procfile, but {numbers}")
            return 2
    if verb == "start":
        return start(chosen, everybody=len(words) == 1)
    if verb == "stop":
        stopped = [node.stop() for node in reversed(chosen)]
        return 0 if all(stopped) else 1
    return show(chosen, everybody=len(words) == 1)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("\ninterrupted; make stop stops what was started")
        sys.exit(130)

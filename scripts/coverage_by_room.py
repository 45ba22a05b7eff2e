"""
Print how much of each room of kvdb the tests ran, and fail below a bound.

    python scripts/coverage_by_room.py PERCENT
"""

from __future__ import annotations

import sys
from pathlib import Path

from coverage import Coverage


def main(least: float) -> int:
    """The exit status."""
    coverage = Coverage()
    coverage.load()
    rooms: dict[str, tuple[int, int]] = {}
    for path in sorted(Path("kvdb").rglob("*.py")):
        room = path.parts[1] if len(path.parts) > 2 else "(top level)"
        _, statements, _, missing, _ = coverage.analysis2(str(path))
        total, missed = rooms.get(room, (0, 0))
        rooms[room] = total + len(statements), missed + len(missing)
    failed = False
    print("coverage of kvdb/ by room:")
    for room, (total, missed) in sorted(rooms.items()):
        percent = 100 * (total - missed) / max(total, 1)
        failed |= percent < least
        note = f"  below {least:g}%" if percent < least else ""
        print(f"  {room:12} {percent:5.1f}%  of {total} lines{note}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))

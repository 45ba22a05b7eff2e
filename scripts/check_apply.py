"""
Holds what applies entries to what does not differ between releases of Python.

Every member applies the same entries, each on the Python of its machine; where they
come to different states, the cluster is lost.  So the store, and whatever it imports
of kvdb, uses of Python only what its language defines: this looks at every import
and name there, and fails with a line for each that is not on the lists below.

What it cannot see: the order of a set, and the text of a list or a float in an
f-string.  C{make mixed-python} compares what the Pythons at hand make of one history.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
BEGIN: Final = (
    "kvdb/store/*.py",
    "kvdb/raft/confchange.py",
    "kvdb/raft/membership.py",
)
"""What applies entries; with all of kvdb that these import."""

BENEATH: Final = frozenset({"kvdb/store/rocks.py"})
"""What only keeps bytes on a disk: nothing that is applied depends on it."""

STABLE: Final = frozenset(
    [
        "__future__",
        "attrs",
        "collections",
        "collections.abc",
        "enum",
        "hashlib",
        "struct",
        "typing",
    ]
)
"""What may be imported."""

BESIDE: Final = {
    "kvdb/raft/config.py": "random",
    "kvdb/store/memory.py": "sortedcontainers",
    "kvdb/store/backup.py": "google_crc32c",
    "kvdb/store/snapshot.py": "google_crc32c",
}
"""What else, where bytes are only kept or carried."""

NAMES: Final = {
    "repr": "its text differs between releases",
    "ascii": "its text differs between releases",
    "format": "its text differs between releases",
    "hash": "it differs between processes",
    "id": "it differs between processes",
    "float": "its text and rounding are the platform's",
    "round": "its rounding is the platform's",
    "input": "apply is a function of entry and state",
    "open": "apply is a function of entry and state",
    "eval": "what it takes differs between releases",
    "exec": "what it takes differs between releases",
    "__import__": "imports are checked here",
}
"""Builtins that may not be named."""

METHODS: Final = {
    **dict.fromkeys(
        [
            "casefold",
            "capitalize",
            "swapcase",
            "title",
            "upper",
            "lower",
            "isalnum",
            "isalpha",
            "isdecimal",
            "isdigit",
            "isidentifier",
            "islower",
            "isnumeric",
            "isprintable",
            "isspace",
            "istitle",
            "isupper",
            "splitlines",
        ],
        "it reads the Unicode tables of that Python",
    ),
    "format": "its text differs between releases",
    "format_map": "its text differs between releases",
    "args": "the text of an exception differs between releases",
}
"""Attributes that may not be used, of whatever."""

WITHOUT_ARGUMENTS: Final = ("split", "rsplit", "strip", "lstrip", "rstrip")
"""Methods that read the Unicode tables unless they are told what to look for."""


def files() -> list[str]:
    """What is looked at, by path."""
    waiting = [
        str(path.relative_to(ROOT)) for glob in BEGIN for path in ROOT.glob(glob)
    ]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in found or name in BENEATH:
            continue
        found.add(name)
        tree = ast.parse((ROOT / name).read_text())
        for _, module in imports(tree):
            path = module.replace(".", "/") + ".py"
            if module.startswith("kvdb.") and (ROOT / path).is_file():
                waiting.append(path)
    return sorted(found)


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of each module that is imported, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or "." * node.level
            for alias in node.names:  # which may be a module, too
                if (node.module or "").startswith("kvdb"):
                    yield node.lineno, f"{node.module}.{alias.name}"


def faults(tree: ast.AST, beside: str = "") -> list[tuple[int, str]]:
    """Line and reason of all that may not stand there."""
    allowed = STABLE | set(beside.split())
    found = [
        (line, f"imports {module}")
        for line, module in imports(tree)
        if module not in allowed and not module.startswith("kvdb.")
    ]
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Name)
            and node.id in NAMES
            and isinstance(node.ctx, ast.Load)
        ):
            found.append((node.lineno, f"uses {node.id}: {NAMES[node.id]}"))
        elif isinstance(node, ast.Attribute) and node.attr in METHODS:
            found.append((node.lineno, f"uses .{node.attr}: {METHODS[node.attr]}"))
        elif isinstance(node, ast.FormattedValue) and node.conversion in (97, 114):
            found.append((node.lineno, f"uses !r or !a: {NAMES['repr']}"))
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
            text = node.left.value if isinstance(node.left, ast.Constant) else None
            if any(sign in str(text) for sign in ("%r", "%a")):
                found.append((node.lineno, f"uses %r or %a: {NAMES['repr']}"))
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in WITHOUT_ARGUMENTS
            and not node.args
        ):
            why = f"uses .{node.func.attr}() without arguments: {METHODS['isspace']}"
            found.append((node.lineno, why))
        elif isinstance(node, ast.Constant) and isinstance(node.value, float):
            found.append((node.lineno, f"uses a float: {NAMES['float']}"))
        elif isinstance(node, ast.ExceptHandler) and node.name is not None:
            causes = {id(r.cause) for r in ast.walk(node) if isinstance(r, ast.Raise)}
            for used in ast.walk(node):
                if (
                    isinstance(used, ast.Name)
                    and used.id == node.name
                    and id(used) not in causes
                ):
                    why = f"uses the exception {used.id}: {METHODS['args']}"
                    found.append((used.lineno, why))
    return sorted(found)


def main() -> int:
    """Say what is wrong; how much, up to 1."""
    wrong = 0
    for name in files():
        tree = ast.parse((ROOT / name).read_text())
        for line, why in faults(tree, BESIDE.get(name, "")):
            print(f"{name}:{line}: {why}")
            wrong += 1
    if wrong:
        print(
            f"{wrong} of what applies entries may differ between releases of Python:"
            f" see {Path(__file__).relative_to(ROOT)}"
        )
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())

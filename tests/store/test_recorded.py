"""The history on record, and what applying may use of Python."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kvdb.store import urls
from tests.store import recorded

ROOT = Path(__file__).resolve().parents[2]


def check_apply() -> Any:
    """The script that C{make lint} runs."""
    path = ROOT / "scripts" / "check_apply.py"
    spec = importlib.util.spec_from_file_location("check_apply", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class RecordedTests(SynchronousTestCase):
    """See tests.store.recorded."""

    def test_this_python_makes_of_it_what_all_did(self) -> None:
        found = recorded.applied(recorded.HISTORY.read_bytes())
        self.assertEqual(found, recorded.DIGEST.read_text(encoding="ascii"))

    def test_it_is_what_the_recorder_makes(self) -> None:
        self.assertEqual(recorded.Recorder().record(), recorded.HISTORY.read_bytes())

    def test_another_judgement_of_urls_is_noticed(self) -> None:
        before = recorded.DIGEST.read_text(encoding="ascii")
        self.patch(urls, "_IN_LABELS", urls._IN_LABELS - {"_"})
        found = recorded.applied(recorded.HISTORY.read_bytes())
        self.assertNotEqual(found, before)


class CheckApplyTests(SynchronousTestCase):
    """See scripts/check_apply.py."""

    def test_what_may_not_stand_there_is_found(self) -> None:
        faults = check_apply().faults
        for text in (
            "from urllib.parse import urlsplit",
            "import ipaddress",
            "def f():\n    import json",
            "import unicodedata as u",
            "repr(x)",
            "f'{x!r}'",
            "f'{x!a}'",
            "'%r' % x",
            "hash(x)",
            "sorted(x, key=id)",
            "x.isprintable()",
            "x.isdigit()",
            "list(map(str.isalnum, x))",
            "x.lower()",
            "x.split()",
            "x.strip()",
            "x * 0.5",
            "float(x)",
            "try:\n    f()\nexcept ValueError as e:\n    x = str(e)",
            "try:\n    f()\nexcept ValueError as e:\n    raise V(f'{e}') from e",
            "x = e.args",
        ):
            self.assertNotEqual(faults(ast.parse(text)), [], text)

    def test_the_rest_may(self) -> None:
        for text in (
            "import struct\nfrom kvdb.raft.messages import Entry",
            "class M:\n    id: int",
            "x.split(':')",
            "x.isascii()",
            "f'{x} {y:x}'",
            "try:\n    f()\nexcept ValueError as e:\n    raise V('no') from e",
        ):
            self.assertEqual(check_apply().faults(ast.parse(text)), [], text)

    def test_it_looks_at_all_that_applies(self) -> None:
        files = check_apply().files()
        for name in ("store/store", "store/urls", "raft/confchange", "raft/messages"):
            self.assertIn(f"kvdb/{name}.py", files)

    def test_nothing_stands_there_that_may_not(self) -> None:
        self.assertEqual(check_apply().main(), 0)

"""The bugs of the catalogue can still be made."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mutants.__main__ import ROOT, apply
from tests.mutants.catalogue import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_its_text_stands_once_and_what_comes_of_it_is_python(
    mutant: Mutant, tmp_path: Path
) -> None:
    copy = tmp_path / "kvdb" / mutant.file
    copy.parent.mkdir(parents=True)
    copy.write_text((ROOT / "kvdb" / mutant.file).read_text())
    apply(mutant, tmp_path)
    ast.parse(copy.read_text())


def test_there_are_enough_of_them_and_each_is_another() -> None:
    assert len(MUTANTS) >= 40
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert len({(m.file, m.before, m.after) for m in MUTANTS}) == len(MUTANTS)

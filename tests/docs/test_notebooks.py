"""Every notebook of the documentation runs, and shows what a run of it shows."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from tests.docs.blocks import ROOT
from tests.docs.notebooks import NOTEBOOKS, faults, run

by_name = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: str(path.relative_to(ROOT)))


def test_there_is_one() -> None:
    assert NOTEBOOKS


@by_name
def test_its_file_has_the_outputs_of_a_whole_run(notebook: Path) -> None:
    assert faults(nbformat.read(notebook, as_version=4)) == []


@pytest.mark.ray
@pytest.mark.timeout(600)
@by_name
@pytest.mark.thorough
def test_it_runs_from_top_to_bottom(notebook: Path, tmp_path: Path) -> None:
    shown = run(notebook, tmp_path)
    assert faults(shown) == []
    kept = nbformat.read(notebook, as_version=4)
    for new, old in zip(shown.cells, kept.cells, strict=True):
        if new.cell_type == "code":
            assert [output.output_type for output in new.outputs] == [output.output_type for output in old.outputs]

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet
import pytest

from orchestrator.analysis.missing import missing_of
from tests.orchestrator.analysis.large_sweep import TASKS, large_results, large_rows
from trainables.faults import FaultsError


@pytest.mark.thorough
def test_a_paper_is_figures_tables_data_and_the_paragraph(tmp_path: Path) -> None:
    results = large_results(large_rows(TASKS[4:6], ("adapter", "full_finetuning", "layernorm")))
    written = {str(path.relative_to(tmp_path)) for path in results.paper(tmp_path)}
    names = [
        "curve", "tasks", "tasks_validation", "robustness_learning_rate", "robustness_adapter_size", "learning_curves",
        "profile", "forest", "critical_difference", "pareto", "expected_validation", "importance", "slices",
        "parallel_coordinates",
    ]  # fmt: skip
    figures = {f"figures/{name}.{kind}" for name in names for kind in ("pdf", "png", "svg")}
    tables = {f"tables/{name}.{kind}" for name in ("scores", "parameters") for kind in ("tex", "md")}
    data = {f"data/{name}.{kind}" for name in (*names, "scores", "parameters") for kind in ("csv", "parquet")}
    assert written == figures | tables | data | {"methods.md", "methods.tex", "missing.md"}
    assert (tmp_path / "figures/forest.pdf").read_bytes().startswith(b"%PDF")
    forest = pyarrow.parquet.read_table(tmp_path / "data/forest.parquet")
    assert forest.equals(results.paired_differences())
    ranks = pyarrow.parquet.read_table(tmp_path / "data/critical_difference.parquet")
    assert missing_of(ranks) == missing_of(results.ranks())
    assert "no two of 3 methods" in (tmp_path / "missing.md").read_text()


def test_of_an_empty_store_there_is_no_figure_and_that_is_said(tmp_path: Path) -> None:
    written = {path.name for path in large_results([]).paper(tmp_path)}
    assert not [name for name in written if name.endswith((".pdf", ".png", ".svg"))]
    assert "nothing to draw" in (tmp_path / "missing.md").read_text()


def test_a_folder_that_cannot_be_written_is_one_clear_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FaultsError, match="folder: must be a folder that can be written"):
        large_results([]).paper(tmp_path / "file")


def test_a_file_that_no_paper_wrote_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "methods.tex").write_text("mine")
    with pytest.raises(FaultsError, match=r"holds methods\.tex; name another"):
        large_results([]).paper(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["methods.tex"]
    assert (tmp_path / "methods.tex").read_text() == "mine"


def test_other_files_may_be_there_and_an_earlier_paper_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "main.tex").write_text("mine")
    first = large_results([]).paper(tmp_path)
    (tmp_path / "methods.tex").write_text("older")
    assert large_results([]).paper(tmp_path) == first
    assert (tmp_path / "methods.tex").read_text() != "older"
    assert (tmp_path / "main.tex").read_text() == "mine"


def test_a_paper_goes_into_the_home_folder_where_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    large_results([]).paper("~/paper")
    assert (tmp_path / "home" / "paper" / "methods.tex").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]

"""Run the notebooks of docs: `python -m tests.docs.notebooks` runs each and keeps what it shows now in its file."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from tests.docs.blocks import ROOT

NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))


def run(notebook: Path, folder: Path) -> Any:
    """The notebook as it is after a run in a folder; raises `CellExecutionError` at the first cell that fails."""
    content = nbformat.read(notebook, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    return NotebookClient(content, timeout=600, kernel_name="python3", resources=resources).execute()


def faults(content: Any) -> list[str]:
    """What a reader of the kept file would miss or stumble over."""
    found = []
    for number, cell in enumerate(content.cells):
        if cell.cell_type != "code":
            continue
        kinds = [output.output_type for output in cell.outputs]
        if cell.execution_count is None:
            found.append(f"cell {number} has not been run")
        if "error" in kinds or any(output.get("name") == "stderr" for output in cell.outputs):
            found.append(f"cell {number} shows an error or a warning")
    return found


def _keep(notebook: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        content = run(notebook, Path(folder))
    for cell in content.cells:
        cell.metadata.pop("execution", None)  # when each cell ran: another time each time
    content.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    nbformat.write(content, notebook)


if __name__ == "__main__":
    for each in NOTEBOOKS:
        _keep(each)
        sys.stdout.write(
            f"{each.relative_to(ROOT)}: {'; '.join(faults(nbformat.read(each, as_version=4))) or 'fine'}\n"
        )

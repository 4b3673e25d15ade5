"""Which names of a sweep are paths of this machine, and become absolute."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.spec.absolute_paths import with_absolute_paths


def test_a_folder_that_is_called_as_a_family_of_tasks_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("hub", "glue", "mine"):
        (tmp_path / name).mkdir()
    (tmp_path / "glue" / "cola").mkdir()
    found = with_absolute_paths({"tasks": ["hub", "glue", "mine", "glue/cola", "nowhere"]})
    assert found["tasks"] == (*(str(tmp_path / name) for name in ("hub", "glue", "mine")), "glue/cola", "nowhere")

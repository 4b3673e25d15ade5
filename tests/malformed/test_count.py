"""How many malformed things this package tries, beside those that hypothesis makes."""

from __future__ import annotations

import runpy
from pathlib import Path


def test_there_are_at_least_three_hundred_cases() -> None:
    modules = [path for path in Path(__file__).parent.glob("test_*.py") if path.name != Path(__file__).name]
    cases = {path.stem: runpy.run_path(str(path)).get("CASES", {}) for path in modules}
    assert all(cases.values()), "each module of this package states its cases in CASES"
    kinds = {
        "spec": ("test_spec_values", "test_sweep_files", "test_overrides", "test_search_values"),
        "task": ("test_task_folders", "test_task_declarations"),
        "store": ("test_store_files", "test_store_content", "test_store_notes"),
    }
    counts = {kind: sum(len(cases.pop(name)) for name in names) for kind, names in kinds.items()}
    assert set(cases) == {"test_no_files"}, "each other module tries specs, task folders or stores"
    assert sum(counts.values()) >= 300
    assert min(counts.values()) >= 100, counts

"""What a plug-in's file says of it, read without importing it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.factories import trial_config
from trainables.backbones import shape_of
from trainables.backbones.loading import PUBLISHED_CONFIGS
from trainables.discovery import plugins_declaring
from trainables.estimate.preview import complete_options, preview_parameters, preview_task
from trainables.methods import method_names, uses_backbone

METHODS = "trainables.methods"


def test_a_constant_is_found_in_files_and_in_folders_and_as_soon_as_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_plugins"
    (package / "wide").mkdir(parents=True)
    for name, text in (
        ("__init__", "raise RuntimeError"),
        ("one", "FLAG = True\nraise RuntimeError"),
        ("two", "FLAG = False"),
        ("three", "def FLAG(): return True\nOTHER = FLAG"),
        ("_hidden", "FLAG = True"),
        ("wide/__init__", "FLAG = True"),
        ("wide/inside", "FLAG = True"),
    ):
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert plugins_declaring("some_plugins", "FLAG", True) == {"one", "wide"}
    assert plugins_declaring("some_plugins", "FLAG", False) == {"two"}
    (package / "two.py").write_text("FLAG = True  # now")
    assert plugins_declaring("some_plugins", "FLAG", True) == {"one", "two", "wide"}
    assert plugins_declaring("no_such_plugins", "FLAG", True) == frozenset()


def test_methods_are_asked_without_torch() -> None:
    asked = f"from trainables.discovery import plugins_declaring as ask; print(ask({METHODS!r}, 'GOES_ON', True))"
    program = f"{asked}; import sys; assert 'torch' not in sys.modules"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "full_finetuning" in found


def test_what_is_read_of_methods_is_what_they_have_and_are() -> None:
    assert plugins_declaring(METHODS, "USES_BACKBONE", False) == {n for n in method_names() if not uses_backbone(n)}
    shape, task = shape_of(PUBLISHED_CONFIGS["bert-base-uncased"]), preview_task("toy/sentiment").info
    add_nothing = plugins_declaring(METHODS, "ADDS_NOTHING", True)
    assert "full_finetuning" in add_nothing
    for method in add_nothing:
        counts = preview_parameters(
            trial_config(method, method_options=complete_options(method, {}, shape)), shape, task
        )
        assert counts.total - counts.trained + counts.trained_without_head == shape.params, method

"""Paths as users write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainables.data.paths import existing_path


def test_what_is_there_is_found_with_its_home_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert existing_path(str(tmp_path / "here")) == tmp_path / "here"
    assert existing_path("~/here") == tmp_path / "here"


@pytest.mark.parametrize("reference", ["", "nowhere", "a\x00b", "x" * 5000, "~nobody-here/x", "/dev/null/x", "\ud800"])
def test_a_text_that_names_nothing_is_no_error(reference: str) -> None:
    assert existing_path(reference) is None


def test_a_link_to_itself_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    assert existing_path(str(tmp_path / "circle")) is None

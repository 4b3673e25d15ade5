"""Paths as users write them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from trainables.data.paths import existing_path, given_path, read_json, read_small
from trainables.faults import FaultsError


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


def test_a_small_file_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"a": "ä"}), encoding="utf-8-sig")
    assert read_json(tmp_path / "a.json", encoding="utf-8-sig") == {"a": "ä"}
    assert read_small(Path("/proc/self/comm")).strip()  # which says that it holds nothing


def test_what_never_ends_or_is_too_large_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ValueError, match=f"{path.name} is a pipe, a socket or a device and not a file"):
            read_small(path)
    with pytest.raises(ValueError, match="more than the 2 bytes that it may have"):
        read_small(Path("/proc/self/comm"), most_bytes=2)
    (tmp_path / "large").write_bytes(b"abc")
    with pytest.raises(ValueError, match="large has 3 bytes, more than the 2"):
        read_small(tmp_path / "large", most_bytes=2)
    (tmp_path / "deep").write_bytes(b"[" * 100_000)
    with pytest.raises(ValueError, match="deep is nested too deeply"):
        read_json(tmp_path / "deep")
    with pytest.raises(IsADirectoryError):
        read_small(tmp_path)


def test_a_given_path_may_be_in_the_home_folder_and_need_not_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in ("~/new", Path("~/new")):
        assert given_path("paper", "folder", given) == tmp_path / "new"


@pytest.mark.parametrize("given", ["", "a\0b", "~nobody-here/x", 3, None, b"x"])
def test_what_is_no_path_is_refused_in_the_name_of_what_takes_it(given: Any) -> None:
    with pytest.raises(FaultsError, match=r"^paper: 1 fault\n  - folder: must be a path, but "):
        given_path("paper", "folder", given)

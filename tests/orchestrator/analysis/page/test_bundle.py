"""The charting library is made once and kept, and what is kept is only taken where it is whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import vl_convert

from orchestrator.analysis.page.bundle import charting_library

MADE = "window.vega = {}; // </script <!--"
WRITTEN = r"window.vega = {}; // <\/script <\!--"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """How often a library was made; a cache of the test's own."""
    asked: list[str] = []

    def make(snippet: str) -> str:
        asked.append(snippet)
        return MADE

    monkeypatch.setattr(vl_convert, "javascript_bundle", make)
    monkeypatch.setenv("ADAPTUNE_CACHE", str(tmp_path / "cache"))
    charting_library.cache_clear()
    yield asked
    charting_library.cache_clear()


def in_another_process() -> str:
    charting_library.cache_clear()
    return charting_library()


def kept(tmp_path: Path) -> Path:
    (file,) = (tmp_path / "cache" / "page").iterdir()
    return file


def test_it_is_made_once_for_all_processes(made: list[str]) -> None:
    first = charting_library()
    assert first.endswith(WRITTEN)
    assert "BSD 3-Clause" in first
    assert in_another_process() == in_another_process() == first
    assert len(made) == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_text(file.read_text()[:-5]),
        lambda file: file.write_text(file.read_text().replace("vega", "evil")),
        lambda file: file.write_bytes(b"\xff\xfe"),
        lambda file: file.write_text(""),
    ],
)
def test_what_is_not_as_it_was_written_is_made_anew(
    spoil: Callable[[Path], object], made: list[str], tmp_path: Path
) -> None:
    first = charting_library()
    spoil(kept(tmp_path))
    assert in_another_process() == first
    assert in_another_process() == first
    assert len(made) == 2


@pytest.mark.parametrize("place", ["cache", "cache/page"])
def test_where_nothing_can_be_kept_it_is_made_all_the_same(place: str, made: list[str], tmp_path: Path) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("a file in the folder's place")
    assert charting_library().endswith(WRITTEN)
    assert in_another_process().endswith(WRITTEN)
    assert len(made) == 2

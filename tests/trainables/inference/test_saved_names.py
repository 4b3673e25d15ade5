"""Folders that a saved adapter may be written into, and what is left of what they held."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainables.faults import FaultsError
from trainables.inference.saved_names import CARD, CONFIG, WEIGHTS, check_free, write_files

ADAPTER = {CARD: b"a card", WEIGHTS: b"weights", CONFIG: b'{"library": "adaptune"}'}
VECTORS = "references/vectors/0-words.vec"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One that somebody works in."""
    (tmp_path / "work" / "references").mkdir(parents=True)
    (tmp_path / "work" / "references" / "houlsby.pdf").write_text("a paper")
    (tmp_path / "work" / CARD).write_text("mine")
    return tmp_path / "work"


def test_a_folder_of_other_things_is_refused_with_a_remedy(folder: Path) -> None:
    with pytest.raises(FaultsError, match=r"saved adapter, but .* holds other things; name a folder of"):
        check_free("export", "--out", folder)


def test_a_folder_of_another_library_is_refused_though_its_files_are_called_the_same(tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(json.dumps({"peft_type": "LORA"}))
    (tmp_path / WEIGHTS).write_bytes(b"weights")
    with pytest.raises(FaultsError, match="holds other things"):
        check_free("export", "--out", tmp_path)


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FaultsError, match="file is a file"):
        check_free("export", "--out", tmp_path / "file")


def test_new_and_empty_folders_and_saved_adapters_are_free(tmp_path: Path) -> None:
    check_free("export", "--out", tmp_path / "new")
    check_free("export", "--out", tmp_path)
    write_files(tmp_path, ADAPTER)
    check_free("export", "--out", tmp_path)


def test_what_an_interrupted_save_left_is_free(tmp_path: Path) -> None:
    files = {**ADAPTER, VECTORS: b"a vector"}
    write_files(tmp_path, files)
    (tmp_path / CONFIG).unlink()
    check_free("export", "--out", tmp_path)
    write_files(tmp_path, ADAPTER)
    assert not (tmp_path / "references").exists()


def test_files_that_options_name_take_the_place_of_a_saved_adapters_earlier_ones(tmp_path: Path) -> None:
    write_files(tmp_path, {**ADAPTER, "references/vectors/0-old.vec": b"old"})
    write_files(tmp_path, {**ADAPTER, VECTORS: b"new"})
    assert [path.name for path in (tmp_path / "references" / "vectors").iterdir()] == ["0-words.vec"]


def test_references_of_somebody_else_are_never_removed(folder: Path) -> None:
    write_files(folder, ADAPTER)
    assert (folder / "references" / "houlsby.pdf").read_text() == "a paper"

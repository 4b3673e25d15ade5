from __future__ import annotations

import os

import pytest
from pyarrow.fs import LocalFileSystem

from orchestrator.store.files import Folder, open_folder
from trainables.faults import FaultsError


def test_a_path_and_its_uri_name_the_same_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in ("sweep", f"{tmp_path}/sweep/", f"file://{tmp_path}/sweep", tmp_path / "sweep"):
        folder = open_folder(text)
        assert folder.is_local
        assert folder.path == f"{tmp_path}/sweep"


@pytest.mark.parametrize(
    ("text", "fault"), [("ftp://somewhere/x", "Known: abfs://, file://, gs://"), ("", "empty text")]
)
def test_a_place_that_cannot_be_understood_is_a_fault(text, fault):
    with pytest.raises(FaultsError, match=fault):
        open_folder(text)


def test_a_listing_that_loses_a_file_says_so(tmp_path):
    (tmp_path / "a").write_text("a")

    class Losing:
        def get_file_info(self, selector):
            infos = LocalFileSystem().get_file_info(selector)
            (tmp_path / "a").unlink()
            return LocalFileSystem().get_file_info([info.path for info in infos])

    with pytest.raises(FileNotFoundError, match="was removed"):
        Folder(Losing(), str(tmp_path)).names()


def test_a_failed_write_leaves_the_earlier_file_and_nothing_else(tmp_path, failing):
    handler, filesystem = failing
    folder = Folder(filesystem, str(tmp_path))
    folder.write("a", b"before")
    handler.after = 1  # the content is written, the move fails
    with pytest.raises(OSError, match="No space left"):
        folder.write("a", b"after")
    handler.after = None
    assert folder.read("a").to_pybytes() == b"before"
    assert folder.names()[-1] == "a"
    assert all(name.startswith(".") for name in folder.names()[:-1])


def test_what_is_durable_is_on_the_disk_with_its_name_and_the_folders_it_made(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(os, "fsync", lambda file: done.append(os.readlink(f"/proc/self/fd/{file}")))
    store = Folder(LocalFileSystem(), str(tmp_path))
    store.write("a/b/file", b"content")
    assert done == []
    store.folder("planned").write("file", b"content", durable=True)
    content, *folders = done
    assert os.path.dirname(content) == f"{tmp_path}/planned"
    assert folders == [f"{tmp_path}/planned", str(tmp_path)]
    store.folder("planned").write("next", b"content", durable=True)
    assert done[4:] == [f"{tmp_path}/planned"]

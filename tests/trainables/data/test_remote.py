"""Task folders that lie elsewhere are fetched once, again where they have changed, and refused with a reason."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from tests.object_store import ObjectStore
from trainables import tasks
from trainables.data import remote
from trainables.faults import FaultsError

ROWS = "text_a,label\n" + "".join(f"text {row},{('bad', 'good')[row % 2]}\n" for row in range(40))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADAPTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def put(bucket: ObjectStore, key: str, content: str) -> None:
    client = boto3.client("s3", endpoint_url=f"http://{bucket.host}")
    client.put_object(Bucket="sweeps", Key=key, Body=content.encode())
    client.close()


def local(folder: Path, **files: str) -> str:
    folder.mkdir()
    for name, content in files.items():
        (folder / f"{name}.csv").write_text(content, encoding="utf-8")
    return str(folder)


def faults_of(reference: str) -> str:
    with pytest.raises(FaultsError) as refusal:
        tasks.load(reference)
    return str(refusal.value)


def test_a_folder_of_a_bucket_is_the_task_that_it_would_be_here(
    bucket: ObjectStore, cache: Path, tmp_path: Path
) -> None:
    for split in ("train", "validation"):
        put(bucket, f"data/tickets/{split}.csv", ROWS)
    uri = bucket.uri("data/tickets")
    task = tasks.load(uri)
    assert task.fingerprint == tasks.load(local(tmp_path / "tickets", train=ROWS, validation=ROWS)).fingerprint
    assert (task.info.name, task.info.source) == ("tickets", "s3://sweeps/data/tickets")
    (fetched,) = cache.glob("data/*/tickets/train.csv")
    before = fetched.stat().st_mtime_ns
    assert tasks.load(uri).fingerprint == task.fingerprint
    assert fetched.stat().st_mtime_ns == before
    put(bucket, "data/tickets/train.csv", ROWS + "one more,bad\n")
    assert tasks.load(uri).splits["train"].num_rows == 41


def test_one_file_of_a_bucket_is_cut(bucket: ObjectStore) -> None:
    put(bucket, "lonely/all of it.csv", ROWS)
    task = tasks.load(bucket.uri("lonely/all of it.csv"))
    assert {name: table.num_rows for name, table in task.splits.items()} == {"train": 32, "validation": 4, "test": 4}


def test_what_is_not_there_is_said(bucket: ObjectStore) -> None:
    said = faults_of(bucket.uri("data/nowhere"))
    assert "s3://sweeps/data/nowhere must be a folder or a file that can be read, but " in said


class TestTheWeb:
    @pytest.fixture
    def address(self, tmp_path: Path) -> Iterator[str]:
        (tmp_path / "web").mkdir()
        (tmp_path / "web" / "reviews.csv").write_text(ROWS, encoding="utf-8")
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "web"))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        server.server_close()

    def test_one_file_is_read(self, address: str) -> None:
        task = tasks.load(f"{address}/reviews.csv")
        assert (task.info.name, task.splits["train"].num_rows) == ("reviews.csv", 32)

    def test_a_folder_or_nothing_is_refused(self, address: str) -> None:
        assert "a URL must name one file, with an ending such as .csv" in faults_of(f"{address}/reviews")
        assert "404" in faults_of(f"{address}/nowhere.csv")


def test_other_places_and_keys_in_a_uri_are_refused() -> None:
    assert "begin with s3://, gs://, hf://, http://, https://, but begins with ftp://" in faults_of("ftp://host/data")
    said = faults_of("s3://key:secret@bucket/data")
    assert "must not hold credentials" in said
    assert "secret" not in said.replace("credentials", "")


def test_a_file_that_would_leave_the_cache_is_refused(tmp_path: Path) -> None:
    source = remote._Source("s3://bucket/x", {"../../out.csv": "1"}, None)
    with pytest.raises(ValueError, match="is called"):
        remote._fetched(source, "x", "data")


def test_a_file_here_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "tickets.csv").write_text(ROWS, encoding="utf-8")
    assert "one that holds this file alone is cut into train, validation and test" in faults_of(
        str(tmp_path / "tickets.csv")
    )

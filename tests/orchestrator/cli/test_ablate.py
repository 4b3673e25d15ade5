"""`adaptune ablate` on a small sweep whose records are at hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.csv
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

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")

FILES = {"ablation.csv", "ablation.png", "ablation.svg", "ablation.parquet"}


@pytest.fixture(scope="module")
def trained(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a finished sweep of two trials with adapters and one without, trained here instead of by Ray."""
    root = tmp_path_factory.mktemp("trained")
    plan = plan_sweep(
        {
            "name": "small",
            "backbone": str(tiny_bert),
            "tasks": [str(write_task_folder(root))],
            "seeds": [0],
            "space": {"num_epochs": 2, "learning_rate": 1e-3, "batch_size": 16},
            "methods": [{"adapter": {"adapter_size": {"grid": [2, 4]}, "learning_rate": 1e-2}}, "layernorm"],
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
def swept(home: Path, trained: Path) -> Store:
    """A copy of the trained sweep's store, to be written to."""
    return Store(shutil.copytree(trained, home / "store"))


def ids(store: Store, method: str) -> list[str]:
    return [row["trial_id"] for row in store.trials().to_pylist() if row["method"] == method]


def ablate(store: Store, capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main(["ablate", store.uri, *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_the_best_trial_with_adapters_is_ablated_once_and_shown_from_then_on(
    swept: Store, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = ablate(swept, capsys)
    trial_id = answer["trial_id"]
    assert trial_id in ids(swept, "adapter")
    assert (answer["is_new"], answer["equals_record"]) == (True, True)
    assert [(row["first_layer"], row["last_layer"]) for row in answer["spans"]] == [(0, 0), (0, 1), (1, 1)]
    folder = home / "store" / "artifacts" / trial_id
    assert {file.name for file in folder.iterdir()} == FILES
    assert answer["files"] == [
        str(folder / name) for name in ("ablation.csv", "ablation.png", "ablation.svg", "ablation.parquet")
    ]
    assert (home / "store" / "adapters" / trial_id / "adapter_config.json").exists()
    assert not (home / "sweeps").exists()  # no MLflow was there, and none was made

    table = load_results(swept.uri).ablation(trial_id)
    assert table.to_pylist() == answer["spans"]
    assert pyarrow.parquet.read_table(folder / "ablation.parquet").equals(table)
    assert pyarrow.csv.read_csv(folder / "ablation.csv").num_rows == 3

    written = (folder / "ablation.parquet").stat().st_mtime_ns
    assert main(["ablate", swept.uri]) == 0
    output = capsys.readouterr().out
    assert "With all adapters validation accuracy is" in output
    assert "training" not in output
    assert (folder / "ablation.parquet").stat().st_mtime_ns == written

    again = ablate(swept, capsys, "--again")
    assert again["is_new"]
    assert (folder / "ablation.parquet").stat().st_mtime_ns > written
    assert main(["report", swept.uri]) == 0
    assert "adapters are worth" in (home / "store" / "report" / "report.html").read_text()


@pytest.mark.thorough
def test_a_named_trial_on_another_split_has_files_of_its_own(
    swept: Store, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for trial_id in ids(swept, "adapter"):
        answer = ablate(swept, capsys, "--trial", trial_id, "--split", "test")
        assert (answer["trial_id"], answer["split"], answer["equals_record"]) == (trial_id, "test", True)
        names = {file.name for file in (home / "store" / "artifacts" / trial_id).iterdir()}
        assert names == {name.replace("ablation", "ablation-test") for name in FILES}
    assert load_results(swept.uri).ablation().num_rows == 6


@pytest.mark.thorough
def test_what_it_made_is_in_the_trials_own_run_of_mlflow(
    swept: Store, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow.tracking.client import MlflowClient

    uri = f"sqlite:///{home / 'mlflow.db'}"
    tracker = Tracker("small", swept.spec_json(), tracking_uri=uri)
    tracker.refill(swept.records())
    assert tracker.close(TrialStatus.COMPLETED)
    trial_id = ablate(swept, capsys, "--tracking-uri", uri)["trial_id"]
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`adaptune.trial_id` = '{trial_id}'")
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == FILES


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--trial", "none"], "unknown completed trial 'none'"),
        (["--task", "cola"], "unknown task with a completed trial of method adapter 'cola'"),
        (["--split", "train_set"], "unknown split of opinion 'train_set'"),
    ],
)
def test_what_cannot_be_ablated_is_a_fault(
    swept: Store, capsys: pytest.CaptureFixture[str], arguments: list[str], fault: str
) -> None:
    assert main(["ablate", swept.uri, *arguments]) == 2
    assert fault in capsys.readouterr().err


def test_a_trial_without_adapters_is_refused_before_anything_is_trained(
    swept: Store, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (trial_id,) = ids(swept, "layernorm")
    assert main(["ablate", swept.uri, "--trial", trial_id]) == 2
    assert "but got 'layernorm'" in capsys.readouterr().err
    assert not (home / "store" / "adapters").exists()

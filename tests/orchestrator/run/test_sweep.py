"""What a sweep checks before it starts, and the Python façade."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from orchestrator.planning.plan import plan_table
from orchestrator.run.sweep import load_results, prepare, run_sweep
from orchestrator.spec.absolute_paths import with_absolute_paths
from orchestrator.spec.spec import SweepSpec
from tests.factories import measured_record
from trainables.faults import FaultsError


@pytest.fixture
def values(tiny_bert: Path, task_folder: Callable[..., Path]) -> dict[str, Any]:
    return {
        "name": "facade",
        "backbone": str(tiny_bert),
        "tasks": [str(task_folder())],
        "seeds": [0, 1],
        "space": {"max_length": 24},
        "methods": ["layernorm"],
    }


def test_relative_folders_are_made_absolute_and_names_are_left_alone(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy").mkdir()
    resolved = with_absolute_paths({**values, "tasks": ["opinion", "toy/sentiment", "glue/cola"]})
    assert resolved["tasks"] == (str(tmp_path / "opinion"), "toy/sentiment", "glue/cola")
    spec = SweepSpec(**{**values, "tasks": ["opinion"]})
    assert with_absolute_paths(spec).tasks == (str(tmp_path / "opinion"),)
    assert with_absolute_paths({"tasks": 3}) == {"tasks": 3}  # left for the spec to refuse


def test_a_store_takes_the_same_sweep_a_wider_one_on_request_and_no_other(
    values: dict[str, Any], tmp_path: Path
) -> None:
    plan, store = prepare(values, tmp_path / "store")
    assert not (tmp_path / "store").exists()
    store.create(plan.spec.to_json(), plan_table(plan))
    prepare(values, tmp_path / "store")
    wider = {**values, "seeds": [0, 1, 2]}
    with pytest.raises(FaultsError, match="widen it with"):
        prepare(wider, tmp_path / "store")
    assert len(prepare(wider, tmp_path / "store", widen=True)[0].trials) == 3
    narrower = {**values, "seeds": [0]}
    for widen in (False, True):
        with pytest.raises(FaultsError, match="not in it"):
            prepare(narrower, tmp_path / "store", widen=widen)
    assert load_results(tmp_path / "store").counts() == {"planned": 2}


def test_a_sweep_that_a_store_does_not_hold_is_begun_there_but_not_resumed(
    values: dict[str, Any], tmp_path: Path
) -> None:
    plan, store = prepare(values, tmp_path / "store")
    store.create(plan.spec.to_json(), plan_table(plan))
    other = {**values, "name": f"{values['name']}er"}
    said = f"'{other['name']}'; did you mean '{values['name']}'? Known: {values['name']}; `adaptune run SWEEP --store "
    with pytest.raises(FaultsError, match=re.escape(said)):
        prepare(other, tmp_path / "store", widen=True)
    assert prepare(other, tmp_path / "store")[0].spec.name == other["name"]


def test_a_sweep_file_is_found_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.yaml").write_text("name: 3\n")
    with pytest.raises(FaultsError, match="name: must be"):
        run_sweep("~/mine.yaml", "~/store")


# As documented for those who read the table: what every method shares, and the options of the planned methods.
COLUMNS = {
    **dict.fromkeys(("sweep", "trial_id", "config_id", "task", "backbone", "method"), pa.string()),
    **{"seed": pa.int64(), "status": pa.string(), "adapter_size": pa.int64(), "num_layers": pa.int64()},
    **{"learning_rate": pa.float64(), "num_epochs": pa.int64(), "batch_size": pa.int64()},
    **dict.fromkeys(("trained_params", "trained_params_without_head", "total_params"), pa.int64()),
    **{"metric": pa.string(), "validation_score": pa.float64(), "test_score": pa.float64(), "best_epoch": pa.int64()},
    **{"duration_s": pa.float64(), "examples_per_second": pa.float64(), "peak_memory_bytes": pa.int64()},
    **{"started_at": pa.string(), "engine": pa.string(), "error": pa.string()},
    "provenance": pa.struct([("commit", pa.string())]),
}


@pytest.mark.parametrize("search", [{}, {"algorithm": "tpe", "num_samples": 2}], ids=["grid", "adaptive"])
def test_a_sweep_that_has_just_begun_has_every_column_of_its_trials(
    values: dict[str, Any], tmp_path: Path, search: dict[str, Any]
) -> None:
    methods = [{"adapter": {"adapter_size": {"grid": [1, 2]}}}, {"top_layers": {"num_layers": {"grid": [1, 2]}}}]
    plan, store = prepare({**values, "methods": methods, "search": search}, tmp_path / "store")
    store.create(plan.spec.to_json(), plan_table(plan), plan.most_trials)
    for results in (load_results(tmp_path / "store"), load_results(tmp_path / "store", "facade")):
        trials = results.trials()
        assert len(trials) == 0
        assert {name: trials.schema.field(name).type for name in COLUMNS} == COLUMNS
        assert "num_layers" in results.best().column_names


def test_results_know_the_margin_that_the_sweep_declares(values: dict[str, Any], tmp_path: Path) -> None:
    methods = [{"adapter": {"adapter_size": 2}}, "layernorm"]
    declared = {"reference": "layernorm", "margin": 0.02}
    plan, store = prepare({**values, "methods": methods, "non_inferiority": declared}, tmp_path / "store")
    store.create(plan.spec.to_json(), plan_table(plan), plan.most_trials)
    store.append([measured_record(trial) for trial in plan.trials])
    results = load_results(tmp_path / "store")
    assert set(results.compare("adapter", "layernorm")["margin"].to_pylist()) == {0.02}
    assert set(results.compare("layernorm", "adapter")["margin"].to_pylist()) == {None}


def test_results_of_a_place_without_a_store_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FaultsError, match="no sweep"):
        load_results(tmp_path)


class TestPathsOfOptions:
    """Files that a method's options name are made absolute like task folders, in every form of a sweep."""

    @pytest.mark.parametrize(
        "entry",
        [
            {"no_bert": {"vectors": "words.txt", "embedding_dim": 3}},
            {"no_bert": {"vectors": {"grid": ["words.txt", "words.txt2"]}}},
            {"method": "no_bert", "space": {"vectors": "words.txt"}},
        ],
    )
    def test_as_values(self, entry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "words.txt").write_text("a 1 2 3\n")
        (resolved,) = with_absolute_paths({"tasks": ["toy/sentiment"], "methods": [entry]})["methods"]
        assert f"{tmp_path}/words.txt" in repr(resolved)
        assert "'words.txt'" not in repr(resolved)

    def test_as_a_spec(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "stage-one").mkdir()
        spec = SweepSpec(
            name="fused", tasks=("toy/sentiment",), methods=("layernorm", {"adapter_fusion": {"adapters": "stage-one"}})
        )
        resolved = with_absolute_paths(spec)
        assert resolved.methods[1].space == {"adapters": f"{tmp_path}/stage-one"}
        assert resolved.methods[0] == spec.methods[0]

    def test_what_is_no_path_here_is_left_to_be_refused(self) -> None:
        values = {"methods": [{"no_bert": {"vectors": "no/such/file"}}, {"adaptr": {"vectors": 3}}, 7, "bitfit"]}
        assert with_absolute_paths(values) == values

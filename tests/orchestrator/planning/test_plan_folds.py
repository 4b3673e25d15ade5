"""Planning with folds: the replicates of a configuration and their identity."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.planning.plan import plan_sweep, plan_table, planned_from_table, planned_hyperparameters
from orchestrator.run.continuation import continue_from
from orchestrator.spec.spec import SweepSpecError, parse_spec
from trainables.estimate.flops import measure_task

Values = dict[str, Any]
# Neither a backbone nor a file of this machine has a part in these.
GENERATED = {"name": "any", "tasks": ["toy/sentiment"], "seeds": [0, 1], "methods": ["no_bert"]}


def test_without_folds_ids_are_what_they_always_were() -> None:
    trials = plan_sweep(GENERATED).trials
    assert [trial.trial_id for trial in trials] == ["c44c54ad5049992d", "02cf4a30daf238ea"]
    assert {(trial.config_id, trial.pack_key) for trial in trials} == {("b0de2780eb8f7664", "11438722e89edf84")}
    assert not {"folds", "fold"} & trials[0].config.to_dict().keys()
    assert "fold" not in plan_table(plan_sweep(GENERATED)).column_names
    assert "folds" not in json.loads(parse_spec(GENERATED).to_json())


def test_a_configuration_is_trained_with_every_seed_on_every_fold() -> None:
    plan = plan_sweep({**GENERATED, "folds": 5})
    assert (len(plan.trials), plan.configurations, plan.most_trials) == (10, 1, 10)
    found = [(trial.config.seed, trial.config.fold) for trial in plan.trials]
    assert found == [(seed, fold) for seed in (0, 1) for fold in range(5)]
    assert len({trial.trial_id for trial in plan.trials}) == 10
    # Trials of a fold train on the same rows, and so together.
    assert len({trial.pack_key for trial in plan.trials}) == 5
    assert {trial.provenance["rows"] for trial in plan.trials} == {"1040 train, 260 validation, 400 test"}
    assert {trial.provenance["folds"] for trial in plan.trials} == {"5"}
    assert {trial.num_steps for trial in plan.trials} == {3 * 33 - 2}
    again = planned_from_table(plan_table(plan))
    assert again == list(plan.trials)
    assert "fold" not in planned_hyperparameters(plan_table(plan)).column_names
    assert [trial.trial_id for trial in plan.trials[:2]] == ["b1f923d046a287e0", "752d56a3d478d9db"]
    others = {trial.config_id for folds in (None, 4, 5) for trial in plan_sweep({**GENERATED, "folds": folds}).trials}
    assert len(others) == 3


def test_a_task_that_says_its_own_folds_keeps_them(values: Values, write_task: Callable[..., Path]) -> None:
    own = write_task("own", rows=30)
    (own / "task.json").write_text(json.dumps({"folds": 3}), encoding="utf-8")
    values |= {"tasks": [str(own), values["tasks"][0]], "methods": ["layernorm"], "seeds": [0]}
    assert [trial.config.folds for trial in plan_sweep(values).trials] == [3, 3, 3, None]
    plan = plan_sweep({**values, "folds": 2})
    assert [(trial.task, trial.config.fold) for trial in plan.trials] == [
        *(("own", fold) for fold in range(3)),
        *(("opinion", fold) for fold in range(2)),
    ]
    said = [note for note in plan.notes if "are put together and cut into" in note]
    assert [note.rpartition("into ")[2] for note in said] == ["3 folds (seed 0)", "2 folds (seed 0)"]
    adaptive = {**values, "folds": 2, "search": {"algorithm": "tpe", "num_samples": 4}}
    adaptive["space"] = {"max_length": 16, "learning_rate": {"loguniform": [1e-4, 1e-2]}}
    searched = plan_sweep(adaptive)
    assert searched.most_trials == 4 * 3 + 4 * 2
    # What a search proposed stays planned while the folds are the same, and is of no sweep with others.
    held = plan_table(dataclasses.replace(searched, trials=searched.sample_trials(), spec=plan.spec))
    assert continue_from(searched, held).lost == 0
    assert continue_from(plan_sweep({**adaptive, "folds": 4}), held).lost == 4 * 2


def test_the_rows_of_a_fold_are_what_a_trial_is_estimated_by(values: Values) -> None:
    trial = plan_sweep({**values, "folds": 4}).trials[1]
    size = measure_task(trial.config.task, 16, trial.config.folds, trial.config.fold)
    assert f"{size.train_rows} train, {size.evaluation_rows} validation" in trial.provenance["rows"]


@pytest.mark.parametrize("folds", [0, 1, 21, 2.0, True, "5", [5]])
def test_folds_are_a_whole_number_from_2_to_20(values: Values, folds: Any) -> None:
    with pytest.raises(SweepSpecError, match="folds: must be a whole number"):
        plan_sweep({**values, "folds": folds})


def test_a_task_that_is_too_small_for_them_is_a_fault_of_the_sweep(values: Values, tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.csv").write_text("text_a,label\ngood,yes\nbad,no\n", encoding="utf-8")
    with pytest.raises(SweepSpecError, match="folds: must be at most the number of different texts that are cut, 2"):
        plan_sweep({**values, "tasks": [str(tmp_path)], "folds": 5})

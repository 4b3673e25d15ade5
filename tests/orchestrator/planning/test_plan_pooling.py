"""A plan says what heads read: auto and what it resolves to are planned, and so recorded, as one configuration."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from orchestrator.planning.plan import SweepPlan, plan_sweep


def test_auto_is_planned_as_what_the_checkpoint_declares(
    tiny_bert: Path, task_folder: Callable[..., Path], tmp_path: Path
) -> None:
    backbone, task = shutil.copytree(tiny_bert, tmp_path / "backbone"), str(task_folder())

    def plan(**space: str) -> SweepPlan:
        return plan_sweep(
            {
                "name": "read",
                "backbone": str(backbone),
                "tasks": [task],
                "methods": [{"method": "layernorm", "space": space}],
            }
        )

    for declared, resolved in ((None, "pooler"), ({"pooling_mode": "mean"}, "mean")):
        if declared is not None:
            (backbone / "1_Pooling").mkdir()
            (backbone / "1_Pooling" / "config.json").write_text(json.dumps(declared), encoding="utf-8")
        auto, explicit, other = (plan(**each).trials for each in ({}, {"pooling": resolved}, {"pooling": "first"}))
        assert {trial.config.method_options["pooling"] for trial in auto} == {resolved}
        assert [trial.trial_id for trial in auto] == [trial.trial_id for trial in explicit]
        assert {trial.config_id for trial in auto} == {trial.config_id for trial in explicit}
        assert not {trial.config_id for trial in auto} & {trial.config_id for trial in other}

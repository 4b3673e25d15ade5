"""What the trials of a plan cost each, and what those of earlier records did, by their task's size and backbone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestrator.planning.plan import PlannedTrial, SweepPlan
from orchestrator.record import TrialRecord
from orchestrator.store import Store
from trainables.faults import FaultsError

if TYPE_CHECKING:
    from trainables.device.hardware import Device
    from trainables.estimate.throughput import TrialWork, WorkloadKey
    from trainables.estimate.trial_cost import TrialCost


class TrialCosts:
    """What is known of trials, by their task's size and their backbone's shape, each read once."""

    def __init__(self, plan: SweepPlan, device: Device) -> None:
        self._device = device
        self._planned = {trial.trial_id: trial for trial in plan.trials}
        self._costs: dict[str, TrialCost | None] = {}

    def of(self, trial: PlannedTrial) -> TrialCost | None:
        """None where the number of its steps is not known, or not what it trains."""
        if trial.config_id not in self._costs:  # replicates cost the same
            self._costs[trial.config_id] = self._cost(trial)
        return self._costs[trial.config_id]

    def of_records(self, store: Store) -> Callable[[TrialRecord], tuple[WorkloadKey, TrialWork] | None]:
        """What is known of the trials of a store; None of those whose data or backbone are no more at hand."""
        planned = self._planned | _planned_in(store)

        def known(record: TrialRecord) -> tuple[WorkloadKey, TrialWork] | None:
            trial = planned.get(record.trial_id)
            try:
                found = None if trial is None else self.of(trial)
            except FaultsError:
                return None
            return None if found is None else (found.kind, found.work)

        return known

    def _cost(self, trial: PlannedTrial) -> TrialCost | None:
        from trainables import tasks
        from trainables.estimate.flops import measure_task
        from trainables.estimate.preview import preview_backbone
        from trainables.estimate.trial_cost import trial_cost

        fingerprint = trial.provenance.get("data_fingerprint")
        if trial.trained_params is None or fingerprint is None or tasks.describe(trial.config.task).kind == _WINDOWED:
            return None
        return trial_cost(
            trial.config,
            measure_task(trial.config.task, trial.config.max_length, trial.config.folds, trial.config.fold),
            task_fingerprint=fingerprint,
            backbone=preview_backbone(trial.config.backbone).info,
            trained_params=trial.trained_params,
            device=self._device,
        )


_WINDOWED = "extractive_qa"


def _planned_in(store: Store) -> dict[str, PlannedTrial]:
    """The trials that a store's records are of, with the data's fingerprint from the records."""
    from trainables.config import TrialConfig

    rows = store.plan_table().select(["trial_id", "config_id", "task", "config", "trained_params"]).to_pylist()
    provenance = {record.trial_id: record.provenance for record in store.records()}
    return {
        row["trial_id"]: PlannedTrial(
            trial_id=row["trial_id"],
            config_id=row["config_id"],
            task=row["task"],
            config=TrialConfig(**json.loads(row["config"])),
            trained_params=row["trained_params"],
            provenance=provenance[row["trial_id"]],
        )
        for row in rows
        if row["trial_id"] in provenance
    }

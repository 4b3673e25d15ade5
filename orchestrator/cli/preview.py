"""`adaptune plan`: what a sweep would train, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from orchestrator.absolute_paths import with_absolute_paths
from orchestrator.analysis import wording
from orchestrator.cli.screen import console
from orchestrator.plan import PlannedTrial, SweepPlan, plan_sweep, remaining
from orchestrator.store import Store
from orchestrator.sweep import default_store
from orchestrator.sweep_file import read_sweep

# The estimate's own error: it knows the arithmetic of a trial, not what else the machine is doing.
ERROR_FACTOR = 2


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Time and cost of the trials that are left. None where data or weights are not at hand to tell."""

    devices: int
    seconds: float | None
    cost: float | None


def show_plan(
    sweep: str, overrides: Sequence[str], *, store: str | None, devices: int | None, price: float | None, as_json: bool
) -> int:
    """Print the plan; what cannot be had from here is said, and counts are still exact."""
    plan = plan_sweep(with_absolute_paths(read_sweep(sweep, overrides)), allow_missing=True)
    opened = Store(store if store is not None else default_store(plan.spec.name))
    finished = opened.finished_ids() if opened.exists() else frozenset()
    left = remaining(plan, finished)
    estimate = _estimate(plan, left, devices, price)
    if as_json:
        print(json.dumps(_answer(plan, left, estimate, _backbone_params(plan))))
        return 0
    screen = console()
    screen.print(_table(plan))
    screen.print()
    replicates = f"{plan.configurations} configurations, {wording.plural(len(plan.spec.seeds), 'seed')} each"
    screen.print(f"{wording.plural(len(plan.trials), 'trial')}: {replicates}")
    if done := len(plan.trials) - len(left):
        screen.print(f"{done} of them have a finished record in {opened.uri}; {len(left)} are left to train")
    screen.print(_time_sentence(estimate))
    for sentence in plan.missing:
        screen.print(f"Not at hand here: {sentence}", soft_wrap=True)
    return 0


def _estimate(plan: SweepPlan, left: Sequence[PlannedTrial], devices: int | None, price: float | None) -> Estimate:
    # Here: the estimate measures this device, which needs torch.
    from trainables.backbone import STAND_IN_SHAPE
    from trainables.cost import EFFICIENCY, STARTUP_S, measure_rate, measure_task, trial_flops
    from trainables.device import count_devices
    from trainables.preview import preview_backbone

    engines = devices or count_devices()
    if plan.missing or not left:
        return Estimate(devices=engines, seconds=None if left else 0.0, cost=None if left or price is None else 0.0)
    info = preview_backbone(plan.spec.backbone).info
    shape = info.shape if info else STAND_IN_SHAPE  # nothing is missing, so no method reads it
    rates = {precision: measure_rate(precision, num_threads=1) for precision in {t.config.precision for t in left}}
    seconds = 0.0
    known: dict[str, float] = {}
    for trial in left:
        if trial.config_id not in known:  # replicates cost the same
            flops = trial_flops(trial.config, shape, measure_task(trial.config.task, trial.config.max_length))
            known[trial.config_id] = STARTUP_S + flops / (rates[trial.config.precision] * EFFICIENCY)
        seconds += known[trial.config_id]
    wall = seconds / engines
    return Estimate(devices=engines, seconds=wall, cost=None if price is None else wall / 3600 * engines * price)


def _table(plan: SweepPlan) -> Table:
    table = Table(title=f"Sweep {plan.spec.name} on {plan.spec.backbone}", title_justify="left", box=None)
    table.add_column("task")
    table.add_column("method")
    for heading in ("configurations", "trials", "steps a trial", "trained parameters", "of the whole"):
        table.add_column(heading, justify="right")
    for (task, method), trials in _groups(plan).items():
        table.add_row(
            task,
            method,
            f"{len({trial.config_id for trial in trials}):,}",
            f"{len(trials):,}",
            _span([trial.num_steps for trial in trials], "{:,}"),
            _span([trial.trained_params for trial in trials], "{:,}"),
            _span([t.trained_params / t.total_params for t in trials if t.trained_params and t.total_params], "{:.2%}"),
        )
    return table


def _groups(plan: SweepPlan) -> dict[tuple[str, str], list[PlannedTrial]]:
    groups: dict[tuple[str, str], list[PlannedTrial]] = {}
    for trial in plan.trials:
        groups.setdefault((trial.task, trial.config.method), []).append(trial)
    return groups


def _span(values: Sequence[float | None], form: str) -> str:
    """One value, or the lowest and highest of several; a dash where they are unknown."""
    known = [value for value in values if value is not None]
    if not known:
        return wording.UNKNOWN
    low, high = form.format(min(known)), form.format(max(known))
    return low if low == high else f"{low} to {high}"


def _time_sentence(estimate: Estimate) -> str:
    if estimate.seconds is None:
        return "Time: unknown until data and weights are at hand"
    minutes = estimate.seconds / 60
    shown = f"{minutes / 60:.1f} hours" if minutes >= 90 else f"{minutes:.0f} minutes" if minutes >= 1 else "a minute"
    cost = "" if estimate.cost is None else f", cost about {estimate.cost:,.2f}"
    engines = wording.plural(estimate.devices, "engine")
    return (
        f"Time: about {shown} on {engines} like this one{cost} (from the arithmetic; within a factor of {ERROR_FACTOR})"
    )


def _backbone_params(plan: SweepPlan) -> dict[str, int] | None:
    """The two denominators of a share of trained parameters; None where not even the backbone's sizes are known.

    Percentages in Houlsby et al. 2019 are of the Transformer layers alone in Table 1, and of the whole model elsewhere.
    """
    # Here: the command line's help needs no torch.
    from trainables.preview import preview_backbone

    info = preview_backbone(plan.spec.backbone).info
    if info is None:
        return None
    layers = info.shape.num_layers * info.shape.layer_params
    return {"total": info.shape.embedding_params + layers + info.shape.pooler_params, "layers": layers}


def _shares(trial: PlannedTrial, backbone: dict[str, int] | None) -> dict[str, float | None]:
    """Trained parameters, head left out, in percent of the whole backbone and of its Transformer layers."""
    trained = trial.trained_params_without_head
    if backbone is None or trained is None:
        return {"percent_of_backbone": None, "percent_of_layers": None}
    return {
        "percent_of_backbone": 100 * trained / backbone["total"],
        "percent_of_layers": 100 * trained / backbone["layers"],
    }


def _answer(
    plan: SweepPlan, left: Sequence[PlannedTrial], estimate: Estimate, backbone: dict[str, int] | None
) -> dict[str, Any]:
    return {
        "sweep": plan.spec.name,
        "backbone": plan.spec.backbone,
        "backbone_params": backbone,
        "num_trials": len(plan.trials),
        "num_configurations": plan.configurations,
        "num_finished": len(plan.trials) - len(left),
        "num_remaining": len(left),
        "estimate": {
            "devices": estimate.devices,
            "seconds": estimate.seconds,
            "cost": estimate.cost,
            "within_factor": ERROR_FACTOR,
        },
        "missing": list(plan.missing),
        "trials": [
            {
                "trial_id": trial.trial_id,
                "config_id": trial.config_id,
                "task": trial.task,
                "backbone": trial.config.backbone,
                "method": trial.config.method,
                "seed": trial.config.seed,
                **trial.config.hyperparameters(),
                "num_steps": trial.num_steps,
                "trained_params": trial.trained_params,
                "trained_params_without_head": trial.trained_params_without_head,
                "total_params": trial.total_params,
                **_shares(trial, backbone),
            }
            for trial in plan.trials
        ],
    }

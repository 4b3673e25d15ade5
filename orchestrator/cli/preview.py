"""`adaptune plan`: what a sweep would train and what that costs, before anything is trained."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from orchestrator.analysis.text import wording
from orchestrator.cli.data import brief
from orchestrator.cli.screen import console
from orchestrator.estimate import PlanEstimate, SweepEstimate, cost_of, estimate_plan
from orchestrator.estimate.plan_estimate import count_finished
from orchestrator.planning.plan import PlannedTrial, SweepPlan, plan_sweep
from orchestrator.planning.preflight import data_warnings
from orchestrator.run.sweep import default_store
from orchestrator.spec.absolute_paths import with_absolute_paths
from orchestrator.spec.backbones import apart
from orchestrator.spec.sweep_file import read_sweep
from orchestrator.store import Store

_SOURCES = {
    "calibration": "measured on this machine",
    "records": "from the records of earlier sweeps",
    "arithmetic": "from arithmetic alone; --calibrate measures this machine",
}


def show_plan(
    sweep: str,
    overrides: Sequence[str],
    *,
    store: str | None,
    devices: int | None,
    price: float | None,
    calibrate: bool = False,
    earlier: Sequence[str] = (),
    as_json: bool,
) -> int:
    """Print the plan; what cannot be had from here is said, and counts are still exact."""
    plan = plan_sweep(with_absolute_paths(read_sweep(sweep, overrides)), allow_missing=True)
    opened = Store(store if store is not None else default_store(plan.spec.name))
    done = count_finished(plan, opened)

    def note(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    estimated = estimate_plan(plan, opened, devices=devices, calibrate=calibrate, earlier=earlier, note=note)
    warnings = data_warnings(plan)
    if as_json:
        answer = _answer(plan, done, estimated, price, _backbone_params(plan))
        print(json.dumps(answer | {"data_warnings": warnings.to_pylist()}))
        return 0
    screen = console()
    screen.print(_table(plan))
    screen.print()
    replicates = f"{wording.plural(plan.configurations, 'configuration')}, {_replicates(plan)} each"
    most = "at most " if plan.is_adaptive else ""
    screen.print(f"{most}{wording.plural(plan.most_trials, 'trial')}: {replicates}")
    if done:
        screen.print(
            f"{done} of them have a finished record in {opened.uri}; {plan.most_trials - done} are left to train"
        )
    for sentence in _sentences(estimated, price):
        screen.print(sentence, soft_wrap=True)
    for sentence in _backbone_sentences(plan):
        screen.print(sentence, soft_wrap=True)
    for sentence in plan.notes:
        screen.print(f"Data: {sentence}", soft_wrap=True)
    for sentence in brief(warnings):
        screen.print(sentence, soft_wrap=True)
    for sentence in plan.missing:
        screen.print(f"Not available on this machine: {sentence}", soft_wrap=True)
    return 0


def _sentences(estimated: PlanEstimate, price: float | None) -> list[str]:
    """Time, cost, memory and packs, each with what it stands on."""
    devices, found = wording.plural(estimated.devices, "device"), estimated.estimate
    if estimated.unknown:
        return [f"Time: unknown, since {reason}" for reason in estimated.unknown]
    if found is None:
        return ["Time: none, nothing is left to train"]
    span = f"{_duration(found.low_seconds)} to {_duration(found.high_seconds)}"
    lines = [f"Time: about {_duration(found.seconds)} on {devices}, {span} ({_SOURCES[found.source]})"]
    if found.most_epochs != found.expected_epochs and found.expected_epochs is not None:
        lines.append(
            f"Early stopping: about {found.expected_epochs:,} of {found.most_epochs:,} epochs, assuming that scores "
            f"arrive in random order; without it {_duration(found.most_seconds)}"
        )
    if price is not None:
        low, middle, high = (
            cost_of(seconds, estimated.devices, price) or 0.0
            for seconds in (found.low_seconds, found.seconds, found.high_seconds)
        )
        lines.append(f"Cost: about {middle:,.2f}, {low:,.2f} to {high:,.2f} (at {price:g} per device and hour)")
    memory = f"{found.memory_bytes / 2**30:.1f} GiB a device, {'measured' if found.is_memory_measured else 'computed'}"
    packs = wording.plural(found.packs, "pack")
    lines += _per_backbone(found, price)
    lines.append(
        f"Memory: about {memory}; {packs} of {found.trials_per_pack:.1f} trials on average, "
        f"at most {found.most_per_pack} trials together"
    )
    return lines + [f"Note: {sentence}" for sentence in estimated.notes]


def _per_backbone(found: SweepEstimate, price: float | None) -> list[str]:
    """What each backbone takes of it, where there are several."""
    names = apart(found.memory_by_backbone)
    lines = []
    for backbone, name in names.items():
        seconds = _seconds_of(found, backbone)
        cost = cost_of(seconds, 1, price)
        spent = "" if cost is None else f", {cost:,.2f}"
        memory = f"{found.memory_by_backbone[backbone] / 2**30:.1f} GiB a device"
        lines.append(f"Of this {name}: about {_duration(seconds)} of training on one device{spent}, {memory}")
    return lines


def _seconds_of(found: SweepEstimate, backbone: str) -> float:
    return sum(seconds for (_, own, _), seconds in found.device_seconds.items() if own == backbone)


def _duration(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"


def _table(plan: SweepPlan) -> Table:
    names = apart(plan.spec.backbones)
    on = wording.plural(len(names), "backbone") if names else plan.spec.backbones[0]
    table = Table(title=f"Sweep {plan.spec.name} on {on}", title_justify="left", box=None)
    table.add_column("task")
    if names:
        table.add_column("backbone")
    table.add_column("method")
    for heading in ("configurations", "trials", "steps a trial", "trained parameters", "of the whole"):
        table.add_column(heading, justify="right")
    for (task, backbone, method), trials in _groups(plan).items():
        table.add_row(
            task,
            *([names[backbone]] if names else []),
            method,
            f"{len({trial.config_id for trial in trials}):,}",
            f"{len(trials):,}",
            _span([trial.num_steps for trial in trials], "{:,}"),
            _span([trial.trained_params for trial in trials], "{:,}"),
            _span([t.trained_params / t.total_params for t in trials if t.trained_params and t.total_params], "{:.2%}"),
        )
    return table


def _groups(plan: SweepPlan) -> dict[tuple[str, str, str], list[PlannedTrial]]:
    """The trials by task, backbone and method, those of a task together."""
    groups: dict[tuple[str, str, str], list[PlannedTrial]] = {}
    for trial in plan.sample_trials():
        groups.setdefault((trial.task, trial.config.backbone, trial.config.method), []).append(trial)
    places = {task: place for place, task in enumerate(dict.fromkeys(task for task, *_ in groups))}
    return dict(sorted(groups.items(), key=lambda group: places[group[0][0]]))


def _span(values: Sequence[float | None], form: str) -> str:
    """One value, or the lowest and highest of several; a dash where they are unknown."""
    known = [value for value in values if value is not None]
    if not known:
        return wording.UNKNOWN
    low, high = form.format(min(known)), form.format(max(known))
    return low if low == high else f"{low} to {high}"


def _backbone_params(plan: SweepPlan) -> dict[str, dict[str, int] | None]:
    """Of each backbone the two denominators of a share of trained parameters; None where its sizes are unknown.

    Percentages in Houlsby et al. 2019 are of the Transformer layers alone in Table 1, and of the whole model elsewhere.
    """
    # Here: the command line's help needs no torch.
    from trainables.estimate.preview import preview_backbone

    found: dict[str, dict[str, int] | None] = {}
    for backbone in plan.spec.backbones:
        info = preview_backbone(backbone).info
        found[backbone] = None if info is None else {"total": info.shape.params, "layers": info.shape.layers_params()}
    return found


def _backbone_sentences(plan: SweepPlan) -> list[str]:
    """What is special about how backbones are computed."""
    from trainables.estimate.preview import preview_backbone

    sentences = []
    for backbone in plan.spec.backbones:
        info = preview_backbone(backbone).info
        if info is not None and info.shape.library is not None:
            kind = f"{backbone}, a {info.shape.model_type}, is computed by transformers' own classes"
            sentences.append(
                f"Backbone: {kind}: methods that change layers cannot work on it, and trials that train it run alone"
            )
    return sentences


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
    plan: SweepPlan,
    done: int,
    estimated: PlanEstimate,
    price: float | None,
    backbone_params: Mapping[str, dict[str, int] | None],
) -> dict[str, Any]:
    found, only = estimated.estimate, plan.spec.backbones[0] if len(plan.spec.backbones) == 1 else None
    return {
        "sweep": plan.spec.name,
        "backbone": only,  # null where there are several
        "backbone_params": None if only is None else backbone_params[only],
        "backbones": [
            {
                "backbone": backbone,
                "params": backbone_params[backbone],
                "device_seconds": found and _seconds_of(found, backbone),
                "cost": found and cost_of(_seconds_of(found, backbone), 1, price),
                "memory_bytes": found and found.memory_by_backbone.get(backbone),
            }
            for backbone in plan.spec.backbones
        ],
        "is_adaptive": plan.is_adaptive,  # then the numbers are the most there can be, and trials are not known yet
        "num_trials": plan.most_trials,
        "num_configurations": plan.configurations,
        "num_finished": done,
        "num_remaining": max(0, plan.most_trials - done),
        "estimate": _estimate(estimated, price),
        "missing": list(plan.missing),
        "data_notes": list(plan.notes),
        "methods": [
            {
                "task": task,
                "backbone": backbone,
                "method": method,
                "num_configurations": len({trial.config_id for trial in trials}),
                "num_trials": len(trials),
                "trained_params": _bounds([trial.trained_params for trial in trials]),
                "device_seconds": found and found.device_seconds.get((task, backbone, method)),
            }
            for (task, backbone, method), trials in _groups(plan).items()
        ],
        "trials": [
            {
                "trial_id": trial.trial_id,
                "config_id": trial.config_id,
                "task": trial.task,
                "backbone": trial.config.backbone,
                "method": trial.config.method,
                "seed": trial.config.seed,
                **({} if trial.config.fold is None else {"fold": trial.config.fold}),
                **trial.hyperparameters,
                "num_steps": trial.num_steps,
                "trained_params": trial.trained_params,
                "trained_params_without_head": trial.trained_params_without_head,
                "total_params": trial.total_params,
                **_shares(trial, backbone_params[trial.config.backbone]),
            }
            for trial in plan.trials
        ],
    }


def _replicates(plan: SweepPlan) -> str:
    """3 seeds; 5 folds; 3 seeds with 5 folds; 3 seeds with 5 folds on small and none on large."""
    seeds = wording.plural(len(plan.spec.seeds), "seed")
    by_task = {each.task.info.name: each.task.folds for each in plan.task_methods}
    if not any(by_task.values()):
        return seeds
    if len(set(by_task.values())) == 1:
        return f"{seeds} with {wording.plural(next(iter(by_task.values())) or 0, 'fold')}"
    own = [f"{wording.plural(folds, 'fold') if folds else 'no folds'} on {task}" for task, folds in by_task.items()]
    return f"{seeds} with {', '.join(own)}"


def _bounds(values: Sequence[int | None]) -> list[int] | None:
    known = [value for value in values if value is not None]
    return [min(known), max(known)] if known else None


def _estimate(estimated: PlanEstimate, price: float | None) -> dict[str, Any]:
    """Every key there is, null where it is unknown. With nothing left to train, time and cost are 0."""
    found = estimated.estimate
    nothing = None if estimated.unknown else 0.0
    seconds, low, high = (nothing,) * 3 if found is None else (found.seconds, found.low_seconds, found.high_seconds)
    costs = [None if each is None else cost_of(each, estimated.devices, price) for each in (seconds, low, high)]
    return {
        "devices": estimated.devices,
        "price": price,
        "seconds": seconds,
        "low_seconds": low,
        "high_seconds": high,
        "cost": costs[0],
        "low_cost": costs[1],
        "high_cost": costs[2],
        "source": found.source if found else None,
        "shares": dict(found.shares) if found else None,  # source -> share of the time that it tells
        "error": found.error if found else None,
        "within_factor": 1 + found.error if found else None,
        "start_seconds": found.start_seconds if found else None,
        "seconds_without_early_stopping": found.most_seconds if found else None,
        "epochs": _epochs(found),
        "memory_bytes": found.memory_bytes if found else None,
        "memory_is_measured": found.is_memory_measured if found else None,
        "packs": _packs(found),
        "unknown": list(estimated.unknown),
        "notes": list(estimated.notes),
    }


def _epochs(found: SweepEstimate | None) -> dict[str, Any] | None:
    return {"expected": found.expected_epochs, "most": found.most_epochs} if found else None


def _packs(found: SweepEstimate | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"count": found.packs, "trials_together": found.trials_per_pack, "most_together": found.most_per_pack}

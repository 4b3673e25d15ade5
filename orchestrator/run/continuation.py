"""A sweep that is run again: what the plan and the records in its store mean to the sweep as it is asked for now."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

import trainables.config
from orchestrator.planning.plan import SweepPlan, remaining
from orchestrator.store import Store
from trainables.config import TrialConfig
from trainables.faults import FaultsError, unknown_name

_COMPARED = ("trial_id", "config_id", "task", "method", "config")


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """The trials that a store holds planned for a sweep, beside those that are asked for."""

    kept: pa.Table  # the rows of those that stay planned
    outdated: Mapping[str, int | None]  # trial_id -> version of the code that would have trained it; None if unknown
    lost: int  # that are in the store's plan and have no place in this one
    new: int  # that are in this plan and not in the store's
    held: int  # all in the store's plan

    def faults(self, sweep: str, store: str, *, widen: bool) -> list[str]:
        """Why the sweep cannot go on in this store, if it cannot."""
        resume = f"`adaptune resume {store} SWEEP`"
        if self.lost:
            rule = "a wider sweep must keep every planned trial" if widen else "a sweep keeps what it has planned"
            fix = f"give it another name, name another store with --store, or widen what is there with {resume}"
            planned = f"{self.lost} of the {self.held} trials planned for {sweep} in {store}"
            return [f"{rule}, but {planned} are not in it; {'keep what the sweep had and add to it' if widen else fix}"]
        if self.new and not widen:
            rule = f"a sweep is run again as it is, but {self.new} trials are new to {sweep} in {store}"
            return [f"{rule}; widen it with {resume}, or give it another name"]
        return []


def continue_from(plan: SweepPlan, held: pa.Table) -> Continuation:
    """Compare a plan with the one that a store holds for the sweep of the same name.

    A trial whose identity was made by code of an older `OUTCOME_VERSION` is outdated. Where the store does not say, it
    is one whose very configuration is planned now under another id. What an adaptive search has proposed stays planned
    as long as its task, with the same rows, and its method are in the spec.
    """
    present = set(held["trial_id"].to_pylist())
    new = {_configuration(trial.config.to_dict()) for trial in plan.trials if trial.trial_id not in present}
    gone = held.filter(pc.invert(pc.is_in(held["trial_id"], _ids(trial.trial_id for trial in plan.trials))))
    proposed: list[str] = []
    outdated: dict[str, int | None] = {}
    replaced = set()
    for row in gone.select([*_COMPARED, *(n for n in ("outcome_version",) if n in gone.column_names)]).to_pylist():
        version, configuration = row.get("outcome_version"), _configuration_in(row["config"])
        if configuration in new if version is None else version < trainables.config.OUTCOME_VERSION:
            outdated[row["trial_id"]] = version
            replaced.add(configuration)
        elif plan.is_adaptive and _is_proposed(plan, row):
            proposed.append(row["trial_id"])
    kept = present - set(gone["trial_id"].to_pylist()) | set(proposed)
    return Continuation(
        kept=held.filter(pc.is_in(held["trial_id"], _ids(kept))),
        outdated=outdated,
        lost=len(gone) - len(outdated) - len(proposed),
        new=sum(configuration not in replaced for configuration in new),
        held=len(held),
    )


def check_continuation(plan: SweepPlan, store: Store, *, widen: bool) -> None:
    """Raises `FaultsError` where the store holds a sweep of this name that is not this one, or a part of it."""
    name = plan.spec.name
    if store.exists() and name in store.sweeps():
        found = continue_from(plan, store.plan_table(name))
        if faults := found.faults(name, store.uri, widen=widen):
            raise FaultsError(f"store {store.uri}", faults)


def check_held(plan: SweepPlan, store: Store) -> None:
    """Raises `FaultsError` where the store holds sweeps and none of this name: there is nothing to go on with."""
    if store.exists() and plan.spec.name not in (names := store.sweeps()):
        unknown = unknown_name("sweep of this store", plan.spec.name, names)
        begin = f"`adaptune run SWEEP --store {store.uri}` begins a sweep of another name there"
        fault = f"name: must be that of the sweep to resume, but it is an {unknown}; {begin}"
        raise FaultsError(f"store {store.uri}", [fault])


def outdated_trials(plan: SweepPlan, store: Store) -> dict[str, int | None]:
    """Trials that an older adaptune planned for this sweep, with its outcome version, and that no other sweep plans."""
    name = plan.spec.name
    if not store.exists() or name not in (names := store.sweeps()):
        return {}
    outdated = dict(continue_from(plan, store.plan_table(name)).outdated)
    for other in names if outdated else ():
        if other != name:
            for trial_id in store.plan_table(other)["trial_id"].to_pylist():
                outdated.pop(trial_id, None)
    return outdated


def outcome_notice(plan: SweepPlan, store: Store) -> str | None:
    """What becomes of records whose trials this adaptune would train otherwise; None where there are none."""
    outdated = outdated_trials(plan, store)
    finished = store.finished_ids() if outdated else frozenset()
    records = finished.intersection(outdated)
    if not records:
        return None
    versions = sorted({version for trial_id in records if (version := outdated[trial_id]) is not None})
    which = f"outcome version {' and '.join(map(str, versions))}" if versions else "an unknown, earlier outcome version"
    number = min(len(records), len(remaining(plan, finished)))
    again = "the search begins anew" if plan.is_adaptive else f"{_count(number, 'trial', 'is', 'are')} trained again"
    kept = f"{'it is' if len(records) == 1 else 'they are'} kept in superseded/"
    trains = f"this adaptune trains version {trainables.config.OUTCOME_VERSION}"
    return f"{_count(len(records), 'record', 'is', 'are')} of {which}, {trains}, so {kept} and {again}"


def _is_proposed(plan: SweepPlan, row: Mapping[str, str]) -> bool:
    """Whether a trial that a search proposed earlier is one that it could propose today."""
    try:
        config = TrialConfig.from_dict(json.loads(row["config"]))
    except (FaultsError, ValueError, TypeError):
        return False
    return any(
        (task_method.task.info.name, task_method.entry.method) == (row["task"], row["method"])
        and task_method.identity(config) == row["config_id"]
        for task_method in plan.task_methods
    )


def _configuration(values: object) -> str:
    return json.dumps(values, sort_keys=True)


def _configuration_in(text: str) -> str | None:
    try:
        return _configuration(json.loads(text))
    except (ValueError, RecursionError):
        return None


def _ids(trial_ids: Iterable[str]) -> pa.Array:
    return pa.array(list(trial_ids), pa.string())


def _count(number: int, noun: str, one: str, many: str) -> str:
    return f"{number:,} {noun} {one}" if number == 1 else f"{number:,} {noun}s {many}"

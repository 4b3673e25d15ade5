"""The runs of a sweep's configurations: below the sweep's run, above those of their trials."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.tracking.bulk_insert import EndedRun
from orchestrator.tracking.configuration import SHOWN, Configuration
from orchestrator.tracking.datasets import TaskData
from orchestrator.tracking.naming import Naming
from orchestrator.tracking.run_fields import NAME, PARENT, STATUS, SWEEP_RUN, TrialFacts, source_tags
from orchestrator.tracking.runs import MlflowRuns, Run
from orchestrator.tracking.status import run_status

_RUNNING = run_status(TrialStatus.RUNNING)


@dataclass(kw_only=True)
class _Held:
    """What MLflow holds of a configuration. Mutable: it follows what is written."""

    run_id: str
    status: str
    tags: dict[str, str]
    has_data: bool  # whether the dataset is known to be among its inputs


class ConfigurationRuns:
    """One run for each configuration, where a sweep has several seeds or folds.

    Such a run is written when its configuration's first trial is and again when all its trials have ended, so its
    three or four requests are shared by these. Used from one thread; whatever fails raises, and `open` then finds
    out anew what MLflow holds. What is known of the trials stays.
    """

    def __init__(self, window: MlflowRuns, sweep: str, naming: Naming, data: Mapping[str, TaskData]) -> None:
        """`data`: task name -> what its trials train on."""
        self._window = window
        self._sweep = sweep
        self._naming = naming
        self._data = data
        self._num_seeds = naming.num_seeds or 1
        self._parent = ""
        self._known: dict[str, Configuration] = {}
        self._held: dict[str, _Held] = {}
        self._unsettled: set[str] = set()

    def open(self, found: Mapping[str, Run], parent: str) -> None:
        """Begin with the runs that MLflow has, by config_id, and the sweep's run."""
        self._parent = parent
        self._held = {
            config_id: _Held(
                run_id=run.run_id,
                status=run.status,
                tags={key: run.tags[key] for key in (STATUS, PARENT, NAME, SHOWN) if key in run.tags},
                has_data=SHOWN in run.tags,
            )
            for config_id, run in found.items()
        }
        self._unsettled |= self._known.keys()

    def run_of(self, config_id: str) -> str | None:
        """The id of a configuration's run, where it has one."""
        held = self._held.get(config_id)
        return held.run_id if held else None

    def name_of(self, config_id: str) -> str | None:
        """A configuration's name, where anything is known of it."""
        known = self._known.get(config_id)
        return self._naming.configuration(known.facts) if known else None

    def note(self, facts: TrialFacts, record: TrialRecord | None) -> None:
        """A trial has begun, or has ended with its record."""
        known = self._known.setdefault(facts.config_id, Configuration(facts=facts))
        if record is None:
            known.again(facts.trial_id)
        else:
            known.add(record)
        self._unsettled.add(facts.config_id)

    def above(self, facts: TrialFacts, *, began_ms: int | None, is_training: bool) -> str:
        """The id of the run that a noted trial's run goes below: made where there is none, RUNNING while one trains."""
        known = self._known[facts.config_id]
        held = self._held.get(facts.config_id)
        name = self._naming.configuration(known.facts)
        if held is None:
            tags = {**self._first_tags(known), STATUS: TrialStatus.RUNNING.value}
            run_id = self._window.create(name, tags, began_ms)
            held = _Held(run_id=run_id, status=_RUNNING, tags={**tags, NAME: name}, has_data=False)
            self._held[facts.config_id] = held
            self._log_data(held, known)
        elif is_training and held.status != _RUNNING:
            self._window.set_running(held.run_id)
            held.status = _RUNNING
        wanted = {PARENT: self._parent, SWEEP_RUN: self._parent, NAME: name}
        if any(held.tags.get(key) != wanted[key] for key in (PARENT, NAME)):
            self._window.log(held.run_id, [], {}, wanted)
            held.tags |= wanted
        return held.run_id

    def whole(self, facts: Iterable[TrialFacts]) -> dict[str, EndedRun]:
        """config_id -> the run to insert, for those of these noted trials' configurations that have none.

        One whose trials have not all ended is RUNNING. Once they are there, `inserted` is to be told.
        """
        runs: dict[str, EndedRun] = {}
        for config_id in dict.fromkeys(each.config_id for each in facts):
            if config_id in self._held:
                continue
            known = self._known[config_id]
            shown = known.shown(self._num_seeds)
            is_whole = known.has_ended(self._num_seeds)
            tags = {**self._first_tags(known), **(shown.tags if is_whole else {STATUS: TrialStatus.RUNNING.value})}
            runs[config_id] = EndedRun(
                run_id=uuid.uuid4().hex,
                name=self._naming.configuration(known.facts),
                status=run_status(shown.status) if is_whole else _RUNNING,
                start_ms=shown.start_ms,
                end_ms=shown.end_ms or None,
                tags=tags,
                params=known.params(),
                points=shown.points if is_whole else (),
                data=self._data.get(known.facts.task),
            )
        return runs

    def inserted(self, runs: Mapping[str, EndedRun]) -> None:
        """These runs are in MLflow now, by config_id."""
        for config_id, run in runs.items():
            tags = {**run.tags, NAME: run.name}
            self._held[config_id] = _Held(run_id=run.run_id, status=run.status, tags=tags, has_data=True)

    def settle(self, *, is_final: bool = False) -> None:
        """Write what the trials say together, of each configuration whose trials have all ended.

        In the end (`is_final`) of the others too; afterwards no configuration's run says RUNNING.
        """
        for config_id in sorted(self._unsettled):
            known = self._known[config_id]
            if is_final or known.has_ended(self._num_seeds):
                self._show(config_id, known)
                self._unsettled.discard(config_id)
        if is_final:
            for held in self._held.values():
                if held.status == _RUNNING:  # of an earlier driver that was killed; nothing is known of its trials
                    self._window.log(held.run_id, [], {}, {STATUS: TrialStatus.CANCELLED.value})
                    self._end(held, TrialStatus.CANCELLED, None)

    def _show(self, config_id: str, known: Configuration) -> None:
        held = self._held.get(config_id)
        if held is None:
            return  # none of its trials could be written
        shown = known.shown(self._num_seeds)
        if held.tags.get(SHOWN) == shown.tags[SHOWN] and held.status == run_status(shown.status):
            return
        if not held.has_data:
            self._log_data(held, known)
        self._window.log(held.run_id, shown.points, known.params(), shown.tags)
        held.tags |= shown.tags
        self._end(held, shown.status, shown.end_ms or None)

    def _end(self, held: _Held, status: TrialStatus, at_ms: int | None) -> None:
        self._window.end(held.run_id, run_status(status), at_ms)
        held.status = run_status(status)

    def _log_data(self, held: _Held, known: Configuration) -> None:
        if data := self._data.get(known.facts.task):
            self._window.log_data(held.run_id, [data])
        held.has_data = True

    def _first_tags(self, known: Configuration) -> dict[str, str]:
        return {**known.tags(self._sweep), PARENT: self._parent, SWEEP_RUN: self._parent, **source_tags()}

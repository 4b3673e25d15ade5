"""Makes MLflow's runs equal to what is known of the trials, with as few requests as that takes."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.tracking.bulk_insert import EndedRun
from orchestrator.tracking.configuration_runs import ConfigurationRuns
from orchestrator.tracking.datasets import TaskData
from orchestrator.tracking.naming import Naming
from orchestrator.tracking.overview import Best, best_points, best_tags, linked, sweep_note
from orchestrator.tracking.run_fields import (
    CONFIG_ID,
    CURVE,
    KIND,
    NAME,
    NOTE,
    PARENT,
    STARTED_AT,
    STATUS,
    SWEEP,
    SWEEP_RUN,
    TRIAL_ID,
    Point,
    TrialFacts,
    end_ms,
    epoch_points,
    epoch_times,
    record_points,
    record_tags,
    source_tags,
    start_ms,
    text,
)
from orchestrator.tracking.runs import MlflowRuns, Run
from orchestrator.tracking.status import run_status
from orchestrator.tracking.winner_models import WinnerModel, WinnerModels
from trainables.outcome import EpochReport

_SPEC_HASH = "adaptune.spec_sha256"  # and of the data
_LONGEST_NOTE = 7500  # characters; MLflow's databases take 8000


@dataclass(kw_only=True)
class News:
    """What is known of a trial and not yet in MLflow. Mutable: it grows until it is written."""

    facts: TrialFacts
    started_ms: int | None = None
    epochs: list[tuple[int, EpochReport]] = field(default_factory=list)  # with the time each was reported
    record: TrialRecord | None = None
    refused: bool = False  # MLflow has already refused it once

    def add(self, later: News) -> None:
        """Take in what has become known since."""
        self.epochs += later.epochs
        self.record = later.record or self.record


class Artifact(Protocol):
    """Something to keep with the sweep's run."""

    def log(self, window: MlflowRuns, run_id: str) -> None: ...


@dataclass(frozen=True)
class TextArtifact:
    """A file by its content."""

    name: str
    content: str

    def log(self, window: MlflowRuns, run_id: str) -> None:
        window.log_text(run_id, self.content, self.name)


@dataclass(frozen=True)
class FileArtifact:
    """A file or folder on this machine's disk, and the folder among the artifacts that it goes to."""

    path: Path
    folder: str | None

    def log(self, window: MlflowRuns, run_id: str) -> None:
        window.log_file(run_id, self.path, self.folder)


@dataclass(kw_only=True)
class _Held:
    """What MLflow holds of a trial. Mutable: it follows what is written."""

    run_id: str
    status: str
    tags: dict[str, str]
    params: set[str] = field(default_factory=set)  # those known to be there; MLflow takes the others twice
    steps: set[int] | None = None  # the epochs whose points are there; None where nobody has looked yet

    def is_end_of(self, record: TrialRecord) -> bool:
        wanted = record_tags(record)
        same_attempt = all(self.tags.get(tag, "") == wanted[tag] for tag in (STATUS, STARTED_AT))
        return same_attempt and self.status == run_status(record.status)


class Writer:
    """The runs in MLflow: one for the sweep, below it one for each configuration, below these one for every trial.

    Where each configuration has one trial, because the sweep has one seed and no folds, trials lie directly below the
    sweep. Used from one thread. Whatever fails raises; after that, `open` finds out anew what MLflow holds, so that a
    request whose answer was lost is not made twice. Writing something a second time changes nothing.
    """

    def __init__(
        self, window: MlflowRuns, sweep: str, spec_json: str, naming: Naming, data: Sequence[TaskData] = ()
    ) -> None:
        """`data`: what the tasks train on."""
        self._window = window
        self._naming = naming
        self._sweep = sweep
        self._spec_json = spec_json
        self._data = data
        self._parent = ""
        self._began_ms = 0
        self._held: dict[str, _Held] = {}
        # In their place such a sweep remembers, of each configuration, the trial's id and name.
        self._configurations = (
            ConfigurationRuns(window, sweep, naming, {each.task: each for each in data}) if naming.is_nested else None
        )
        self._only_trials: dict[str, tuple[str, str]] = {}
        self._models = WinnerModels(window, sweep)

    def open(self) -> None:
        """Reach MLflow, begin or take up the sweep's run, and see which trials' runs are there."""
        self._window.open()
        sweeps: list[Run] = []
        trials: dict[str, list[Run]] = {}
        configurations: dict[str, list[Run]] = {}
        for run in self._window.runs():
            kind = run.tags[KIND]
            if kind == "sweep":
                sweeps.append(run)
            elif kind == "configuration" and CONFIG_ID in run.tags:
                configurations.setdefault(run.tags[CONFIG_ID], []).append(run)
            elif kind == "trial" and TRIAL_ID in run.tags:
                trials.setdefault(run.tags[TRIAL_ID], []).append(run)
        self._parent = self._begin(sweeps)
        if self._configurations:
            found = {config_id: self._only(runs) for config_id, runs in configurations.items()}
            self._configurations.open(found, self._parent)
        self._held = {}
        for trial_id, runs in trials.items():
            run = self._only(runs)
            self._held[trial_id] = _Held(run_id=run.run_id, status=run.status, tags=_kept(run.tags))

    def write(self, news: News) -> None:
        """Make a trial's run show what is known of it: at most three requests, where no run was there before."""
        record = news.record
        held = self._held.get(news.facts.trial_id)
        self._note(news)
        places = self._places(news)
        if held and record and held.is_end_of(record):
            if any(held.tags.get(key) != places[key] for key in (PARENT, NAME)):  # as an earlier version left it
                self._window.log(held.run_id, [], {}, places)
                held.tags |= _kept(places)
            return
        if held is None:
            held = self._create(news, places)
        elif record is None and held.status != "RUNNING":
            self._window.set_running(held.run_id)
            held.status = "RUNNING"
        if held.steps is None:
            held.steps = self._window.steps(held.run_id, CURVE)
        points, steps = _new_points(news, held.steps)
        params = {key: value for key, value in news.facts.params().items() if key not in held.params}
        # A name is written again only where it changes: to MLflow that is a request of its own to the database.
        tags = {key: value for key, value in places.items() if key != NAME or held.tags.get(NAME) != value}
        tags |= _record_tags(record) if record else {STATUS: TrialStatus.RUNNING.value}
        if record is None:
            tags = {key: value for key, value in tags.items() if held.tags.get(key) != value}
        if points or params or tags:
            self._window.log(held.run_id, points, params, tags)
        held.steps |= steps
        held.params |= set(params)
        held.tags |= tags
        if record:
            self._window.end(held.run_id, run_status(record.status), end_ms(record) or None)
            # Of the many that have ended, only what tells one end from another is remembered.
            status = run_status(record.status)
            self._held[news.facts.trial_id] = _Held(run_id=held.run_id, status=status, tags=_kept(held.tags))

    def write_whole(self, news: Sequence[News]) -> bool:
        """Add the runs of trials that have ended and of which MLflow holds nothing, in one request.

        False where that cannot be done, and each is for `write`.
        """
        ended = [(each, each.record) for each in news if each.record is not None]
        if len(ended) < len(news) or any(each.facts.trial_id in self._held for each in news):
            return False
        for each in news:
            self._note(each)
        above = self._configurations.whole(each.facts for each in news) if self._configurations else {}
        runs = [self._whole(each, record, above.get(each.facts.config_id)) for each, record in ended]
        if not self._window.insert([*above.values(), *runs]):
            return False
        if self._configurations:
            self._configurations.inserted(above)
        for run, (each, _) in zip(runs, ended, strict=True):
            tags = _kept({**run.tags, NAME: run.name})
            self._held[each.facts.trial_id] = _Held(run_id=run.run_id, status=run.status, tags=tags)
        return True

    def holds(self, trial_id: str) -> bool:
        """Whether a trial has a run in MLflow."""
        return trial_id in self._held

    def settle(self) -> None:
        """Write what the trials of configurations say together, where all have ended."""
        if self._configurations:
            self._configurations.settle()

    def end_running(self, keep: Collection[str]) -> None:
        """End the runs that still say RUNNING, of an earlier driver that was killed, but for the trials to keep."""
        for trial_id, held in self._held.items():
            if held.status == "RUNNING" and trial_id not in keep:
                self._window.log(held.run_id, [], {}, {STATUS: TrialStatus.CANCELLED.value})
                self._window.end(held.run_id, run_status(TrialStatus.CANCELLED), None)
                held.status = run_status(TrialStatus.CANCELLED)
                held.tags[STATUS] = TrialStatus.CANCELLED.value

    def log_sweep(self, points: Sequence[Point]) -> None:
        """Add metric points to the sweep's run; their step is the number of seconds since it began."""
        if points:
            self._window.log(self._parent, self._since_began(points), {}, {})

    def end_sweep(
        self, status: TrialStatus, points: Sequence[Point], best: Sequence[Best] | None, report: str | None
    ) -> None:
        """End the sweep's run and, before it, those of its configurations that have not ended.

        Args:
            points: the last of `log_sweep`.
            best: the best configuration of each task; None where that is not known, and what is shown stays.
            report: which of its artifacts is the report.
        """
        if self._configurations:
            self._configurations.settle(is_final=True)
        tags = {STATUS: status.value}
        if best is not None:
            now_ms = round(1000 * time.time())
            points = [*points, *best_points(best, now_ms)]
            tags |= best_tags(best, self._run_of)
            address = report and self._window.address(self._parent, report)
            tags[NOTE] = _note_text(sweep_note(json.loads(self._spec_json), best, self._link, address))
        self._window.log(self._parent, self._since_began(points), {}, tags)
        self._window.end(self._parent, run_status(status), None)

    def write_model(self, model: WinnerModel) -> bool:
        """Make MLflow hold a winner's model, in its trial's run; False where its weights are gone."""
        held = self._held.get(model.record.trial_id)
        return self._models.write(model, run_id=held.run_id if held else None, sweep_run=self._parent) is not None

    def overtake_models(self, winners: Collection[str]) -> None:
        """Mark the models of other trials than these as overtaken."""
        self._models.overtake(frozenset(winners))

    def log_artifact(self, artifact: Artifact) -> None:
        artifact.log(self._window, self._parent)

    def _note(self, news: News) -> None:
        """Remember what the news means for the trial's configuration."""
        if self._configurations:
            self._configurations.note(news.facts, news.record)
        else:
            self._only_trials[news.facts.config_id] = (news.facts.trial_id, self._naming.trial(news.facts))

    def _places(self, news: News) -> dict[str, str]:
        """The tags that say where a noted trial's run is and what it is called."""
        parent = self._parent
        if self._configurations:
            is_training = news.record is None
            parent = self._configurations.above(news.facts, began_ms=_start_ms(news), is_training=is_training)
        return {PARENT: parent, SWEEP_RUN: self._parent, NAME: self._naming.trial(news.facts)}

    def _run_of(self, config_id: str) -> str | None:
        """The run that shows a configuration."""
        if self._configurations:
            return self._configurations.run_of(config_id)
        trial_id, _ = self._only_trials.get(config_id, ("", ""))
        held = self._held.get(trial_id)
        return held.run_id if held else None

    def _link(self, config_id: str) -> str | None:
        run_id = self._run_of(config_id)
        name = (
            self._configurations.name_of(config_id)
            if self._configurations
            else self._only_trials.get(config_id, ("", ""))[1]
        )
        return linked(name, self._window.address(run_id)) if run_id and name else None

    def _since_began(self, points: Sequence[Point]) -> list[Point]:
        return [replace(point, step=max(0, (point.time_ms - self._began_ms) // 1000)) for point in points]

    def _whole(self, news: News, record: TrialRecord, above: EndedRun | None) -> EndedRun:
        points, _ = _new_points(news, ())
        held_above = self._configurations and self._configurations.run_of(news.facts.config_id)
        parent = above.run_id if above else held_above or self._parent
        return EndedRun(
            run_id=uuid.uuid4().hex,
            name=self._naming.trial(news.facts),
            status=run_status(record.status),
            start_ms=_start_ms(news),
            end_ms=end_ms(record) or None,
            tags={**self._first_tags(news), PARENT: parent, **_record_tags(record)},
            params=news.facts.params(),
            points=points,
        )

    def _first_tags(self, news: News) -> dict[str, str]:
        return {**news.facts.tags(), SWEEP: self._sweep, SWEEP_RUN: self._parent, **source_tags()}

    def _create(self, news: News, places: Mapping[str, str]) -> _Held:
        tags = {**self._first_tags(news), PARENT: places[PARENT], STATUS: TrialStatus.RUNNING.value}
        run_id = self._window.create(places[NAME], tags, _start_ms(news))
        held = _Held(run_id=run_id, status="RUNNING", tags={**tags, NAME: places[NAME]}, params=set(), steps=set())
        self._held[news.facts.trial_id] = held
        return held

    def _begin(self, found: Sequence[Run]) -> str:
        """The sweep's run: made, or taken up again."""
        content = "\n".join([self._spec_json, *(f"{each.task} {each.digest}" for each in self._data)])
        content_hash = hashlib.sha256(content.encode()).hexdigest()
        if found:
            run = self._only(found)
            run_id, described = run.run_id, run.tags.get(_SPEC_HASH) == content_hash
            self._began_ms = run.start_ms
            if run.status != "RUNNING":
                self._window.set_running(run_id)
        else:
            self._began_ms = round(1000 * time.time())
            tags = {KIND: "sweep", SWEEP: self._sweep, **source_tags()}
            run_id = self._window.create(self._sweep, tags, self._began_ms)
            described = False
        running = {STATUS: TrialStatus.RUNNING.value}
        if not described:
            if self._data:
                self._window.log_data(run_id, self._data)
            spec = json.loads(self._spec_json)
            tags = {**running, **_spec_tags(spec), **source_tags(), NOTE: sweep_note(spec, (), self._link, None)}
            self._window.log(run_id, [], {}, {**tags, _SPEC_HASH: content_hash})
        elif found and found[0].tags.get(STATUS) != running[STATUS]:
            self._window.log(run_id, [], {}, running)
        return run_id

    def _only(self, runs: Sequence[Run]) -> Run:
        """The one run to keep of several for the same thing; lost answers and rival drivers leave such behind."""
        kept = next((run for run in runs if run.status != "RUNNING"), runs[0])
        for run in runs:
            if run is not kept:
                self._window.delete(run.run_id)
        return kept


def _start_ms(news: News) -> int | None:
    """As the record has it, where it is there; that a trial had begun was heard somewhat later."""
    return (start_ms(news.record) if news.record else None) or news.started_ms


def _kept(tags: Mapping[str, str]) -> dict[str, str]:
    """Of a run's tags, those that tell whether it shows the end of a trial as the record has it."""
    return {key: tags[key] for key in (STATUS, STARTED_AT, PARENT, NAME) if key in tags}


def _record_tags(record: TrialRecord) -> dict[str, str]:
    """The tags of a trial's end, with the commit that trained it as its source."""
    return {**source_tags(record.provenance.get("commit")), **record_tags(record)}


def _new_points(news: News, known_steps: Collection[int]) -> tuple[list[Point], set[int]]:
    """The points that a run lacks, and the epochs among them. An epoch that was reported keeps its first time."""
    reported: Iterable[tuple[int, EpochReport]] = [*news.epochs, *(epoch_times(news.record) if news.record else ())]
    points: list[Point] = []
    steps: set[int] = set()
    for time_ms, report in reported:
        if report.epoch not in known_steps and report.epoch not in steps:
            points += epoch_points(report, time_ms)
            steps.add(report.epoch)
    return points + (record_points(news.record) if news.record else []), steps


def _note_text(note: str) -> str:
    """A description of at most what MLflow takes, cut at the end of a line."""
    if len(note) <= _LONGEST_NOTE:
        return note
    return note[: note.rindex("\n", 0, _LONGEST_NOTE)]


def _spec_tags(spec: Any) -> dict[str, str]:
    """Each top-level entry of a spec as a tag."""
    entries = spec.items() if isinstance(spec, dict) else ()
    return {
        f"adaptune.spec.{key}": text(value if isinstance(value, str) else json.dumps(value)) for key, value in entries
    }

"""Makes MLflow's runs equal to what is known of the trials, with as few requests as that takes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from orchestrator.planning.plan import Varied
from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.tracking.bulk_insert import EndedRun
from orchestrator.tracking.run_fields import (
    CURVE,
    KIND,
    PARENT,
    STARTED_AT,
    STATUS,
    SWEEP,
    TRIAL_ID,
    Point,
    TrialFacts,
    end_ms,
    epoch_points,
    epoch_times,
    record_points,
    record_tags,
    start_ms,
    text,
)
from orchestrator.tracking.runs import MlflowRuns, Run
from orchestrator.tracking.status import run_status
from trainables.outcome import EpochReport

_SPEC_HASH = "adaptune.spec_sha256"


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
    """A sweep's runs in MLflow: one parent, and below it one child for every trial.

    Used from one thread. Whatever fails raises; after that, `open` finds out anew what MLflow holds, so that a
    request whose answer was lost is not made twice. Writing something a second time changes nothing.
    """

    def __init__(self, window: MlflowRuns, sweep: str, spec_json: str, varied: Varied) -> None:
        """`varied`: what the names of the runs mention of each method."""
        self._window = window
        self._varied = varied
        self._sweep = sweep
        self._spec_json = spec_json
        self._parent = ""
        self._held: dict[str, _Held] = {}

    def open(self) -> None:
        """Reach MLflow, begin or take up the sweep's run, and see which trials' runs are there."""
        self._window.open()
        runs = self._window.runs()
        self._parent = self._begin([run for run in runs if run.tags[KIND] == "sweep"])
        trials: dict[str, list[Run]] = {}
        for run in runs:
            if run.tags[KIND] == "trial" and TRIAL_ID in run.tags:
                trials.setdefault(run.tags[TRIAL_ID], []).append(run)
        self._held = {}
        for trial_id, found in trials.items():
            run = self._only(found)
            self._held[trial_id] = _Held(run_id=run.run_id, status=run.status, tags=_kept(run.tags))

    def write(self, news: News) -> None:
        """Make a trial's run show what is known of it: at most three requests, where no run was there before."""
        record = news.record
        held = self._held.get(news.facts.trial_id)
        if held and record and held.is_end_of(record) and held.tags.get(PARENT) == self._parent:
            return
        if held is None:
            held = self._create(news)
        elif record is None and held.status != "RUNNING":
            self._window.set_running(held.run_id)
            held.status = "RUNNING"
        if held.steps is None:
            held.steps = self._window.steps(held.run_id, CURVE)
        points, steps = _new_points(news, held.steps)
        params = {key: value for key, value in news.facts.params().items() if key not in held.params}
        tags = {PARENT: self._parent, **(record_tags(record) if record else {STATUS: TrialStatus.RUNNING.value})}
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
        ids = self._window.insert([self._whole(each, record) for each, record in ended])
        if ids is None:
            return False
        for run_id, (each, record) in zip(ids, ended, strict=True):
            tags = _kept({**record_tags(record), PARENT: self._parent})
            self._held[each.facts.trial_id] = _Held(run_id=run_id, status=run_status(record.status), tags=tags)
        return True

    def holds(self, trial_id: str) -> bool:
        """Whether a trial has a run in MLflow."""
        return trial_id in self._held

    def end_running(self, keep: Collection[str]) -> None:
        """End the runs that still say RUNNING, of an earlier driver that was killed, but for the trials to keep."""
        for trial_id, held in self._held.items():
            if held.status == "RUNNING" and trial_id not in keep:
                self._window.log(held.run_id, [], {}, {STATUS: TrialStatus.CANCELLED.value})
                self._window.end(held.run_id, run_status(TrialStatus.CANCELLED), None)
                held.status = run_status(TrialStatus.CANCELLED)
                held.tags[STATUS] = TrialStatus.CANCELLED.value

    def end_sweep(self, status: TrialStatus) -> None:
        self._window.log(self._parent, [], {}, {STATUS: status.value})
        self._window.end(self._parent, run_status(status), None)

    def log_artifact(self, artifact: Artifact) -> None:
        artifact.log(self._window, self._parent)

    def _whole(self, news: News, record: TrialRecord) -> EndedRun:
        points, _ = _new_points(news, ())
        return EndedRun(
            name=news.facts.name(self._varied),
            status=run_status(record.status),
            start_ms=_start_ms(news),
            end_ms=end_ms(record) or None,
            tags={**self._first_tags(news), **record_tags(record)},
            params=news.facts.params(),
            points=points,
        )

    def _first_tags(self, news: News) -> dict[str, str]:
        return {**news.facts.tags(), PARENT: self._parent, SWEEP: self._sweep}

    def _create(self, news: News) -> _Held:
        tags = {**self._first_tags(news), STATUS: TrialStatus.RUNNING.value}
        run_id = self._window.create(news.facts.name(self._varied), tags, _start_ms(news))
        held = _Held(run_id=run_id, status="RUNNING", tags=tags, params=set(), steps=set())
        self._held[news.facts.trial_id] = held
        return held

    def _begin(self, found: Sequence[Run]) -> str:
        """The sweep's run: made, or taken up again."""
        spec_hash = hashlib.sha256(self._spec_json.encode()).hexdigest()
        if found:
            run = self._only(found)
            run_id, described = run.run_id, run.tags.get(_SPEC_HASH) == spec_hash
            if run.status != "RUNNING":
                self._window.set_running(run_id)
        else:
            run_id = self._window.create(self._sweep, {KIND: "sweep", SWEEP: self._sweep}, None)
            described = False
        running = {STATUS: TrialStatus.RUNNING.value}
        if not described:
            self._window.log(run_id, [], {}, {**running, **_spec_tags(self._spec_json), _SPEC_HASH: spec_hash})
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
    return news.started_ms or (start_ms(news.record) if news.record else None)


def _kept(tags: Mapping[str, str]) -> dict[str, str]:
    """Of a run's tags, those that tell whether it shows the end of a trial as the record has it."""
    return {key: tags[key] for key in (STATUS, STARTED_AT, PARENT) if key in tags}


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


def _spec_tags(spec_json: str) -> dict[str, str]:
    """Each top-level entry of a spec as a tag."""
    spec = json.loads(spec_json)
    entries = spec.items() if isinstance(spec, dict) else ()
    return {
        f"adaptune.spec.{key}": text(value if isinstance(value, str) else json.dumps(value)) for key, value in entries
    }

"""Tracker: tells MLflow what a sweep is doing, without ever making the sweep wait for it."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.engine_status import EngineStatus
from orchestrator.planning.plan import PlannedTrial, Varied
from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.secrets import masked
from orchestrator.tracking.address import given_tracking_uri
from orchestrator.tracking.datasets import TaskData
from orchestrator.tracking.naming import Naming
from orchestrator.tracking.overview import Best, EngineLog
from orchestrator.tracking.run_fields import Point, TrialFacts
from orchestrator.tracking.runs import MlflowRuns, is_refusal, load_mlflow
from orchestrator.tracking.winner_models import WinnerModel
from orchestrator.tracking.writer import Artifact, FileArtifact, News, TextArtifact, Writer
from trainables.outcome import EpochReport

logger = logging.getLogger(__name__)

# A close that MLflow takes things from, slowly, lasts so many times as long as one that it takes nothing from.
MOST_TIMEOUTS = 10

REPORT = "report.html"
_AT_ONCE = 200  # ended trials in one request, so that others who write to the database are not kept waiting


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a tracker waits, and how much it remembers meanwhile."""

    flush_interval_s: float = 5.0  # between two writes
    first_wait_s: float = 1.0  # before the second attempt during an outage; each later wait is twice the one before
    longest_wait_s: float = 60.0
    engines_interval_s: float = 60.0  # between two writes of what the engines did
    most_held: int = 10_000  # trials remembered during an outage; the others are filled in from the records
    most_waiting: int = 2_000  # trials that may wait for an MLflow that is there; a sweep that is faster waits for it


class Tracker:
    """A sweep's window in MLflow, kept up to date by one background thread.

    - What the sweep tells it is noted at once and written later, at most every few seconds. No method
      raises because of MLflow, and none but `close` waits, unless thousands of ended trials wait to be written.
    - While MLflow cannot be written, that is said once in a warning and tried again, less and less often. What was
      missed in the end is written from the records, on `close` or on the next `refill`.
    - Every trial has one run, found again by its `adaptune.trial_id` tag, with the metric points of each epoch once.
    - After `close`, no run of the sweep says RUNNING.
    """

    def __init__(
        self,
        sweep: str,
        spec_json: str,
        *,
        varied: Varied | None = None,
        data: Sequence[TaskData] = (),
        tracking_uri: str | None = None,
        patience: Patience = Patience(),
        window: MlflowRuns | None = None,
    ) -> None:
        """Start writing to an MLflow tracking store, that of the environment if none is named.

        Imports MLflow, which takes a second or two; all else happens in the background. `sweep` names the MLflow
        experiment. `varied`: what the names of the runs mention of each method. `data`: what its tasks train on.
        `window` replaces the one made for the tracking store.
        """
        self.tracking_uri = window.tracking_uri if window else given_tracking_uri(tracking_uri)
        naming = Naming.of(json.loads(spec_json), varied, has_folds=any(each.folds for each in data))
        self._writer = Writer(window or MlflowRuns(self.tracking_uri, sweep), sweep, spec_json, naming, data)
        self._patience = patience

        self._changed = threading.Condition()  # guards what follows
        self._news: dict[str, News] = {}
        self._facts: dict[str, TrialFacts] = {}  # of the trials that run
        self._artifacts: list[Artifact] = [TextArtifact("spec.json", spec_json)]
        self._planned: frozenset[str] | None = None  # set until the runs of other trials have been ended
        self._engines = EngineLog()
        self._best: Sequence[Best] | None = None
        self._models: Sequence[WinnerModel] | None = None
        self._report: str | None = None  # which artifact it is
        self._end: TrialStatus | None = None
        self._is_left = False
        self._closed_at = self._timeout_s = float("inf")
        self._wrote_at = 0.0  # when MLflow last took something

        self._points: list[Point] = []  # for the sweep's run
        self._next_points_s = 0.0
        self._records: Callable[[], Sequence[TrialRecord]] | None = None
        self.is_open = False  # whether MLflow was reached and has not failed since
        self._missed = False
        self._failures = 0  # in a row
        self._complete = False
        with contextlib.suppress(Exception):  # the thread meets it again, and treats it like any outage
            load_mlflow()
        self._thread = threading.Thread(target=self._run, name="adaptune-tracker", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """How many trials have something that MLflow does not show yet."""
        return len(self._news)

    @property
    def is_away(self) -> bool:
        """Whether the last attempt to write to MLflow failed."""
        return self._failures > 0

    def trial_started(self, trial: PlannedTrial) -> None:
        """A trial begins to train, for the first time or again."""
        facts = TrialFacts.of_plan(trial)
        with self._changed:
            self._facts[facts.trial_id] = facts
            self._note(News(facts=facts, started_ms=_now_ms()))

    def epoch(self, trial_id: str, report: EpochReport) -> None:
        """A trial that has started has ended an epoch."""
        with self._changed:
            if facts := self._facts.get(trial_id):
                self._note(News(facts=facts, epochs=[(_now_ms(), report)]))

    def trial_ended(self, record: TrialRecord) -> None:
        """A trial has its record, whether it was announced by `trial_started` or not."""
        with self._changed:
            self._facts.pop(record.trial_id, None)
            self._engines.ended(record)
            self._note(News(facts=TrialFacts.of_record(record), record=record))
            if self.num_waiting >= self._patience.most_waiting and not self.is_away:
                self._changed.notify()
                self._changed.wait_for(lambda: self._has_room() or self.is_away, timeout=60.0)

    def engines_working(self, engines: Sequence[EngineStatus]) -> None:
        """What the engines are doing now."""
        with self._changed:
            self._engines.look(engines, time.monotonic())

    def show_best(self, best: Sequence[Best]) -> None:
        """The best configuration of each task, a row of `Results.best` each, for the sweep's run when it ends."""
        with self._changed:
            self._best = tuple(best)

    def show_models(self, models: Sequence[WinnerModel]) -> None:
        """The sweep's winners, whose weights become models of MLflow once all its runs have ended."""
        with self._changed:
            self._models = tuple(models)

    def _has_room(self) -> bool:
        return self.num_waiting < self._patience.most_waiting or not self._thread.is_alive()

    def refill(self, records: Sequence[TrialRecord], planned: Collection[str] | None = None) -> None:
        """Make MLflow equal to the records, in the background; what is equal already costs no request.

        With the ids of the planned trials, runs of other trials that a killed driver left RUNNING are ended KILLED;
        those of planned ones are taken up when their trials train again.
        """
        with self._changed:
            for record in records:
                self._engines.ended(record)
                self._note(News(facts=TrialFacts.of_record(record), record=record))
            if planned is not None:
                self._planned = frozenset(planned)

    def log_artifacts(self, path: str | Path, folder: str | None = None) -> None:
        """Copy a file, or what lies below a folder, to the sweep's run; it must stay there until `close` returns."""
        with self._changed:
            self._artifacts.append(FileArtifact(Path(path), folder))
            if folder is not None and (Path(path) / REPORT).is_file():
                self._report = f"{folder}/{REPORT}"

    def close(
        self,
        status: TrialStatus,
        records: Callable[[], Sequence[TrialRecord]] | None = None,
        *,
        timeout_s: float = 60.0,
    ) -> bool:
        """Write what is left, end the sweep's run with `status` (completed, failed or cancelled), and stop.

        Where MLflow missed something, all `records` of the sweep are read and what is lacking is written. Waits while
        MLflow takes things, however slowly, and gives up where it has taken nothing for `timeout_s`, or after
        `MOST_TIMEOUTS` times as long. Returns whether MLflow shows every trial as it ended; if not, a later `refill`
        mends it.
        """
        with self._changed:
            is_first = self._end is None  # a driver closes again whatever happened, and the warning is one
            if is_first:
                self._end, self._records = status, records
                self._closed_at, self._timeout_s = time.monotonic(), timeout_s
                self._changed.notify()
        while self._thread.is_alive() and (left_s := self._gives_up_at() + 1 - time.monotonic()) > 0:
            self._thread.join(left_s)
        if is_first and not self._complete:
            place = masked(self.tracking_uri)
            logger.warning("MLflow at %s lacks part of this sweep; resuming it fills the gap", place)
        return self._complete

    def leave(self) -> None:
        """Stop without a further word, since another driver goes on with the runs of this sweep."""
        with self._changed:
            self._is_left = True
            self._changed.notify()
        self._thread.join(1.0)  # an answer of MLflow's that is under way may take longer, and is nobody's concern

    def _note(self, news: News) -> None:
        """Add to what is to be written. The caller holds the lock."""
        trial_id = news.facts.trial_id
        if trial_id in self._news:
            self._news[trial_id].add(news)
        elif self.num_waiting < self._patience.most_held or not self.is_away:
            self._news[trial_id] = news
        else:
            self._missed = True

    def _run(self) -> None:
        wait_s = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._end is not None or self._is_left or self._is_crowded(), timeout=wait_s
                )
                end = self._end
                if self._is_left:
                    return
            try:
                self._flush()
                if end is not None:
                    self._finish(end)
                    return
                wait_s = self._patience.flush_interval_s
            except Exception as error:  # whatever MLflow, its database or the network raise
                self._failed(error)
                first_s, longest_s = self._patience.first_wait_s, self._patience.longest_wait_s
                wait_s = min(longest_s, first_s * 2 ** min(self._failures - 1, 10))
                if end is not None:
                    if time.monotonic() >= self._gives_up_at():
                        return
                    time.sleep(max(0.0, min(wait_s, 2.0, self._gives_up_at() - time.monotonic())))

    def _gives_up_at(self) -> float:
        latest = self._closed_at + MOST_TIMEOUTS * self._timeout_s
        return min(latest, max(self._closed_at, self._wrote_at) + self._timeout_s)

    def _took(self) -> None:
        """MLflow has taken something."""
        self._wrote_at = time.monotonic()

    def _is_crowded(self) -> bool:
        return self.num_waiting >= self._patience.most_waiting and not self.is_away

    def _flush(self) -> None:
        if not self.is_open:
            self._writer.open()
            self._took()
            self.is_open = True
        with self._changed:
            waiting = list(self._news)
        for trial_id in self._write_whole(waiting):
            with self._changed:
                news = self._news.pop(trial_id)
                self._changed.notify_all()
            try:
                self._writer.write(news)
            except Exception as error:
                self._keep(news, error)
                raise
            self._took()
        self._writer.settle()
        self._end_unplanned()
        self._took()
        self._write_points()
        if self.is_away:
            logger.info("MLflow at %s can be written again", masked(self.tracking_uri))
            self._failures = 0
        self._write_artifacts()

    def _write_points(self) -> None:
        """Write what the engines did, seldom: it is about no trial."""
        now_s = time.monotonic()
        if now_s >= self._next_points_s:
            self._take_points()
            self._writer.log_sweep(self._points)
            self._points = []
            self._next_points_s = now_s + self._patience.engines_interval_s

    def _take_points(self) -> None:
        with self._changed:
            self._points += self._engines.take(time.monotonic(), _now_ms())

    def _write_whole(self, waiting: Sequence[str]) -> list[str]:
        """Write what is known to the end of trials that MLflow has nothing of, many at once; returns the other ids."""
        with self._changed:
            ended = [i for i in waiting if self._news[i].record is not None and not self._writer.holds(i)]
            ended.sort(key=lambda i: self._news[i].facts.config_id)  # the replicates of a configuration come together
        others = set(waiting) - set(ended)
        for start in range(0, len(ended), _AT_ONCE):
            with self._changed:
                news = {trial_id: self._news.pop(trial_id) for trial_id in ended[start : start + _AT_ONCE]}
            written = False
            try:
                written = self._writer.write_whole(list(news.values()))
                self._took()
            finally:
                with self._changed:
                    if not written:
                        self._news = news | self._news
                        others |= set(news)
                    self._changed.notify_all()
        return [trial_id for trial_id in waiting if trial_id in others]

    def _keep(self, news: News, error: Exception) -> None:
        """Put back what could not be written, behind the others, unless MLflow has refused it for good."""
        with self._changed:
            later = self._news.pop(news.facts.trial_id, None)
            if later:
                news.add(later)
            if not (is_refusal(error) and news.refused):
                news.refused = is_refusal(error)
                self._news[news.facts.trial_id] = news
                return
        self._missed = True
        logger.warning("MLflow refuses trial %s: %s", news.facts.trial_id, _first_line(error))

    def _end_unplanned(self) -> None:
        with self._changed:
            planned, self._planned = self._planned, None
            running = set(self._facts)
        if planned is not None:
            try:
                self._writer.end_running(keep=planned | running)
            except Exception:
                self._planned = planned
                raise

    def _write_artifacts(self) -> None:
        """Copy the artifacts. MLflow is there, so one that fails would fail again: it is reported and given up."""
        with self._changed:
            artifacts, self._artifacts = self._artifacts, []
        for artifact in artifacts:
            try:
                self._writer.log_artifact(artifact)
                self._took()
            except Exception as error:
                logger.warning("an artifact of the sweep could not be stored in MLflow: %s", _first_line(error))

    def _finish(self, end: TrialStatus) -> None:
        records, self._records = self._records, None  # once: what is still refused then is left out
        if self._missed and records is not None:
            everything = records()
            self._missed = False
            self.is_open = False
            self.refill(everything)
            self._flush()
        self._writer.end_running(keep=())
        self._took()
        self._take_points()
        self._writer.end_sweep(end, self._points, self._best, self._report)
        self._write_models()
        self._complete = not self._missed

    def _write_models(self) -> None:
        """Write the winners' models. Nothing waits for them: what fails is reported, and written on the next resume."""
        if self._models is None:
            return
        left, why = len(self._models), ""
        try:
            for model in self._models:
                try:
                    self._writer.write_model(model)
                    left -= 1
                except Exception as error:
                    why = why or f"{type(error).__name__}: {_first_line(error)}"
                    if not is_refusal(error):
                        raise  # what fails like this fails for the others too
                self._took()
            self._writer.overtake_models({model.record.trial_id for model in self._models})
        except Exception as error:  # whatever MLflow, its database, its place for artifacts or the network raise
            why = why or f"{type(error).__name__}: {_first_line(error)}"
        if why:
            place = masked(self.tracking_uri)
            logger.warning(
                "MLflow at %s lacks %d of %d models of winners (%s); resuming the sweep writes them",
                *(place, left, len(self._models), why),
            )

    def _failed(self, error: Exception) -> None:
        self.is_open = False
        self._failures += 1
        if self._failures == 1:
            logger.warning(
                "MLflow at %s cannot be written (%s: %s); the sweep goes on, and it is tried again",
                masked(self.tracking_uri),
                type(error).__name__,
                _first_line(error),
            )


def _now_ms() -> int:
    return round(1000 * time.time())


def _first_line(error: Exception) -> str:
    return masked(next(iter(str(error).splitlines()), ""))[:300]

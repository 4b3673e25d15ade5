"""Adaptive search: a source of trials that are named as the records of earlier ones come in.

Each method is searched by itself on each task and backbone, since scores of different tasks cannot be compared and a
rate that suits one backbone need not suit another. A configuration is trained once per seed, and once per fold where
the task has folds, and its searcher is told the mean over all of these, once.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from orchestrator.planning.plan import PlannedTrial, SweepPlan, TaskMethod
from orchestrator.planning.search_algorithms import Values
from orchestrator.record import TrialRecord
from orchestrator.scheduling.samplers import Searcher
from orchestrator.trial_source import UNKNOWN
from trainables import metrics
from trainables.faults import FaultsError

logger = logging.getLogger(__name__)

# So many proposals in a row that bring nothing new end a task-method pair, once all its results are in.
PATIENCE = 20

Note = Callable[[Sequence[PlannedTrial]], None]


def adaptive_trials(
    plan: SweepPlan, planned: Sequence[PlannedTrial], records: Sequence[TrialRecord], note: Note
) -> AdaptiveTrials:
    """The trials of an adaptive plan, as its searches come to name them.

    Args:
        plan: what to search.
        planned: the trials that were planned for this sweep before; empty for a new sweep.
        records: what came of those that have ended. Only finished trials count; others are trained again.
        note: told of trials that are not among `planned`, all replicates of a configuration at once, before the first
            of them is handed out.

    A search goes on where it was: what its finished configurations were worth is told to it again, those that lack
    replicates (also such as the plan has new) get them first, and all of them count towards `num_samples`. They do so
    even where they lie outside a space that has changed since; then the search is not told of them.
    """
    finished = {record.trial_id: record for record in records if record.status.is_finished()}
    earlier: dict[str, list[PlannedTrial]] = {}
    for trial in planned:
        earlier.setdefault(trial.config_id, []).append(trial)
    courses = [_Course(task_method) for task_method in plan.task_methods]
    for trials in earlier.values():
        _take_in(courses, trials[0], is_begun=any(trial.trial_id in finished for trial in trials))
    return AdaptiveTrials(courses, [trial.trial_id for trial in planned], list(finished.values()), note)


class AdaptiveTrials:
    """Names trials of each task and method in turn, all replicates of a configuration one after another.

    See `adaptive_trials`.
    """

    def __init__(
        self, courses: Sequence[_Course], planned: Iterable[str], finished: Iterable[TrialRecord], note: Note
    ) -> None:
        self._courses = deque(courses)
        self._planned = frozenset(planned)
        self._note = note
        self._known: dict[str, _Configuration] = {}  # by config_id
        self._waiting: deque[_Configuration] = deque()  # those of an earlier run that lack replicates
        self._handing_out: deque[PlannedTrial] = deque()  # the replicates of one configuration
        self._under_way: dict[str, _Configuration] = {}  # by trial_id
        by_config: dict[str, list[TrialRecord]] = {}
        for record in finished:
            by_config.setdefault(record.config_id, []).append(record)
        for course in courses:
            for values, trials in course.earlier:
                configuration = _Configuration(trials)
                for record in by_config.get(trials[0].config_id, ()):
                    configuration.take(record)
                self._known[trials[0].config_id] = configuration
                course.retrace(values, configuration)
                if configuration.missing:
                    self._waiting.append(configuration)
            course.earlier.clear()

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles what proposes its trials for `Tuner.restore`; the store is what a sweep resumes from.
        return {}

    @property
    def most(self) -> int:
        """How many trials it will hand out at most, from now on."""
        # Copies, which are made in one step: another thread may ask while the driver's takes the next trial.
        waiting, courses = tuple(self._waiting), tuple(self._courses)
        missing = len(self._handing_out) + sum(len(configuration.missing) for configuration in waiting)
        return missing + sum(course.left * course.task_method.num_replicates for course in courses)

    def by_key(self) -> Mapping[str | None, int]:
        """All of them under one key: what comes next depends on what comes of those under way."""
        return {UNKNOWN: self.most}

    @property
    def longest(self) -> Mapping[str, int]:
        """The most epochs that any of its trials may train, by the task's reference."""
        longest: dict[str, int] = {}
        for course in self._courses:
            task = course.task_method.reference
            longest[task] = max(course.task_method.most_epochs, longest.get(task, 0))
        return longest

    def next(self) -> PlannedTrial | None:
        """The next trial to train; None where none can be named before one that is under way has ended."""
        if not self._handing_out:
            configuration = self._waiting.popleft() if self._waiting else self._propose()
            if configuration is None:
                return None
            if new := [trial for trial in configuration.missing.values() if trial.trial_id not in self._planned]:
                self._note(new)
            self._handing_out.extend(configuration.missing.values())
            self._under_way.update(dict.fromkeys(configuration.missing, configuration))
        return self._handing_out.popleft()

    def is_exhausted(self) -> bool:
        """Whether `next` will never name another trial."""
        return not self._handing_out and not self._waiting and all(course.is_over for course in self._courses)

    def ended(self, record: TrialRecord) -> None:
        """Take in the record of a trial that was handed out, whatever came of it."""
        configuration = self._under_way.pop(record.trial_id, None)
        if configuration is not None:
            configuration.take(record)
            configuration.tell(is_news=True)

    def _propose(self) -> _Configuration | None:
        for _ in range(len(self._courses)):
            course = self._courses[0]
            self._courses.rotate(-1)
            if not course.is_over and (trials := course.propose(self._known)):
                return self._known[trials[0].config_id]
        return None


class _Configuration:
    """The replicates of a configuration and what came of them."""

    def __init__(self, trials: Sequence[PlannedTrial]) -> None:
        self.missing = {trial.trial_id: trial for trial in trials}  # those without a record
        self._trained_params = trials[0].trained_params
        self._scores: list[float] = []
        self._asked: list[tuple[_Course, str]] = []  # who waits to be told, and under which key

    def take(self, record: TrialRecord) -> None:
        """Failed and cancelled replicates have no part in the mean; pruned ones have the score they reached."""
        self.missing.pop(record.trial_id, None)
        score = record.validation_score
        if record.status.is_finished() and score is not None and math.isfinite(score):
            self._scores.append(score)

    def ask(self, course: _Course, key: str) -> None:
        """Have a task-method pair told what it is worth: at once, or when the last replicate has ended."""
        course.under_way += 1
        self._asked.append((course, key))
        self.tell(is_news=False)

    def tell(self, *, is_news: bool) -> None:
        if self.missing:
            return
        mean = statistics.fmean(self._scores) if self._scores else None
        for course, key in self._asked:
            course.told(key, mean, self._trained_params, is_news=is_news)
        self._asked.clear()


class _Course:
    """How far one task-method pair's search has come."""

    def __init__(self, task_method: TaskMethod) -> None:
        self.task_method = task_method
        self.earlier: list[tuple[Values, tuple[PlannedTrial, ...]]] = []  # configurations it had before, not yet told
        self.named = 0  # configurations within the space
        self.outside = 0  # those of an earlier run that lie outside a space that has changed since
        self.under_way = 0  # proposals whose worth is not known yet
        self._in_vain = 0  # proposals that brought nothing new, since there was news
        self._searcher: Searcher | None = None

    def __str__(self) -> str:
        return f"the search of {self.task_method.name} on {self.task_method.backbone_reference}"

    @property
    def searcher(self) -> Searcher:
        """Made when it is first needed, when it is known how many configurations there were before."""
        if self._searcher is None:
            mode = metrics.get(self.task_method.task.info.metric).mode
            spec = self.task_method.spec
            self._searcher = Searcher(
                self.task_method.name, self.task_method.space, spec.search, mode, earlier=len(self.earlier)
            )
        return self._searcher

    @property
    def left(self) -> int:
        """How many configurations it may still name."""
        asked = (self.task_method.spec.search.num_samples or 0) - self.outside
        return max(0, int(min(asked, self.task_method.size)) - self.named)

    @property
    def is_over(self) -> bool:
        """Whether it will never name another configuration. One that waits for news may."""
        return not self.left or (self._in_vain >= PATIENCE and not self.under_way)

    def propose(self, known: dict[str, _Configuration]) -> Sequence[PlannedTrial]:
        """The replicates of a configuration that nobody has named, which it makes known; none where it has none now."""
        while self.left and self._in_vain < PATIENCE:
            key, values = self.searcher.propose()
            try:
                trials = self.task_method.trials(values)
            except FaultsError as error:  # good one by one only, which no check finds beforehand within a range
                logger.debug("%s proposed what cannot be trained: %s", self, error)
                self.searcher.tell(key, None, None)
                self._in_vain += 1
                continue
            is_new = trials[0].config_id not in known
            known.setdefault(trials[0].config_id, _Configuration(trials)).ask(self, key)
            if is_new:
                self.named += 1
                self._in_vain = 0
                return trials
            self._in_vain += 1
        if self.left and self.is_over:
            asked = self.task_method.spec.search.num_samples
            logger.info(
                "%s ends with %d of %s configurations: it finds none new",
                self,
                self.named,
                asked,
            )
        return ()

    def retrace(self, values: Values, configuration: _Configuration) -> None:
        configuration.ask(self, self.searcher.retrace(values))

    def told(self, key: str, score: float | None, trained_params: int | None, *, is_news: bool) -> None:
        self.under_way -= 1
        self.searcher.tell(key, score, trained_params)
        if is_news:
            self._in_vain = 0


def _take_in(courses: Sequence[_Course], trial: PlannedTrial, *, is_begun: bool) -> None:
    """Put a configuration of an earlier run down to the task-method pair that named it, as far as can be told.

    One of other rows, other weights or other code than today's is passed over.
    """
    own = [
        course
        for course in courses
        if (course.task_method.task.info.name, course.task_method.entry.method) == (trial.task, trial.config.method)
    ]
    found = [(course, *point) for course in own if (point := _place(course.task_method, trial)) is not None]
    if found:
        # Entries of `methods` may overlap: the first that has room for it.
        course, values, trials = next((each for each in found if each[0].left), found[0])
        course.earlier.append((values, trials))
        course.named += 1
    elif is_begun and (current := [course for course in own if _is_current(course.task_method, trial)]):
        next((course for course in current if course.left), current[0]).outside += 1


def _place(task_method: TaskMethod, trial: PlannedTrial) -> tuple[Values, tuple[PlannedTrial, ...]] | None:
    """The values of the space that make a trial's configuration, with its replicates as they are today."""
    values = task_method.point_of(trial.config)
    if values is None:
        return None
    try:
        trials = task_method.trials(values)
    except FaultsError:
        return None
    return (values, trials) if trials[0].config_id == trial.config_id else None


def _is_current(task_method: TaskMethod, trial: PlannedTrial) -> bool:
    try:
        return task_method.identity(trial.config) == trial.config_id
    except FaultsError:  # a file that an option names is gone
        return False

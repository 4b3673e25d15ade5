"""Whose weights a running sweep keeps: those that may yet be chosen, and in the end those that are.

What `Results.best` and `Results.recommend` choose is a configuration, by its mean over replicates (seeds, and folds
where there are folds); what is kept of it are the weights of the replicate that is best on validation, which is the one
that `adaptune export` takes. While a sweep runs, of each task, backbone and method are kept

- of the configurations whose replicates have all ended, those that no other beats in score and size at once: the best
  and the recommended one are always among these, and what is beaten now stays beaten;
- of those with replicates to come, the best so far.

Both are limited in number and bytes. Where a limit has let a later winner go, `export` trains it again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from orchestrator.analysis.configurations import (
    Replicate,
    SeedSummary,
    best_replicate,
    contenders,
    higher_is_better,
    replicate_of,
    size_rank,
)
from orchestrator.analysis.questions.recommendation import Wish, cheapest_as_good
from orchestrator.record import TrialRecord, TrialStatus

# Of each task, backbone and method, and of each of the two kinds of candidates. A trained number has 4 bytes.
MOST_CONFIGURATIONS, MOST_BYTES = 16, 256 * 2**20

Group = tuple[str, str, str]  # task, backbone, method


@dataclass(kw_only=True, eq=False)
class Candidate:
    """A configuration as far as its trials have ended."""

    config_id: str
    metric: str | None = None
    trained_params: int | None = None
    num_replicates: int  # that it has once all have ended
    scores: dict[Replicate, float] = field(default_factory=dict)  # on validation, of completed trials
    trials: dict[Replicate, str] = field(default_factory=dict)  # trial ids of whatever has ended

    @property
    def validation(self) -> SeedSummary | None:
        if not self.scores:
            return None
        scores = tuple(self.scores[each] for each in sorted(self.scores))
        return SeedSummary(scores=scores, mean=math.fsum(scores) / len(scores))

    @property
    def trial_id(self) -> str:
        """The trial whose weights stand for it; it has completed ones."""
        return self.trials[best_replicate(self.scores, self.metric)]

    @property
    def bytes(self) -> int:
        return 4 * (self.trained_params or 0)

    @property
    def has_ended(self) -> bool:
        """Whether all its replicates have."""
        return len(self.trials) >= self.num_replicates


class Winners:
    """Who of the trials that have ended has weights worth keeping.

    Args:
        keep: "best" or "all", as a sweep's `keep`.
        num_seeds: how many a configuration is trained with, each once, or once per fold.
    """

    def __init__(self, keep: str, num_seeds: int) -> None:
        self._keeps_all = keep == "all"
        self._num_seeds = num_seeds
        self._groups: dict[Group, dict[str, Candidate]] = {}
        self._found: dict[Group, frozenset[str]] = {}  # of each group that has not changed since

    def add(self, records: Iterable[TrialRecord]) -> None:
        """Take in trials that have ended; one that is taken in again changes nothing."""
        for record in records:
            group = (record.task, record.backbone, record.method)
            candidates = self._groups.setdefault(group, {})
            if record.config_id not in candidates:
                number = self._num_seeds * int(record.provenance.get("folds", 1))
                candidates[record.config_id] = Candidate(config_id=record.config_id, num_replicates=number)
            candidate, replicate = candidates[record.config_id], replicate_of(record.seed, record.fold)
            candidate.trials[replicate] = record.trial_id
            candidate.scores.pop(replicate, None)
            if record.status is TrialStatus.COMPLETED and record.validation_score is not None:
                candidate.scores[replicate] = record.validation_score
                candidate.metric = candidate.metric or record.metric
                candidate.trained_params = candidate.trained_params or record.trained_params
            self._found.pop(group, None)

    def to_keep(self) -> frozenset[str]:
        """The trials that may yet be chosen."""
        for group, candidates in self._groups.items():
            if group not in self._found:
                self._found[group] = frozenset(self._of_group(list(candidates.values())))
        return frozenset[str]().union(*self._found.values())

    def chosen(self) -> frozenset[str]:
        """The trials that are chosen, once the sweep has ended: the best and the recommended of each task and method.

        Of each backbone by itself and of all together, and the recommended ones of each task.
        """
        return self.to_keep() if self._keeps_all else self.best()

    def best(self) -> frozenset[str]:
        """As `chosen`, whatever else is kept."""
        together: dict[tuple[str, ...], list[Candidate]] = {}
        for (task, backbone, method), candidates in self._groups.items():
            questions: list[tuple[str, ...]] = [(task, backbone, method), (task, method), (task,)]
            for asked in questions:
                together.setdefault(asked, []).extend(candidates.values())
        found = set[str]()
        for asked, candidates_of in together.items():
            if tried := contenders(candidates_of):
                found.add(cheapest_as_good(tried, Wish()).trial_id)
                if len(asked) > 1:
                    found.add(tried[0].trial_id)
        return frozenset(found)

    def recommended(self) -> dict[str, str]:
        """The trial of each task that `adaptune export` takes where it is asked for the task alone."""
        by_task: dict[str, list[Candidate]] = {}
        for (task, _, _), candidates in self._groups.items():
            by_task.setdefault(task, []).extend(candidates.values())
        return {
            task: cheapest_as_good(tried, Wish()).trial_id
            for task, candidates in by_task.items()
            if (tried := contenders(candidates))
        }

    def _of_group(self, candidates: Sequence[Candidate]) -> set[str]:
        scored = [candidate for candidate in candidates if candidate.scores]
        if self._keeps_all:
            return {candidate.trials[each] for candidate in scored for each in candidate.scores}
        have_ended = [candidate for candidate in scored if candidate.has_ended]
        under_way = [candidate for candidate in scored if not candidate.has_ended]
        settled = contenders(have_ended)
        kept = _within_limits(_unbeaten(settled)) + _within_limits(sorted(under_way, key=_loss))
        if settled:
            kept += [settled[0], cheapest_as_good(settled, Wish())]
        return {candidate.trial_id for candidate in kept}


def _unbeaten(settled: Sequence[Candidate]) -> list[Candidate]:
    """Of contenders, best first, those that are smaller than all that are better."""
    found: list[Candidate] = []
    for candidate in settled:
        if not found or size_rank(candidate) < size_rank(found[-1]):
            found.append(candidate)
    return found


def _within_limits(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The first of them, as many as may be kept; at least one."""
    found: list[Candidate] = []
    total = 0
    for candidate in candidates[:MOST_CONFIGURATIONS]:
        total += candidate.bytes
        if found and total > MOST_BYTES:
            break
        found.append(candidate)
    return found


def _loss(candidate: Candidate) -> float:
    """Orders by the mean score so far, the best first."""
    estimate = candidate.validation
    assert estimate is not None  # it has scores
    return -estimate.mean if higher_is_better(candidate.metric) else estimate.mean

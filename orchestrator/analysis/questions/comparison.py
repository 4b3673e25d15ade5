"""Two groups of configurations held against each other: how far apart, how sure, and at what budgets.

Each group is stood for, on each task, by the configuration that its validation scores choose; the difference is that of
the reported scores, a less b, and positive where a is better whatever the metric's direction.

With several backbones both sides are of the same one, on each in turn: tasks are paired within a backbone, and no mean
is taken over backbones. Only where both groups name a backbone is one held against another.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from orchestrator.analysis.arguments import flag_faults, is_number, is_several, is_whole, name_faults
from orchestrator.analysis.configurations import Configuration, contenders, gain, group_by, higher_is_better
from orchestrator.analysis.questions.curve import SPLITS
from orchestrator.analysis.replicates import FOLDS, SEEDS, common_folds, paired_over_folds, with_rows
from orchestrator.analysis.row_outcomes import KeptRows, Mixture
from orchestrator.analysis.statistics import aggregates, intervals, significance
from orchestrator.analysis.statistics.expected_performance import chances_of_being_best
from orchestrator.analysis.statistics.non_inferiority import NonInferiority, non_inferiority, non_inferiority_of
from orchestrator.analysis.text import wording
from trainables.faults import unknown_name

Group = str | Mapping[str, Any]

# Engine time counts as different where one side had so many times that of the other.
_TIMES = 1.1

_OF_A_SIDE = {
    "config_id": pa.string(),
    "score": pa.float64(),
    "sem": pa.float64(),
    "num_seeds": pa.int64(),
    "num_folds": pa.int64(),
    "num_configs_tried": pa.int64(),
    "engine_seconds": pa.float64(),
}
SCHEMA = pa.schema(
    {
        **dict.fromkeys(("task", "backbone", "a", "b", "metric", "split"), pa.string()),
        "num_tasks": pa.int64(),
        **dict.fromkeys(("difference", "low", "high"), pa.float64()),
        "interval_over": pa.string(),
        "p_rows": pa.float64(),
        **dict.fromkeys(("probability_of_improvement", "p_value", "smallest_p", "margin", "lower_bound"), pa.float64()),
        "is_non_inferior": pa.bool_(),
        **{f"{side}_{name}": kind for side in "ab" for name, kind in _OF_A_SIDE.items()},
        "budgets_differ": pa.bool_(),
        "equalised_to": pa.int64(),
        "note": pa.string(),
    }
)
PAIRS_SCHEMA = SCHEMA.insert(SCHEMA.get_field_index("smallest_p"), pa.field("p_holm", pa.float64()))


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How two groups are compared."""

    equalise: bool = False
    split: str | None = None
    margin: float | None = None
    test_rows: Mapping[str, int] | None = None

    def faults(self, known_tasks: Collection[str]) -> list[str]:
        """Every fault of it, a sentence each."""
        faults = flag_faults("equalise", self.equalise)
        if self.split is not None:
            faults += name_faults("split to score on", self.split, SPLITS)
        if self.margin is not None and not (is_number(self.margin) and 0 < self.margin < math.inf):
            faults.append(f"margin: must be a number > 0 in the metric's unit, but got {self.margin!r}")
        if not isinstance(self.test_rows, Mapping | None):
            return [*faults, f"test_rows: must be the number of test rows by task, but got {self.test_rows!r}"]
        for task, number in (self.test_rows or {}).items():
            faults += [f"test_rows: {fault}" for fault in name_faults("task", task, known_tasks)]
            if not (is_whole(number) and number >= 1):
                faults.append(f"test_rows: must be a whole number >= 1 and below 1e308 for {task}, but got {number!r}")
        return faults


@dataclass(frozen=True, kw_only=True)
class Side:
    """One group on one task: all it tried there, and those of it that can be chosen, best first."""

    tried: Sequence[Configuration]
    candidates: Sequence[Configuration]

    @property
    def engine_seconds(self) -> float | None:
        known = [c.engine_seconds for c in self.tried if c.engine_seconds is not None]
        return math.fsum(known) if known else None


Sides = Mapping[str, Side]  # by task


def group_faults(
    group: Group, name: str, columns: Collection[str], configurations: Sequence[Configuration]
) -> list[str]:
    """Every fault of what names a group, a sentence each. Before anything has ended any method passes."""
    methods = {c.method for c in configurations}
    if isinstance(group, str):
        known = not methods or group in methods
        return [] if known else [f"{name}: {unknown_name('method of this sweep', group, methods)}"]
    if not isinstance(group, Mapping) or not group:
        return [f"{name}: must be the name of a method, or columns with their values, but got {group!r}"]
    if unknown := [f"{name}: {fault}" for column in group for fault in name_faults("column", column, columns)]:
        return unknown
    faults = []
    for column, values in _allowed(group).items():
        if odd := [value for value in values if not (value is None or isinstance(value, str | int | float))]:
            faults.append(f"{name}: {column} must be a value or a list of values, but got {odd[0]!r}")
            continue
        there = sorted({c.value(column) for c in configurations} - {None})
        for value in values if there else ():
            if value in there:
                continue
            if isinstance(there[0], str):
                faults.append(f"{name}: {unknown_name(f'{column} of this sweep', value, there)}")
            else:
                listed = ", ".join(map(str, there))
                faults.append(f"{name}: unknown {column} of this sweep {value!r}. Known: {listed}")
    if not faults and configurations and not _members(configurations, group):
        faults.append(f"{name}: no configuration of this sweep has all of {label(group)}")
    return faults


def plain_group(group: Group) -> Group:
    """A group whose values are Python's own, several in a list, whatever array or series they came in."""
    if not isinstance(group, Mapping):
        return group
    return {
        column: list(map(_plain, value)) if is_several(value) and not isinstance(value, Mapping) else _plain(value)
        for column, value in group.items()
    }


def pairings(
    configurations: Sequence[Configuration], a: Group, b: Group
) -> list[tuple[str | None, list[Configuration], list[Configuration]]]:
    """What is held against what: a backbone with the configurations of each side, on each backbone in turn.

    Where both groups name their backbones, these against those, and no single backbone is named.
    """
    named = [None if isinstance(group, str) else group.get("backbone") for group in (a, b)]
    if None not in named:
        return [(None, _members(configurations, a), _members(configurations, b))]
    found = []
    for (backbone,), own in group_by(configurations, ["backbone"]).items():
        found.append((backbone, _members(own, a), _members(own, b)))
    return found


def label(group: Group) -> str:
    """A group in words: its method, or its columns with their values."""
    if isinstance(group, str):
        return group
    return ", ".join(str(value) if column == "method" else f"{column} {value}" for column, value in group.items())


def sides_of(own: Sequence[Configuration]) -> Sides:
    """The configurations of a group, by task."""
    return {task: Side(tried=tried, candidates=contenders(tried)) for (task,), tried in group_by(own, ["task"]).items()}


def _members(configurations: Sequence[Configuration], group: Group) -> list[Configuration]:
    """Those that are in a group; a column's value may be a list of values, any of which will do."""
    allowed = _allowed({"method": group} if isinstance(group, str) else group)
    return [c for c in configurations if all(c.value(column) in values for column, values in allowed.items())]


def _allowed(group: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The values that each column may have."""
    return {column: value if isinstance(value, list) else [value] for column, value in group.items()}


def _plain(value: Any) -> Any:
    """A number of numpy, or an array of no dimension, as Python's own."""
    is_numpy = isinstance(value, np.generic) or (isinstance(value, np.ndarray) and not value.ndim)
    return value.item() if is_numpy else value


def compare(
    configurations: Sequence[Configuration], a: Group, b: Group, terms: Terms, kept: KeptRows | None = None
) -> list[dict[str, Any]]:
    """The rows of `Results.compare`, those of a backbone after those of another."""
    rows = []
    for backbone, *sides in pairings(configurations, a, b):
        ours, theirs = map(sides_of, sides)
        found = compare_sides(ours, theirs, (label(a), label(b)), terms, kept)
        rows += [{**row, "backbone": backbone} for row in found]
    return rows


def compare_sides(
    a: Sides, b: Sides, names: tuple[str, str], terms: Terms, kept: KeptRows | None = None
) -> list[dict[str, Any]]:
    """A row per task on which both have completed trials, and one over all of these, without a task; none if none.

    With `kept`, what was predicted of each row is used on tasks where it is there.
    """
    rows, differences = [], []
    both = [task for task in sorted({*a, *b}) if task in a and task in b and a[task].candidates and b[task].candidates]
    pairs = {task: _paired(a[task], b[task], terms) for task in both}
    if kept is not None:
        kept.load((c, pair.split) for pair in pairs.values() for side in (pair.a, pair.b) for c, _ in side)
    for task in both:
        row = _on_task(task, a[task], b[task], pairs[task], terms, kept)
        rows.append({"task": task, "a": names[0], "b": names[1], **row, "note": _note(row, names)})
        differences.append(row["difference"])
    if not rows:
        return []
    one: list[str] = []
    none: list[str] = []
    for task in sorted({*a, *b} - set(both)):
        has_any = any(task in sides and sides[task].candidates for sides in (a, b))
        (one if has_any else none).append(task)
    left_out = {"only one side": one, "neither side": none}
    return [*rows, _over_tasks(rows, differences, names, terms, left_out)]


def compare_pairs(
    configurations: Sequence[Configuration], methods: Sequence[str], terms: Terms
) -> list[dict[str, Any]]:
    """The row over all tasks of each pair of methods on each backbone, with Holm's correction over all of these."""
    rows = []
    for (backbone,), own in group_by(configurations, ["backbone"]).items():
        sides = {method: sides_of(_members(own, method)) for method in methods}
        for first, second in itertools.combinations(sides, 2):
            found = compare_sides(sides[first], sides[second], (first, second), terms)
            if found and found[-1]["num_tasks"]:
                rows.append({**found[-1], "backbone": backbone})
    if rows:
        adjusted = significance.holm([row["p_value"] for row in rows])
        rows = [{**row, "p_holm": float(p)} for row, p in zip(rows, adjusted, strict=True)]
    return rows


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """What stands for two sides on a task: configurations with weights, and the split that both are scored on."""

    a: Mixture
    b: Mixture
    split: str
    sign: float  # -1 where a lower score is better
    size: int | None  # of how many configurations each side is the expected best; None: the best of all


def _paired(a: Side, b: Side, terms: Terms) -> _Pair:
    sign = 1.0 if higher_is_better(a.candidates[0].metric) else -1.0
    has_test = all(c.test is not None for side in (a, b) for c in side.candidates)
    size = min(len(a.candidates), len(b.candidates)) if terms.equalise else None
    mixtures = (_stands_for(side, size, sign) for side in (a, b))
    split = terms.split or ("test" if has_test else "validation")
    return _Pair(**dict(zip("ab", mixtures, strict=True)), split=split, sign=sign, size=size)


def _stands_for(side: Side, size: int | None, sign: float) -> Mixture:
    """The configuration that is chosen, or those that may be the best of `size` drawn ones, with their chances."""
    if size is None:
        return [(side.candidates[0], 1.0)]
    validation = [sign * c.validation.mean for c in side.candidates if c.validation]
    chances = chances_of_being_best(validation, size).tolist()
    return [(c, chance) for c, chance in zip(side.candidates, chances, strict=True) if chance > 0]


def _on_task(task: str, a: Side, b: Side, pair: _Pair, terms: Terms, kept: KeptRows | None) -> dict[str, Any]:
    metric, split, sign = a.candidates[0].metric, pair.split, pair.sign
    ours, theirs = (_scores(mixture, split) for mixture in (pair.a, pair.b))
    shared = {
        "metric": metric,
        "split": split,
        "num_tasks": 1,
        "equalised_to": pair.size,
        "margin": terms.margin,
        **_describe_side("a", a, ours, shows_config=pair.size is None),
        **_describe_side("b", b, theirs, shows_config=pair.size is None),
    }
    shared["budgets_differ"] = _differ(shared)
    if not len(ours) or not len(theirs):
        return {**shared, "difference": None}
    difference = gain(intervals.mean(ours), intervals.mean(theirs), metric)
    on_rows = kept and kept.compare(pair.a, pair.b, split)
    num_rows = (terms.test_rows or {}).get(task) if metric == "accuracy" and split == "test" else None
    first, second = ([(getattr(c, split), weight) for c, weight in mixture] for mixture in (pair.a, pair.b))
    folds = common_folds([summary for summary, _ in (*first, *second)])
    over = with_rows(folds)
    if on_rows:
        estimate = on_rows.estimate()
    elif folds is not None:
        estimate, over = paired_over_folds(first, second, folds, sign), FOLDS
    elif num_rows is not None:  # a sign would make no difference to an accuracy
        estimate = intervals.welch_with_rows(ours, theirs, num_rows)
    else:
        estimate, over = intervals.welch(sign * ours, sign * theirs), SEEDS
    if estimate is not None:
        estimate = replace(estimate, mean=difference)  # the recorded one, which pseudo-values only come close to
    low, high = estimate.interval() if estimate else (None, None)
    judged = None
    if terms.margin is not None:
        error, freedom = (estimate.standard_error, estimate.degrees_of_freedom) if estimate else (None, 1.0)
        judged = non_inferiority_of(difference, error, freedom, terms.margin)
    return {
        **shared,
        "difference": difference,
        "low": low,
        "high": high,
        "interval_over": over if estimate else None,
        "p_rows": on_rows.p_value() if on_rows else None,
        "probability_of_improvement": aggregates.probability_of_superiority(sign * ours, sign * theirs),
        **_judged(judged),
    }


def _over_tasks(
    rows: Sequence[Mapping[str, Any]],
    differences: Sequence[float | None],
    names: tuple[str, str],
    terms: Terms,
    left_out: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    known = [difference for difference in differences if difference is not None]
    total: dict[str, Any] = {
        "task": None,
        **dict(zip("ab", names, strict=True)),
        **{name: _common(row[name] for row in rows) for name in ("metric", "split", "equalised_to")},
        "num_tasks": len(known),
        "margin": terms.margin,
    }
    for side in "ab":
        total[f"{side}_score"] = _mean([row[f"{side}_score"] for row in rows])
        total[f"{side}_num_seeds"] = min(row[f"{side}_num_seeds"] for row in rows)
        total[f"{side}_num_folds"] = wording.most_folds(row[f"{side}_num_folds"] for row in rows)
        total[f"{side}_num_configs_tried"] = sum(row[f"{side}_num_configs_tried"] for row in rows)
        seconds = [row[f"{side}_engine_seconds"] for row in rows]
        total[f"{side}_engine_seconds"] = None if None in seconds else math.fsum(seconds)
    total["budgets_differ"] = _differ(total) or any(row["budgets_differ"] for row in rows)
    if known:
        test = significance.sign_flip_test(known, rng=np.random.default_rng(0))
        low, high = intervals.t_interval(known) or (None, None)
        improvements = [row["probability_of_improvement"] for row in rows if row["difference"] is not None]
        total |= {
            "difference": intervals.mean(known),
            "low": low,
            "high": high,
            "interval_over": None if low is None else "tasks",
            "probability_of_improvement": _mean(improvements),
            "p_value": test.p_value,
            "smallest_p": test.smallest_p,
            **_judged(None if terms.margin is None else non_inferiority(known, terms.margin)),
        }
    notes = [_note(total, names)]
    if known and total["smallest_p"] > 0.05:
        notes.append(f"With {wording.plural(len(known), 'task')} no p-value can be below {total['smallest_p']:.3g}.")
    for sides, tasks in left_out.items():
        notes += [f"Left out, since {sides} has completed trials there: {', '.join(tasks)}."] if tasks else []
    return {**total, "note": " ".join(note for note in notes if note)}


def _scores(mixture: Mixture, split: str) -> np.ndarray:
    """What a side reports, a score a replicate; none where any of its configurations has no score on this split."""
    summaries = [getattr(configuration, split) for configuration, _ in mixture]
    if any(summary is None for summary in summaries):
        return np.array(())
    num_seeds = min(summary.num_seeds for summary in summaries)
    weights = np.array([weight for _, weight in mixture])
    return np.asarray(weights @ np.array([summary.scores[:num_seeds] for summary in summaries]))


def _describe_side(name: str, side: Side, scores: np.ndarray, *, shows_config: bool) -> dict[str, Any]:
    mean, sem = intervals.mean_and_standard_error(scores.tolist()) if len(scores) else (None, None)
    values = {
        "config_id": side.candidates[0].config_id if shows_config else None,
        "score": mean,
        "sem": sem,
        "num_seeds": len(scores),
        "num_folds": validation.num_folds if (validation := side.candidates[0].validation) else None,
        "num_configs_tried": len(side.tried),
        "engine_seconds": side.engine_seconds,
    }
    return {f"{name}_{key}": value for key, value in values.items()}


def _judged(found: NonInferiority | None) -> dict[str, Any]:
    return {} if found is None else {"lower_bound": found.lower_bound, "is_non_inferior": found.holds}


def _differ(row: Mapping[str, Any]) -> bool:
    """Whether one side tried more configurations, had more seeds, or more than a tenth more engine time."""
    if any(row[f"a_{name}"] != row[f"b_{name}"] for name in ("num_configs_tried", "num_seeds")):
        return True
    low, high = sorted((row["a_engine_seconds"] or 0.0, row["b_engine_seconds"] or 0.0))
    return low > 0 and high > _TIMES * low


def _note(row: Mapping[str, Any], names: tuple[str, str]) -> str:
    """What both sides cost, in words, where that differs."""
    sentences = []
    if row["budgets_differ"]:
        first, second = (f"{name} {_budget(row, side)}" for name, side in zip(names, "ab", strict=True))
        sentences.append(f"Budgets differ: {first}; {second}.")
    if row["equalised_to"] is not None:
        settings = wording.plural(row["equalised_to"], "configuration")
        sentences.append(f"Compared is the expected best of {settings} on either side.")
    return " ".join(sentences)


def _budget(row: Mapping[str, Any], side: str) -> str:
    seconds = row[f"{side}_engine_seconds"]
    time = "" if seconds is None else f" in {wording.duration(seconds)} of an engine"
    tried = wording.plural(row[f"{side}_num_configs_tried"], "configuration")
    trained = wording.replicates(row[f"{side}_num_seeds"], row[f"{side}_num_folds"])
    return f"tried {tried} with {trained}{time}"


def _common(values: Any) -> Any:
    """The value that all have, or None."""
    different = set(values)
    return different.pop() if len(different) == 1 else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return intervals.mean(known) if known else None

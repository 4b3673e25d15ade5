"""How the numbers came about, as the paragraph that a paper needs: every number in it is taken from the results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.analysis.configurations import backbone_names, engine_seconds
from orchestrator.analysis.paper.parameter_table import backbone_sizes
from orchestrator.analysis.text import folding, wording
from orchestrator.record import TrialStatus

if TYPE_CHECKING:
    from orchestrator.analysis.results import Results

_MOST_VALUES = 6  # of a hyperparameter that are listed; of more, the range
_FACTS = {
    "adaptune": "adaptune",
    "torch": "torch",
    "transformers": "transformers",
    "numpy": "numpy",
    "python": "Python",
}


def methods_paragraph(results: Results) -> str:
    """Sentences, one after the other, for a sweep with at least one trial; of an empty one, that there is nothing."""
    trials = results.trials()
    if not len(trials):
        return "No trial has been recorded yet, so there is nothing to describe."
    return " ".join(
        [
            _backbones_and_tasks(trials),
            _searched(results, trials),
            _trials(results, trials),
            _selection(results, trials),
            _intervals(trials),
            _hardware(trials),
            _versions(trials),
        ]
    )


def _backbones_and_tasks(trials: pa.Table) -> str:
    sizes, names = backbone_sizes(trials), backbone_names(trials)
    backbones = [
        names.get(backbone, backbone) + (f" ({size.whole:,} parameters)" if size.whole else "")
        for backbone, size in sorted(sizes.items())
    ]
    methods = sorted(set(trials["method"].to_pylist()))
    rows: dict[str, str | None] = {}
    for task, provenance in zip(trials["task"].to_pylist(), trials["provenance"].to_pylist(), strict=True):
        rows[task] = rows.get(task) or (provenance or {}).get("rows")
    tasks = [task + (f" ({known} rows)" if known else "") for task, known in sorted(rows.items())]
    were = "task was" if len(tasks) == 1 else "tasks were"
    return (
        f"We adapted {_listed(backbones)} to {wording.plural(len(tasks), 'task')} with "
        f"{wording.plural(len(methods), 'method')} ({_listed(methods)}). The {were} {_listed(tasks)}."
    )


def _searched(results: Results, trials: pa.Table) -> str:
    """Which values each method was tried with, and how many configurations that made on a task."""
    names = results.searched()
    columns = {name: trials[name].to_pylist() for name in names}
    methods = trials["method"].to_pylist()
    per_task: dict[str, set[tuple[tuple[str, str], str]]] = {}
    places = list(zip(trials["task"].to_pylist(), trials["backbone"].to_pylist(), strict=True))
    for method, place, config_id in zip(methods, places, trials["config_id"].to_pylist(), strict=True):
        per_task.setdefault(method, set()).add((place, config_id))
    sentences = []
    for method in sorted(per_task):
        counted = Counter(place for place, _ in per_task[method])
        # None on a task that only others were tried on; a method without a backbone is tried with one of several.
        lacking = {task for task, _ in places} - {task for task, _ in counted}
        counts = [*counted.values(), *([0] if lacking else [])]
        values = []
        for name in names:
            own = {v for v, m in zip(columns[name], methods, strict=True) if m == method and v is not None}
            if own:
                values.append(f"{name} {_values(own)}")
        with_values = f" ({', '.join(values)})" if values else ""
        sentences.append(f"{wording.span(counts, 'configuration')} of {method}{with_values}")
    each = "task with each backbone" if backbone_names(trials) else "task"
    return f"On each {each} we tried {'; '.join(sentences)}."


def _trials(results: Results, trials: pa.Table) -> str:
    seeds = sorted(set(trials["seed"].to_pylist()))
    listed = f" ({', '.join(map(str, seeds))})" if len(seeds) <= _MOST_VALUES else ""
    # Sweeps that share a store, or one that is unfinished, may have trained some with fewer.
    own = trials.group_by("config_id").aggregate([("seed", "count_distinct")])["seed_count_distinct"].to_pylist()
    with_seeds = wording.span(own, "seed") + (f" of {len(seeds):,}" if min(own) < len(seeds) else "")
    counts = results.counts()
    ended = ", ".join(
        f"{counts[status]:,} {'not yet run' if status is TrialStatus.PLANNED else status.value}"
        for status in TrialStatus
        if counts.get(status)
    )
    folds = folding.folds_of(trials)
    after = f" {folding.sentence(folds)}" if folds else ""
    return (
        f"Each configuration was trained with {with_seeds}{listed}{folding.each_fold(trials)}, "
        f"{wording.plural(sum(counts.values()), 'trial')} in all: {ended}.{after}"
    )


def _selection(results: Results, trials: pa.Table) -> str:
    scores = [row for row in results.score_table().to_pylist() if row["task"] is not None and row["score"] is not None]
    untested = sorted({row["task"] for row in scores if row["split"] == "validation"})
    each = "task, backbone and method" if results.backbone_names() else "task and method"
    over, whole = ("seeds and folds", "trials") if folding.folds_of(trials) else ("seeds", "seeds")
    sentence = (
        f"For each {each} the configuration with the best mean validation score over {over} was chosen, among "
        f"those with as many completed {whole} as any other; ties went to fewer trained parameters. Test scores "
        "played no part in the choice."
    )
    if len(untested) == len({row["task"] for row in scores}) and untested:
        return f"{sentence} No task has test scores, so all are reported on validation, which is optimistic."
    if untested:
        return f"{sentence} Reported on validation, for want of test scores: {_listed(untested)}."
    return sentence


def _intervals(trials: pa.Table) -> str:
    if folding.folds_of(trials):
        return folding.intervals(trials)
    has_seeds = pc.count_distinct(trials["seed"]).as_py() > 1
    has_tasks = pc.count_distinct(trials["task"]).as_py() > 1
    said = [
        "Scores are means over seeds with the standard error of the mean (sample standard deviation, ddof = 1, over "
        "the square root of the number of seeds)."
        if has_seeds
        else "Scores are those of one seed, so how far seeds scatter is not known."
    ]
    over = [
        *(["Welch's over seeds on a task"] if has_seeds else []),
        *(["Student's over the tasks' differences across tasks"] if has_tasks else []),
    ]
    if over:
        said.append(f"Differences between methods have 95 % intervals: {', '.join(over)}")
        said[-1] += f"; {folding.p_values(trials)}" if has_tasks else "."
    return " ".join(said)


def _hardware(trials: pa.Table) -> str:
    records = [record for record in trials["provenance"].to_pylist() if record]
    devices = _distinct(record.get("device") for record in records)
    precisions = _distinct(record.get("precision") for record in records)
    spent = engine_seconds(trials)
    peak = pc.max(trials["peak_memory_bytes"]).as_py()
    parts = [f"Trials ran on {_listed(devices) if devices else 'hardware that was not recorded'}"]
    if precisions:
        parts.append(f"in {_listed(precisions)}")
    sentence = " ".join(parts)
    if np.isfinite(spent).any():  # those that train together share the time of their engine
        sentence += f" and took {wording.duration(float(np.nansum(spent)))} of engine time"
    if peak is not None:
        sentence += f", with at most {peak / 2**30:.2f} GiB of memory"
    return f"{sentence}."


def _versions(trials: pa.Table) -> str:
    records = [record for record in trials["provenance"].to_pylist() if record]
    versions = []
    for key, name in _FACTS.items():
        if found := _distinct(record.get(key) for record in records):
            versions.append(f"{name} {_listed(found)}")
    commits = _distinct(record.get("commit") for record in records)
    said = f"Software: {', '.join(versions)}" if versions else "Software: versions were not recorded"
    return f"{said}; commit {_listed(commits)}." if commits else f"{said}; the commit was not recorded."


def _distinct(values: Iterable[str | None]) -> list[str]:
    return sorted({value for value in values if value})


def _values(values: set[Any]) -> str:
    """{3e-05, 0.0001, 0.001}; of many numbers, from the least to the most."""
    known = sorted(values, key=lambda value: (isinstance(value, str), value))
    if len(known) > _MOST_VALUES and not any(isinstance(value, str) for value in known):
        return f"from {wording.cell(known[0])} to {wording.cell(known[-1])}, {len(known):,} values"
    return f"{{{', '.join(map(wording.cell, known))}}}"


def _listed(names: Sequence[str]) -> str:
    """a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

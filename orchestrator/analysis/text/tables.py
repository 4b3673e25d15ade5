"""Answers as tables of text: the console shows them through rich, the report as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.analysis.configurations import backbone_names
from orchestrator.analysis.questions.ablation import read
from orchestrator.analysis.questions.glue import COMPONENTS
from orchestrator.analysis.results import Results
from orchestrator.analysis.text import wording

# What each backbone is called, empty where there is one; a table that is not told finds out by its own rows.
Names = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """A table ready to be shown: numbers rounded, unknown values as dashes."""

    title: str
    left: tuple[str, ...]  # headings of the columns with words, then
    right: tuple[str, ...]  # those with numbers
    rows: tuple[tuple[str, ...], ...]
    note: str | None = None  # what a reader must know to read it fairly

    def starts_group(self, index: int) -> bool:
        """Whether a row's first cell differs from that of the row above."""
        return index > 0 and self.rows[index][0] != self.rows[index - 1][0]


def summary(results: Results) -> RenderableType:
    """For the console, in the order of interest: the status line, what to ship, the best per task and method."""
    parts: list[RenderableType] = [Text(wording.status_line(results.counts()))]
    if len(recommended := results.recommend()):
        names, backbones = results.searched(), results.backbone_names()
        parts += [Text(), to_rich(recommendation_table(recommended, names, backbones))]
        parts += [Text(), to_rich(best_table(results.best(results.method_columns()), names, backbones))]
    if len(scores := results.glue_score()):
        parts += [Text(), to_rich(glue_table(scores, results.backbone_names()))]
    return Group(*parts)


def recommendation_table(recommended: pa.Table, names: Sequence[str], backbones: Names | None = None) -> TextTable:
    """A row per task of `Results.recommend`: what to ship, and what the best would have cost instead.

    `names` are the hyperparameters to show, such as `Results.searched`.
    """
    backbones = backbone_names(recommended) if backbones is None else backbones
    return TextTable(
        title="Recommended: the smallest model within one standard error of the best, on validation",
        left=("task", "method", "configuration"),
        right=("trained", *(["in all"] if backbones else []), "test", "the best"),
        rows=tuple(
            (
                row["task"],
                wording.method(row, backbones=backbones),
                wording.hyperparameters(row, names),
                f"{wording.count(row['trained_params'])} ({wording.share(row['trained_params'], row['total_params'])})",
                *([wording.count(row["total_params"])] if backbones else []),
                wording.reported(row),
                f"{_best_score(row)} ({wording.count(row['best_trained_params'])})",
            )
            for row in recommended.to_pylist()
        ),
    )


def best_table(best: pa.Table, names: Sequence[str], backbones: Names | None = None) -> TextTable:
    """A row per group of `Results.best`, with the hyperparameters of the winner that `names` lists."""
    backbones = backbone_names(best) if backbones is None else backbones
    return TextTable(
        title="Best configuration of each method, chosen on validation",
        left=("task", "method", "configuration"),
        right=("trained", "validation", "test", "tried", "engine time", "failed"),
        rows=tuple(
            (
                row["task"],
                wording.method(row, backbones=backbones),
                wording.hyperparameters(row, names),
                wording.count(row["trained_params"]),
                wording.score(row["validation_mean"], row["validation_sem"], _seeds_without_test(row)),
                wording.score(row["test_mean"], row["test_sem"], row["num_seeds"]),
                wording.cell(row["num_configs_tried"]),
                wording.duration(row["engine_seconds"]),
                wording.cell(row["num_failed"]),
            )
            for row in best.to_pylist()
        ),
        note=" ".join(filter(None, (_unequal_budgets(best), _over_folds(best)))) or None,
    )


def comparison_table(pairs: pa.Table, backbones: Names | None = None) -> TextTable:
    """A row per pair of methods of `Results.comparisons`."""
    backbones = backbone_names(pairs) if backbones is None else backbones
    rows = pairs.to_pylist()
    least = max((row["smallest_p"] for row in rows), default=0.0)
    notes = ["P is the chance that a random run of the first beats one of the second, on a task drawn at random."]
    if least > 0.05:
        notes.append(f"With so few tasks no p-value can be below {least:.3g}.")
    if any(row["budgets_differ"] for row in rows):
        notes.append("Budgets differ: the best of many configurations is higher by luck.")
    return TextTable(
        title="Methods against each other, over tasks: mean difference, 95 % interval, sign-flip test with Holm's p",
        left=("method", "against"),
        right=("difference", "from", "to", "p", "P", "tasks", "tried"),
        rows=tuple(
            (
                wording.method({**row, "method": row["a"]}, backbones=backbones),
                row["b"],
                wording.signed(row["difference"]),
                wording.signed(row["low"]),
                wording.signed(row["high"]),
                f"{row['p_holm']:.3g}",
                f"{row['probability_of_improvement']:.2f}",
                wording.cell(row["num_tasks"]),
                f"{row['a_num_configs_tried']:,} / {row['b_num_configs_tried']:,}",
            )
            for row in rows
        ),
        note=" ".join(notes),
    )


def curve_table(curve: pa.Table, backbones: Names | None = None) -> TextTable:
    """A row per point of `Results.curve`."""
    quantiles = quantile_columns(curve)
    backbones = backbone_names(curve) if backbones is None else backbones
    reference = curve["normalize_to"][0].as_py() if len(curve) else None
    level = wording.signed if reference else wording.score
    has_folds = curve["num_folds"].null_count < len(curve)
    return TextTable(
        title=f"{f'Score less that of {reference}' if reference else 'Score'}, percentiles across tasks",
        left=("method",),
        right=("trained", *quantiles, "tasks", "replicates" if has_folds else "seeds"),
        rows=tuple(
            (
                wording.method(row, backbones=backbones),
                wording.count(row["trained_params"]),
                *(level(row[name]) for name in quantiles),
                wording.cell(row["num_tasks"]),
                wording.cell(row["num_seeds"]),
            )
            for row in curve.to_pylist()
        ),
    )


def settings_table(settings: pa.Table, names: Sequence[str], backbones: Names | None = None) -> TextTable:
    """A row per setting of `orchestrator.analysis.questions.settings`."""
    backbones = backbone_names(settings) if backbones is None else backbones
    return TextTable(
        title="Every setting that completed",
        left=("task", "method", "configuration"),
        right=("trained", "validation", "test", "engine time a trial"),
        rows=tuple(
            (
                row["task"],
                wording.method(row, backbones=backbones),
                wording.hyperparameters(row, names),
                wording.count(row["trained_params"]),
                wording.score(row["validation_mean"], row["validation_sem"], _seeds_without_test(row)),
                wording.score(row["test_mean"], row["test_sem"], row["num_seeds"]),
                wording.duration(row["engine_seconds_per_trial"]),
            )
            for row in settings.to_pylist()
        ),
    )


def trials_table(trials: pa.Table, names: Sequence[str], backbones: Names | None = None) -> TextTable:
    """A row per trial, whatever became of it."""
    backbones = backbone_names(trials) if backbones is None else backbones
    shown = {
        "trial_id",
        "task",
        "backbone",
        "method",
        "peft_type",
        "seed",
        "fold",
        "status",
        "validation_score",
        "test_score",
    }
    shown |= {"trained_params", "best_epoch", "duration_s", *names}
    folds = ["fold"] if trials["fold"].null_count < len(trials) else []
    return TextTable(
        title="Trials",
        left=("task", "method", "configuration", "status", "trial"),
        right=("seed", *folds, "trained", "validation", "test", "best epoch", "duration"),
        rows=tuple(
            (
                row["task"],
                wording.method(row, backbones=backbones),
                wording.hyperparameters(row, names),
                row["status"],
                row["trial_id"],
                wording.cell(row["seed"]),
                *(wording.cell(row[name]) for name in folds),
                wording.count(row["trained_params"]),
                wording.score(row["validation_score"]),
                wording.score(row["test_score"]),
                wording.cell(row["best_epoch"]),
                wording.duration(row["duration_s"]),
            )
            for row in trials.select([name for name in trials.column_names if name in shown]).to_pylist()
        ),
    )


def budget_table(budget: pa.Table, backbones: Names | None = None) -> TextTable:
    """A row per method of `orchestrator.analysis.questions.budget`, over all tasks; budget.csv has each task."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    backbones = backbone_names(budget) if backbones is None else backbones
    for row in budget.to_pylist():
        groups.setdefault(wording.method(row, backbones=backbones), []).append(row)
    statuses = ("completed", "pruned", "failed", "cancelled")
    folds = ["folds"] if budget["num_folds"].null_count < len(budget) else []
    return TextTable(
        title="What each method tried, over all tasks; budget.csv has it for each task",
        left=("method",),
        right=("tasks", "settings a task", "seeds", *folds, "trials", *statuses, "engine time"),
        rows=tuple(
            (
                name,
                wording.cell(len(rows)),
                _range([row["num_configs"] for row in rows]),
                _range([row["num_seeds"] for row in rows]),
                *(_range([row["num_folds"] or 0 for row in rows]) for _ in folds),
                *(wording.cell(sum(row[f"num_{what}"] for row in rows)) for what in ("trials", *statuses)),
                wording.duration(_sum([row["engine_seconds"] for row in rows])),
            )
            for name, rows in groups.items()
        ),
    )


def throughput_table(throughput: pa.Table, backbones: Names | None = None) -> TextTable:
    """A row per engine, backbone and method of `Results.throughput`."""
    backbones = backbone_names(throughput) if backbones is None else backbones
    return TextTable(
        title="Throughput, in training",
        left=("engine", "method"),
        right=("trials", "trained together", "examples/s each", "examples/s together"),
        rows=tuple(
            (
                row["engine"],
                wording.method(row, backbones=backbones),
                wording.cell(row["num_trials"]),
                f"{row['pack_size']:.1f}",
                wording.rate(row["examples_per_second"]),
                wording.rate(row["pack_examples_per_second"]),
            )
            for row in throughput.to_pylist()
        ),
    )


def node_shares_table(shares: pa.Table) -> TextTable:
    """A row per node of `Results.node_shares`."""
    return TextTable(
        title="What each node trained",
        left=("node",),
        right=("trials", "share", "training time"),
        rows=tuple(
            (
                row["node"],
                wording.cell(row["num_trials"]),
                f"{row['trials_share']:.0%}",
                wording.duration(row["duration_s"]),
            )
            for row in shares.to_pylist()
        ),
    )


def glue_table(scores: pa.Table, backbones: Names | None = None) -> TextTable:
    """A row per method of `Results.glue_score`; what is missing in place of a task's score is a dash."""
    backbones = backbone_names(scores) if backbones is None else backbones
    rows = scores.to_pylist()
    matched_only = any(row["mnli_is_matched_only"] for row in rows)
    return TextTable(
        title="GLUE score on validation, as the server computes it"
        + ("; MNLI by its matched half alone" if matched_only else ""),
        left=("method",),
        right=("score", "mean of those there", *COMPONENTS),
        rows=tuple(
            (
                wording.method(row, backbones=backbones),
                *(wording.points(row[name]) for name in ("glue_score", "mean_of_present", *COMPONENTS)),
            )
            for row in rows
        ),
    )


def ablation_table(ablation: pa.Table) -> TextTable:
    """One ablation as the triangle of its spans: changes in per cent of the whole model's accuracy or score."""
    reading = read(ablation)
    layers = range(reading.num_layers)
    return TextTable(
        title=f"Relative change of {reading.measure} (%) without the adapters of the layers from ... to ...",
        left=("from",),
        right=tuple(f"to {last}" for last in layers),
        rows=tuple(
            (str(first), *("" if last < first else wording.percent(reading.percent[first, last]) for last in layers))
            for first in layers
        ),
    )


def quantile_columns(curve: pa.Table) -> list[str]:
    """The columns of a curve that hold percentiles: those after normalize_to."""
    return list(curve.column_names[curve.column_names.index("normalize_to") + 1 :])


def to_rich(table: TextTable) -> Table:
    """For the console, from 80 columns up: cells wrap between words, and groups of the same first cell stand apart."""
    shown = Table(
        title=table.title,
        title_justify="left",
        title_style="bold",
        caption=table.note and Text(table.note),
        caption_justify="left",
        caption_style="dim",
        header_style="dim",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    for index, name in enumerate((*table.left, *table.right)):
        longest = max((len(word) for row in table.rows for word in row[index].split()), default=0)
        justify: Literal["left", "right"] = "left" if index < len(table.left) else "right"
        shown.add_column(name, justify=justify, overflow="fold", min_width=min(longest, 8))
    grouped = len({row[0] for row in table.rows}) < len(table.rows)
    for index, row in enumerate(table.rows):
        if grouped and table.starts_group(index):
            shown.add_section()
        shown.add_row(*map(Text, row))
    return shown


def _unequal_budgets(best: pa.Table) -> str | None:
    """That the rows of a task were chosen from different numbers of configurations, where they were."""
    tried: dict[str, set[int]] = {}
    for task, number in zip(best["task"].to_pylist(), best["num_configs_tried"].to_pylist(), strict=True):
        tried.setdefault(task, set()).add(number)
    if all(len(numbers) == 1 for numbers in tried.values()):
        return None
    fewest, most = min(map(min, tried.values())), max(map(max, tried.values()))
    return (
        f"Methods were chosen from {fewest:,} to {most:,} configurations, and the best of many is higher by luck. "
        "results.compare(a, b, equalise=True) compares them at equal numbers."
    )


def _best_score(row: Mapping[str, Any]) -> str:
    tested = row["best_test_mean"] is not None
    return wording.score(row["best_test_mean" if tested else "best_validation_mean"])


def _over_folds(best: pa.Table) -> str | None:
    """That standard errors are too small where they are over folds."""
    folded = sorted({row["task"] for row in best.to_pylist() if row["num_folds"] is not None})
    if not folded:
        return None
    return f"n counts folds on {', '.join(folded)}, and standard errors over folds are too small."


def _seeds_without_test(row: Mapping[str, Any]) -> int | None:
    return row["num_seeds"] if row["test_mean"] is None else None


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None

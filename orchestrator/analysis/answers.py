"""The answers of a report: each a table in files, and on the page as a table, as figures or as both.

To add one, write its entry in `ANSWERS`: the name of its files, and an `Answer`. The report shows the answers in the
order in which they stand here, and the contract test of all answers runs over it the moment it exists. A figure is
drawn by a function below `orchestrator.analysis.figures`, the one door to matplotlib; import it where it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from orchestrator.analysis import ablation, calibration, tables, trust_tables
from orchestrator.analysis.results import Results
from trainables.faults import FaultsError

REFERENCE = "full_finetuning"  # what the paper's curves are drawn relative to


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    """A sentence or several."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A table; one with a `summary` is folded behind it."""

    table: tables.TextTable
    summary: str | None = None


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One of the answer's figures, by its name, with words for those who do not see it."""

    figure: str
    alt: str
    caption: str | None = None


Block = Paragraph | Shown | Picture


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the report says to one question.

    Args:
        ask: the answer as a table, which becomes `<name>.csv` and `<name>.parquet`. Of a sweep without trials it has
            no rows.
        is_optional: whether an answer without rows leaves no files.
        draw: its figures as matplotlib's, from the results and the table, by the name of their files (.png and .svg).
        heading: of its section on the page.
        show: what stands in the section, from the results and the table; where that is nothing there is no section.
    """

    ask: Callable[[Results], pa.Table]
    is_optional: bool = False
    draw: Callable[[Results, pa.Table], Mapping[str, Any]] = lambda results, table: {}
    heading: str = ""
    show: Callable[[Results, pa.Table], Sequence[Block]] = lambda results, table: ()


def _recommended(results: Results, recommended: pa.Table) -> list[Block]:
    return [Shown(table=tables.recommendation_table(recommended, results.searched()))] if len(recommended) else []


def _best(results: Results, best: pa.Table) -> list[Block]:
    return [Shown(table=tables.best_table(best, results.searched()))] if len(best) else []


def _compared(results: Results, pairs: pa.Table) -> list[Block]:
    return [Shown(table=tables.comparison_table(pairs))] if len(pairs) else []


def _optimism(results: Results, optimism: pa.Table) -> list[Block]:
    several = any(number > 1 for number in optimism["num_compared"].to_pylist())
    return [Shown(table=trust_tables.optimism_table(optimism))] if several else []


def _ask_calibration(results: Results) -> pa.Table:
    try:
        return results.calibration()
    except FaultsError:  # nothing is kept, which is no fault of a report
        return pa.schema({"task": pa.string(), **calibration.COLUMNS}).empty_table()


def _calibration(results: Results, bins: pa.Table) -> list[Block]:
    return [Shown(table=trust_tables.calibration_table(bins))] if len(bins) else []


def _points(results: Results) -> tuple[pa.Table, str | None]:
    """The points of the curve and what they are relative to: full fine-tuning, or nothing where no task has it."""
    points = results.points(normalize_to=None)
    if REFERENCE in points["method"].to_pylist():
        relative = results.points(normalize_to=REFERENCE)
        if relative["delta"].null_count < len(relative):
            return relative, REFERENCE
    return points, None


def _draw_curve(results: Results, curve: pa.Table) -> dict[str, Any]:
    from orchestrator.analysis import figures

    return {"curve": figures.curve_figure(curve), "tasks": figures.tasks_figure(_points(results)[0])}


def _curve(results: Results, curve: pa.Table) -> list[Block]:
    if not len(curve):
        return []
    return [
        *(Paragraph(text=note) for note in _curve_notes(*_points(results))),
        Picture(
            figure="curve",
            alt="Percentiles across tasks of the score against trained parameters, a curve a method",
            caption="For each task, method and size the best configuration on validation; percentiles are taken across "
            "tasks (linear interpolation). The numbers are below and in curve.csv.",
        ),
        Shown(table=tables.curve_table(curve), summary="The points of the curve"),
        Picture(figure="tasks", alt="Mean score and standard error against trained parameters, a panel a task"),
    ]


def _curve_notes(points: pa.Table, reference: str | None) -> list[str]:
    """What a reader of the curve must know beyond its labels."""
    rows = points.to_pylist()
    notes = []
    if rows and reference is None:
        notes.append(
            f"No task has a completed trial of {REFERENCE} to compare with, so the curve shows the scores themselves, "
            "and a spread across tasks is mostly that of their difficulty."
        )
    if left_out := sorted({row["task"] for row in rows if reference and row["delta"] is None}):
        notes.append(f"Left out, since {reference} has not completed on them: {', '.join(left_out)}.")
    if len({row["task"] for row in rows if reference is None or row["delta"] is not None}) == 1:
        notes.append("With one task there is no spread across tasks to show.")
    return notes


def _glue(results: Results, scores: pa.Table) -> list[Block]:
    if not len(scores):
        return []
    note = (
        "The mean of the nine tasks, in points: of MRPC and QQP F1 and accuracy count half each, of STS-B both "
        "correlations, of MNLI both its halves. Measured on validation, where configurations were chosen too, so no "
        "score of the leaderboard."
    )
    return [Paragraph(text=note), Shown(table=tables.glue_table(scores))]


def _draw_ablations(results: Results, ablations: pa.Table) -> dict[str, Any]:
    if not len(ablations):
        return {}
    from orchestrator.analysis import figures

    return {_ablation_name(each): figures.ablation_figure(each) for each in ablation.each(ablations)}


def _ablations(results: Results, ablations: pa.Table) -> list[Block]:
    if not len(ablations):
        return []
    note = (
        "Trained adapters taken out of every contiguous span of layers, without training again; LayerNorms and head "
        "stay as trained. Numbers are changes in per cent of the whole model's; all are in ablation.csv."
    )
    pictures = [
        Picture(
            figure=_ablation_name(each),
            alt="Heat map of the change without the adapters of each span of layers",
            caption=ablation.read(each).sentence,
        )
        for each in ablation.each(ablations)
    ]
    return [Paragraph(text=note), *pictures]


def _ablation_name(one: pa.Table) -> str:
    """What the figure of an ablation is called: ablation-<trial>-<split>."""
    return f"ablation-{one['trial_id'][0].as_py()}-{one['split'][0].as_py()}"


ANSWERS: dict[str, Answer] = {
    "trials": Answer(ask=Results.trials),
    "epochs": Answer(ask=Results.epochs),
    "recommend": Answer(ask=Results.recommend, heading="What to ship", show=_recommended),
    "curve": Answer(
        ask=lambda results: results.curve(normalize_to=_points(results)[1]),
        draw=_draw_curve,
        heading="What trained parameters buy",
        show=_curve,
    ),
    "best": Answer(ask=lambda results: results.best(), heading="The best of each method", show=_best),
    "comparisons": Answer(
        ask=lambda results: results.comparisons(),
        is_optional=True,
        heading="Methods against each other",
        show=_compared,
    ),
    "pareto": Answer(ask=lambda results: results.pareto(), is_optional=True),
    "optimism": Answer(
        ask=lambda results: results.optimism(),
        is_optional=True,
        heading="What choosing the best adds to its score",
        show=_optimism,
    ),
    "calibration": Answer(
        ask=_ask_calibration,
        is_optional=True,
        heading="Whether probabilities can be believed",
        show=_calibration,
    ),
    "glue": Answer(ask=Results.glue_score, is_optional=True, heading="GLUE", show=_glue),
    "ablation": Answer(
        ask=lambda results: results.ablation(),
        is_optional=True,
        draw=_draw_ablations,
        heading="What each layer's adapters are worth",
        show=_ablations,
    ),
}

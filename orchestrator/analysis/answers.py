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
import pyarrow.compute as pc

from orchestrator.analysis.page import shipping
from orchestrator.analysis.page.blocks import Block, Paragraph, Picture, Sentences, Shown
from orchestrator.analysis.page.charts import curve_chart, settings_chart, tasks_chart
from orchestrator.analysis.page.leading import leading
from orchestrator.analysis.page.learning import MOST_TRIALS, learning_curves
from orchestrator.analysis.questions import ablation, calibration
from orchestrator.analysis.questions.budget import budget, sentences
from orchestrator.analysis.questions.curve import without_reference
from orchestrator.analysis.questions.settings import settings
from orchestrator.analysis.results import Results
from orchestrator.analysis.text import cost_tables, side_by_side, tables, trust_tables
from trainables.faults import FaultsError

_MOST_SETTINGS = 2000  # on the page; settings.csv has all
_MOST_UNFOLDED = 30  # rows of a table; a longer one is folded
REFERENCE = "full_finetuning"  # what the paper's curves are drawn relative to


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
    if not len(recommended):
        return []
    names = results.searched()
    return [
        Paragraph(text=shipping.overview(recommended)),
        Sentences(items=shipping.per_task(recommended, results.trials(), names)),
        Shown(
            table=tables.recommendation_table(recommended, names, results.backbone_names()),
            summary="The same as a table",
        ),
    ]


def _best(results: Results, best: pa.Table) -> list[Block]:
    if not len(best):
        return []
    return [_shown(tables.best_table(best, results.searched(), results.backbone_names()))]


def _compared(results: Results, pairs: pa.Table) -> list[Block]:
    several = pairs.filter(pc.greater(pairs["num_tasks"], 1))  # one task has no spread over tasks, and no p below 1
    return [_shown(tables.comparison_table(several, results.backbone_names()))] if len(several) else []


def _optimism(results: Results, optimism: pa.Table) -> list[Block]:
    several = any(number > 1 for number in optimism["num_compared"].to_pylist())
    return [_shown(trust_tables.optimism_table(optimism, results.backbone_names()))] if several else []


def _ask_calibration(results: Results) -> pa.Table:
    try:
        return results.calibration(results.method_columns())
    except FaultsError:  # nothing is kept, which is no fault of a report
        return pa.schema({"task": pa.string(), **calibration.COLUMNS}).empty_table()


def _calibration(results: Results, bins: pa.Table) -> list[Block]:
    return [_shown(trust_tables.calibration_table(bins, results.backbone_names()))] if len(bins) else []


def _ask_front(results: Results) -> pa.Table:
    try:
        return results.pareto()
    except FaultsError:  # no trial's parameters are recorded, which is no fault of a report
        return results.best().slice(0, 0)


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
    (points, reference), backbones = _points(results), results.backbone_names()
    return [
        *(Paragraph(text=note) for note in _curve_notes(points, reference)),
        curve_chart(points, (0.2, 0.5, 0.8), picture="curve", backbones=backbones),
        Shown(table=tables.curve_table(curve, backbones), summary="The points of the curve"),
        tasks_chart(points, picture="tasks", backbones=backbones),
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
    if left_out := without_reference(rows) if reference else []:
        notes.append(f"Left out, since {reference} has not completed on them: {', '.join(left_out)}.")
    if len({row["task"] for row in rows if reference is None or row["delta"] is not None}) == 1:
        notes.append("With one task there is no spread across tasks to show.")
    return notes


def _settings(results: Results, tried: pa.Table) -> list[Block]:
    if not len(tried):
        return []
    searched, shown = results.searched(), leading(tried, _MOST_SETTINGS, score="validation_mean")
    backbones = results.backbone_names()
    table = tables.settings_table(shown, searched, backbones)
    return [*_left_out(tried, shown, "setting"), settings_chart(shown, searched, backbones), _folded(table)]


def _budget(results: Results, spent: pa.Table) -> list[Block]:
    if not len(spent):
        return []
    said = [Paragraph(text=" ".join(words))] if (words := sentences(spent)) else []
    return [*said, _shown(tables.budget_table(spent, results.backbone_names()))]


def _epochs(results: Results, epochs: pa.Table) -> list[Block]:
    curves = learning_curves(results)
    return [] if curves is None else [curves]


def _trials(results: Results, trials: pa.Table) -> list[Block]:
    if not len(trials):
        return []
    shown = leading(trials, MOST_TRIALS)
    return [
        *_left_out(trials, shown, "trial"),
        _folded(tables.trials_table(shown, results.searched(), results.backbone_names())),
    ]


def _left_out(all_of_them: pa.Table, shown: pa.Table, noun: str) -> list[Block]:
    if len(shown) == len(all_of_them):
        return []
    note = f"Of {len(all_of_them):,} {noun}s the {len(shown):,} that were best on validation of each task and method"
    return [Paragraph(text=f"{note} are here; {noun}s.csv has all.")]


def _shown(table: tables.TextTable) -> Shown:
    return Shown(table=table) if len(table.rows) <= _MOST_UNFOLDED else _folded(table)


def _folded(table: tables.TextTable) -> Shown:
    named = table.title.partition(". ")[0]
    return Shown(table=table, summary=f"{named} ({len(table.rows):,} rows)")


def _glue(results: Results, scores: pa.Table) -> list[Block]:
    if not len(scores):
        return []
    note = (
        "The mean of the nine tasks, in points: of MRPC and QQP F1 and accuracy count half each, of STS-B both "
        "correlations, of MNLI both its halves. Measured on validation, where configurations were chosen too, so no "
        "score of the leaderboard."
    )
    return [Paragraph(text=note), _shown(tables.glue_table(scores, results.backbone_names()))]


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


def _data_warnings(results: Results, warnings: pa.Table) -> list[Block]:
    by_task: dict[str, list[str]] = {}
    for row in warnings.to_pylist():
        by_task.setdefault(row["task"], []).append(f"{row['sentence']} ({row['warning']}).")
    return [Sentences(items=[(task, " ".join(said)) for task, said in by_task.items()])] if by_task else []


def _inference(results: Results, costs: pa.Table) -> list[Block]:
    if not len(costs):
        return []
    return [_shown(cost_tables.inference_table(costs, results.backbone_names()))]


def _scores(results: Results, scores: pa.Table) -> list[Block]:
    return [_shown(side_by_side.scores_table(scores, results.parameter_table()))] if len(scores) else []


def _parameters(results: Results, parameters: pa.Table) -> list[Block]:
    return [_shown(side_by_side.parameters_table(parameters))] if len(parameters) else []


def _draw(figure: str) -> Callable[[Results, pa.Table], dict[str, Any]]:
    """Draws one of `figures.FIGURES` where there is something to draw."""

    def draw(results: Results, table: pa.Table) -> dict[str, Any]:
        if not len(table):
            return {}
        from orchestrator.analysis import figures

        return {figure: figures.FIGURES[figure].draw(table)}

    return draw


def _differences(results: Results, differences: pa.Table) -> list[Block]:
    if not len(differences):
        return []
    return [
        Picture(
            figure="forest",
            alt="Difference of each method to the reference with its 95 % interval, tasks as dots",
            caption="Intervals of a mean are over tasks; p-values are of sign flips with Holm's correction.",
        ),
        Shown(
            table=side_by_side.differences_table(differences, results.backbone_names()),
            summary="The differences as a table",
        ),
    ]


def _ranks(results: Results, ranks: pa.Table) -> list[Block]:
    if not len(ranks):
        return []
    return [Picture(figure="critical_difference", alt="Mean rank of each method, bars over those not told apart")]


def _profile(results: Results, profile: pa.Table) -> list[Block]:
    if not len(profile):
        return []
    return [Picture(figure="profile", alt="Share of runs above every threshold of the score, a line a method")]


def _expected(results: Results, expected: pa.Table) -> list[Block]:
    if not len(expected):
        return []
    alt = "Expected validation score of the best of n configurations, a panel a task and a line a method"
    return [Picture(figure="expected_validation", alt=alt)]


def _searches(results: Results) -> pa.Table:
    """Expected validation performance where at least two methods have something to choose from."""
    expected = results.expected_validation()
    searched = expected.filter(pc.greater(expected["num_configs_completed"], 1))
    return expected if len(searched.group_by(["backbone", "method"]).aggregate([])) > 1 else expected.slice(0, 0)


ANSWERS: dict[str, Answer] = {
    "recommend": Answer(ask=Results.recommend, heading="What to ship", show=_recommended),
    "curve": Answer(
        ask=lambda results: results.curve(normalize_to=_points(results)[1]),
        draw=_draw_curve,
        heading="What trained parameters buy",
        show=_curve,
    ),
    "best": Answer(
        ask=lambda results: results.best(results.method_columns()), heading="The best of each method", show=_best
    ),
    "comparisons": Answer(
        ask=lambda results: results.comparisons(),
        is_optional=True,
        heading="Methods against each other",
        show=_compared,
    ),
    "pareto": Answer(ask=_ask_front, is_optional=True),
    "inference_costs": Answer(
        ask=lambda results: results.inference_costs().drop_columns(["config_ids"]),
        is_optional=True,
        heading="What an answer takes",
        show=_inference,
    ),
    "scores": Answer(
        ask=lambda results: side_by_side.enough(results.score_table(), methods=2, tasks=2),
        is_optional=True,
        heading="Scores, as Table 2 of the paper has them",
        show=_scores,
    ),
    "parameters": Answer(
        ask=lambda results: side_by_side.enough(results.parameter_table(), methods=2, tasks=2),
        is_optional=True,
        heading="Parameters, as Table 1 of the paper has them",
        show=_parameters,
    ),
    "differences": Answer(
        ask=lambda results: side_by_side.enough(results.paired_differences(), tasks=3),
        is_optional=True,
        draw=_draw("forest"),
        heading="How much better or worse than the reference",
        show=_differences,
    ),
    "ranks": Answer(
        ask=lambda results: side_by_side.enough(results.ranks(), methods=3, tasks=5),
        is_optional=True,
        draw=_draw("critical_difference"),
        heading="Which methods the tasks tell apart",
        show=_ranks,
    ),
    "profile": Answer(
        ask=lambda results: side_by_side.enough(results.profile(), methods=3, tasks=3),
        is_optional=True,
        draw=_draw("profile"),
        heading="How often a method is close to the best",
        show=_profile,
    ),
    "expected_validation": Answer(
        ask=_searches,
        is_optional=True,
        draw=_draw("expected_validation"),
        heading="At equal budgets",
        show=_expected,
    ),
    "optimism": Answer(
        ask=lambda results: results.optimism(results.method_columns()),
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
    "settings": Answer(ask=settings, heading="Every setting tried", show=_settings),
    "epochs": Answer(ask=Results.epochs, heading="Learning curves", show=_epochs),
    "ablation": Answer(
        ask=lambda results: results.ablation(),
        is_optional=True,
        draw=_draw_ablations,
        heading="What each layer's adapters are worth",
        show=_ablations,
    ),
    "budget": Answer(
        ask=lambda results: budget(results.trials()), heading="What was tried, and at what budget", show=_budget
    ),
    "trials": Answer(ask=Results.trials, heading="Every trial", show=_trials),
    "data_warnings": Answer(
        ask=lambda results: results.data_warnings(),
        is_optional=True,
        heading="What is odd in the data",
        show=_data_warnings,
    ),
}

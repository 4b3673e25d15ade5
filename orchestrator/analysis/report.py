"""The report of a sweep: one HTML page that needs nothing beside it, and its pictures and tables as files.

The page says first how many trials ended how, then how configurations were chosen, then what to ship. It depends on
the results alone: the same results give the same files.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections import Counter
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.analysis import ablation, tables, wording
from orchestrator.analysis.files import csv_bytes, parquet_bytes
from orchestrator.analysis.results import Results
from orchestrator.record import TrialStatus
from trainables.faults import FaultsError

REFERENCE = "full_finetuning"  # what the paper's curves are drawn relative to
_MAX_FAILURES = 50  # on the page; trials.csv has all
_MAX_VALUES = 4  # of one provenance key; more are counted


def write_report(results: Results, folder: Path, *, title: str, spec_json: str | None = None) -> list[Path]:
    """Write the report of a sweep, finished or not, into a folder, and say which files it consists of.

    report.html; curve and tasks as .png and .svg; trials, epochs, best, curve and recommend as .csv and .parquet; where
    there are tasks of GLUE, glue as well; where trials have been ablated, ablation too and a figure of each. Each file
    replaces its predecessor in one step, so a reader never meets half a file. `spec_json` is shown as declared. Raises
    `FaultsError` where the folder cannot be written.
    """
    from orchestrator.analysis import figures  # matplotlib, which reading results does without

    points, reference = _points(results)
    curve = results.curve(normalize_to=reference)
    answers = {
        "trials": results.trials(),
        "epochs": results.epochs(),
        "best": results.best(),
        "curve": curve,
        "recommend": results.recommend(),
    }
    if len(scores := results.glue_score()):
        answers["glue"] = scores
    drawn = {"curve": figures.curve_figure(curve), "tasks": figures.tasks_figure(points)}
    if len(ablations := results.ablation()):
        answers["ablation"] = ablations
        drawn |= {_ablation_name(each): figures.ablation_figure(each) for each in ablation.each(ablations)}
    content: dict[str, bytes] = {}
    for name, figure in drawn.items():
        content[f"{name}.png"] = figures.render(figure, "png")
        content[f"{name}.svg"] = figures.render(figure, "svg")
    for name, answer in answers.items():
        content[f"{name}.csv"] = csv_bytes(answer)
        content[f"{name}.parquet"] = parquet_bytes(answer)
    page = _page(results, answers, points, reference, title=title, spec_json=spec_json, svg=content)
    content["report.html"] = page.encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_replace(folder / name, data) for name, data in content.items()]
    except OSError as error:
        raise FaultsError("report", [f"folder: must be a folder that can be written, but got {error}"]) from error


def _points(results: Results) -> tuple[pa.Table, str | None]:
    """The points of the curve and what they are relative to: full fine-tuning, or nothing where no task has it."""
    points = results.points(normalize_to=None)
    if REFERENCE in points["method"].to_pylist():
        relative = results.points(normalize_to=REFERENCE)
        if relative["delta"].null_count < len(relative):
            return relative, REFERENCE
    return points, None


def _page(
    results: Results,
    answers: Mapping[str, pa.Table],
    points: pa.Table,
    reference: str | None,
    *,
    title: str,
    spec_json: str | None,
    svg: Mapping[str, bytes],
) -> str:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    source = resources.files(__package__).joinpath("report.html.jinja").read_text(encoding="utf-8")
    names = results.searched()
    trials = results.trials()
    return environment.from_string(source).render(
        title=title,
        status_line=wording.status_line(results.counts()),
        protocol=_protocol(results, answers["best"]),
        recommended=tables.recommendation_table(answers["recommend"], names),
        best=tables.best_table(answers["best"], names),
        glue=tables.glue_table(answers["glue"]) if "glue" in answers else None,
        curve=tables.curve_table(answers["curve"]),
        curve_image=_inline(svg["curve.svg"]),
        tasks_image=_inline(svg["tasks.svg"]),
        curve_notes=_curve_notes(points, reference),
        ablations=[
            (ablation.read(each).sentence, _inline(svg[f"{_ablation_name(each)}.svg"]))
            for each in ablation.each(results.ablation())
        ],
        failures=_failures(trials, names),
        num_failures_left_out=max(0, results.counts().get(TrialStatus.FAILED, 0) - _MAX_FAILURES),
        facts=_facts(trials),
        spec=None if spec_json is None else json.dumps(json.loads(spec_json), indent=2, ensure_ascii=False),
        files=sorted(svg),
    )


def _ablation_name(one: pa.Table) -> str:
    """What the figure of an ablation is called: ablation-<trial>-<split>."""
    return f"ablation-{one['trial_id'][0].as_py()}-{one['split'][0].as_py()}"


def _protocol(results: Results, best: pa.Table) -> str:
    """How the numbers came about, in sentences."""
    if not len(best):
        return "No trial has completed yet, so there is nothing to choose from."
    trials = results.trials()
    tried, tasks = (pc.count_distinct(trials[name]).as_py() for name in ("config_id", "task"))
    untested = sorted({row["task"] for row in best.to_pylist() if row["test_mean"] is None})
    sentences = [
        f"Selected on validation, reported on test: {wording.plural(tried, 'configuration')} tried on "
        f"{wording.plural(tasks, 'task')}, and on each task the one with the best mean validation score over seeds "
        "was chosen, among those with as many completed seeds as any other. Test scores played no part in choosing.",
        "Scores are means ± one standard error over n seeds.",
    ]
    if untested:
        sentences.append(
            f"Without test scores, and so reported on the validation split they were chosen on, which is optimistic: "
            f"{', '.join(untested)}."
        )
    return " ".join(sentences)


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


def _failures(trials: pa.Table, names: list[str]) -> tables.TextTable:
    """The failed trials, each with the last line of its error."""
    failed = trials.filter(pc.equal(trials["status"], TrialStatus.FAILED.value)).slice(0, _MAX_FAILURES)
    several = tables.several_backbones(trials)
    return tables.TextTable(
        title="Each with the last line of its error; trials.csv has the whole tracebacks",
        left=("task", "method", "configuration", "error", "trial"),
        right=("seed",),
        rows=tuple(
            (
                row["task"],
                wording.method(row, with_backbone=several),
                wording.hyperparameters(row, names),
                ((row["error"] or "").strip().splitlines() or [wording.UNKNOWN])[-1],
                row["trial_id"],
                str(row["seed"]),
            )
            for row in failed.to_pylist()
        ),
    )


def _facts(trials: pa.Table) -> list[tuple[str, str]]:
    """Where the numbers come from: when, on what, with which versions, of which code and data."""
    started = sorted(filter(None, trials["started_at"].to_pylist()))
    peak = pc.max(trials["peak_memory_bytes"]).as_py()
    facts = [
        ("backbones", _values(trials["backbone"].to_pylist())),
        ("first and last trial started", f"{started[0]} and {started[-1]}" if started else wording.UNKNOWN),
        ("time in trials, summed", wording.duration(pc.sum(trials["duration_s"]).as_py())),
        ("largest peak memory", wording.UNKNOWN if peak is None else f"{peak / 2**30:.2f} GiB"),
        ("engines", _values(trials["engine"].to_pylist())),
    ]
    records = [record for record in trials["provenance"].to_pylist() if record]
    keys = sorted({key for record in records for key in record})
    return facts + [(key.replace("_", " "), _values([record.get(key) for record in records])) for key in keys]


def _values(values: list[Any]) -> str:
    """Distinct values, the most frequent first, with the number of trials where there are several."""
    counted = Counter(str(value) for value in values if value is not None).most_common()
    if len(counted) > _MAX_VALUES:
        return f"{len(counted):,} different ones"
    if len(counted) <= 1:
        return counted[0][0] if counted else wording.UNKNOWN
    return ", ".join(f"{value} ({wording.plural(number, 'trial')})" for value, number in counted)


def _inline(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def _replace(path: Path, content: bytes) -> Path:
    """Write a file in one step: its old content is there until the new one is complete."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(name).chmod(0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path

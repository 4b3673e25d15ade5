"""The report of a sweep: one HTML page that needs nothing beside it, and its pictures and tables as files.

The page says first how many trials ended how, then what to ship and how configurations were chosen. It depends on the
results alone: the same results give the same files.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.analysis.answers import ANSWERS
from orchestrator.analysis.files import csv_bytes, parquet_bytes, replace_file
from orchestrator.analysis.page.failures import failures
from orchestrator.analysis.page.render import Page, Section, render
from orchestrator.analysis.results import Results
from orchestrator.analysis.text import folding, wording
from trainables.faults import FaultsError

_MAX_VALUES = 4  # of one provenance key; more are counted


def write_report(results: Results, folder: Path, *, title: str, spec_json: str | None = None) -> list[Path]:
    """Write the report of a sweep, finished or not, into a folder, and say which files it consists of.

    report.html; every answer of `orchestrator.analysis.answers` as .csv and .parquet, its figures as .png and .svg.
    Each file replaces its predecessor in one step, so a reader never meets half a file. `spec_json` is shown as
    declared. Raises `FaultsError` where the folder cannot be written.
    """
    from orchestrator.analysis import figures  # matplotlib, which reading results does without

    content: dict[str, bytes] = {}
    sections: list[Section] = []
    for name, answer in ANSWERS.items():
        table = answer.ask(results)
        for stem, figure in answer.draw(results, table).items():
            content[f"{stem}.png"] = figures.render(figure, "png")
            content[f"{stem}.svg"] = figures.render(figure, "svg")
        if len(table) or not answer.is_optional:
            content[f"{name}.csv"] = csv_bytes(table)
            content[f"{name}.parquet"] = parquet_bytes(table)
        if blocks := answer.show(results, table):
            sections.append(Section(name=name, heading=answer.heading, blocks=blocks))
    page = _page(results, sections, content, title=title, spec_json=spec_json)
    content["report.html"] = page.encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [replace_file(folder / name, data) for name, data in content.items()]
    except OSError as error:
        raise FaultsError("report", [f"folder: must be a folder that can be written, but got {error}"]) from error


def _page(
    results: Results, sections: Sequence[Section], files: Mapping[str, bytes], *, title: str, spec_json: str | None
) -> str:
    trials = results.trials()
    failed, left_out = failures(trials, results.searched())
    page = Page(
        title=title,
        status_line=wording.status_line(results.counts()),
        protocol=_protocol(results, results.best()),
        tasks=sorted(set(trials["task"].to_pylist())),
        backbones=sorted(results.backbone_names().values()),
        methods=sorted(set(trials["method"].to_pylist())),
        sections=sections,
        failures=failed,
        failures_left_out=left_out,
        facts=_facts(trials),
        spec=None if spec_json is None else json.dumps(json.loads(spec_json), indent=2, ensure_ascii=False),
        files=sorted(files),
    )
    return render(page, files)


def _protocol(results: Results, best: pa.Table) -> str:
    """How the numbers came about, in sentences."""
    if not len(best):
        return "No trial has completed yet, so there is nothing to choose from."
    trials = results.trials()
    tried, tasks = (pc.count_distinct(trials[name]).as_py() for name in ("config_id", "task"))
    folds = folding.folds_of(trials)
    over = "replicates (seeds on folds)" if folds else "seeds"
    untested = sorted({row["task"] for row in best.to_pylist() if row["test_mean"] is None})
    sentences = [
        f"Selected on validation, reported on test: {wording.plural(tried, 'configuration')} tried on "
        f"{wording.plural(tasks, 'task')}, and on each task the one with the best mean validation score over {over} "
        f"was chosen, among those with as many completed {over} as any other. Test scores played no part in choosing.",
        f"Scores are means ± one standard error over n {over}.",
    ]
    if folds:
        sentences.append(f"{folding.sentence(folds)} {folding.TOO_SMALL}")
    if untested:
        sentences.append(
            f"Without test scores, and so reported on the validation split they were chosen on, which is optimistic: "
            f"{', '.join(untested)}."
        )
    return " ".join(sentences)


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

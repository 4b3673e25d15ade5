"""The files that a paper takes from a sweep: figures, tables and the paragraph on how the numbers came about."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.analysis.configurations import group_by_configuration
from orchestrator.analysis.files import csv_bytes, parquet_bytes, replace_file
from orchestrator.analysis.missing import missing_of, with_missing
from orchestrator.analysis.paper.methods_paragraph import methods_paragraph
from orchestrator.analysis.paper.parameter_table import parameter_table
from orchestrator.analysis.paper.printed import printed_parameters, printed_scores
from orchestrator.analysis.paper.score_table import score_table
from orchestrator.analysis.paper.typeset import PrintedTable, latex, latex_text, markdown, markdown_text
from orchestrator.analysis.questions import ablation
from orchestrator.analysis.questions.paired import USUAL_REFERENCE
from trainables.faults import FaultsError

if TYPE_CHECKING:
    from orchestrator.analysis.results import Results

_MISSING, _HEADING = "missing.md", "# What the figures and tables lack"
_MOST_OF_NAME = 100  # characters of a backbone's name in a file's


def write_paper(results: Results, folder: Path) -> list[Path]:
    """Write everything into a folder, each file in one step, and say which files these are.

    figures/<name>.pdf, .png, .svg; tables/<name>.tex, .md, of several backbones tables for each by itself;
    data/<name>.csv, .parquet of every figure and table;
    methods.tex and methods.md; missing.md, what the figures and tables lack. A figure for which there is nothing to
    draw has no file and is named in missing.md. What an earlier paper left is replaced. Raises `FaultsError` where the
    folder cannot be written, and where a file would take the place of one that no paper wrote.
    """
    from orchestrator.analysis import figures  # matplotlib, which reading results does without

    content: dict[str, bytes] = {}
    lacking: dict[str, list[str]] = {}
    for name, figure, table in _figures(results):
        lacking[name] = missing_of(table)
        if not len(table):
            lacking[name].append("no file, since there is nothing to draw")
            continue
        drawn = figures.FIGURES[figure].draw(table)
        for kind in figures.KINDS:
            content[f"figures/{name}.{kind}"] = figures.render(drawn, kind)
        content |= _data(name, table)
    for name, table in (("scores", results.score_table()), ("parameters", results.parameter_table())):
        lacking[name] = missing_of(table)
        content |= _data(name, table)
    for printed in _printed(results):
        content[f"tables/{printed.label}.tex"] = latex(printed).encode()
        content[f"tables/{printed.label}.md"] = markdown(printed).encode()
    paragraph = methods_paragraph(results)
    content["methods.md"] = f"{markdown_text(paragraph)}\n".encode()
    content["methods.tex"] = f"{latex_text(paragraph)}\n".encode()
    content = {_MISSING: _missing_page(lacking).encode(), **content}  # first, since it tells a paper's folder
    try:
        if not _is_papers(folder) and (there := [name for name in content if (folder / name).exists()]):
            rule = "must be new, or hold no files of the names that a paper has"
            raise FaultsError("paper", [f"folder: {rule}, but {folder} holds {', '.join(there)}; name another"])
        for part in ("figures", "tables", "data"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        return [replace_file(folder / name, data) for name, data in content.items()]
    except OSError as error:
        raise FaultsError("paper", [f"folder: must be a folder that can be written, but got {error}"]) from error


def _is_papers(folder: Path) -> bool:
    """Whether a paper was written into a folder before. Raises `OSError`."""
    page = folder / _MISSING
    return page.is_file() and page.read_bytes().startswith(_HEADING.encode())


def _printed(results: Results) -> Iterator[PrintedTable]:
    """The tables of scores and of parameters; of several backbones, of each by itself, as a page has room for them."""
    names = results.backbone_names()
    if not names:
        scores, parameters = results.score_table(), results.parameter_table()
        yield printed_scores(scores, parameters)
        yield printed_parameters(parameters)
    trials, taken = results.trials(), set[str]()
    for backbone, name in names.items():
        own = trials.filter(pc.equal(trials["backbone"], backbone))
        configurations = group_by_configuration(own)
        scores, parameters = score_table(configurations), parameter_table(own, configurations)
        file = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:_MOST_OF_NAME]
        while file in taken:
            file += "-"
        taken.add(file)
        for printed in (printed_scores(scores, parameters), printed_parameters(parameters)):
            caption = f"{printed.caption.removesuffix('.')}. Backbone: {name}."
            yield replace(printed, label=f"{printed.label}-{file}", caption=caption)


def _figures(results: Results) -> Iterator[tuple[str, str, pa.Table]]:
    """Name of the files, name of the figure, its table."""
    points = results.points(normalize_to=None)
    reference = USUAL_REFERENCE if USUAL_REFERENCE in points["method"].to_pylist() else None
    yield "curve", "curve", results.curve(normalize_to=reference)
    yield "tasks", "tasks", points
    yield "tasks_validation", "tasks", results.points(normalize_to=None, split="validation")
    for each in ablation.each(results.ablation()):
        yield f"ablation-{each['trial_id'][0].as_py()}-{each['split'][0].as_py()}", "ablation", each
    for hyperparameter in results.searched():
        table = results.robustness(hyperparameter)
        if any(row["loss_to_best"] for row in table.to_pylist()):  # else every method has tried one value of it
            yield f"robustness_{hyperparameter}", "robustness", table
    asked: tuple[tuple[str, Any], ...] = (
        ("learning_curves", results.learning_curves),
        ("profile", results.profile),
        ("forest", results.paired_differences),
        ("critical_difference", results.ranks),
        ("pareto", lambda: _trade_off(results)),
        ("expected_validation", results.expected_validation),
        ("importance", results.importance),
        ("slices", results.tried),
        ("parallel_coordinates", results.tried),
    )
    for name, ask in asked:
        yield name, name, ask()


def _trade_off(results: Results) -> pa.Table:
    """Without rows where no trial's parameters are recorded, which is no fault of a paper and said there."""
    try:
        return results.trade_off()
    except FaultsError as unrecorded:
        return with_missing(results.tried().slice(0, 0), unrecorded.faults)


def _data(name: str, table: pa.Table) -> dict[str, bytes]:
    return {f"data/{name}.csv": csv_bytes(table), f"data/{name}.parquet": parquet_bytes(table)}


def _missing_page(lacking: dict[str, list[str]]) -> str:
    lines = [_HEADING, ""]
    told = {name: sentences for name, sentences in lacking.items() if sentences}
    for name, sentences in told.items():
        lines += [f"## {markdown_text(name)}", "", *(f"- {markdown_text(each)}" for each in sentences), ""]
    return "\n".join(lines if told else [*lines, "Nothing.", ""])

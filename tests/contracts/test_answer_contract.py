"""What an answer must do, whichever it is. Every entry of ANSWERS is tested the moment it exists."""

from __future__ import annotations

import functools
import html
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import pytest
import vl_convert

from orchestrator.analysis import figures
from orchestrator.analysis.answers import ANSWERS, Answer
from orchestrator.analysis.page.blocks import Block, Chart, Curves, Picture, Sentences, Shown
from orchestrator.analysis.report import write_report
from orchestrator.analysis.results import Results
from tests.orchestrator.analysis.conftest import ablation_of, costs_of, fail, results_of, sweep_rows

ROWS = sweep_rows()
BITING = {
    "trec": "</script><script>alert(1)</script>",
    "sms_spam": "=1+1 [red]\x1b[31m\u202e",
    "corporate_messaging": "a'];alert(2)//\\",
    "glue/cola": '"><img src=x onerror=alert(3)>',
}
SWEEPS: dict[str, Callable[[], Results]] = {
    "nothing has ended": lambda: results_of([]),
    "one trial": lambda: results_of(ROWS[:1]),
    "all failed": lambda: results_of([fail(row) for row in ROWS]),
    "one task": lambda: results_of([row for row in ROWS if row["task"] == "trec"]),
    "no reference": lambda: results_of(
        [row for row in ROWS if row["method"] != "full_finetuning" and row["task"] in ("trec", "glue/cola")]
    ),
    "names that bite": lambda: results_of(
        [{**row, "task": BITING[row["task"]]} for row in ROWS],
        data_warnings=[{"task": name, "warning": name, "sentence": name} for name in BITING.values()],
    ),
    "all of it": lambda: results_of(
        ROWS,
        ablations=pa.concat_tables([ablation_of("mrpc"), ablation_of("trec", num_layers=2)]),
        data_warnings=[{"task": "trec", "warning": "few-rows", "sentence": "test has 10 rows"}],
        inference_costs=costs_of(ROWS),
    ),
}

DAILY = {"nothing has ended", "one trial", "names that bite"}


@functools.cache
def results_of_sweep(sweep: str) -> Results:
    return SWEEPS[sweep]()


@functools.cache
def table_of(name: str, sweep: str) -> pa.Table:
    """What an answer says of a sweep; asked once for all tests."""
    return ANSWERS[name].ask(results_of_sweep(sweep))


@functools.cache
def figures_of(name: str, sweep: str) -> dict[str, Any]:
    """The figures of an answer; drawn once for all tests."""
    return dict(ANSWERS[name].draw(results_of_sweep(sweep), table_of(name, sweep)))


@pytest.fixture(params=ANSWERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def answer(name: str) -> Answer:
    return ANSWERS[name]


@pytest.fixture(scope="module")
def again() -> dict[str, Results]:
    """The same sweeps read a second time."""
    return {sweep: make() for sweep, make in SWEEPS.items()}


@pytest.fixture(scope="module")
def report_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The report of a sweep; written once for all tests."""

    @functools.cache
    def folder_of(sweep: str) -> Path:
        folder = tmp_path_factory.mktemp("report")
        write_report(SWEEPS[sweep](), folder, title="sweep")
        return folder

    return folder_of


def test_it_is_a_table_and_the_same_of_the_same_results(
    name: str, answer: Answer, again: dict[str, Results], subtests: pytest.Subtests
) -> None:
    for sweep in SWEEPS:
        with subtests.test(sweep):
            table = table_of(name, sweep)
            assert isinstance(table, pa.Table)
            assert len(set(table.column_names)) == table.num_columns > 0
            assert answer.ask(again[sweep]).equals(table)


def test_numbers_that_are_not_known_are_null(name: str, subtests: pytest.Subtests) -> None:
    for sweep in SWEEPS:
        with subtests.test(sweep):
            table = table_of(name, sweep)
            for column in table.column_names:
                if pa.types.is_floating(table.schema.field(column).type):
                    assert not pc.any(pc.is_nan(table[column])).as_py(), f"{column} holds NaN where null is meant"


def test_nothing_was_asked_of_a_sweep_without_trials(name: str, answer: Answer) -> None:
    table = table_of(name, "nothing has ended")
    assert len(table) == 0
    assert not answer.show(results_of_sweep("nothing has ended"), table)


def test_what_is_shown_is_text_and_figures_that_there_are(name: str, answer: Answer, subtests: pytest.Subtests) -> None:
    for sweep in SWEEPS:
        with subtests.test(sweep):
            blocks = answer.show(results_of_sweep(sweep), table_of(name, sweep))
            assert not blocks or answer.heading, "what is shown needs a heading"
            for block in blocks:
                check_block(block, figures_of(name, sweep))


def check_block(block: Block, drawn: dict[str, Any]) -> None:
    match block:
        case Picture():
            assert block.figure in drawn
            assert block.alt, "a figure needs words for those who do not see it"
        case Shown():
            assert block.table.title
            assert block.table.rows, "a table without rows is better not shown"
            for row in block.table.rows:
                assert len(row) == len(block.table.left) + len(block.table.right)
                assert all(isinstance(cell, str) for cell in row), row
        case Chart():
            assert block.alt, "a chart needs words for those who do not see it"
            assert block.picture is None or block.picture in drawn
            assert block.file in ANSWERS, "who runs no script is sent to the table"
            check_chart(block)
        case Curves():
            check_curves(block)
        case Sentences():
            assert block.items
            assert all(said.strip() for _, said in block.items)
        case _:
            assert block.text.strip()


def check_chart(chart: Chart) -> None:
    """Vega-Lite takes it with its rows, and nothing but these holds a name from the store."""
    assert chart.rows, "a chart without rows is better not shown"
    assert {row["series"] for row in chart.rows} <= set(chart.series)
    assert all(set(row) == set(chart.rows[0]) for row in chart.rows)
    names = {name for row in chart.rows for name in (row["task"], row["method"])}
    assert not any(json.dumps(name) in json.dumps(chart.spec) for name in names)
    assert all(axis.field in chart.rows[0] for axis in chart.axes)
    spec = {**chart.spec, "data": {"values": [*chart.rows]}}
    assert vl_convert.vegalite_to_vega(spec)["marks"]


def check_curves(block: Curves) -> None:
    assert block.curves
    assert set(block.picked) <= {curve.trial for curve in block.curves}
    for curve in block.curves:
        assert curve.name
        assert set(curve.values) == set(block.measures)
        assert {len(values) for values in curve.values.values()} == {len(curve.epochs)}


@pytest.mark.thorough
def test_its_figures_are_drawn_the_same_from_the_same_results(
    name: str, answer: Answer, report_of: Callable[[str], Path], again: dict[str, Results]
) -> None:
    results = again["all of it"]
    for stem, figure in answer.draw(results, answer.ask(results)).items():
        for kind in ("png", "svg"):
            assert figures.render(figure, kind) == (report_of("all of it") / f"{stem}.{kind}").read_bytes(), stem


# Writing a report takes seconds: those of every day are the smallest, and one of a whole sweep.
@pytest.mark.parametrize(
    "sweeps", [DAILY, pytest.param(SWEEPS.keys() - DAILY, marks=pytest.mark.thorough)], ids=["daily", "others"]
)
@pytest.mark.timeout(240)  # whichever answer is the first waits for all of its reports
def test_the_report_has_its_files_and_its_section(
    name: str, answer: Answer, sweeps: Iterable[str], report_of: Callable[[str], Path], subtests: pytest.Subtests
) -> None:
    for sweep in sorted(sweeps):
        with subtests.test(sweep):
            table, folder = table_of(name, sweep), report_of(sweep)
            files = {f"{name}.csv", f"{name}.parquet"}
            assert {file for file in files if (folder / file).exists()} == (
                files if len(table) or not answer.is_optional else set()
            )
            if (folder / f"{name}.parquet").exists():
                assert pyarrow.parquet.read_table(folder / f"{name}.parquet").equals(table)
                options = pyarrow.csv.ParseOptions(newlines_in_values=True)
                written = pyarrow.csv.read_csv(folder / f"{name}.csv", parse_options=options)
                assert written.column_names == table.column_names
            for stem in figures_of(name, sweep):
                assert (folder / f"{stem}.png").exists()
                assert (folder / f"{stem}.svg").exists()
            page = html.unescape((folder / "report.html").read_text(encoding="utf-8"))
            has_section = f"<h2>{answer.heading}</h2>" in page
            assert has_section == bool(answer.show(results_of_sweep(sweep), table))


def test_no_two_answers_write_the_same_file() -> None:
    stems = [stem for name in ANSWERS for stem in figures_of(name, "all of it")]
    assert len(set(stems)) == len(stems)
    assert "report" not in ANSWERS

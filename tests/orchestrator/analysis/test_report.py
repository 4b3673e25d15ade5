from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from orchestrator.analysis.answers import ANSWERS
from orchestrator.analysis.report import write_report
from orchestrator.analysis.results import Results
from orchestrator.analysis.text.side_by_side import parameters_table
from trainables.faults import FaultsError


@pytest.fixture(scope="module")
def names(finished: Results) -> set[str]:
    """The files of the report of the whole synthetic sweep, as its answers have them."""
    found = {"report.html"}
    for name, answer in ANSWERS.items():
        table = answer.ask(finished)
        found |= {f"{stem}.{kind}" for stem in answer.draw(finished, table) for kind in ("png", "svg")}
        found |= {f"{name}.{kind}" for kind in ("csv", "parquet") if len(table) or not answer.is_optional}
    return found


def test_the_files_are_those_that_scripts_read(names: set[str]) -> None:
    tables = {
        f"{stem}.{kind}" for stem in ("trials", "epochs", "best", "curve", "recommend") for kind in ("csv", "parquet")
    }
    assert names >= tables | {f"{stem}.{kind}" for stem in ("curve", "tasks") for kind in ("png", "svg")}


@pytest.fixture(scope="module")
def folder(finished: Results, names: set[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the whole synthetic sweep."""
    target = tmp_path_factory.mktemp("sweep") / "report"
    files = write_report(finished, target, title="A <sweep>", spec_json='{"name": "synthetic", "seeds": [0, 1, 2]}')
    assert {file.name for file in files} == names
    return target


@pytest.fixture
def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def write(results: Results, target: Path) -> str:
    write_report(results, target, title="sweep")
    return (target / "report.html").read_text(encoding="utf-8")


@pytest.mark.thorough
def test_nothing_but_the_report_is_left_in_the_folder(folder: Path, names: set[str]) -> None:
    assert {file.name for file in folder.iterdir()} == names


class _Reader(HTMLParser):
    """The words of the body in order, what the page loads, and whether every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.sources: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "body" in self.open and "script" not in self.open and data.strip():
            self.words.append(data.strip())


def test_the_page_says_first_how_many_trials_ended_how_and_then_how_was_chosen(page: str) -> None:
    reader = _Reader()
    reader.feed(page)
    assert reader.open == []
    assert reader.words[1:3] == ["A <sweep>", "144 trials: 142 completed, 2 failed."]
    (protocol,) = (words for words in reader.words if words.startswith("Selected on validation"))
    assert reader.words.index("What to ship") < reader.words.index(protocol)
    assert protocol.startswith("Selected on validation, reported on test: 48 configurations tried on 4 tasks")
    assert "reported on the validation split they were chosen on, which is optimistic: glue/cola." in protocol


def test_the_page_loads_nothing_from_elsewhere(page: str, names: set[str]) -> None:
    reader = _Reader()
    reader.feed(page)
    own = re.compile(r"data:image/svg\+xml;base64,|#")
    assert all(own.match(source) or source in names for source in reader.sources)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert not re.search(r"url\(|@import", style)
    assert "default-src &#39;none&#39;" in page


def test_the_page_shows_every_error_once_with_its_whole_text_and_its_trials(page: str) -> None:
    assert page.count("<strong>RuntimeError: loss is &lt;nan&gt;</strong>") == 1
    assert "2 trials" in page
    assert "File &#34;train.py&#34;, line 7, in train\nRuntimeError: loss is &lt;nan&gt;</pre>" in page


def test_the_page_says_where_the_numbers_come_from(page: str) -> None:
    for fact in (
        "2.13.0",
        "0123abc",
        "host-a/cpu",
        "minilm",
        "1 h 48 min",
        "f-trec (36 trials)",
        "&#34;synthetic&#34;",
    ):
        assert fact in page


def test_tables_are_readable_without_adaptune(folder: Path, finished: Results) -> None:
    for name, answer in (("best", finished.best()), ("curve", finished.curve()), ("trials", finished.trials())):
        assert pyarrow.parquet.read_table(folder / f"{name}.parquet").equals(answer)
        read = pyarrow.csv.read_csv(
            folder / f"{name}.csv", parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True)
        )
        assert (read.column_names, len(read)) == (answer.column_names, len(answer))
    text = (folder / "trials.csv").read_text(encoding="utf-8")
    assert '""commit"": ""0123abc""' in text


@pytest.fixture
def without_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that stand for pictures: drawing them takes long, and the contract of answers sees that they can be."""
    monkeypatch.setattr("orchestrator.analysis.figures.render", lambda figure, form: b"<svg></svg>")


@pytest.mark.usefixtures("without_drawing")
def test_the_same_results_give_the_same_tables(
    folder: Path, finished: Results, names: set[str], tmp_path: Path
) -> None:
    """And the same pictures: see `test_its_figures_are_drawn_the_same_from_the_same_results` of the answers."""
    write_report(finished, tmp_path, title="A <sweep>")
    tables = {name for name in names if name.endswith((".csv", ".parquet"))}
    assert len(tables) > 10
    for name in tables:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


Selection = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


@pytest.mark.usefixtures("without_drawing")
@pytest.mark.parametrize(
    ("select", "sentence"),
    [
        (lambda rows: [], "No trial has completed yet"),
        (lambda rows: rows[:1], "No task has a completed trial of full_finetuning"),
        (lambda rows: [r for r in rows if r["task"] == "trec"], "With one task there is no spread"),
        (
            lambda rows: [r for r in rows if r["method"] != "full_finetuning" or r["task"] == "trec"],
            "Left out, since full_finetuning has not completed on them: corporate_messaging, glue/cola, sms_spam.",
        ),
    ],
)
def test_an_unfinished_or_small_sweep_has_a_report_that_says_so(
    synthetic: Any, tmp_path: Path, select: Selection, sentence: str
) -> None:
    assert sentence in write(synthetic.results(select(synthetic.rows())), tmp_path)


@pytest.mark.usefixtures("without_drawing")
def test_a_report_replaces_its_predecessor(synthetic: Any, finished: Results, names: set[str], tmp_path: Path) -> None:
    write(synthetic.results([]), tmp_path)
    assert "144 trials" in write(finished, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == names


@pytest.mark.usefixtures("without_drawing")
def test_ablations_are_shown_each_with_its_heat_map_and_what_it_says(
    synthetic: Any, names: set[str], ablated: Callable[..., pa.Table], tmp_path: Path
) -> None:
    ablations = pa.concat_tables([ablated("mrpc"), ablated("trec", num_layers=2)])
    page = write(synthetic.results(synthetic.rows(), ablations=ablations), tmp_path)
    assert "What each layer's adapters are worth" in page
    assert page.count("of each span of layers") == 2
    assert page.index("without any 0.704") < page.index("without any 0.784")  # by task
    assert {file.name for file in tmp_path.iterdir()} == names | {
        "ablation.csv", "ablation.parquet",
        *(f"ablation-t-{task}-0-validation.{kind}" for task in ("mrpc", "trec") for kind in ("png", "svg")),
    }  # fmt: skip


@pytest.mark.usefixtures("without_drawing")
def test_more_failures_than_fit_the_page_are_counted(synthetic: Any, tmp_path: Path) -> None:
    rows = [synthetic.fail(row) for row in synthetic.rows()]
    page = write(synthetic.results(rows), tmp_path)
    assert "And 94 more, which trials.csv lists." in page
    other = [{**row, "error": f"ValueError: {number:03}"} for number, row in enumerate(rows)]
    page = write(synthetic.results(other), tmp_path)
    assert page.count('class="failure"') == 50
    assert "And 94 trials with other errors, which trials.csv lists." in page


def test_a_folder_that_cannot_be_written_is_a_fault(synthetic: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FaultsError, match="folder: must be a folder that can be written"):
        write_report(synthetic.results([]), tmp_path / "file", title="sweep")


def test_reading_results_needs_no_heavy_library() -> None:
    heavy = "{'torch', 'transformers', 'ray', 'mlflow', 'optuna', 'matplotlib', 'sklearn', 'scipy'}"
    modules = "orchestrator.analysis.results, orchestrator.analysis.text.tables, orchestrator.analysis.report"
    code = f"import sys, {modules}; sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_long_table_is_folded_and_each_is_headed_by_what_its_rows_are(synthetic: Any, tmp_path: Path) -> None:
    rows = [
        row
        for number in range(16)
        for options in ({"method": "layernorm", "learning_rate": rate} for rate in (1e-3, 1e-2, 1e-1))
        for row in synthetic.scored(options, [0.8, 0.9], task=f"t{number}")
    ] + [
        row
        for number in range(16)
        for row in synthetic.scored({"method": "full_finetuning", "learning_rate": 1e-4}, [0.8, 0.9], task=f"t{number}")
    ]
    write_report(synthetic.results(rows), tmp_path, title="t")
    page = (tmp_path / "report.html").read_text()
    assert "How much better the best looks on validation, where it was chosen, than on test (32 rows)</summary>" in page
    head = r"[^<]*</span></caption>\s*<thead><tr>\s*<th scope=\"col\">(\w+)"
    heads = re.findall(rf"<caption><span>(What each method scores|What it costs){head}", page)
    assert heads == [("What each method scores", "task"), ("What it costs", "method")]


def test_a_heading_of_numbers_is_no_wider_than_it_need_be() -> None:
    tasks = [f"a-task-with-a-really-quite-long-name-{number}-as-folders-have" for number in range(3)]
    scores = pa.table({"backbone": ["b"], "method": ["m"], "size": pa.nulls(1, pa.string())})
    for name in ("total_multiple", "trained_percent", "trained_percent_of_encoder", "average"):
        scores = scores.append_column(name, pa.array([0.5]))
    for task in tasks:
        scores = scores.append_column(f"score/{task}", pa.array([0.5]))
    heads = parameters_table(scores).right
    assert max(map(len, heads)) <= 24
    assert all(any(f"-{number}-" in head for head in heads) for number in range(3))


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_training_that_diverged_has_its_place_in_the_report(synthetic: Any, tmp_path: Path, value: float) -> None:
    rows = synthetic.scored({"method": "layernorm", "learning_rate": 1e-3}, [0.8, 0.9])
    rows += synthetic.scored({"method": "layernorm", "learning_rate": 1.0}, [value, value], test_score=value)
    results = synthetic.results(rows)
    epochs = results.epochs()
    losses = pa.array([value] * len(epochs))
    epochs = epochs.set_column(epochs.column_names.index("train/loss"), "train/loss", losses)
    write_report(Results(results.trials(), epochs), tmp_path, title="t")
    page = (tmp_path / "report.html").read_text()
    assert "layernorm learning_rate 1, seed 0" in page  # its curve
    assert not re.search(
        r"\b(NaN|Infinity|nan|inf)\b", re.sub(r"<script>.*?</script>|src=\"[^\"]*\"", "", page, flags=re.DOTALL)
    )

"""The page as a document: what a browser, a screen reader and somebody else's names make of it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from orchestrator.analysis.page.bundle import charting_library
from orchestrator.analysis.report import write_report
from orchestrator.analysis.results import Results

BITING = "</script><script>alert(1)</script><!--<b>[red]\x1b[31m\u202e\x07"
SHOWN = r"</script><script>alert(1)</script><!--<b>[red]\x1b[31m\u202e\x07"


class Document(HTMLParser):
    """Elements with their attributes, and the text of the scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._inside: list[str] = []
        self._labelled = 0
        self.unlabelled: list[dict[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("input", "select") and "label" not in self._inside:
            self.unlabelled.append(dict(attrs))
        if tag not in ("meta", "img", "input"):
            self._inside.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside.pop()

    def handle_data(self, data: str) -> None:
        if "script" in self._inside:
            self.scripts[-1] += data
        elif "style" not in self._inside:
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def write(results: Results, folder: Path, **options: Any) -> str:
    write_report(results, folder, title=options.pop("title", "sweep"), **options)
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(finished: Results, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(finished, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def document(page: str) -> Document:
    return Document(page)


@pytest.fixture(scope="module")
def drawn(document: Document) -> dict[str, Any]:
    return dict(json.loads(document.scripts[0]))


def test_it_has_one_title_one_main_and_no_id_twice(document: Document) -> None:
    assert (len(document.all("h1")), len(document.all("main")), document.all("html")[0]["lang"]) == (1, 1, "en")
    ids = [attributes["id"] for _, attributes in document.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    targets = {attributes["href"] for attributes in document.all("a")}
    assert {target for target in targets if target and target.startswith("#")} <= {f"#{name}" for name in ids}


def test_whoever_hears_or_types_is_told_what_everything_is(document: Document) -> None:
    assert document.unlabelled == []
    assert all(attributes["scope"] == "col" for attributes in document.all("th"))
    assert all(attributes["alt"] for attributes in document.all("img"))
    scrolled = [a for tag, a in document.elements if tag == "div" and a.get("class") == "scroll"]
    assert scrolled
    assert all((a["tabindex"], a["role"]) == ("0", "region") and a["aria-label"] for a in scrolled)


def test_without_scripts_the_tables_and_the_pictures_are_there(document: Document) -> None:
    assert document.all("noscript")
    alts = [attributes["alt"] for attributes in document.all("img")]
    assert len(set(alts)) == len(alts) >= 2  # the curve and its panels, and what only pictures show
    hidden = [a for _, a in document.elements if "js" in (a.get("class") or "").split()]
    assert len(hidden) > 5  # what only scripts can work is not shown without them
    text = " ".join(document.words)
    assert "corporate_messaging" in text
    assert "epochs.csv" in text


def test_only_its_own_scripts_may_run_and_nothing_may_be_loaded(document: Document) -> None:
    (policy,) = (a["content"] or "" for a in document.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in document.scripts[1:]]
    assert len(digests) == 2
    assert policy.startswith("default-src 'none';")
    assert re.findall(r"'sha256-([^']*)'", policy) == digests
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]


def test_it_carries_the_charting_library_as_it_is_packaged(document: Document) -> None:
    library = charting_library()
    assert document.scripts[1] == library
    assert "BSD 3-Clause" in library[:300]
    assert "</script" not in library


def test_charts_are_drawn_from_the_answers(drawn: dict[str, Any], finished: Results) -> None:
    curve, tasks, settings = drawn["charts"]
    points = finished.points()
    assert len(tasks["rows"]) == len(points)
    assert {row["task"] for row in curve["rows"]} == set(drawn["tasks"])
    for row, point in zip(curve["rows"], points.to_pylist(), strict=True):
        assert row["value"] == pytest.approx(100 * point["delta"], abs=1e-5)
    assert {axis["title"] for axis in settings["axes"]} == {
        "trained parameters", "engine seconds a trial", "adapter_size", "num_layers", "learning_rate",
    }  # fmt: skip
    for chart in drawn["charts"]:
        assert len({(series["color"], series["shape"]) for series in chart["series"]}) == len(chart["series"])


def test_learning_curves_are_those_of_the_epochs(drawn: dict[str, Any], finished: Results) -> None:
    (block,) = drawn["curves"]
    curve = block["curves"][0]
    own = [row for row in finished.epochs().to_pylist() if row["trial_id"] == curve["id"]]
    measure = block["measures"].index("validation_score")
    assert curve["values"][measure] == [pytest.approx(row["validation_score"], rel=1e-3) for row in own]


@pytest.fixture(scope="module")
def bitten(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Document:
    from tests.orchestrator.analysis.conftest import fail, results_of, sweep_rows

    rows = [{**row, "task": BITING} if row["task"] == "trec" else row for row in sweep_rows()]
    rows = [{**fail(row), "error": f"first\n{BITING}"} if row["seed"] == 2 else row for row in rows]
    spec = json.dumps({"name": BITING})
    with pytest.MonkeyPatch.context() as patch:
        _draw_nothing(patch)
        return Document(write(results_of(rows), tmp_path_factory.mktemp("bitten"), title=BITING, spec_json=spec))


def _draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Drawing takes long, and the contract of answers sees that such names can be drawn."""
    patch.setattr("orchestrator.analysis.figures.render", lambda figure, form: b"<svg></svg>")


def test_names_that_would_be_markup_are_text(bitten: Document) -> None:
    assert len(bitten.scripts) == 3
    assert not bitten.all("b")
    assert SHOWN in [word.strip() for word in bitten.words]
    data = json.loads(bitten.scripts[0])
    assert SHOWN in data["tasks"]
    assert SHOWN in {row["task"] for row in data["charts"][0]["rows"]}
    assert "<" not in bitten.scripts[0]


def test_names_reach_nothing_as_control_characters(bitten: Document) -> None:
    everything = "".join([*bitten.words, *bitten.scripts[:1], *(str(a) for _, a in bitten.elements)])
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", everything)


@pytest.mark.thorough
def test_a_thousand_trials_of_ten_epochs_stay_below_five_megabytes(
    synthetic: Any, tmp_path: Path, many: Callable[[int], Results]
) -> None:
    assert len(write(many(1000), tmp_path).encode()) < 5e6


@pytest.fixture
def many(synthetic: Any) -> Callable[[int], Results]:
    """So many trials of ten epochs on up to eight tasks: seeds enough to make that number."""
    import pyarrow as pa

    def make(number: int) -> Results:
        tasks = [synthetic.task(f"task {index}") for index in range(min(8, -(-number // 36)))]
        rows = synthetic.rows(tasks=tasks, seeds=range(-(-number // (12 * len(tasks)))))[:number]
        epochs = [
            {"trial_id": row["trial_id"], "epoch": e, "train/loss": 1 / e, "validation_score": 0.8123 + e / 1000}
            for row in rows for e in range(1, 11)
        ]  # fmt: skip
        return Results(synthetic.results(rows).trials(), pa.Table.from_pylist(epochs))

    return make


def test_what_does_not_fit_the_page_is_said(
    many: Callable[[int], Results], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _draw_nothing(monkeypatch)
    monkeypatch.setattr("orchestrator.analysis.page.learning.MOST_TRIALS", 40)
    monkeypatch.setattr("orchestrator.analysis.page.learning._MOST_EPOCHS", 200)
    page = write(many(72), tmp_path)
    assert "Of 72 trials with epochs, the 20 that were best on validation of each task and method" in page

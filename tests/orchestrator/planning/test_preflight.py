"""What is odd in the data of a sweep is found before it trains, and shown shortly."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from orchestrator.cli import main
from orchestrator.cli.data import brief
from orchestrator.planning.plan import plan_sweep
from orchestrator.planning.preflight import SCHEMA, data_warnings


def write(folder: Path, train: list[str], test: list[str], **said: Any) -> str:
    folder.mkdir()
    rows = {"train": train, "validation": [f"validation {n}" for n in range(60)], "test": test}
    for split, texts in rows.items():
        table = pa.table({"text_a": texts, "label": (["bad", "good"] * len(texts))[: len(texts)]})
        pyarrow.parquet.write_table(table, folder / f"{split}.parquet")
    (folder / "task.json").write_text(json.dumps(said), encoding="utf-8")
    return str(folder)


def sweep(*tasks: str, **changes: Any) -> dict[str, Any]:
    return {"name": "odd", "tasks": list(tasks), "seeds": [0], "methods": ["layernorm"], **changes}


RANDOM = {"algorithm": "random", "num_samples": 2}
TRAIN = [f"train {n}" for n in range(120)]


@pytest.fixture
def odd(tmp_path: Path) -> str:
    """A task whose test split holds rows of train."""
    return write(tmp_path / "odd", TRAIN, TRAIN[:60])


def found(*tasks: str, **changes: Any) -> list[tuple[str, str]]:
    table = data_warnings(plan_sweep(sweep(*tasks, **changes)))
    assert table.schema == SCHEMA
    return [(row["task"], row["warning"]) for row in table.to_pylist()]


def test_each_task_is_looked_at_with_the_backbone_and_the_longest_length_of_the_sweep(odd: str, tmp_path: Path) -> None:
    long = write(
        tmp_path / "long",
        [f"{text} {'word ' * (n % 9 + 36)}" for n, text in enumerate(TRAIN)],
        [f"test {n}" for n in range(60)],
    )
    both = [("odd", "rows-in-two-splits")]
    assert found(odd, long, space={"max_length": {"grid": [16, 64]}}) == both
    assert found(odd, long, space={"max_length": {"grid": [16, 32]}}) == [*both, ("long", "cut-texts")]


@pytest.fixture
def long(tmp_path: Path) -> str:
    """A task whose texts have some 40 word pieces."""
    texts = [f"{text} {'word ' * (n % 9 + 36)}" for n, text in enumerate(TRAIN)]
    return write(tmp_path / "long", texts, [f"test {n}" for n in range(60)])


def test_a_length_below_a_method_counts(long: str) -> None:
    cut = [("long", "cut-texts")]
    assert found(long) == []
    assert found(long, methods=[{"adapter": {"max_length": 16}}]) == cut
    assert found(long, methods=[{"adapter": {"max_length": {"randint": [8, 16]}}}], search=RANDOM) == cut
    assert found(long, methods=[{"adapter": {"max_length": 16}}, "layernorm"]) == []
    assert found(long, space={"max_length": 16}, methods=[{"adapter": {"max_length": 64}}]) == []
    # Words of a method's own are no word pieces.
    assert found(long, space={"max_length": 16}, methods=["layernorm", {"no_bert": {"max_length": 128}}]) == cut


def test_texts_are_held_to_the_positions_of_a_backbone_that_has_fewer_than_usual(
    long: str, small_backbone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ("long", "cut-texts") in found(long, backbone=str(small_backbone))
    assert main(["data", long, "--backbone", str(small_backbone), "--json"]) == 0
    (task,) = json.loads(capsys.readouterr().out)["tasks"]
    assert task["word_pieces"]["max_length"] == 16, "its positions, as in a sweep"


def test_what_a_task_silences_is_not_said(tmp_path: Path) -> None:
    assert found(write(tmp_path / "odd", TRAIN, TRAIN[:60], silence=["rows-in-two-splits"])) == []


def test_rows_that_are_in_no_batch_are_told_of_where_they_are_many(tmp_path: Path) -> None:
    task = write(tmp_path / "few", TRAIN[:45], [f"test {n}" for n in range(60)])
    once = {"num_epochs": {"grid": [1, 9]}, "batch_size": {"grid": [8, 32]}}
    (row,) = data_warnings(plan_sweep(sweep(task, space=once))).to_pylist()
    assert row["warning"] == "rows-never-trained"
    assert row["sentence"].startswith("13 of 45 rows of all epochs are trained on in no step at batch_size 32 and num")
    assert found(task, space={"num_epochs": 9}) == []  # 405 rows, of which 21 are left out
    assert found(task, space=once, methods=["linear_probe"]) == []  # fitted to all rows
    silenced = write(tmp_path / "known", TRAIN[:45], [f"test {n}" for n in range(60)], silence=["rows-never-trained"])
    assert found(silenced, space=once) == []


def test_a_plan_shows_it(
    odd: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sweep.yaml").write_text(json.dumps(sweep(odd)), encoding="utf-8")
    assert main(["plan", "sweep.yaml"]) == 0
    assert "Data: task odd: rows-in-two-splits: 60 of 60 rows of test stand in other" in capsys.readouterr().out
    assert main(["plan", "sweep.yaml", "--json"]) == 0
    (warning,) = json.loads(capsys.readouterr().out)["data_warnings"]
    assert (warning["task"], warning["warning"]) == ("odd", "rows-in-two-splits")


def test_of_many_warnings_a_handful_is_shown() -> None:
    rows = [{"task": task, "warning": "few-rows", "sentence": "it has"} for task in ("a", "a", "b", *["c"] * 9)]
    lines = brief(pa.Table.from_pylist(rows, schema=SCHEMA))
    assert len(lines) == 2 + 1 + 5 + 1 + 1
    assert lines[-2] == "Data: task c: 4 more warnings"
    assert brief(SCHEMA.empty_table()) == []


def test_a_large_task_costs_no_more_than_a_sample_of_it(tmp_path: Path) -> None:
    size = 200_000
    task = write(tmp_path / "large", [f"row {n} of train" for n in range(size)], [f"test {n}" for n in range(60)])
    plan = plan_sweep(sweep(task))
    before = time.process_time()
    data_warnings(plan)
    assert time.process_time() - before < 2


def test_of_a_task_with_folds_the_first_fold_is_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twice = [*TRAIN, *TRAIN[:60]]  # equal texts are in one fold, and so in no two splits
    cut = write(tmp_path / "cut", twice, [f"test {n}" for n in range(60)])
    assert ("cut", "repeated-rows") in found(cut, folds=4)
    assert not [name for _, name in found(cut, folds=4) if name == "rows-in-two-splits"]
    own = write(tmp_path / "own", twice, [f"test {n}" for n in range(60)], folds=4)
    assert main(["data", own, "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["tasks"]
    assert [answer["splits"][split]["rows"] for split in ("train", "validation", "test")] == [180, 60, 60]
    assert "train and validation are put together and cut into 4 folds (seed 0)" in answer["notes"]
    assert answer["notes"][-1] == "below, validation is fold 0 and train are the others"
    assert answer["task_json"]["folds"] == 4

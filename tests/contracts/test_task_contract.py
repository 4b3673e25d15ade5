"""What a task family must do, whichever it is. Every file of trainables/tasks is tested the moment it exists.

A family whose tasks need data that a test must first put somewhere adds a function to EXAMPLES; a family that knows
its tasks by name and needs no data adds nothing.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from trainables import metrics, tasks
from trainables.data import squad
from trainables.faults import FaultsError

ROWS = ["text_a,label", *(f"sentence number {row},{row % 2}" for row in range(8))]


def write_folder(folder: Path) -> None:
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        (folder / f"{split}.csv").write_text("\n".join(ROWS), encoding="utf-8")


def folder_example(request: pytest.FixtureRequest) -> str:
    folder = request.getfixturevalue("tmp_path") / "my_task"
    write_folder(folder)
    return f"folder/{folder}"


def squad_example(request: pytest.FixtureRequest) -> str:
    folder = request.getfixturevalue("tmp_path") / "questions"
    folder.mkdir()
    qas = [{"id": str(row), "question": "Who?", "answers": [{"text": "b", "answer_start": 2}]} for row in range(3)]
    content = json.dumps({"data": [{"paragraphs": [{"context": "a b c", "qas": qas}]}]})
    for split in ("train", "validation", "test"):
        (folder / f"{split}.json").write_text(content, encoding="utf-8")
    return f"folder/{folder}"


def additional_example(request: pytest.FixtureRequest) -> str:
    root = request.getfixturevalue("tmp_path")
    write_folder(root / "sms_spam")
    request.getfixturevalue("monkeypatch").setenv("ADAPTUNE_DATA", str(root))
    return "additional/sms_spam"


def hub_table() -> pa.Table:
    return pa.table({"sentence": [f"sentence {row}" for row in range(6)], "label": [0, 1] * 3})


def glue_example(name: str, request: pytest.FixtureRequest) -> str:
    from trainables.tasks import glue

    info, source = glue.describe(name), glue._source(name)
    labels = [0.25, 1.5] * 3 if info.kind == "regression" else [row % info.num_labels for row in range(6)]
    texts = {column: [f"{column} {row}" for row in range(6)] for column in source.columns.values() if column != "label"}
    rows = pa.table({**texts, "label": labels, "idx": list(range(6))})
    hidden = rows.set_column(rows.column_names.index("label"), "label", pa.array([-1] * 6, rows["label"].type))
    splits = {called: hidden if split.startswith("test") else rows for split, called in source.splits.items()}
    request.getfixturevalue("hub_cache")(glue.DATASET, glue.REVISION, name, splits, info.label_names)
    return f"glue/{name}"


def hub_example(request: pytest.FixtureRequest) -> str:
    splits = {"train": hub_table(), "validation": hub_table()}
    request.getfixturevalue("hub_cache")("someone/words", "a" * 40, "default", splits, ("no", "yes"))
    return f"hub/someone/words@{'a' * 40}?text_a=sentence"


# family -> how to make tasks of it that can be loaded here
EXAMPLES: dict[str, list[Callable[[pytest.FixtureRequest], str]]] = {
    "additional": [additional_example],
    "folder": [folder_example, squad_example],
    "glue": [partial(glue_example, name) for name in tasks._family("glue").names()],
    "hub": [hub_example],
}


@pytest.fixture(params=tasks.families())
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(
    params=[(family, index) for family in tasks.families() for index in range(len(EXAMPLES.get(family, ("one",))))],
    ids=lambda param: f"{param[0]}{param[1]}",
)
def reference(request: pytest.FixtureRequest) -> str:
    """A task of each family that can be loaded here; of GLUE all nine."""
    family, index = request.param
    if family in EXAMPLES:
        return EXAMPLES[family][index](request)
    known = [name for name in tasks.known_names() if name.startswith(f"{family}/")]
    assert known, f"family {family} knows no task by name: add how to make one to EXAMPLES"
    return known[0]


def assert_consistent(info: tasks.TaskInfo) -> None:
    assert info.name
    assert info.source
    assert metrics.get(info.metric).kind == info.kind
    if info.kind == "regression":
        assert (info.num_labels, info.label_names) == (1, ())
    else:
        assert info.num_labels >= 2
        assert len(info.label_names) in (0, info.num_labels)


def test_every_task_known_by_name_can_be_described(family: str) -> None:
    for name in tasks.known_names():
        if name.startswith(f"{family}/"):
            assert_consistent(tasks.describe(name))


def test_an_unknown_name_is_refused_with_the_known_ones(family: str) -> None:
    known = [name for name in tasks.known_names() if name.startswith(f"{family}/")]
    for ask in (tasks.describe, tasks.load):
        with pytest.raises(FaultsError) as refusal:
            ask(f"{family}/no such task")
        assert all(name.partition("/")[2] in str(refusal.value) for name in known)


def test_rows_are_what_the_description_says(reference: str) -> None:
    task = tasks.load(reference)
    info = task.info
    assert_consistent(info)
    assert tasks.describe(reference) == info
    ordinary = [split for split in task.splits if split in tasks.SPLITS]
    assert ordinary in (["train", "validation"], ["train", "validation", "test"])
    further = list(task.splits)[len(ordinary) :]
    assert further == sorted(further)
    assert all(re.fullmatch(r"(validation|test)_\w+", split) for split in further)
    for table in task.splits.values():
        texts = ["text_a", "text_b"] if info.pair else ["text_a"]
        assert table.num_rows > 0
        assert all(column.null_count == 0 for column in table.columns)
        if info.kind == "extractive_qa":
            assert table.schema == squad.SCHEMA
            continue
        assert table.column_names == [*texts, "label"]
        assert all(table.schema.field(name).type == pa.string() for name in texts)
        assert table.schema.field("label").type == (pa.float64() if info.kind == "regression" else pa.int64())
        if info.kind == "classification":
            lowest, highest = pc.min_max(table["label"]).as_py().values()
            assert 0 <= lowest <= highest < info.num_labels


def test_the_same_task_has_the_same_fingerprint(reference: str) -> None:
    first = tasks.load(reference)
    module = tasks._family(reference.partition("/")[0])
    for function in vars(module).values():
        if hasattr(function, "cache_clear"):
            function.cache_clear()  # so that the second load reads again
    assert re.fullmatch(r"[0-9a-f]{64}", first.fingerprint)
    assert tasks.load(reference).fingerprint == first.fingerprint


def test_a_task_info_is_a_value(reference: str) -> None:
    info = tasks.describe(reference)
    assert dataclasses.replace(info) == info
    assert hash(dataclasses.replace(info)) == hash(info)

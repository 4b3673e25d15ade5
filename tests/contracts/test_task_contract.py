"""What a task family must do, whichever it is. Every file of trainables/tasks is tested the moment it exists.

A family whose tasks need data that a test must first put somewhere adds a function to EXAMPLES; a family that knows
its tasks by name and needs no data adds nothing.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from trainables import metrics, tasks
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


def additional_example(request: pytest.FixtureRequest) -> str:
    root = request.getfixturevalue("tmp_path")
    write_folder(root / "sms_spam")
    request.getfixturevalue("monkeypatch").setenv("ADAPTUNE_DATA", str(root))
    return "additional/sms_spam"


def hub_table() -> pa.Table:
    return pa.table({"sentence": [f"sentence {row}" for row in range(6)], "label": [0, 1] * 3})


def glue_example(request: pytest.FixtureRequest) -> str:
    from trainables.tasks import glue

    splits = {"train": hub_table(), "validation": hub_table()}
    request.getfixturevalue("hub_cache")(glue.DATASET, glue.REVISION, "cola", splits, ("unacceptable", "acceptable"))
    return "glue/cola"


def hub_example(request: pytest.FixtureRequest) -> str:
    splits = {"train": hub_table(), "validation": hub_table()}
    request.getfixturevalue("hub_cache")("someone/words", "a" * 40, "default", splits, ("no", "yes"))
    return f"hub/someone/words@{'a' * 40}?text_a=sentence"


EXAMPLES: dict[str, Callable[[pytest.FixtureRequest], str]] = {
    "additional": additional_example,
    "folder": folder_example,
    "glue": glue_example,
    "hub": hub_example,
}


@pytest.fixture(params=tasks.families())
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def reference(family: str, request: pytest.FixtureRequest) -> str:
    """A task of the family that can be loaded here."""
    if family in EXAMPLES:
        return EXAMPLES[family](request)
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
    assert list(task.splits) in (["train", "validation"], ["train", "validation", "test"])
    for table in task.splits.values():
        texts = ["text_a", "text_b"] if info.pair else ["text_a"]
        assert table.column_names == [*texts, "label"]
        assert table.num_rows > 0
        assert all(table.schema.field(name).type == pa.string() for name in texts)
        assert table.schema.field("label").type == (pa.float64() if info.kind == "regression" else pa.int64())
        assert all(column.null_count == 0 for column in table.columns)
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

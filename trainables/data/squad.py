"""Questions whose answer stands in a text: files in the format of SQuAD v1.1, read into a checked Task.

A file is one JSON object: `data` is a list of articles, an article's `paragraphs` each have a `context` and `qas`, and
of these each has an `id`, a `question` and `answers`, a list of `text` and `answer_start`, the place of its first
character in the context. Further keys are welcome. The same as a question a row, as the Hugging Face hub has it, is
`id`, `question`, `context` and `answers`, in .jsonl or .parquet.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import pyarrow as pa
import pyarrow.parquet

from trainables import metrics
from trainables.data.encoding import COMPRESSIONS, opened
from trainables.data.layout import CALLED, ending_of
from trainables.data.rows import Declared, declaration_faults, metric_faults
from trainables.faults import FaultsError
from trainables.task import FURTHER_SPLIT, SPLITS, Reading, Task, TaskInfo, fingerprint, in_order

SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "text_a": pa.string(),  # the question
        "text_b": pa.string(),  # the context
        "answers": pa.list_(pa.struct({"text": pa.string(), "start": pa.int64()})),
    }
)
# What the authors of SQuAD call the files of a split.
OFFICIAL_NAMES = {
    f"{called}-{version}.json": split
    for version in ("v1.1", "v2.0")
    for called, split in (("train", "train"), ("dev", "validation"), ("test", "test"))
}

_COLUMNS = {"question", "context", "answers"}

# What a file must keep to; a fault names the rule and the places that do not.
OBJECTS = "every {} must be a list of objects"
CONTEXT = "every paragraph must have a non-empty text `context`"
ID = "every question must have an `id`, a non-empty text or a whole number"
UNIQUE = "every id must differ from all others of the split"
QUESTION = "every question must have a text `question`"
ANSWERED = "every question must have an answer (those that have none are of SQuAD v2.0, another task)"
ANSWER = "every answer must have a non-empty `text` and a whole number `answer_start`"
PLACE = "every answer must stand in its context, its first character at `answer_start`"

Misses = dict[str, list[str]]  # rule -> the places that do not keep it


def split_files(names: Sequence[str]) -> dict[str, list[str]]:
    """The files of a folder in this format, by split: one a split if all is well."""
    found: dict[str, list[str]] = {}
    others: dict[str, list[str]] = {}
    for name in sorted(names):
        called = name.removesuffix(Path(name).suffix) if Path(name).suffix in COMPRESSIONS else name
        split = OFFICIAL_NAMES.get(called, called.removesuffix(".json"))
        if not called.endswith(".json"):
            continue
        if split in SPLITS or FURTHER_SPLIT.fullmatch(split):
            found.setdefault(split, []).append(name)
        elif (other := CALLED.get(split.lower())) in SPLITS:
            others.setdefault(other, []).append(name)
    found = {**others, **found}
    return {split: found[split] for split in in_order(found)}


def load_squad(
    folder: Path,
    names: Sequence[str],
    declared: Declared,
    faults: Sequence[str] = (),
    *,
    files: Mapping[str, Sequence[str]] | None = None,
) -> Task:
    """Read and check the files of a folder and put the task together; `files` are those of each split, if chosen.

    The first answer of a question is the one that is trained on; a prediction is held against all of them. A test
    split without any answers is left out. Raises `FaultsError` with all faults at once, those given included.
    """
    kind: metrics.TaskKind = "extractive_qa"
    metric = declared.metric or metrics.DEFAULT_METRIC[kind]
    faults = [*faults, *declaration_faults(declared), *metric_faults(metric, kind)]
    if declared.pair is False:
        faults.append(f"pair: must be true or absent where kind is {kind}")
    files = split_files(names) if files is None else files
    splits = {}
    for split, candidates in files.items():
        if len(candidates) > 1:
            faults.append(f"{split}: one file may hold a split, but there are {', '.join(candidates)}")
            continue
        table, found = read_squad(folder / candidates[0], answers_optional=split.startswith("test"))
        faults += [f"{split}: {candidates[0]}: {fault}" for fault in found]
        if table is not None:
            splits[split] = table
    for split in ("train", "validation"):
        if split not in files:
            known = [f"{split}.json", *[name for name, of in OFFICIAL_NAMES.items() if of == split][:1]]
            held = ", ".join(names[:10]) or "nothing"
            faults.append(f"{split}: needs a file {' or '.join(known)}, but {folder} holds {held}")
    if faults:
        raise FaultsError(f"task {declared.name}", faults)
    info = TaskInfo(
        name=declared.name, kind=kind, pair=True, num_labels=2, label_names=(), metric=metric, source=declared.source
    )
    return Task(
        info=info,
        splits=splits,
        fingerprint=fingerprint(info, splits),
        silence=declared.silence,
        folds=declared.folds,
        readings=tuple(
            Reading(split=split, files=tuple(files[split]), columns=(), rows=table.num_rows)
            for split, table in splits.items()
        ),
    )


def read_squad(path: Path, *, answers_optional: bool = False) -> tuple[pa.Table | None, list[str]]:
    """The questions of a file as a table of `SCHEMA`, and its faults.

    With `answers_optional` the table of a file without a single answer is None, and that is no fault.
    """
    try:
        flat = is_flat(path)
        document = _nested(path) if flat else json.loads(_text(path))
    except UnicodeDecodeError as fault:
        return None, [f"cannot be read: save it as UTF-8, which it is not ({fault})"]
    except (pa.ArrowException, OSError, ValueError, RecursionError) as fault:
        return None, [f"cannot be read: {' '.join(str(fault).split())}"]
    if not isinstance(document, dict):
        return None, [f"must be an object with a list `data`, but is {type(document).__name__}"]
    misses: Misses = {}
    questions = list(_questions(document, misses))
    hidden = answers_optional and not any(question["answers"] for question in questions)
    if hidden:
        misses.pop(ANSWERED, None)
    counts = Counter(question["id"] for question in questions if question["id"])
    repeated = [f"{name!r} ({count} times)" for name, count in counts.items() if count > 1]
    if repeated:
        misses[UNIQUE] = repeated
    faults = [_fault(rule, [_row_of(p) for p in places] if flat else places) for rule, places in misses.items()]
    if not questions and not faults:
        faults.append("must have at least 1 question, but has 0")
    if hidden or faults:
        return None, faults
    try:
        return pa.Table.from_pylist(questions, schema=SCHEMA), []
    except ValueError as fault:  # JSON can say half a character
        return None, [f"must be text in UTF-8, but {fault}"]


def is_flat(path: Path) -> bool:
    """Whether the rows of a file are questions, one a row, with their contexts. Raises what reading it raises."""
    if ending_of(path.name) == ".parquet":
        with pa.parquet.ParquetFile(path) as file:
            return set(file.schema_arrow.names) >= _COLUMNS
    if ending_of(path.name) not in (".jsonl", ".ndjson", ".json"):
        return False
    with opened(path) as content:
        first = next((line for line in content if line.strip()), b"null").decode("utf-8-sig")
    try:
        row = json.loads(first)
    except ValueError:  # of several lines
        row = json.loads(_text(path)) if first.lstrip().startswith("[") else None
    row = row[0] if isinstance(row, list) and row else row
    return isinstance(row, dict) and row.keys() >= _COLUMNS


def _text(path: Path) -> str:
    with opened(path) as content:
        return content.read().decode("utf-8-sig")


def _nested(path: Path) -> dict[str, Any]:
    """The rows of a flat file as the one object that SQuAD's own files are, a paragraph a row."""
    rows: list[Any]
    if ending_of(path.name) == ".parquet":
        with pa.parquet.ParquetFile(path) as file:
            rows = file.read().to_pylist()
    elif (text := _text(path)).lstrip().startswith("["):
        rows = json.loads(text)
    else:
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    paragraphs = []
    for row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"every row must be an object, but one is {type(row).__name__}")
        answers = row.get("answers")
        if isinstance(answers, dict):  # a list of texts and one of places, as the hub keeps them
            texts, starts = answers.get("text"), answers.get("answer_start")
            if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
                raise ValueError("answers must have as many entries of text as of answer_start, in every row")
            pairs = zip(texts, starts, strict=True)
            answers = [{"text": text, "answer_start": start} for text, start in pairs]
        question = {"id": row.get("id"), "question": row.get("question"), "answers": answers}
        paragraphs.append({"context": row.get("context"), "qas": [question]})
    return {"data": [{"paragraphs": paragraphs}]}


def _row_of(place: str) -> str:
    """A place in `_nested` as the row of the file."""
    return re.sub(r"data\[0\]\.paragraphs\[(\d+)\](\.qas\[0\])?", lambda match: f"row {int(match[1]) + 1}", place)


def _questions(document: Mapping[str, Any], misses: Misses) -> Iterator[dict[str, Any]]:
    """Every question as a row; what breaks a rule is noted and left out or empty."""
    for paragraph, here in [
        found
        for article, place in _objects(document, "data", "", misses)
        for found in _objects(article, "paragraphs", f"{place}.", misses)
    ]:
        context = paragraph.get("context")
        if not _is_text(context) or not context.strip():
            _miss(misses, CONTEXT, here)
            context = None
        for question, place in _objects(paragraph, "qas", f"{here}.", misses):
            name = question.get("id")
            name = str(name) if isinstance(name, int) and not isinstance(name, bool) else name
            if not _is_text(name) or not name:
                _miss(misses, ID, place)
                name = None
            at = f"{place} (id {name!r})" if name else place
            # A blank question is taken as it is: published sets have odd ones.
            if not _is_text(question.get("question")):
                _miss(misses, QUESTION, at)
            answers = _answers(question, context, at, misses)
            yield {"id": name, "text_a": question.get("question"), "text_b": context, "answers": answers}


def _answers(question: Mapping[str, Any], context: str | None, place: str, misses: Misses) -> list[dict[str, Any]]:
    answers = []
    given = _objects(question, "answers", f"{place}.", misses) if question.get("answers") else []
    if not question.get("answers"):
        _miss(misses, ANSWERED, place)
    for answer, here in given:
        text, start = answer.get("text"), answer.get("answer_start")
        if not _is_text(text) or not text.strip() or not isinstance(start, int) or isinstance(start, bool):
            _miss(misses, ANSWER, here)
            continue
        if context is not None and (start < 0 or context[start : start + len(text)] != text):
            stands = repr(context[start : start + len(text)]) if 0 <= start < len(context) else "nothing"
            _miss(misses, PLACE, f"{here}: {text!r} at {start}, where there is {stands}")
        answers.append({"text": text, "start": start})
    return answers


def _objects(holder: Mapping[str, Any], key: str, place: str, misses: Misses) -> list[tuple[Mapping[str, Any], str]]:
    """The objects of a list, each with where it stands: `data[0].paragraphs[2]`."""
    values = holder.get(key)
    if not isinstance(values, list):
        _miss(misses, OBJECTS.format(f"`{key}`"), f"{place}{key}")
        return []
    places = [f"{place}{key}[{index}]" for index in range(len(values))]
    for value, here in zip(values, places, strict=True):
        if not isinstance(value, dict):
            _miss(misses, OBJECTS.format(f"`{key}`"), here)
    return [(value, here) for value, here in zip(values, places, strict=True) if isinstance(value, dict)]


def _miss(misses: Misses, rule: str, place: str) -> None:
    misses.setdefault(rule, []).append(place)


def _fault(rule: str, places: Sequence[str], at_most: int = 5) -> str:
    shown = "; ".join(places[:at_most]) + ("; ..." if len(places) > at_most else "")
    return f"{rule}, but {len(places)} {'does' if len(places) == 1 else 'do'} not: {shown}"


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str)

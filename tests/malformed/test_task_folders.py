"""Task folders whose files, columns or rows are not what they must be."""

from __future__ import annotations

import gzip
import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ROWS = [("one text", 0), ("another", 1), ("a third", 1), ("one more", 0)]
CSV = "text_a,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS)
TSV = CSV.replace(",", "\t")
JSONL = "".join(json.dumps({"text_a": text, "label": label}) + "\n" for text, label in ROWS)
TABLE = {"text_a": [text for text, _ in ROWS], "label": [label for _, label in ROWS]}
GOOD: Mapping[str, Any] = {"train.csv": CSV, "validation.csv": CSV}


def parquet(columns: Mapping[str, Any] = TABLE) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(dict(columns)), sink)
    return bytes(sink.getvalue())


WHOLE = parquet()
NEEDS = "needs a file train{.parquet,.csv,.tsv,.jsonl}"
UNREADABLE = "cannot be read"
FASTTEXT = "".join(f"__label__{label} {text}\n" for text, label in ROWS)


def zipped(**files: str) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return sink.getvalue()


class Folder(NamedTuple):
    """What differs from a sound folder (None: the file is taken away), and what must be said of it, if anything."""

    files: Mapping[str, str | bytes | None]
    said: tuple[str, ...] = ()


def train(name: str, content: str | bytes, *said: str) -> Folder:
    return Folder({"train.csv": None, name: content}, said)


def csv(rows: str, *said: str) -> Folder:
    return train("train.csv", "text_a,label\n" + rows, *said)


def columns(*said: str, **changed: Any) -> Folder:
    return train(
        "train.parquet", parquet({name: v for name, v in {**TABLE, **changed}.items() if v is not None}), *said
    )


def labels(values: Any, *said: str) -> Folder:
    return columns(*said, label=values)


def everywhere(values: Any) -> Folder:
    """Sound labels of both splits."""
    content = parquet({**TABLE, "label": values})
    return Folder({**dict.fromkeys(GOOD), "train.parquet": content, "validation.parquet": content})


FILES = {
    "nothing": Folder(
        {"train.csv": None, "validation.csv": None},
        (f"{NEEDS}, or one file of rows alone to be cut into splits", "validation: needs a file", "holds nothing"),
    ),
    "no train": Folder({"train.csv": None}, (NEEDS, "holds validation.csv")),
    "no validation, few rows": Folder({"validation.csv": None}, ("validation: needs a file of its own", "has 4")),
    "no validation": Folder({"validation.csv": None, "train.csv": CSV + "x,0\n" * 20}),
    "validation misspelt": Folder(
        {"validation.csv": None, "train.csv": CSV + "x,0\n" * 20, "valdation.csv": CSV},
        ("validation: needs a file validation{", "holds train.csv, valdation.csv"),
    ),
    "a capital letter": Folder({"train.csv": None, "Train.csv": CSV}),
    "an ending of another case": Folder({"train.csv": None, "train.CSV": CSV}),
    "compressed": Folder({"train.csv": None, "train.csv.gz": gzip.compress(CSV.encode())}),
    "compressed and torn": Folder(
        {"train.csv": None, "train.csv.gz": b"\x1f\x8b\x08"}, (f"train.csv.gz {UNREADABLE}",)
    ),
    "compressed by name only": Folder({"train.csv": None, "train.csv.gz": CSV}, (f"train.csv.gz {UNREADABLE}",)),
    "an archive": Folder({"train.csv": None, "train.csv.zip": zipped(train=CSV)}),
    "an archive of several files": Folder(
        {"train.csv": None, "train.csv.zip": zipped(one=CSV, two=CSV)},
        ("a .zip must hold one file, but holds one, two",),
    ),
    "an archive by name only": Folder({"train.csv": None, "train.csv.zip": CSV}, ("is no .zip that can be read",)),
    "json lines called json": Folder({"train.csv": None, "train.json": JSONL}),
    "a list of objects": Folder(
        {"train.csv": None, "train.json": json.dumps([json.loads(r) for r in JSONL.split("\n")[:4]])}
    ),
    "a list of other things": Folder(
        {"train.csv": None, "train.json": '[{"text_a": "x", "label": 0}, 3, "y"]'},
        ("every row must be an object, but 2 rows (2, 3) of 3 break this (row 2: must be an object, but is int)",),
    ),
    "dev for validation": Folder({"validation.csv": None, "dev.csv": CSV}),
    "two that could be validation": Folder(
        {"validation.csv": None, "dev.csv": CSV, "eval.csv": CSV},
        ("validation: one file may hold a split, but there are dev.csv, eval.csv",),
    ),
    "parts": Folder({"train.csv": None, **{f"data/train-0000{n}-of-00002.csv": CSV for n in (0, 1)}}),
    "a part missing": Folder(
        {"train.csv": None, "data/train-00001-of-00003.csv": CSV}, ("must have all its 3 parts, but lacks part 0, 2",)
    ),
    "a spreadsheet": Folder({"train.csv": None, "train.xlsx": b"PK"}, ("train.xlsx cannot be read", "no spreadsheet")),
    "a pointer of Git LFS": Folder(
        {"train.csv": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"}, ("run `git lfs pull`",)
    ),
    "fastText": Folder({**dict.fromkeys(GOOD), "train.txt": FASTTEXT, "valid.txt": FASTTEXT}),
    "fastText with several labels": Folder(
        {**dict.fromkeys(GOOD), "train.txt": FASTTEXT + "__label__a __label__b x\n", "valid.txt": FASTTEXT},
    ),
    "fastText without a label": Folder(
        {**dict.fromkeys(GOOD), "train.txt": FASTTEXT + "x y\n", "valid.txt": FASTTEXT},
        ("every line must begin with __label__ and a label, but line 5 of 5",),
    ),
    "a split twice": Folder({"train.jsonl": JSONL}, ("train: one file may hold a split", "train.csv, train.jsonl")),
    "a split four times": Folder(
        {"train.jsonl": JSONL, "train.tsv": TSV, "train.parquet": WHOLE}, ("train: one file may hold a split",)
    ),
    "all beside splits": Folder({"all.csv": CSV}, ("all: must be the only file with rows", "train, validation")),
    "all with too few rows": Folder({**dict.fromkeys(GOOD), "all.csv": CSV}, ("all: must have at least 6 rows",)),
    "all with one label": Folder(
        {**dict.fromkeys(GOOD), "all.csv": "text_a,label\n" + "x,0\n" * 20}, ("all: must have at least two classes",)
    ),
    "further splits that are faulty": Folder(
        {"test_more.csv": "words,label\na,0\n", "validation_b.csv": "text_a\nx\n"},
        ("test_more: needs a column text_a", "validation_b: needs a column label"),
    ),
    "formats mixed": Folder({"train.csv": None, "train.parquet": WHOLE, "test.jsonl": JSONL}),
    "other files": Folder({"README.md": "# Hello", "train.txt": "", ".hidden": b"\x00", "notes.json": "{"}),
    "unused columns": Folder({"train.csv": "id,text_a,label,x\n" + "".join(f"1,{t},{n},y\n" for t, n in ROWS)}),
}
TEXTS = {
    "empty csv": train("train.csv", "", f"train: train.csv {UNREADABLE}"),
    "blank csv": train("train.csv", "\n\n\n", "train: "),
    "only a header": csv("", "train: must have at least 1 row, but has 0"),
    "no header": train("train.csv", "one,0\ntwo,1\n", "train: needs a column text_a", "train: needs a column label"),
    "ragged csv": csv(
        "one,0\ntwo,1,2\n",
        "train.csv cannot be read: every row must have 2 columns as the header has, but line 3 of 2 rows has not",
        "(line 3 has 3: 'two,1,2'). Mend them (put quotation marks around a text that holds a ',')",
        '"skip_bad_rows": true',
    ),
    "short csv": csv("one,0\ntwo\n", "but line 3 of 2 rows has not (line 3 has 1: 'two')"),
    "every ragged row is counted": csv(
        "one,0\n" + "two,1,2\n" * 7, "7 lines (3, 4, 5, 6, 7, ...) of 8 rows have not", "line 5 has 3"
    ),
    "ragged tsv": train("train.tsv", TSV + "x\ty\t1\n", "line 6 of 5 rows has not", "a text may hold no tab"),
    "a quotation mark left open": csv('"one,0\ntwo,1\nthree,0\n'),
    "a quotation mark left open in a text with a comma": csv(
        'one,0\n"two, too,1\nthree,1\n', "a quotation mark must open and close a whole text", "line 3: '\"two, too,1'"
    ),
    "a quotation mark that closes some rows later": csv(
        'one,0\n"two,1\nthree,0\nfour",1\nfive,1\n', "opens and closes some lines later", "(3-5; 3 in all)", '"quoting"'
    ),
    "the same where labels come first": train(
        "train.csv",
        'label,text_a\n0,one\n1,"two\n0,three\n1,four"\n1,five\n',
        "opens and closes some lines later",
        "(3-5; 3 in all)",
    ),
    "texts of several lines": csv('"one,\nand more",0\n"two\n\n",1\nthree,0\n'),
    "backslashes before quotation marks": csv('"so \\"he\\", said",0\n"two",1\n'),
    "backslashes before other things too": csv(
        '"so \\"he\\", said",0\n"C:\\new",1\n', 'a quotation mark within a text as \\"', "line 3 has a backslash"
    ),
    "tabs, quoted as pandas does": train("train.tsv", TSV + '"a ""b"" c"\t1\n'),
    "tabs, quoted as pandas does and otherwise": train(
        "train.tsv",
        TSV + '"a ""b"" c"\t1\n' * 2 + 'x "y"\t0\n',
        "as pandas writes them in 2 rows, but otherwise in line 8",
    ),
    "semicolons": train("train.csv", CSV.replace(",", ";")),
    "semicolons and decimal commas": train(
        "train.csv",
        CSV.replace(",", ";").replace("0\n", "0,5\n").replace("1\n", "1,25\n"),
        "labels hold numbers with commas",
    ),
    "vertical bars": train("train.csv", CSV.replace(",", "|")),
    "tabs in csv": train("train.csv", TSV),
    "commas in tsv": train("train.tsv", CSV),
    "column names with spaces": train("train.csv", CSV.replace("text_a,label", "text_a, label")),
    "column names in capitals": train("train.csv", CSV.replace("text_a", "Text_A")),
    "usual column names": train("train.csv", CSV.replace("text_a,label", "Review,Category")),
    "two columns that could be the text": train(
        "train.csv",
        "text,review,label\na,b,0\nc,d,1\n",
        "several columns that could be the text: text, review",
        '"columns"',
    ),
    "two columns that could be the label": train(
        "train.csv", "text,class,score\na,0,1\nc,1,0\n", "several columns that could be the label: class, score"
    ),
    "columns of no name": train(
        "train.csv",
        "v1,v2,,\nham,a text,,\nspam,another text,,\nham,a third,,\n",
        "needs a column text_a, but has v1, v2, ''",
        '"columns": {"text_a": "v2", "label": "v1"}',
    ),
    "a column a label": train(
        "train.csv",
        "id,comment_text,rude,kind\n7,words here,0,1\n8,more words,1,0\n9,and more,0,0\n",
        "validation: needs the columns rude, kind, each a label",
    ),
    "a column twice": train(
        "train.csv", "text_a,text_a,label\na,b,0\nc,d,1\n", "every column must stand once, but text_a stands twice"
    ),
    "a label column twice": train("train.csv", "text_a,label,label\na,0,1\nc,1,0\n", "but label stands twice"),
    "latin-1 csv": train("train.csv", "text_a,label\ndie größte Freude für alle,0\nb,1\n".encode("latin-1")),
    "an encoding in doubt": train(
        "train.csv",
        "text_a,label\nza\u017c\u00f3\u0142\u0107 g\u0119\u015bl\u0105,0\nb,1\n".encode("cp1250"),
        UNREADABLE,
        "is not UTF-8 (line 2)",
        '"encoding": "',
    ),
    "utf-16 csv": train("train.csv", CSV.encode("utf-16")),
    "utf-16 csv without its mark": train("train.csv", CSV.encode("utf-16-le")),
    "utf-16 cut in half a character": train("train.csv", CSV.encode("utf-16")[:-1], "goes on otherwise"),
    "binary csv": train("train.csv", bytes(range(256)) * 8, "train: "),
    "zero bytes in csv": csv("on\x00e,0\ntwo,1\n"),
    "a byte order mark": train("train.csv", "\ufeff" + CSV),
    "windows line ends": train("train.csv", CSV.replace("\n", "\r\n")),
    "old Mac line ends": train("train.csv", CSV.replace("\n", "\r")),
    "an empty text": csv(",0\ntwo,1\n", "text_a must not be null or empty, but is in 1 row (line 2)"),
    "a blank text": csv('" \t ",0\ntwo,1\n', "text_a must not be null or empty"),
    "an unfinished last line": train("train.csv", CSV.rstrip("\n")),
    "empty jsonl": train("train.jsonl", "", "train: "),
    "blank jsonl": train("train.jsonl", "\n \n\n", "train: "),
    "garbage after a good line": train("train.jsonl", JSONL + "oops\n", "line 5 is not JSON"),
    "a torn jsonl": train("train.jsonl", JSONL[:-9], "line 4 is not JSON"),
    "a JSON list": train("train.jsonl", json.dumps([{"text_a": "x", "label": 0}, 3]), "row 2: must be an object"),
    "a JSON text": train("train.jsonl", '"x"\n', "line 1: must be an object, but is str"),
    "JSON nulls": train("train.jsonl", JSONL + "null\n", "line 5: must be an object, but is NoneType"),
    "indented JSON": train("train.jsonl", json.dumps({"text_a": "x", "label": 0}, indent=1), "line 1 is not JSON"),
    "latin-1 jsonl": train("train.jsonl", JSONL.encode() + '{"text_a": "größe", "label": 0}\n'.encode("latin-1")),
    "deep JSON": train("train.jsonl", '{"text_a": ' + "[" * 100_000, UNREADABLE),
    "a deep label": train("train.jsonl", JSONL + '{"text_a": "x", "label": ' + "[" * 200 + "]" * 200 + "}", "train: "),
    "numbers and texts": train("train.jsonl", JSONL + '{"text_a": 3, "label": 0}\n', "line 5 has int: 3"),
    "labels as numbers and as texts": train("train.jsonl", JSONL + '{"text_a": "x", "label": "1"}\n'),
    "every faulty line is counted": train(
        "train.jsonl",
        JSONL + '{"text_a": 3, "label": 0}\n' * 7 + "oops\n" + '{"text_a": "x", "label": {}}\n',
        "every line's text_a must be text, but 7 lines (5, 6, 7, 8, 9, ...) of 13 break this",
        "line 12 is not JSON",
        "line 13 has an object",
    ),
    "several labels": train("train.jsonl", JSONL + '{"text_a": "x", "label": [0, 1]}\n', "multilabel", "line 5"),
    "rows within objects": train(
        "train.jsonl", '{"id": 1, "data": {"text_a": "x", "label": 0}}\n' * 3, "its rows hold objects (data)"
    ),
    "objects for texts": train("train.jsonl", '{"text_a": {"x": 1}, "label": 0}\n', "text_a must be text"),
    "lists for texts": train("train.jsonl", '{"text_a": ["x"], "label": 0}\n', "text_a must be text"),
    "a number of 400 digits": train("train.jsonl", JSONL + f'{{"text_a": "x", "label": 1{"0" * 400}}}\n', "train: "),
    "a number of 5000 digits": train("train.jsonl", JSONL + f'{{"text_a": "x", "label": 1{"0" * 5000}}}\n', "train: "),
    "half a character": train("train.jsonl", JSONL + '{"text_a": "\\ud800", "label": 0}\n', "train: "),
    "NaN in JSON": train("train.jsonl", JSONL + '{"text_a": "x", "label": NaN}\n', "train: "),
    "a key twice in a line": train(
        "train.jsonl", '{"text_a": "x", "text_a": "y", "label": 0}\n' + JSONL, "line 1 has one twice"
    ),
    "a key within a text": train("train.jsonl", JSONL + '{"text_a": "\\"text_a\\": \\"y\\"", "label": 0}\n'),
    "emoji": csv("🐢,0\n🐇,1\n"),
}
PARQUET = {
    "empty parquet": train("train.parquet", b"", UNREADABLE),
    "torn parquet": train("train.parquet", WHOLE[: len(WHOLE) // 2], UNREADABLE),
    "parquet without its end": train("train.parquet", WHOLE[:-1], UNREADABLE),
    "parquet without its start": train("train.parquet", WHOLE[4:], UNREADABLE),
    "parquet with a hole": train("train.parquet", WHOLE[:8] + b"\xff" * 60 + WHOLE[68:], "train: "),
    "csv called parquet": train("train.parquet", CSV, UNREADABLE),
    "parquet called csv": train("train.csv", WHOLE, "train: "),
    "parquet called jsonl": train("train.jsonl", WHOLE, UNREADABLE),
    "no rows": columns(
        "must have at least 1 row, but has 0", text_a=pa.array([], pa.string()), label=pa.array([], pa.int8())
    ),
    "no columns": train("train.parquet", parquet({}), "needs a column text_a", "needs a column label"),
    "null texts": columns("text_a must not be null or empty, but is in 1 row (2)", text_a=["a", None, "c", "d"]),
    "only null texts": columns("text_a must not be null or empty", text_a=pa.nulls(4)),
    "numbers for texts": columns("text_a must be text, but is int64", text_a=[1, 2, 3, 4]),
    "bytes for texts": columns(text_a=[b"a", b"b", b"c", b"d"]),
    "bytes that are no text": columns("text_a must be text, but is binary", text_a=[b"a", b"\xff", b"c", b"d"]),
    "dates for texts": columns(
        "text_a must be text, but is timestamp", text_a=pa.array([1, 2, 3, 4], pa.timestamp("s"))
    ),
    "structs for texts": columns("text_a must be text, but is struct", text_a=[{"x": 1}] * 4),
    "numbers in a dictionary": columns("text_a", text_a=pa.array([1, 2, 1, 2]).dictionary_encode()),
    "no texts": columns("needs a column text_a, but has label", text_a=None),
    "no labels": columns("needs a column label, but has text_a", label=None),
    "only a second text": columns("needs a column text_a", text_a=None, text_b=TABLE["text_a"]),
    "a second text with nulls": columns("text_b must not be null or empty", "text_b", text_b=["a", "", None, "d"]),
    "a second text in one split": columns("validation: needs a column text_b", text_b=TABLE["text_a"]),
    "large strings": columns(text_a=pa.array(TABLE["text_a"], pa.large_string())),
}
LABELS = {
    "one class": labels([0, 0, 0, 0], "train: must have at least two classes, but every label is 0"),
    "a gap": everywhere([0, 2, 0, 2]),
    "from one": everywhere([1, 2, 1, 2]),
    "negative": everywhere([-1, 1, 1, -1]),
    "a gap that validation fills": labels(
        [0, 2, 0, 2], "validation: unknown label '1'", "name all of them by label_names"
    ),
    "hidden in train": labels([-1, -1, -1, -1], "must have at least two classes, but every label is -1"),
    "very many whole numbers": Folder(
        dict.fromkeys(GOOD, "text_a,label\n" + "".join(f"text {n},{n * 7 + 1}\n" for n in range(60))),
        ("60 different whole numbers in 60 rows", '"kind": "regression"'),
    ),
    "names of noughts": Folder(dict.fromkeys(GOOD, "text_a,label\na,007\nb,010\n")),
    "scores but for one": Folder(
        dict.fromkeys(GOOD, "text_a,label\na,0.5\nb,N/A\nc,2.25\nd,3\n"),
        ("train: labels are numbers that", "'N/A' in 1 row (line 3)"),
    ),
    "labels of another column": Folder(
        {
            "train.csv": "text_a,label\n" + "".join(f"t,a{n}\n" for n in range(9)),
            "validation.csv": "text_a,label\n" + "".join(f"t,b{n}\n" for n in range(9)),
        },
        ("9 of 9 rows have a label that none of the 9 known is", "(is this the right column?)"),
    ),
    "null": labels([0, None, 1, 0], "label must not be null, but is in 1 row (2)"),
    "all null": labels([None] * 4, "train: label must not be null"),
    "huge": everywhere([0, 2**62, 1, 0]),
    "unsigned and huge": labels(pa.array([0, 1, 2**64 - 1, 0], pa.uint64()), "train: label: must be whole"),
    "bool": everywhere([True, False, True, False]),
    "lists": labels([[0], [1], [0], [1]]),
    "lists of lists": labels(
        [[[0]], [[1]], [[0]], [[1]]], "label: must be whole numbers, numbers or names, but is list"
    ),
    "bytes": everywhere([b"a", b"b", b"a", b"b"]),
    "bytes that are no text": labels([b"a", b"\xff", b"a", b"b"], "numbers or names, but is binary"),
    "dates": labels(pa.array([0, 1, 0, 1], pa.date32()), "must be whole numbers, numbers or names, but is date"),
    "not a number": labels([0.0, float("nan"), 1.0, 0.0], "train: "),
    "infinite": labels([0.5, float("inf"), 1.0, 0.0], "labels must be finite, but 1 row (2) are not"),
    "one score": labels([0.5, 0.5, 0.5, 0.5], "must have at least two different scores"),
    "names in train, numbers in validation": labels(
        ["a", "b", "a", "b"], "validation: labels must be names as in train, but are numbers"
    ),
    "other names in validation": Folder(
        {"train.csv": CSV.replace(",0", ",yes").replace(",1", ",no"), "validation.csv": CSV.replace(",0", ",yess")},
        ("validation: ", "'yess'", "did you mean 'yes'"),
    ),
    "more classes in validation": Folder(
        {"validation.csv": CSV + "x,7\n"}, ("validation: labels must be in 0..1, but got 7 in 1 row (line 6)",)
    ),
    "scores in validation": Folder({"validation.csv": CSV + "x,0.5\n"}, ("validation: labels of a classification",)),
    "some test labels hidden": Folder({"test.csv": CSV + "x,-1\n"}, ("test: labels must be in 0..1, but got -1",)),
    "decimals": labels(pa.array([0, 1, 0, 1], pa.decimal128(3, 1))),
    "a thousand classes": Folder(
        dict.fromkeys(GOOD, "text_a,label\n" + "".join(f"text {number},{number}\n" for number in range(1000)))
    ),
    "a name for every row": Folder(
        dict.fromkeys(GOOD, "text_a,label\n" + "".join(f"text {number},name {number}\n" for number in range(300)))
    ),
}
CASES = {
    f"{kind}: {name}": folder
    for kind, table in (("files", FILES), ("text", TEXTS), ("parquet", PARQUET), ("labels", LABELS))
    for name, folder in table.items()
}


def lay_out(place: Path, files: Mapping[str, str | bytes | None]) -> Path:
    place.mkdir(parents=True)
    for name, content in {**GOOD, **files}.items():
        if content is not None:
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return place


@pytest.fixture
def sweep_over(sound: Callable, tmp_path: Path) -> Callable[..., str]:
    """Writes a sweep over tasks, and gives its path."""

    def write(*tasks: Path | str) -> str:
        values = {**sound(), "tasks": [str(task) for task in tasks]}
        (tmp_path / "sweep.json").write_text(json.dumps(values), encoding="utf-8")
        return str(tmp_path / "sweep.json")

    return write


@pytest.mark.thorough
def test_a_task_folder_is_refused_or_sound(
    sweep_over: Callable, call: Callable, home: Path, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    for number, (name, case) in enumerate(CASES.items()):
        with subtests.test(name):
            folder = lay_out(tmp_path / f"task-{number}", case.files)
            ended = call("run", sweep_over(folder))
            if case.said:
                ended.assert_refused(f"task {folder}: ", *case.said)
            else:
                assert ended.is_accepted, ended
            assert not (home / "sweeps").exists()


def test_every_fault_of_several_folders_is_in_one_message(sweep_over: Callable, call: Callable, tmp_path: Path) -> None:
    chosen = [name for name, case in CASES.items() if case.said][::7]
    folders = {name: lay_out(tmp_path / str(number), CASES[name].files) for number, name in enumerate(chosen)}
    ended = call("run", sweep_over(*folders.values()))
    for name, folder in folders.items():
        ended.assert_refused(f"task {folder}: ", *CASES[name].said)


def test_folders_in_odd_places_are_refused_or_sound(sweep_over: Callable, call: Callable, tmp_path: Path) -> None:
    task = lay_out(tmp_path / "größe 🐢 a=b", {})
    assert call("run", sweep_over(task)).is_accepted
    (tmp_path / "link").symlink_to(task)
    assert call("run", sweep_over(tmp_path / "link")).is_accepted
    call("run", sweep_over(task, tmp_path / "link")).assert_refused("every entry must stand once")
    (tmp_path / "circle").symlink_to("circle")
    call("run", sweep_over(tmp_path / "circle")).assert_refused("no such folder")
    (tmp_path / "dangling").symlink_to("nowhere")
    call("run", sweep_over(tmp_path / "dangling")).assert_refused("no such folder")
    for reference in ("folder/~nobody-here/x", "folder/" + "x" * 5000, "folder/a\x00b", f"folder/{tmp_path}/circle"):
        call("run", sweep_over(reference)).assert_refused("no such folder")
    copy = lay_out(tmp_path / "copy" / task.name, {"validation.csv": CSV + "more,1\n"})
    call("run", sweep_over(task, copy)).assert_refused("every task must have a name of its own")
    same = lay_out(tmp_path / "same", {})
    call("run", sweep_over(task, same)).assert_refused("every task must have rows of its own")


def test_files_that_are_no_files_are_refused(sweep_over: Callable, call: Callable, tmp_path: Path) -> None:
    task = lay_out(tmp_path / "task", {"train.csv": None})
    (task / "train.csv").mkdir()
    call("run", sweep_over(task)).assert_refused(NEEDS)
    (task / "train.csv").rmdir()
    (task / "train.csv").symlink_to("train.csv")
    call("run", sweep_over(task)).assert_refused(NEEDS)
    (task / "train.csv").unlink()
    os.mkfifo(task / "train.csv")
    call("run", sweep_over(task)).assert_refused(NEEDS)
    (task / "train.csv").unlink()
    (task / "train.csv").write_text(CSV)
    (task / "task.json").mkdir()
    call("run", sweep_over(task)).assert_refused("task.json cannot be read")


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data(), ending=st.sampled_from(["parquet", "csv", "tsv", "jsonl"]))
def test_a_file_damaged_anywhere_is_refused_or_read(
    data: st.DataObject, ending: str, sound: Callable, call: Callable, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = {"parquet": WHOLE, "csv": CSV.encode(), "tsv": TSV.encode(), "jsonl": JSONL.encode()}[ending]
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    content = whole[:start] + data.draw(st.binary(max_size=8)) + whole[stop:]
    place = tmp_path_factory.mktemp("damaged")
    task = lay_out(place / "task", {"train.csv": None, f"train.{ending}": content})
    (place / "sweep.json").write_text(json.dumps({**sound(), "tasks": [str(task)]}), encoding="utf-8")
    ended = call("run", str(place / "sweep.json"))
    if not ended.is_accepted:
        ended.assert_refused(f"task {task}: ")

"""Spreadsheets as task folders: cells mean what they mean in a csv file of the same sheet."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from trainables import tasks
from trainables.faults import FaultsError

ROWS = [["text", "label"], *([f'text "{row}", with ä', row % 2 + 1] for row in range(24))]
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def write_xlsx(path: Path, **sheets: Sequence[Sequence[object]]) -> None:
    """The smallest workbook that holds these rows: numbers as numbers, texts in their cells."""
    numbered = list(enumerate(sheets.items(), start=1))
    listed = "".join(f'<sheet name="{name}" sheetId="{n}" r:id="rId{n}"/>' for n, (name, _) in numbered)
    related = "".join(
        f'<Relationship Id="rId{n}" Type="{_OFFICE}/worksheet" Target="worksheets/sheet{n}.xml"/>' for n, _ in numbered
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{_RELATIONS}"><Relationship Id="rId1" Type="{_OFFICE}/officeDocument" '
            'Target="xl/workbook.xml"/></Relationships>',
        )
        archive.writestr(
            "xl/workbook.xml", f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets>{listed}</sheets></workbook>'
        )
        archive.writestr("xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{_RELATIONS}">{related}</Relationships>')
        for n, (_, rows) in numbered:
            body = "".join(f"<row>{''.join(map(_cell, row))}</row>" for row in rows)
            archive.writestr(
                f"xl/worksheets/sheet{n}.xml", f'<worksheet xmlns="{_MAIN}"><sheetData>{body}</sheetData></worksheet>'
            )


def _cell(value: object) -> str:
    if value is None:
        return "<c/>"
    if isinstance(value, int | float):
        return f"<c><v>{value}</v></c>"
    return f'<c t="inlineStr"><is><t xml:space="preserve">{escape(str(value))}</t></is></c>'


def test_its_rows_are_those_of_a_csv_file(tmp_path: Path) -> None:
    (tmp_path / "sheet").mkdir()
    (tmp_path / "csv").mkdir()
    write_xlsx(tmp_path / "sheet" / "train.xlsx", Sheet1=ROWS)
    lines = ["text,label", *(f'"text ""{row}"", with ä",{row % 2 + 1}' for row in range(24))]
    (tmp_path / "csv" / "train.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    task = tasks.load(str(tmp_path / "sheet"))
    assert task.info.label_names == ("1", "2")
    assert task.fingerprint == tasks.load(str(tmp_path / "csv")).fingerprint


def test_other_sheets_are_said_and_one_workbook_is_cut(tmp_path: Path) -> None:
    write_xlsx(tmp_path / "reviews.xlsx", Notes=[], Rows=ROWS, Ideas=[["more", "of", "them"]])
    task = tasks.load(str(tmp_path))
    assert task.splits["train"].num_rows == 19
    assert "all: of its sheets the first, 'Rows', is read; not read: 'Ideas'" in task.notes


def test_faults_name_the_rows_of_the_sheet(tmp_path: Path) -> None:
    write_xlsx(tmp_path / "train.xlsx", Sheet1=[*ROWS, [None, 1], ["no label", None]])
    with pytest.raises(FaultsError) as refusal:
        tasks.load(str(tmp_path))
    assert "text_a must not be null or empty, but is in 1 row (line 26)" in str(refusal.value)
    assert "label must not be null, but is in 1 row (line 27)" in str(refusal.value)


def test_what_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.xlsx").write_bytes(b"PK")
    with pytest.raises(FaultsError, match="is no spreadsheet that can be read"):
        tasks.load(str(tmp_path))
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    (tmp_path / "train.xlsx").write_bytes(b"PK2")
    with pytest.raises(FaultsError, match=r"pip install 'adaptune\[xlsx\]'"):
        tasks.load(str(tmp_path))


def test_sheets_that_are_called_as_splits_are_splits(tmp_path: Path) -> None:
    write_xlsx(tmp_path / "reviews.xlsx", Train=ROWS, dev=ROWS[:9], notes=[["by me"]])
    task = tasks.load(str(tmp_path))
    assert {split: table.num_rows for split, table in task.splits.items()} == {"train": 24, "validation": 8}
    assert "validation is the sheet 'dev' of reviews.xlsx" in task.notes
    assert "not read of its sheets: 'notes'" in task.notes


def test_two_sheets_for_one_split_are_refused(tmp_path: Path) -> None:
    write_xlsx(tmp_path / "reviews.xlsx", train=ROWS, dev=ROWS[:9], val=ROWS[:9])
    with pytest.raises(FaultsError, match="one sheet may hold a split, but there are 'train', 'dev', 'val'"):
        tasks.load(str(tmp_path))


def test_a_column_a_label_and_rows_of_blanks_are_read_as_in_csv(tmp_path: Path) -> None:
    rows = [
        ["text", "toxic", "threat"],
        *([f"text {row}", row % 2, int(row % 3 == 0)] for row in range(12)),
        [" ", "", ""],
    ]
    for split in ("train", "validation"):
        write_xlsx(tmp_path / f"{split}.xlsx", Sheet1=rows)
    task = tasks.load(str(tmp_path))
    assert (task.info.label_names, task.splits["train"].num_rows) == (("toxic", "threat"), 12)

"""The encoding of a text file: found where there is no doubt, a fault with a remedy otherwise."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from trainables.data.encoding import read_lines

WESTERN = {
    "German": "Die größte Überraschung für alle\nsüß\n",
    "French": "l'été dernier, garçon naïve - œuvre\noù est-il sûr à 5 €\n",
    "Spanish": "el niño está aquí mañana\nadiós señor\n",
    "Portuguese": "não são boas canções\ncorações\n",
    "typographic": "it\u2019s \u201cfine\u201d \u2013 really\nplain\n",
}
ELSEWHERE = {
    "Polish": ("cp1250", "zażółć gęślą jaźń\nbardzo dobra książka, łódź\n"),
    "Hungarian": ("cp1250", "nagyon jó könyv az erdőről\ntűzről pattant\n"),
    "Turkish": ("cp1254", "çok güzel bir şey değil\nkötü değil\n"),
    "Russian": ("cp1251", "привет, друзья\nдля детей\n"),
    "Japanese": ("shift_jis", "これは日本語のテキストです\nとても良い\n"),
}


def write(folder: Path, content: bytes, name: str = "train.csv") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize("text", WESTERN.values(), ids=WESTERN)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_the_usual_encodings_are_found(text: str, encoding: str, tmp_path: Path) -> None:
    lines, found = read_lines(write(tmp_path, text.encode(encoding)))
    assert ("".join(lines), found) == (text, encoding)


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_found_without_its_mark(order: str, tmp_path: Path) -> None:
    assert read_lines(write(tmp_path, "text,label\nhello,1\n".encode(order))) == (["text,label\n", "hello,1\n"], order)


@pytest.mark.parametrize(("encoding", "text"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_any_other_is_a_fault_with_a_remedy_that_works(encoding: str, text: str, tmp_path: Path) -> None:
    path = write(tmp_path, b"text\n" + text.encode(encoding) * 10)
    with pytest.raises(ValueError, match=r'is not UTF-8 \(line 2\).* say which in task.json, as "encoding": "\w+"'):
        read_lines(path)
    assert read_lines(path, encoding)[0][1:3] == text.splitlines(keepends=True)


def test_what_is_said_is_taken_at_its_word(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is not ascii, as task\.json says"):
        read_lines(write(tmp_path, "größe\n".encode()), "ascii")
    assert read_lines(write(tmp_path, "größe\n".encode()), "latin-1")[0] == ["grÃ¶Ã\x9fe\n"]


def test_lines_keep_their_ends_and_end_nowhere_else(tmp_path: Path) -> None:
    content = "a\r\nb\rc\u2028d\x0be\x85f\n"
    assert read_lines(write(tmp_path, content.encode()))[0] == ["a\r\n", "b\r", "c\u2028d\x0be\x85f\n"]


def test_a_compressed_file_is_unpacked(tmp_path: Path) -> None:
    path = write(tmp_path, gzip.compress("größe\n".encode("cp1252")), "train.csv.gz")
    assert read_lines(path) == (["größe\n"], "cp1252")


def test_lines_in_two_encodings_are_named_and_not_read_as_one(tmp_path: Path) -> None:
    content = "text,label\ncafé,a\n".encode() + "thé,b\n".encode("cp1252")
    with pytest.raises(
        ValueError, match="is UTF-8 in 1 of its lines with other letters than ASCII's, but not in line 3"
    ):
        read_lines(write(tmp_path, content))
    assert read_lines(write(tmp_path, content), "cp1252")[0][2] == "thé,b\n"


def test_byte_order_marks_of_files_put_together_are_no_text(tmp_path: Path) -> None:
    content = "a,b\n".encode("utf-8-sig")
    assert read_lines(write(tmp_path, b"\xef\xbb\xbf" + content + content))[0] == ["a,b\n", "a,b\n"]

"""The characters of a text file: which encoding it is in, found where the bytes leave no doubt, and its lines.

A byte order mark decides, then UTF-8, which hardly any other text is by chance. What is left is a guess, so it is
made for one encoding only: cp1252, the usual one of older Windows files, where charset-normalizer holds it possible
and no letter speaks against it. For any other encoding the fault names what to write into task.json.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from charset_normalizer import from_bytes

from trainables.data.reading import at_lines

_MARKS = (  # the longer ones first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Letters that cp1252 gives where the text is in another code page. Each is common in one of Europe's languages, and is
# believed only beside letters that show that language: otherwise it stands for the other page's letter.
_ELSEWHERE = {
    **dict.fromkeys("\xb3\xb9", ""),  # l and a of Polish in cp1250
    **dict.fromkeys("\xfe\xfd\xf0\xde\xdd\xd0", ""),  # s, i and g of Turkish in cp1254; Icelandic here
    **dict.fromkeys("\xf5\xd5", "\xe3\xc3"),  # o of Hungarian in cp1250; Portuguese here, which has a tilde on a too
    **dict.fromkeys("\xfb\xdb", "\xe0\xe8\xe7\xea\xe2"),  # u of Hungarian; French here
}
_SAMPLE = 1 << 16  # bytes
_ZEROS = 1 << 10  # bytes at the beginning of a file that are no text where all of them are zero
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
COMPRESSIONS = (".gz", ".zip")
_BYTE_ORDER_MARK = "\ufeff"
_OTHER_FORMATS = {  # how files of other formats begin, and what they are
    b"PAR1": "Parquet, so call it .parquet",
    b"ARROW1": "Arrow or Feather, so call it .feather",
    b"PK\x03\x04": "a zip archive or a spreadsheet, so call it .zip (.csv.zip) or .xlsx",
    b"\x1f\x8b": "packed by gzip, so call it .gz (.csv.gz)",
    b"BZh": "packed by bzip2: unpack it",
    b"\xfd7zXZ\x00": "packed by xz: unpack it",
    b"\x28\xb5\x2f\xfd": "packed by zstd: unpack it",
    b"\xd0\xcf\x11\xe0": "a spreadsheet of old Excel, so call it .xls",
    b"SQLite format 3": "a data base of SQLite: export its table as .csv",
    b"%PDF": "a PDF: save its rows as .csv",
    b"ORC": "ORC: save its rows as .parquet",
}


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """A file's content, unpacked where its name ends in one of `COMPRESSIONS`. Raises `ValueError` or `OSError`."""
    if path.suffix.lower() == ".gz":
        with gzip.open(path) as content:
            yield content
    elif path.suffix.lower() == ".zip":
        try:
            with zipfile.ZipFile(path) as archive, archive.open(_member(archive)) as content:
                yield content
        except (zipfile.BadZipFile, NotImplementedError) as fault:
            raise ValueError(f"is no .zip that can be read: {fault}") from None
    else:
        with path.open("rb") as content:
            yield content


def packed_ending(path: Path) -> str:
    """The ending, in small letters, of the one file that a .zip holds; empty for any other. Raises `ValueError`."""
    if path.suffix.lower() != ".zip":
        return ""
    try:
        with zipfile.ZipFile(path) as archive:
            return Path(_member(archive).lower()).suffix
    except zipfile.BadZipFile as fault:
        raise ValueError(f"is no .zip that can be read: {fault}") from None


def _member(archive: zipfile.ZipFile) -> str:
    held = [member for member in archive.namelist() if _is_content(member)]
    if len(held) != 1:
        raise ValueError(f"a .zip must hold one file, but holds {', '.join(held[:5]) or 'none'}")
    return held[0]


def _is_content(member: str) -> bool:
    """Whether a member of an archive is a file, and none that a system leaves beside others."""
    hidden = member.startswith("__MACOSX/") or member.rpartition("/")[2].startswith((".", "Thumbs.db"))
    return not hidden and not member.endswith("/")


def read_lines(path: Path, encoding: str | None = None) -> tuple[list[str], str]:
    """The lines of a text file with their ends (\\n, \\r\\n or \\r), and its encoding: the one given, or found.

    Byte order marks at the beginning of lines, as files have that were put together of several, are taken off.
    Raises `ValueError` where there is doubt, saying what to do, and `OSError` where there is no such file.
    """
    given = encoding
    with opened(path) as content:
        head = content.read(1 << 12)
        if head.startswith(LFS_POINTER):
            raise ValueError("is a pointer of Git LFS and not the file itself: run `git lfs pull` in its repository")
    if len(head) >= _ZEROS and not head.strip(b"\0"):  # of which there may be more than memory holds, in one line
        raise ValueError("begins with zero bytes alone, as a file does whose content was never written: fetch it again")
    for begin, what in _OTHER_FORMATS.items():
        if head.startswith(begin) and (b"\0" in head or not begin.isalpha()):
            raise ValueError(f"is no text but {what}")
    encoding = given or _marked(head) or "utf-8"
    try:
        return _decoded(path, encoding), encoding
    except UnicodeDecodeError as fault:
        if given is not None:
            raise ValueError(f"is not {given}, as task.json says: {fault}") from None
        if encoding != "utf-8":
            raise ValueError(f"begins as {encoding} but goes on otherwise: {fault}") from None
    except UnicodeError as fault:
        raise ValueError(f"is not {encoding}: {fault}") from None
    encoding = _guess(path)
    return _decoded(path, encoding), encoding


def is_marked(head: bytes) -> bool:
    """Whether the beginning of a file shows an encoding in which zero bytes are parts of letters."""
    return _marked(head) is not None


def _marked(head: bytes) -> str | None:
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    # UTF-16 without its mark: every second byte of Western text is zero.
    zeros = [head[place::2].count(0) / max(len(head) // 2, 1) for place in (0, 1)]
    if len(head) >= 8 and max(zeros) > 0.4 and min(zeros) < 0.05:
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    return None


def _decoded(path: Path, encoding: str) -> list[str]:
    # Line by line, since one emoji would make a text of the whole file take four bytes a character.
    with opened(path) as content, io.TextIOWrapper(content, encoding=encoding, newline="") as text:
        return [line.lstrip(_BYTE_ORDER_MARK) if line[0] == _BYTE_ORDER_MARK else line for line in text]


def _speaks_against(text: str) -> bool:
    """Whether a text has letters as cp1252 gives them for those of another code page."""
    seen = set(text)
    return any(letter in seen and seen.isdisjoint(company) for letter, company in _ELSEWHERE.items())


def _guess(path: Path) -> str:
    """The encoding of a file that is not UTF-8. Raises `ValueError` with the remedy where there is doubt."""
    sample, others, sound = bytearray(), list[int](), 0
    with opened(path) as content:
        for number, line in enumerate(content, start=1):
            try:
                line.decode("utf-8")
                sound += not line.isascii()
            except UnicodeDecodeError:
                others.append(number)
            if not line.isascii() and len(sample) < _SAMPLE:
                sample += line
        whole = bytes(sample)
    if sound and b"\0" not in whole:  # hardly any line of another encoding is UTF-8 by chance
        raise ValueError(
            f"is UTF-8 in {sound:,} of its lines with other letters than ASCII's, but not in {at_lines(others)}. Write "
            f'these in UTF-8 too, or say in task.json which encoding all lines are in, as "encoding": "cp1252"'
        )
    # Its words of caution are its own log's, and ours is the fault.
    matches = list(from_bytes(whole)) if whole else []
    possible = [match.encoding for match in matches]
    try:
        _decoded(path, "cp1252")
        text = whole.decode("cp1252")
    except UnicodeDecodeError:
        text = None
    alike = {encoding for match in matches for encoding in match.could_be_from_charset}
    if text is not None and "cp1252" in alike and not _speaks_against(text):
        return "cp1252"
    likely = ", ".join(possible[:3]) or "none that is known"
    shown = f'"encoding": "{possible[0]}"' if possible else '"encoding": "cp1252"'
    raise ValueError(
        f"is not UTF-8 (line {others[0] if others else 1}), and its bytes leave doubt which encoding it is in (likely: "
        f"{likely}). Save it as UTF-8, or say which in task.json, as {shown}"
    )

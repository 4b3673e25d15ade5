"""Texts: what they are made of."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainables.data.audit.view import View, shortened

# What programs write where a value is missing.
NULL_WORDS = frozenset({"na", "n/a", "#n/a", "nan", "null", "none", "nil", "<na>", "undefined"})

# Patterns are RE2's, as Arrow takes them, and without groups.
_MARKUP = (
    r"<(?:br|p|div|span|a|b|i|li|ul|img|td|tr|table|html|body|script|h[1-6])(?: [^<>]*)?/?>|"
    r"&(?:amp|lt|gt|quot|nbsp|#\d+);"
)
_MARKUP_SHARE = 0.01
_LONG = 100  # characters
_FULL_SHARE = 0.002
# Letters of two or three bytes of UTF-8 read as cp1252 or latin-1, and the sign for what could not be decoded.
_WRONGLY_DECODED = r"[ÃÂ][\x{a0}-\x{bf}]|â€|\x{fffd}"
_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"


def blank_texts(view: View) -> Iterator[str]:
    """Texts without a letter, a figure or a sign of meaning."""
    yield from _matching(
        view,
        r"^[\s\p{P}]*$",
        "{texts} hold nothing but blanks and punctuation, such as {example}. Take such rows out if they say nothing",
    )


def null_words_as_texts(view: View) -> Iterator[str]:
    """Texts that some programs write where a text is missing."""
    words = "|".join(word.replace("/", "\\/") for word in sorted(NULL_WORDS))
    yield from _matching(
        view,
        rf"^(?i)\s*(?:{words})\s*$",
        "{texts} are nothing but a word like {example}, and are read as this word. If the text is missing there, take "
        "such rows out",
    )


def wrongly_decoded_texts(view: View) -> Iterator[str]:
    """Texts that were read in another encoding than they were written in, before or now."""
    yield from _matching(
        view,
        _WRONGLY_DECODED,
        "{texts} look decoded wrongly, such as {example}. Export them again as UTF-8, or say the right encoding in "
        "task.json",
    )


def control_characters(view: View) -> Iterator[str]:
    """Texts with characters that nobody sees."""
    yield from _matching(view, _CONTROL, "{texts} hold control characters, such as {example}. Take them out")


def markup_in_texts(view: View) -> Iterator[str]:
    """Texts with tags of HTML or characters as it writes them."""
    yield from _matching(
        view,
        _MARKUP,
        "{texts} hold HTML, such as {example}, which takes word pieces and says little. Take it out",
        share=_MARKUP_SHARE,
    )


def texts_of_full_length(view: View) -> Iterator[str]:
    """Many texts that have just the length of the longest, as programs leave them that cut texts."""
    for name in ("text_a", "text_b"):
        columns = [column for _, called, column in view.columns() if called == name]
        texts = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())
        lengths = pc.utf8_length(texts)
        longest = pc.max(lengths).as_py() or 0
        full = texts.filter(pc.equal(lengths, longest))
        ended = pc.sum(pc.match_substring_regex(full, r"[.!?][\s\p{P}]*$")).as_py() or 0
        if longest >= _LONG and len(full) >= max(5, _FULL_SHARE * len(texts)) and 2 * ended < len(full):
            yield (
                f"{len(full):,} of {len(texts):,} texts in {name} have just {longest:,} characters, and none has more. "
                f"Were they cut when the files were made?"
            )


def equal_pairs(view: View) -> Iterator[str]:
    """Pairs whose two texts are one."""
    if not view.info.pair:
        return
    equal = {split: pc.equal(table["text_a"], table["text_b"]) for split, table in view.splits.items()}
    rows = sum(pc.sum(mask).as_py() or 0 for mask in equal.values())
    of = sum(table.num_rows for table in view.splits.values())
    if rows > 0.05 * of:
        yield f"{rows:,} of {of:,} pairs are a text and itself. Are columns the right ones?"


def _matching(view: View, pattern: str, sentence: str, share: float = 0.0) -> Iterator[str]:
    """`sentence` about the texts that match, if more than a share of them do."""
    found, of, example = 0, 0, None
    for _, _, column in view.columns():
        matches = pc.match_substring_regex(column, pattern)
        number = pc.sum(matches).as_py() or 0
        if number and example is None:
            first = int(np.flatnonzero(matches.to_numpy())[0])
            example = _around(column[first].as_py(), pattern)
        found += number
        of += len(column)
    if found and found >= share * of:
        yield sentence.format(texts=f"{found:,} of {of:,} texts", example=example)


def _around(text: str, pattern: str) -> str:
    """A text from shortly before what matches on."""
    cut = pc.extract_regex(pa.array([text]), f"(?s)^(?P<before>.*?)(?P<match>{pattern})")[0].as_py()
    start = len(cut["before"]) if cut else 0
    return shortened(text[max(0, start - 20) :])

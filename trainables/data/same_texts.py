"""Which rows have the same texts: to the letter, or but for capitals, blanks and punctuation."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_BETWEEN = "\x1f"  # the two texts of a pair, where both make one


def joined(table: pa.Table) -> pa.LargeStringArray:
    """The texts of each row as one."""
    texts = [table[name].cast(pa.large_string()) for name in ("text_a", "text_b") if name in table.column_names]
    whole = texts[0] if len(texts) == 1 else pc.binary_join_element_wise(*texts, pa.scalar(_BETWEEN, pa.large_string()))
    return pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], pa.large_string())


def plain(texts: pa.LargeStringArray) -> pa.LargeStringArray:
    """Texts without what sets near duplicates apart: in small letters, with one blank for blanks and punctuation."""
    lower = pc.replace_substring_regex(pc.utf8_lower(texts), r"[\s\p{P}]+", " ")
    lower = pc.utf8_trim_whitespace(lower)
    # What is nothing but punctuation is told apart by it.
    return pc.if_else(pc.match_substring_regex(lower, r"\w"), lower, texts)


def numbered(texts: pa.LargeStringArray) -> np.ndarray:
    """A number for each text, int64 (N,): equal where the texts are, counted from 0 in the order they come in."""
    return np.asarray(texts.dictionary_encode().indices.to_numpy(), np.int64)

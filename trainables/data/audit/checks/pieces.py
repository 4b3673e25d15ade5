"""Word pieces: what the backbone sees of the texts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trainables.data.audit.view import View

_CUT = 0.05  # share of rows
_UNKNOWN = 0.05  # share of word pieces
_PER_LETTER = 0.6  # word pieces; English takes about 0.25
_STEPS = (64, 128, 256, 512, 1024, 2048, 4096, 8192)


def cut_texts(view: View) -> Iterator[str]:
    """Texts that are longer than max_length."""
    pieces = view.pieces
    if pieces is None or view.info.kind == "extractive_qa" or pieces.share_cut < _CUT:
        return
    longer = [step for step in _STEPS if pieces.max_length < step <= (pieces.positions or max(_STEPS))]
    enough = next((step for step in longer if _cut(pieces.lengths, step) < _CUT), longer[-1] if longer else None)
    remedy = "" if enough is None else f"; max_length {enough} would cut {_cut(pieces.lengths, enough):.0%}"
    yield (
        f"max_length {pieces.max_length} cuts {pieces.share_cut:.0%} of the rows, of which half have more than "
        f"{np.median(pieces.lengths):.0f} word pieces and the longest {pieces.lengths.max():,}{remedy}"
    )


def unknown_word_pieces(view: View) -> Iterator[str]:
    """Texts of which the backbone's tokenizer does not know the words."""
    pieces = view.pieces
    if pieces is not None and pieces.unknown >= _UNKNOWN:
        examples = ", ".join(map(repr, pieces.unknown_texts))
        yield (
            f"{pieces.unknown:.0%} of the word pieces are unknown to {pieces.backbone}, such as {examples}, and read "
            f"as one and the same. Choose a backbone of the texts' language, or a multilingual one"
        )


def texts_cut_small(view: View) -> Iterator[str]:
    """Texts that the backbone's tokenizer takes apart into single characters or bytes."""
    pieces = view.pieces
    if pieces is not None and pieces.unknown < 0.5 and pieces.per_letter >= _PER_LETTER:
        yield (
            f"{pieces.backbone} takes the words apart into single characters or bytes, so it hardly knows their "
            f"language. Choose a backbone of this language, or a multilingual one"
        )


def _cut(lengths: np.ndarray, max_length: int) -> float:
    return float((lengths > max_length).mean())

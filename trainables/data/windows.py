"""Questions with their contexts cut into windows that fit the encoder, and spans of windows made text again.

A context that is too long is seen through several windows, each beginning `DOC_STRIDE` word pieces after the one before
and holding the question and as much of the context as fits. Every word piece of a context is in a window; where it is
in several, an answer may begin with it only in the one that shows most of what is around it. Needs no torch.

Suffixes: N windows, Q questions, P word pieces of all windows, M of one context, L of the longest window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from trainables.faults import FaultsError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

DOC_STRIDE = 128  # or a third of a window where that is less, so that windows overlap
MAX_ANSWER_PIECES = 30
_CHUNK = 2048  # texts tokenised, or windows answered, at a time


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """What the rows of a split show of which questions, where its rows are windows."""

    question: np.ndarray  # int64 [N], ascending: whose window it is
    char_start: np.ndarray  # int32 [P]: where in the context a word piece begins
    char_end: np.ndarray  # int32 [P]: and ends; both 0 for word pieces of the question and special tokens
    may_start: np.ndarray  # bool [P]: whether no other window shows more of the context around the word piece
    table: pa.Table  # [Q] of which text_b and answers are read

    def right_answers(self) -> np.ndarray:
        """The texts that count as right, a tuple a question: objects (Q,)."""
        rows = np.empty(self.table.num_rows, object)
        for index, answers in enumerate(self.table.column("answers").to_pylist()):
            rows[index] = tuple(answer["text"] for answer in answers)
        return rows


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """What a tokenizer puts around a pair: special tokens and token types."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    types: tuple[int, int, int, int, int]  # of before, question, between, context, after

    @property
    def num_special(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)


def cut_windows(table: pa.Table, tokenizer: PreTrainedTokenizerFast, max_length: int) -> pa.RecordBatch:
    """A table of questions as one record batch of windows of at most `max_length` word pieces, special tokens included.

    Of a question the first pieces are kept, at most half of the room. A window's label is where the first answer
    begins and ends in it, (0, 0), the place of the first special token, where it is not wholly in it.
    `max_length` must be one at which `trainables.data.tokenized.length_faults` finds none.
    """
    frame = _frame(tokenizer)
    room = max_length - frame.num_special
    contexts = table.column("text_b").combine_chunks().dictionary_encode()
    pieces = list(_tokenized(contexts.dictionary, tokenizer))  # of each context once: it is asked about several times
    questions = _tokenized(table.column("text_a").combine_chunks(), tokenizer)
    rows: list[dict[str, Any]] = []
    for question, ((asked, _), context, answers) in enumerate(
        zip(questions, contexts.indices.to_pylist(), table.column("answers").to_pylist(), strict=True)
    ):
        asked = asked[: room // 2]
        ids_M, spans_M2 = pieces[context]
        answer = _answer_pieces(spans_M2, answers[0]) if answers else None
        bounds = window_bounds(len(ids_M), room - len(asked), min(DOC_STRIDE, max_length // 3))
        for (first, last), may_start in zip(bounds, _most_context(bounds, len(ids_M)), strict=True):
            row = _window(frame, asked, ids_M[first:last], spans_M2[first:last], may_start[first:last])
            label = [0, 0]
            if answer is not None and first <= answer[0] and answer[1] < last:
                context_start = len(frame.before) + len(asked) + len(frame.between)
                label = [piece - first + context_start for piece in answer]
            rows.append(row | {"label": label, "question": question})
    return _record_batch(rows)


def window_bounds(num_pieces: int, room: int, stride: int) -> list[tuple[int, int]]:
    """First word piece of a context and the one after the last, of each window: as many as reach to its end."""
    stride = min(stride, room)
    num_windows = 1 + max(0, -(-(num_pieces - room) // stride))
    return [(start, min(start + room, num_pieces)) for start in range(0, num_windows * stride, stride)]


def answer_texts(logits_NL2: np.ndarray, windows: Windows, offsets: np.ndarray) -> list[str]:
    """The best answer to each question, over all its windows, as it stands in the context.

    That is the span of at most `MAX_ANSWER_PIECES` word pieces whose logits of start and end have the highest sum;
    all such spans are compared. `offsets` (N + 1,) are the split's. A context without any word piece answers nothing.
    """
    best = np.full(windows.table.num_rows, -np.inf)
    spans = np.zeros((windows.table.num_rows, 2), np.int64)  # first and last piece of the answer, of all P
    for first in range(0, len(logits_NL2), _CHUNK):
        rows = slice(first, first + _CHUNK)
        scores_N, spans_N2 = _best_spans(logits_NL2[rows], windows, offsets[first : first + _CHUNK + 1])
        for question, score, span in zip(windows.question[rows], scores_N, spans_N2, strict=True):
            if score > best[question]:
                best[question], spans[question] = score, span
    contexts = windows.table.column("text_b").to_pylist()
    return [
        context[windows.char_start[start] : windows.char_end[end]].strip() if np.isfinite(score) else ""
        for context, (start, end), score in zip(contexts, spans, best, strict=True)
    ]


def _best_spans(logits_NL2: np.ndarray, windows: Windows, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of some windows the score of the best span (N,), and its ends as places in all word pieces (N, 2)."""
    length = logits_NL2.shape[1]
    index_NL = offsets[:-1, None] + np.arange(length)
    own_NL = np.arange(length) < np.diff(offsets)[:, None]
    index_NL = np.where(own_NL, index_NL, 0)
    start_NL = np.where(own_NL & windows.may_start[index_NL], logits_NL2[..., 0], -np.inf)
    end_NL = np.where(own_NL & (windows.char_end[index_NL] > 0), logits_NL2[..., 1], -np.inf)
    scores_N, spans_N2 = np.full(len(start_NL), -np.inf), np.zeros((len(start_NL), 2), np.int64)
    for further in range(min(MAX_ANSWER_PIECES, length)):
        sums = start_NL[:, : length - further] + end_NL[:, further:]
        start_N = sums.argmax(axis=1)
        sum_N = np.take_along_axis(sums, start_N[:, None], axis=1)[:, 0]
        better = sum_N > scores_N
        scores_N[better] = sum_N[better]
        spans_N2[better] = np.stack([start_N, start_N + further], axis=1)[better]
    return scores_N, spans_N2 + offsets[:-1, None]


@contextmanager
def tokenizing() -> Iterator[None]:
    """Raises `FaultsError` where a tokenizer has nothing for what is in a text, of which its library has no kind."""
    try:
        yield
    except Exception as error:
        rule = "the backbone's tokenizer must make word pieces of every text"
        raise FaultsError("tokenizer", [f"{rule}, but cannot: {error}"]) from error


def _frame(tokenizer: PreTrainedTokenizerFast) -> _Frame:
    """Read off a short pair."""
    with tokenizing():
        encoded = tokenizer("a", "a", return_token_type_ids=True)
    parts = encoded.sequence_ids(0)
    question, context = parts.index(0), parts.index(1)
    question_end, context_end = question + parts.count(0), context + parts.count(1)
    ids, types = encoded["input_ids"], encoded["token_type_ids"]

    def type_of(start: int, end: int) -> int:
        return types[start] if start < end else 0

    return _Frame(
        before=tuple(ids[:question]),
        between=tuple(ids[question_end:context]),
        after=tuple(ids[context_end:]),
        types=(
            type_of(0, question),
            types[question],
            type_of(question_end, context),
            types[context],
            type_of(context_end, len(ids)),
        ),
    )


def _tokenized(texts: pa.Array, tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Word pieces (M,) of each text without special tokens, and where they begin and end in it (M, 2)."""
    for first in range(0, len(texts), _CHUNK):
        with tokenizing():
            encoded = tokenizer(
                texts.slice(first, _CHUNK).to_pylist(),
                add_special_tokens=False,
                return_offsets_mapping=True,
                return_token_type_ids=False,
                return_attention_mask=False,
                verbose=False,
            )
        for ids, offsets in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            yield np.asarray(ids, np.int32), np.asarray(offsets, np.int32).reshape(-1, 2)


def _answer_pieces(spans_M2: np.ndarray, answer: dict[str, Any]) -> tuple[int, int] | None:
    """First and last word piece that an answer touches; None where it is of what the tokenizer leaves out."""
    first = int(np.searchsorted(spans_M2[:, 1], answer["start"], side="right"))
    last = int(np.searchsorted(spans_M2[:, 0], answer["start"] + len(answer["text"]), side="left")) - 1
    return (first, last) if first <= last else None


def _most_context(bounds: Sequence[tuple[int, int]], num_pieces: int) -> np.ndarray:
    """Which window shows most around each word piece: bool (windows, M), one of each column.

    That is the smaller of what it shows before and after; where windows are equal in it, the longer one's, then the
    first one's.
    """
    piece_M = np.arange(num_pieces)
    shown = np.array(
        [
            np.where(
                (piece_M >= first) & (piece_M < last),
                np.minimum(piece_M - first, last - 1 - piece_M) + 0.01 * (last - first),
                -1.0,
            )
            for first, last in bounds
        ]
    )
    return np.arange(len(bounds))[:, None] == shown.argmax(axis=0)


def _window(
    frame: _Frame, asked: np.ndarray, shown_M: np.ndarray, spans_M2: np.ndarray, may_start_M: np.ndarray
) -> dict[str, Any]:
    """A window's word pieces and what is known of each."""
    sizes = (len(frame.before), len(asked), len(frame.between), len(shown_M), len(frame.after))
    length = sum(sizes)
    context = slice(sum(sizes[:3]), sum(sizes[:4]))
    row: dict[str, Any] = {
        "input_ids": np.concatenate([frame.before, asked, frame.between, shown_M, frame.after]).astype(np.int32),
        "token_type_ids": np.repeat(np.array(frame.types, np.int8), sizes),
        "char_start": np.zeros(length, np.int32),
        "char_end": np.zeros(length, np.int32),
        "may_start": np.zeros(length, np.int8),
    }
    row["char_start"][context], row["char_end"][context] = spans_M2.T
    row["may_start"][context] = may_start_M
    return row


def _record_batch(rows: Sequence[dict[str, Any]]) -> pa.RecordBatch:
    """Windows as columns: lists over word pieces, then `label` (two numbers) and `question`."""
    offsets = pa.array(np.cumsum([0, *(len(row["input_ids"]) for row in rows)]).astype(np.int64))
    columns: dict[str, pa.Array] = {
        name: pa.LargeListArray.from_arrays(offsets, pa.array(np.concatenate([row[name] for row in rows])))
        for name in ("input_ids", "token_type_ids", "char_start", "char_end", "may_start")
    }
    labels = pa.array(np.array([row["label"] for row in rows], np.int64).reshape(-1))
    columns["label"] = pa.FixedSizeListArray.from_arrays(labels, 2)
    columns["question"] = pa.array([row["question"] for row in rows], pa.int64())
    return pa.RecordBatch.from_pydict(columns)

"""Windows over contexts that are too long, and the way back from their word pieces to text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.data import tokenized
from trainables.data.squad import SCHEMA
from trainables.data.tokenized import TokenizedSplit, encode
from trainables.data.windows import MAX_ANSWER_PIECES, answer_texts, window_bounds
from trainables.faults import FaultsError
from trainables.task import Task, TaskInfo, fingerprint
from trainables.training.evaluation import to_device
from trainables.training.loss import NOWHERE

Answer = tuple[str, int]
WORDS = ["good", "bad", *(f"w{number}" for number in range(10))]


@pytest.fixture(scope="module", params=["bert", "roberta"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    """A WordPiece tokenizer with BERT's frame, and one of bytes with RoBERTa's: four special tokens, no types."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if request.param == "bert":
        return AutoTokenizer.from_pretrained(request.getfixturevalue("tiny_bert"), local_files_only=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: index for index, piece in enumerate(["<s>", "<pad>", "</s>", *letters])}
    text = Tokenizer(models.BPE(vocabulary, merges=[]))
    text.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    names = {"bos_token": "<s>", "cls_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "sep_token": "</s>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=text, **{name: AddedToken(value, special=True) for name, value in names.items()}
    )


@pytest.fixture(scope="module")
def bert(tiny_bert: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_bert, local_files_only=True)


def questions(*rows: tuple[str, str, Sequence[Answer]]) -> pa.Table:
    """Rows of question, context and answers."""
    return pa.Table.from_pylist(
        [
            {
                "id": str(index),
                "text_a": question,
                "text_b": context,
                "answers": [{"text": text, "start": start} for text, start in answers],
            }
            for index, (question, context, answers) in enumerate(rows)
        ],
        schema=SCHEMA,
    )


def row_of(split: TokenizedSplit, row: int) -> slice:
    return slice(*split.offsets[row : row + 2])


def oracle(split: TokenizedSplit) -> np.ndarray:
    """The logits of a model that is sure of every label."""
    logits = np.full((len(split), split.lengths.max(), 2), NOWHERE, np.float32)
    for row, (start, end) in enumerate(split.labels):
        logits[row, : split.lengths[row]] = -5.0
        logits[row, start, 0] = logits[row, end, 1] = 5.0 if end else 0.0
    return logits


def answers_of(split: TokenizedSplit, logits: np.ndarray) -> list[str]:
    assert split.windows is not None
    return answer_texts(logits, split.windows, split.offsets)


texts = st.lists(st.sampled_from([*WORDS, "abc", "Hé", "a.b", "?"]), min_size=1, max_size=40).map(" ".join)


class TestCutting:
    @settings(max_examples=60, deadline=None)
    @given(question=texts, context=texts, max_length=st.integers(6, 60))
    def test_windows_show_every_word_piece_of_a_context_and_it_may_begin_an_answer_in_one(
        self, bert: Any, question: str, context: str, max_length: int
    ) -> None:
        split = encode(questions((question, context, [])), bert, max_length)
        assert split.windows is not None
        assert split.lengths.max() <= max_length
        pieces = bert(context, add_special_tokens=False, return_offsets_mapping=True)
        ends = split.windows.char_end > 0
        seen = set(zip(split.windows.char_start[ends], split.input_ids[ends], strict=True))
        assert seen == set(zip([s for s, _ in pieces["offset_mapping"]], pieces["input_ids"], strict=True))
        starts = split.windows.char_start[split.windows.may_start & ends]
        assert sorted(starts) == sorted({start for start, _ in pieces["offset_mapping"]})
        assert (split.labels == 0).all()

    @settings(max_examples=100, deadline=None)
    @given(num_pieces=st.integers(0, 300), room=st.integers(1, 50), stride=st.integers(1, 60))
    def test_windows_are_full_overlap_and_reach_to_the_end(self, num_pieces: int, room: int, stride: int) -> None:
        bounds = window_bounds(num_pieces, room, stride)
        assert bounds[0][0] == 0
        assert bounds[-1][1] == num_pieces
        assert all(last - first == room for first, last in bounds[:-1])
        assert all(later[0] - earlier[0] == min(stride, room) for earlier, later in pairwise(bounds))
        assert all(earlier[1] < num_pieces for earlier, _ in pairwise(bounds))  # none shows only what was seen
        assert all(later[0] <= earlier[1] for earlier, later in pairwise(bounds))

    @pytest.mark.parametrize("max_length", [12, 20, 40])
    def test_windows_are_those_the_tokenizer_itself_overflows_into(self, tokenizer: Any, max_length: int) -> None:
        rng = np.random.default_rng(0)
        pairs = [(" ".join(rng.choice(WORDS, 2)), " ".join(rng.choice(WORDS, size))) for size in (1, 9, 14, 30, 60)]
        pairs = [(question[: max_length // 4], context) for question, context in pairs]
        split = encode(questions(*((question, context, []) for question, context in pairs)), tokenizer, max_length)
        assert split.windows is not None
        special = tokenizer.num_special_tokens_to_add(pair=True)
        for index, (question, context) in enumerate(pairs):
            room = max_length - special - len(tokenizer(question, add_special_tokens=False)["input_ids"])
            expected = tokenizer(
                question,
                context,
                truncation="only_second",
                max_length=max_length,
                stride=room - min(room, max_length // 3),
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
                return_token_type_ids=True,
            )
            rows = np.flatnonzero(split.windows.question == index)
            assert len(rows) == len(expected["input_ids"])
            for place, row in enumerate(rows):
                here = row_of(split, row)
                spans = zip(expected["offset_mapping"][place], expected.sequence_ids(place), strict=True)
                own = [span if part == 1 else (0, 0) for span, part in spans]
                assert split.input_ids[here].tolist() == expected["input_ids"][place]
                assert split.token_type_ids[here].tolist() == expected["token_type_ids"][place]
                found = zip(split.windows.char_start[here], split.windows.char_end[here], strict=True)
                assert list(found) == own

    def test_a_question_that_leaves_no_room_is_cut_to_half_of_it(self, bert: Any) -> None:
        split = encode(questions((" ".join(["bad"] * 50), "good w1 w2", [("w1", 5)])), bert, 13)
        bad = bert.convert_tokens_to_ids("bad")
        assert (split.input_ids[row_of(split, 0)] == bad).sum() == 5
        assert len(split) == 1  # and the other half holds the context

    def test_a_length_that_shows_no_context_is_refused(self, bert: Any) -> None:
        with pytest.raises(FaultsError, match="max_length: must be at least 5 to show a word piece of a question"):
            encode(questions(("bad", "good", [])), bert, 4)
        assert len(encode(questions(("bad", "good", [])), bert, 5)) == 1

    def test_a_window_that_shows_more_around_a_word_piece_is_where_it_may_start(self, bert: Any) -> None:
        context = " ".join(f"w{number % 10}" for number in range(10))
        split = encode(questions(("bad", context, [])), bert, 12)  # 8 pieces of the context each, 4 apart
        assert split.windows is not None
        assert len(split) == 2
        shown = [split.windows.char_end[row_of(split, row)] > 0 for row in range(2)]
        may_start = [split.windows.may_start[row_of(split, row)][shown[row]] for row in range(2)]
        # The pieces 4 to 7 are in both: before them are 4 to 7 and 0 to 3 pieces, after them 3 to 0 and 5 to 2.
        assert may_start[0].tolist() == [True] * 6 + [False] * 2
        assert may_start[1].tolist() == [False] * 2 + [True] * 4


class TestLabels:
    CONTEXT = "w0 w1 w2 w3 w4 w5 w6 w7 w8 w9"  # a word is a piece

    def labels(self, bert: Any, answer: Answer) -> list[list[int]]:
        split = encode(questions(("bad", self.CONTEXT, [answer])), bert, 12)
        assert len(split) == 2  # w0..w7 and w4..w9, from place 3 on
        return split.labels.tolist()

    def test_an_answer_in_the_overlap_is_in_both_windows(self, bert: Any) -> None:
        assert self.labels(bert, ("w5 w6", 15)) == [[8, 9], [4, 5]]

    def test_an_answer_that_a_window_cuts_is_not_in_it(self, bert: Any) -> None:
        assert self.labels(bert, ("w7 w8", 21)) == [[0, 0], [6, 7]]
        assert self.labels(bert, ("w3 w4", 9)) == [[6, 7], [0, 0]]
        assert self.labels(bert, ("w3 w4 w5 w6 w7 w8", 9)) == [[0, 0], [0, 0]]

    def test_the_first_answer_is_the_label(self, bert: Any) -> None:
        split = encode(questions(("bad", "w0 w1 w2", [("w1", 3), ("w1 w2", 3)])), bert, 12)
        assert split.labels.tolist() == [[4, 4]]

    def test_a_part_of_a_word_is_the_word_pieces_it_touches(self, bert: Any) -> None:
        split = encode(questions(("bad", "w0 abc w2", [("b", 4)])), bert, 12)  # a ##b ##c
        assert split.labels.tolist() == [[5, 5]]

    @settings(max_examples=60, deadline=None)
    @given(words=st.lists(st.sampled_from([*WORDS, "Hé", "..", "a\u2009b"]), min_size=1, max_size=30), pick=st.data())
    def test_what_a_label_marks_is_the_answer(self, bert: Any, words: list[str], pick: st.DataObject) -> None:
        context = "  ".join(words)
        first = pick.draw(st.integers(0, len(words) - 1))
        last = pick.draw(st.integers(first, min(first + 2, len(words) - 1)))
        text = "  ".join(words[first : last + 1])
        start = len("  ".join(["", *words[:first]])[2:]) + (2 if first else 0)
        assert context[start : start + len(text)] == text
        table = questions(("bad", context, [(text, start)]))
        split = encode(table, bert, 40)
        assert (split.labels[:, 1] > 0).any()
        assert answers_of(split, oracle(split)) == [text]


class TestAnswering:
    def split(self, bert: Any) -> TokenizedSplit:
        long = " ".join(f"w{number % 10}" for number in range(25))
        return encode(questions(("bad", "good w1 w2 w3", []), ("good", long, []), ("bad", "good", [])), bert, 14)

    def test_the_best_answer_is_the_best_of_all_spans_of_all_windows(self, bert: Any) -> None:
        split = self.split(bert)
        windows = split.windows
        assert windows is not None
        contexts = windows.table["text_b"].to_pylist()
        for seed in range(20):
            logits = np.random.default_rng(seed).normal(size=(len(split), split.lengths.max(), 2)).astype(np.float32)
            expected: dict[int, tuple[float, str]] = {}
            for row, question in enumerate(windows.question):
                begins, ends, may = (
                    array[row_of(split, row)] for array in (windows.char_start, windows.char_end, windows.may_start)
                )
                for start in range(split.lengths[row]):
                    for end in range(start, split.lengths[row]):
                        if may[start] and ends[start] and ends[end]:
                            score = float(logits[row, start, 0] + logits[row, end, 1])
                            found = (score, contexts[question][begins[start] : ends[end]])
                            expected[question] = max(expected.get(question, found), found)
            assert answers_of(split, logits) == [expected[question][1] for question in range(3)]

    def test_neither_padding_nor_question_nor_special_tokens_are_answers(self, bert: Any) -> None:
        split = self.split(bert)
        logits = np.zeros((len(split), split.lengths.max() + 5, 2), np.float32)
        logits[:, :3] = 50.0  # [CLS] question [SEP]
        for row, length in enumerate(split.lengths):
            logits[row, length - 1 :] = 100.0  # [SEP] and what comes after it
        assert all(answers_of(split, logits))

    def test_an_answer_is_no_longer_than_its_bound(self, bert: Any) -> None:
        context = " ".join(f"w{number % 10}" for number in range(MAX_ANSWER_PIECES + 5))
        split = encode(questions(("bad", context, [])), bert, 64)
        logits = np.zeros((1, split.lengths[0], 2), np.float32)
        logits[0, 3, 0], logits[0, 3 + MAX_ANSWER_PIECES, 1], logits[0, 2 + MAX_ANSWER_PIECES, 1] = 9.0, 9.0, 5.0
        assert answers_of(split, logits) == [" ".join(context.split()[:MAX_ANSWER_PIECES])]

    def test_texts_keep_their_case_accents_and_spaces(self, bert: Any) -> None:
        context = "W0  Héa, w2"
        split = encode(questions(("bad", context, [("Héa,", 4)])), bert, 20)
        assert answers_of(split, oracle(split)) == ["Héa,"]

    def test_a_context_without_a_word_piece_answers_nothing(self, bert: Any) -> None:
        split = encode(questions(("bad", "\u200b", []), ("bad", "good", [])), bert, 20)
        assert answers_of(split, np.zeros((2, 6, 2), np.float32)) == ["", "good"]


class TestCache:
    def task(self) -> Task:
        long = " ".join(f"w{number % 10}" for number in range(40))
        table = questions(("bad", long, [("w1", 3)]), ("good", "w0 w1", [("w0", 0), ("w0 w1", 0)]))
        info = TaskInfo(
            name="q", kind="extractive_qa", pair=True, num_labels=2, label_names=(), metric="squad_f1", source="here"
        )
        splits: Mapping[str, pa.Table] = {"train": table, "validation": table.slice(1)}
        return Task(info=info, splits=splits, fingerprint=fingerprint(info, splits))

    def test_the_second_time_the_cache_is_used(self, bert: Any, tmp_path: Path, monkeypatch: Any) -> None:
        task = self.task()
        first = tokenized.tokenize(task, bert, "tiny", 20, tmp_path)
        monkeypatch.setattr(tokenized, "cut_windows", lambda *_: pytest.fail("tokenised again"))
        second = tokenized.tokenize(task, bert, "tiny", 20, tmp_path)
        for name in ("train", "validation"):
            for field in ("offsets", "input_ids", "token_type_ids", "labels"):
                assert np.array_equal(getattr(first[name], field), getattr(second[name], field))
            for field in ("question", "char_start", "char_end", "may_start"):
                ours, theirs = (getattr(splits[name].windows, field) for splits in (first, second))
                assert np.array_equal(ours, theirs)
                assert ours.dtype == theirs.dtype
            assert answers_of(second[name], oracle(second[name])) == answers_of(first[name], oracle(first[name]))
        assert second["validation"].windows is not None
        assert second["validation"].windows.right_answers().tolist() == [("w0", "w0 w1")]

    def test_batches_are_of_windows(self, bert: Any, tmp_path: Path) -> None:
        split = tokenized.tokenize(self.task(), bert, "tiny", 20, tmp_path)["train"]
        rows = np.array([len(split) - 1, 0])
        _, pieces, labels = to_device(split, rows, 1, torch.device("cpu"))
        assert labels.dtype == torch.int64
        assert labels.tolist() == split.labels[rows].tolist()
        assert pieces.num_rows == split.lengths[rows].sum()
        assert pieces.sequences.lengths_S.tolist() == split.lengths[rows].tolist()

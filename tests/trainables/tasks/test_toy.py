"""The toy tasks: the same everywhere, sound, and with nothing shared between splits."""

from __future__ import annotations

from collections import Counter
from random import Random

import pyarrow.compute as pc
import pytest

from trainables import tasks
from trainables.tasks import toy
from trainables.tasks.toy import grammars

DIGESTS = {  # the first digits of the fingerprint of all that is generated
    "acceptability": "6a8e06d3",
    "inference": "382e7107",
    "intent": "3b0ae554",
    "paraphrase": "80336249",
    "sentiment": "8ffc8f8d",
    "similarity": "3dd22d35",
}


def sentences(table) -> list[str]:
    return [text for name in ("text_a", "text_b") if name in table.column_names for text in table[name].to_pylist()]


@pytest.mark.parametrize("name", toy.names())
class TestEveryTask:
    def test_no_sentence_occurs_in_two_splits(self, name: str) -> None:
        splits = [set(sentences(table)) for table in tasks.load(f"toy/{name}").splits.values()]
        assert len(set.union(*splits)) == sum(map(len, splits))

    def test_no_row_occurs_twice(self, name: str) -> None:
        for table in tasks.load(f"toy/{name}").splits.values():
            texts = table.drop_columns("label").to_pylist()
            assert len({tuple(row.values()) for row in texts}) == table.num_rows

    def test_labels_are_balanced_and_sizes_as_promised(self, name: str) -> None:
        task = tasks.load(f"toy/{name}")
        assert {split: table.num_rows for split, table in task.splits.items()} == toy.num_rows(name)
        counts = Counter(task.splits["test"]["label"].to_pylist())
        assert max(counts.values()) - min(counts.values()) <= 1

    def test_sentences_are_short(self, name: str) -> None:
        lengths = sorted(len(text.split()) for text in sentences(tasks.load(f"toy/{name}").splits["train"]))
        assert lengths[0] >= 3
        assert 6 <= lengths[len(lengths) // 2] <= 14
        assert lengths[-1] <= 24


def test_every_process_generates_the_same_rows() -> None:
    digests = {name: tasks.load(f"toy/{name}").fingerprint[:8] for name in toy.names()}
    assert digests == DIGESTS


def test_scores_of_a_regression_are_whole_numbers_from_0_to_5() -> None:
    scores = tasks.load("toy/similarity").splits["train"]["label"]
    assert pc.unique(scores).sort().to_pylist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_paraphrase_is_never_the_same_words_again() -> None:
    for table in tasks.load("toy/paraphrase").splits.values():
        assert not any(row["text_a"] == row["text_b"] for row in table.to_pylist())


@pytest.mark.parametrize(
    ("premise", "hypothesis", "label"),
    [
        (("all", False, False), ("all", True, False), 0),  # all animals slept: all dogs slept
        (("all", True, False), ("all", False, False), 1),  # all dogs slept: did all animals?
        (("all", True, True), ("some", False, False), 0),  # all dogs slept in the garden: some animals slept
        (("some", True, True), ("some", False, False), 0),
        (("no", False, False), ("some", True, True), 2),
        (("no", True, False), ("no", True, True), 0),
        (("no", True, True), ("no", True, False), 1),
        (("all", True, False), ("not all", True, False), 2),
        (("some", False, False), ("not all", False, False), 1),
    ],
)
def test_quantifiers_conclude_what_logic_says(
    premise: tuple[str, bool, bool], hypothesis: tuple[str, bool, bool], label: int
) -> None:
    assert (premise, hypothesis) in grammars.inferences()[label]


def test_negations_turn_an_opinion_round() -> None:
    good, bad = set(grammars.GOOD), set(grammars.BAD)
    for seed in range(200):
        clause = grammars.opinion(Random(seed), 1)
        turned = any(f" {verb} " in clause for verb in grammars.TURNED)
        assert clause.split()[-1] in (bad if turned else good)

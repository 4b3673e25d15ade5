"""The opponents' recipe is adaptune's: steps, optimizer, scores, and the word pieces of a row."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from benchmarks import _opponent
from benchmarks._opponent import METRICS, SCRIPTS
from trainables import metrics, tasks
from trainables.config import TrialConfig
from trainables.data.order import num_steps
from trainables.data.tokenized import tokenize
from trainables.training.optimizer import EPSILON


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports one of the opponents' modules, which find each other as scripts do."""
    monkeypatch.syspath_prepend(str(SCRIPTS))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


@pytest.mark.parametrize("num_rows", [1, 10, 31, 32, 4126, 4874])
def test_both_sides_take_as_many_steps(script, num_rows):
    recipe = script("recipe")
    assert recipe.num_steps(num_rows, 3) == num_steps(num_rows, batch_size=recipe.BATCH_SIZE, num_epochs=3)


def test_the_trainer_is_told_what_adaptune_does_by_default(script, tmp_path):
    given = script("recipe").training_arguments(str(tmp_path), num_rows=4874, num_epochs=3, seed=1, learning_rate=2e-3)
    ours = TrialConfig(task="any", backbone="any", method="adapter", learning_rate=2e-3, seed=1)
    steps = num_steps(4874, batch_size=ours.batch_size, num_epochs=ours.num_epochs)
    assert (given.max_steps, given.get_warmup_steps(steps)) == (steps, int(ours.warmup_ratio * steps)) == (456, 45)
    assert given.per_device_train_batch_size == ours.batch_size
    assert given.lr_scheduler_type == "linear"
    assert (given.weight_decay, given.max_grad_norm) == (ours.weight_decay, ours.max_grad_norm)
    assert (given.adam_epsilon, given.adam_beta1, given.adam_beta2) == (EPSILON, 0.9, 0.999)
    assert given.optim.value.startswith("adamw_torch")
    assert (given.seed, given.learning_rate, given.gradient_accumulation_steps) == (1, 2e-3, 1)
    assert ours.max_length == script("backbone").MAX_LENGTH


@pytest.mark.parametrize("metric", METRICS)
def test_both_sides_score_alike(script, metric):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 2)), rng.integers(0, 2, 50)
    score = script("recipe").scorer(metric)
    for given in (logits, np.tile([1.0, 0.0], (50, 1))):  # and one that never says the second class
        expected = metrics.get(metric).score(given.argmax(axis=-1), labels, 2)
        assert score(SimpleNamespace(predictions=given, label_ids=labels))["score"] == pytest.approx(expected)


def test_the_loop_reads_the_same_word_pieces_and_evaluates_in_order_of_length(script, task_folder, tmp_path):
    from transformers import AutoTokenizer

    task = _opponent.task_for_both(tmp_path / "task", str(task_folder()))
    tokenizer = AutoTokenizer.from_pretrained(script("backbone").backbone_folder())
    theirs = script("loop").tokenized(tmp_path / "task")
    ours = tokenize(tasks.load(str(tmp_path / "task")), tokenizer, "minilm", 128, tmp_path / "cache")
    assert theirs.keys() == task.splits.keys() == ours.keys()
    for name in ("input_ids", "token_type_ids", "offsets", "labels"):
        assert np.array_equal(theirs["train"][name], getattr(ours["train"], name))
    lengths = np.diff(theirs["test"]["offsets"])
    assert sorted(ours["test"].lengths) == lengths.tolist()
    right = [int("good" in text.split()) for text in task.splits["test"]["text_a"].to_pylist()]
    assert sorted(right) == sorted(theirs["test"]["labels"])


def test_a_batch_of_the_loop_is_padded_to_its_longest_row(script):
    trial = script("loop_trial")
    arrays = {"input_ids": np.arange(5, 10), "token_type_ids": np.array([0, 0, 1, 0, 0])}
    rows = trial.Rows({**arrays, "offsets": np.array([0, 3, 5]), "labels": np.array([1, 0])})
    batch = trial.collate([rows[1], rows[0]])
    assert len(rows) == 2
    assert batch["input_ids"].tolist() == [[8, 9, 0], [5, 6, 7]]
    assert batch["token_type_ids"].tolist() == [[0, 0, 0], [0, 0, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["labels"].tolist() == [0, 1]

"""The values of a config.json: each of the kind and in the range it must be, all that are wrong named at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainables.backbones import shape_of

Checkpoint = Callable[[str], Path]
BAD = (None, "12", -2, 1.5, [], True, float("nan"), 10**12, {})


def config_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("value", BAD, ids=repr)
@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("bert", "hidden_size"),
        ("bert", "num_hidden_layers"),
        ("bert", "type_vocab_size"),
        ("distilbert", "n_heads"),
        ("electra", "embedding_size"),
        ("roformer", "max_position_embeddings"),
    ],
)
def test_a_size_that_is_none_is_refused_by_name(family: str, name: str, value: Any, checkpoint: Checkpoint) -> None:
    came = "null" if value is None else str(value)
    with pytest.raises(ValueError, match=f"{name} must be a whole number in ") as refusal:
        shape_of({**config_of(checkpoint(family)), name: value})
    assert came in str(refusal.value)


@pytest.mark.parametrize("value", [None, "x", -1, 1.5, [], True, float("nan")], ids=repr)
def test_a_rate_that_is_none_is_refused(value: Any, tiny_bert: Path) -> None:
    with pytest.raises(ValueError, match=r"hidden_dropout_prob must be a number in \[0, 1\]"):
        shape_of({**config_of(tiny_bert), "hidden_dropout_prob": value})


def test_all_that_is_wrong_is_named_at_once(checkpoint: Checkpoint) -> None:
    wrong = {"hidden_size": 0, "norm_eps": 0, "mlp_bias": 1, "hidden_activation": 3, "rope_parameters": []}
    with pytest.raises(ValueError, match="must be") as refusal:
        shape_of({**config_of(checkpoint("modernbert")), **wrong})
    assert all(f"{name} must be" in str(refusal.value) for name in wrong)


@pytest.mark.parametrize(
    ("family", "values", "fault"),
    [
        ("bert", {"num_attention_heads": 3}, "must be a multiple of the number of attention heads, but got 16 and 3"),
        ("roberta", {"max_position_embeddings": 2}, "max_position_embeddings must be more than 2"),
        ("deberta-v3", {"position_buckets": 1}, "position_buckets must be at least 2"),
        ("deberta-v3", {"max_relative_positions": 3}, "half of them less than 2"),
    ],
)
def test_values_that_do_not_go_together_are_refused(
    family: str, values: dict[str, Any], fault: str, checkpoint: Checkpoint
) -> None:
    with pytest.raises(ValueError, match=fault):
        shape_of({**config_of(checkpoint(family)), **values})


def test_what_may_be_null_or_absent_is_read(checkpoint: Checkpoint) -> None:
    config = config_of(checkpoint("modernbert"))
    assert shape_of({**config, "classifier_dropout": 0.0, "rope_scaling": None}) == shape_of(config)
    electra = config_of(checkpoint("electra"))
    del electra["embedding_size"]
    assert shape_of(electra).embedding_size == 128  # as transformers has it


@pytest.mark.parametrize("family", ["bert", "roberta", "ernie"])
def test_an_embedding_size_that_a_family_does_not_know_changes_nothing(family: str, checkpoint: Checkpoint) -> None:
    config = config_of(checkpoint(family))
    assert shape_of({**config, "embedding_size": 8}) == shape_of(config)

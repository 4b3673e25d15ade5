"""What a trial computes is part of its identity: a change of it must come with a new `OUTCOME_VERSION`.

The numbers below are those that trials of this version end with. They differ a little between CPUs, in the last bits of
sums; what a change of the code alters is far larger.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables.backbones import checkpoint_names, shape_of
from trainables.config import OUTCOME_VERSION, Scalar, TrialConfig
from trainables.engine.engine import Engine
from trainables.nn.kernels import native

WORDS = ["good", "bad", *(f"w{number}" for number in range(8))]
CONFIG = {
    "model_type": "bert",
    "vocab_size": 32,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 24,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}
LEARNING_RATE = 3e-2
TOLERANCE, SCORE_TOLERANCE = 2e-5, 2.5 / 32  # of losses; and two of the rows may lie on the border

# method -> its options; train loss of the first and last of three epochs, validation loss and score after the last.
VERSION = 3
EXPECTED: dict[str, tuple[dict[str, Scalar], tuple[float, float, float, float]]] = {
    "adapter": ({"adapter_size": 4, "init_std": 0.1}, (0.71586, 0.686849, 0.682803, 0.5)),
    "bitfit": ({}, (0.713359, 0.678104, 0.674768, 0.5)),
    "feature_based": ({}, (0.712761, 0.683051, 0.679034, 0.5)),
    "full_finetuning": ({}, (0.724445, 0.658584, 0.60252, 1.0)),
    "layernorm": ({}, (0.712118, 0.677497, 0.658598, 0.59375)),
    "lora": ({"rank": 2}, (0.710637, 0.638498, 0.561245, 0.90625)),
    "top_layers": ({"num_layers": 1}, (0.72799, 0.652238, 0.573724, 1.0)),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone and a task whose every number is written here or drawn by numpy, so that no library decides them."""
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    from trainables.backbones.loading import meta_encoder

    root = tmp_path_factory.mktemp("outcome")
    (root / "backbone").mkdir()
    (root / "task").mkdir()
    rng, shape = np.random.RandomState(0), shape_of(CONFIG)  # whose draws never change
    sizes = {name: parameter.shape for name, parameter in meta_encoder(shape).named_parameters()}
    tensors = {}
    for ours, theirs in sorted(checkpoint_names(shape).items()):
        for name in theirs:
            drawn = rng.standard_normal((sizes[ours][0] // len(theirs), *sizes[ours][1:])) * 0.3
            tensors[name] = torch.tensor(drawn + ("LayerNorm.weight" in name), dtype=torch.float32)
    save_file(tensors, root / "backbone" / "model.safetensors", metadata={"format": "pt"})
    (root / "backbone" / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    words = Tokenizer(models.WordLevel({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=words, **names).save_pretrained(root / "backbone")
    for split, count in (("train", 48), ("validation", 32)):
        texts = [f"w{row % 5} {['bad', 'good'][row % 2]} w{row % 7} " + "w1 " * (row % 4) for row in range(count)]
        lines = [json.dumps({"text_a": text, "label": row % 2}) for row, text in enumerate(texts)]
        (root / "task" / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return root


def test_the_numbers_below_are_of_the_version_that_the_code_says_it_is() -> None:
    assert VERSION == OUTCOME_VERSION, "take the numbers of EXPECTED anew, and VERSION with them"


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "torch"])
@pytest.mark.parametrize("method", EXPECTED)
@pytest.mark.thinned
def test_a_trial_ends_as_trials_of_this_version_do(
    method: str, compiled: bool, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With kernels in C, where there is a compiler, and with those in torch alike."""
    if not compiled:
        monkeypatch.setattr(native, "library", lambda: None)
    options, expected = EXPECTED[method]
    config = TrialConfig(
        task=str(place / "task"),
        backbone=str(place / "backbone"),
        method=method,
        method_options=options,
        learning_rate=LEARNING_RATE,
        num_epochs=3,
        batch_size=8,
        max_length=16,
        weight_decay=0.3,
        precision="fp32",
        seed=1,
    )
    outcome = Engine(device="cpu", num_threads=1, cache_dir=place / "cache").run(config)
    assert outcome.error is None
    last = outcome.epochs[-1]
    *losses, score = expected
    found = [outcome.epochs[0].train_loss, last.train_loss, last.validation["loss"]]
    is_same = found == pytest.approx(losses, abs=TOLERANCE) and abs(last.validation_score - score) < SCORE_TOLERANCE
    assert is_same, (
        f"trials of {method} end with {found} and {last.validation_score}, and not with {expected} as those of "
        f"OUTCOME_VERSION {OUTCOME_VERSION} did: if that is meant, raise OUTCOME_VERSION "
        "in trainables/config.py, so that records of the code before are not taken for records of this one, and take "
        "the numbers of EXPECTED in this file anew"
    )

"""Models as ONNX graphs: padded texts through plain products, and onnxruntime's answers."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import trainables
from tests.saving import PAIRS, TEXTS, Saved
from trainables.config import Scalar
from trainables.faults import FaultsError
from trainables.inference.equal_answers import padded
from trainables.inference.formats import convert
from trainables.inference.padded_model import PaddedModel
from trainables.metrics import TaskKind


@pytest.mark.parametrize(
    ("family", "method", "options", "kind"),
    [
        ("bert", "adapter", {"adapter_size": 4}, "classification"),
        ("bert", "adapter", {"adapter_size": 4, "depth": 2, "norm": "batch"}, "multilabel"),
        ("bert", "adapter", {"adapter_size": 4, "interaction": "multiply", "norm": "layer"}, "regression"),
        ("bert", "lora", {"pooling": "mean"}, "classification"),
        ("bert", "pals", {"size": 4, "num_heads": 2}, "classification"),
        ("bert", "peft", {"peft_type": "PREFIX_TUNING", "settings": '{"num_virtual_tokens": 4}'}, "classification"),
        ("bert", "feature_based", {}, "classification"),
        ("bert", "lora", {}, "extractive_qa"),
        ("albert", "adapter", {"adapter_size": 4, "placement": "parallel"}, "classification"),
        ("deberta-v2", "adapter", {"adapter_size": 4, "placement": "pfeiffer"}, "classification"),
        ("deberta-v2", "full_finetuning", {"pooling": "mean"}, "classification"),
        ("distilbert", "top_layers", {"num_layers": 1}, "classification"),
        ("electra", "layernorm", {}, "classification"),
        ("modernbert", "adapter", {"adapter_size": 4}, "classification"),
        ("mpnet", "lora", {"targets": "query,key,value,output,up,down"}, "classification"),
        ("nomic_bert", "full_finetuning", {}, "classification"),
        ("roberta", "bitfit", {}, "classification"),
    ],
)
def test_padded_texts_are_answered_as_word_pieces_laid_end_to_end(
    family: str, method: str, options: Mapping[str, Scalar], kind: TaskKind, saved: Saved
) -> None:
    predictor = trainables.load(saved(family, method, options, kind=kind, pair=kind == "extractive_qa"))
    pairs = PAIRS if kind == "extractive_qa" else None
    found = _padded_answers(predictor, pairs)
    expected = predictor.logits(TEXTS, pairs)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def _padded_answers(predictor: trainables.Predictor, pairs: list[str] | None = None) -> np.ndarray:
    with torch.no_grad():
        answers: np.ndarray = PaddedModel(predictor)(**padded(predictor, predictor.encode(TEXTS, pairs))).numpy()
    return answers


def answers_of_the_card(folder: Path, pairs: list[str] | None) -> dict[str, Any]:
    """What the code that a folder's card shows makes of `TEXTS`."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    code = code.replace("path/to/this/folder", str(folder)).replace('["a text"]', str(TEXTS))
    names: dict[str, Any] = {}
    exec(code.replace('["and its pair"]', str(pairs)), names)
    return names


@pytest.mark.timeout(300)  # torch takes some seconds to write a graph, however small
@pytest.mark.thorough
def test_onnxruntime_answers_by_the_lines_of_the_card(
    saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved("bert", "adapter", {"adapter_size": 4}, pair=True)
    out = convert(folder, "onnx", tmp_path / "graph")
    found = answers_of_the_card(out, PAIRS)["logits"]
    np.testing.assert_allclose(found, trainables.load(folder).logits(TEXTS, PAIRS), rtol=0, atol=1e-5)
    assert json.loads((out / "config.json").read_text())["id2label"] == {"0": "no", "1": "perhaps", "2": "yes"}
    assert str(Path(torch.__file__).parent).encode() not in (out / "model.onnx").read_bytes()

    # The same graph for another model is not handed over.
    other = saved("bert", "adapter", {"adapter_size": 5}, pair=True)
    monkeypatch.setattr("trainables.inference.formats.onnx.write", lambda predictor, place: _copy(out, place))
    with pytest.raises(FaultsError, match="opened there, its outputs differ by"):
        convert(other, "onnx", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def _copy(source: Path, folder: Path) -> None:
    for file in source.iterdir():
        shutil.copy(file, folder)


@pytest.mark.timeout(300)
@pytest.mark.thorough
def test_a_graph_for_questions_gives_starts_and_ends(saved: Saved, tmp_path: Path) -> None:
    options: dict[str, Scalar] = {"adapter_size": 4, "placement": "pfeiffer"}
    folder = saved("deberta-v2", "adapter", options, kind="extractive_qa", pair=True)
    names = answers_of_the_card(convert(folder, "onnx", tmp_path / "graph"), PAIRS)
    found = np.stack([names["start_logits"], names["end_logits"]], axis=-1)
    np.testing.assert_allclose(found, trainables.load(folder).logits(TEXTS, PAIRS), rtol=0, atol=1e-5)


def test_what_reads_no_backbone_is_refused(saved: Saved, tmp_path: Path) -> None:
    folder = saved("bert", "no_bert", {"buckets": 64, "embedding_dim": 4, "hidden_size": 4})
    with pytest.raises(FaultsError, match="it reads no backbone"):
        convert(folder, "onnx", tmp_path / "graph")

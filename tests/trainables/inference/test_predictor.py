"""Saved adapters: private weights only, and the same answers after loading."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from safetensors.numpy import load_file

import trainables
from trainables import tasks
from trainables.backbones.loading import Backbone
from trainables.config import Scalar, TrialConfig
from trainables.engine.engine import Engine
from trainables.faults import FaultsError
from trainables.methods import method_names
from trainables.nn.encoder import Encoder
from trainables.outcome import OutcomeStatus


@pytest.fixture
def saved(
    tmp_path: Path,
    tiny_bert: Path,
    backbone: Backbone,
    small_options: Callable[[str, Encoder], dict[str, Scalar]],
    task_folder: Callable[..., Path],
    cache_dir: Path,
) -> Callable[[str], Path]:
    """Trains one trial of a method and gives the folder it was saved in."""
    task = task_folder()

    def train(method: str) -> Path:
        config = TrialConfig(
            task=str(task),
            backbone=str(tiny_bert),
            method=method,
            method_options=small_options(method, backbone.encoder),
            num_epochs=1,
            learning_rate=1e-2,
            max_length=32,
            precision="fp32",
        )
        outcome = Engine(device="cpu").run(config, save_to=tmp_path / "saved" / method)
        assert outcome.status is OutcomeStatus.COMPLETED, outcome.error
        return tmp_path / "saved" / method

    return train


@pytest.mark.parametrize("method", method_names())
def test_a_loaded_adapter_scores_what_the_trained_one_scored(method: str, saved: Callable[[str], Path]) -> None:
    folder = saved(method)
    predictor = trainables.load(folder)
    rows = tasks.load(predictor.config.task).splits["test"].to_pylist()
    predicted = predictor.predict([row["text_a"] for row in rows])
    accuracy = np.mean([label == row["label"] for label, row in zip(predicted, rows, strict=True)])
    assert accuracy == pytest.approx(predictor.scores["test/accuracy"])
    names = {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    if method == "adapter_fusion":
        names.add("references")
    assert {path.name for path in folder.iterdir()} == names


def test_only_trained_weights_are_saved_and_without_the_trial_axis(saved: Callable[[str], Path]) -> None:
    folder = saved("adapter")
    tensors = load_file(folder / "adapter_model.safetensors")
    about = json.loads((folder / "adapter_config.json").read_text())
    assert sum(tensor.size for tensor in tensors.values()) == about["trained_params"]
    assert tensors["encoder.layers.0.attention_output.adapter.down_proj"].shape == (16, 4)
    assert tensors["head.weight"].shape == (16, 2)
    assert not any("dense" in name or "qkv" in name for name in tensors)


def test_the_card_has_options_as_a_sweep_file_has_them_and_leaves_out_what_is_not_given(
    tiny_bert: Path, task_folder: Callable[..., Path], cache_dir: Path, tmp_path: Path
) -> None:
    options = {"adapter_size": 2, "scaling": None, "train_layernorms": True, "placement": "pfeiffer"}
    trained = {"task": str(task_folder()), "backbone": str(tiny_bert), "num_epochs": 1, "max_length": 32}
    config = TrialConfig(method="adapter", method_options=options, **trained)  # type: ignore[arg-type]
    assert Engine(device="cpu").run(config, save_to=tmp_path / "saved").status is OutcomeStatus.COMPLETED
    card = (tmp_path / "saved" / "README.md").read_text()
    assert ": adapter_size 2, train_layernorms true, placement pfeiffer, " in card
    assert "None" not in card


def test_texts_that_do_not_fit_the_task_are_refused(saved: Callable[[str], Path]) -> None:
    predictor = trainables.load(saved("layernorm"))
    with pytest.raises(FaultsError, match="pairs"):
        predictor.predict(["good"], ["bad"])
    with pytest.raises(FaultsError, match="non-empty list"):
        predictor.predict("good")
    for texts, said in (([], "but got []"), (3, "but got 3"), (["good", 3], r"but texts[1] is 3"), ([None], "is None")):
        with pytest.raises(FaultsError, match=re.escape(said)):
            predictor.predict(texts)  # type: ignore[arg-type]
    with pytest.raises(FaultsError, match="unknown precision 'fp16'"):
        trainables.load(saved("layernorm"), precision="fp16")


def test_a_column_of_a_table_is_a_list_of_texts(saved: Callable[[str], Path]) -> None:
    predictor = trainables.load(saved("layernorm"))
    texts = ["good", "bad", "dull"]
    columns = (pd.Series(texts), np.array(texts), pa.array(texts), pa.chunked_array([texts]), iter(texts))
    assert [predictor.predict(column) for column in columns] == [predictor.predict(texts)] * 5  # type: ignore[arg-type]


def test_a_folder_that_is_not_whole_or_fits_another_backbone_is_refused(
    tmp_path: Path, saved: Callable[[str], Path]
) -> None:
    with pytest.raises(FaultsError, match=r"adapter_config\.json"):
        trainables.load(tmp_path)
    folder = saved("layernorm")
    about = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**about, "backbone_fingerprint": "another"}))
    with pytest.raises(FaultsError, match="only the weights it was trained on"):
        trainables.load(folder)


def test_an_adapter_in_the_home_folder_is_loaded_and_converted(
    saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved("layernorm")
    monkeypatch.setenv("HOME", str(folder.parent))
    assert trainables.load(f"~/{folder.name}").predict(["good"]) == trainables.load(folder).predict(["good"])
    trainables.convert(f"~/{folder.name}", "transformers", "~/plain")
    assert (folder.parent / "plain" / "config.json").exists()

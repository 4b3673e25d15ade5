"""Folders of the adapters library: those that it saved (kept in tests/golden) and those that are written for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import trainables
from tests.fixtures import WORDS, write_tokenizer
from tests.pieces import laid_out
from tests.saving import PAIRS, TEXTS, Saved
from trainables.config import Scalar
from trainables.faults import FaultsError
from trainables.inference.formats import convert
from trainables.inference.saved_adapter import backbone_of
from trainables.metrics import TaskKind

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = sorted(path.name for path in (GOLDEN / "adapter_folders").iterdir() if path.is_dir())
FILES = ("adapter.safetensors", "model_head.safetensors")


@pytest.fixture
def golden(tmp_path: Path) -> Callable[[str], Path]:
    """A folder that the library saved, its backbone a checkpoint of the BERT that the library computed it on."""

    def make(case: str) -> Path:
        place = tmp_path / "backbone"
        if not place.exists():
            place.mkdir()
            with safe_open(GOLDEN / "adapters.safetensors", framework="pt") as file:
                config = json.loads(file.metadata()["config"])
            (place / "config.json").write_text(json.dumps({**config, "model_type": "bert"}), encoding="utf-8")
            tensors = load_file(GOLDEN / "adapters.safetensors")
            backbone = {n.removeprefix("backbone/"): each for n, each in tensors.items() if n.startswith("backbone/")}
            save_file(backbone, place / "model.safetensors")
            write_tokenizer(place, WORDS[:8])
        shutil.copytree(GOLDEN / "adapter_folders" / case, tmp_path / case)
        change(tmp_path / case / "adapter_config.json", model_name=str(place))
        return tmp_path / case

    return make


def change(path: Path, *, inner: Mapping[str, Any] | None = None, **values: Any) -> None:
    """Write a JSON file's keys anew, and those of the configuration in it."""
    about = json.loads(path.read_text())
    about |= values
    if isinstance(about["config"], dict):
        about["config"] |= inner or {}
    path.write_text(json.dumps(about), encoding="utf-8")


@pytest.mark.parametrize("case", CASES)
def test_what_the_library_saved_answers_as_it_does_there(case: str, golden: Callable[[str], Path]) -> None:
    predictor = trainables.load(golden(case))
    inputs = load_file(GOLDEN / "adapters.safetensors")
    batch = (inputs[f"inputs/{name}"] for name in ("input_ids", "token_types", "lengths"))
    with torch.no_grad():
        logits = predictor.model.eval()(laid_out(*batch))
    expected = load_file(GOLDEN / "adapter_folders" / "expected.safetensors")[case]
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert predictor.task.label_names == ("no", "perhaps", "yes")


@pytest.mark.parametrize("case", CASES)
def test_what_is_written_for_the_library_is_what_it_writes_itself(
    case: str, golden: Callable[[str], Path], tmp_path: Path
) -> None:
    theirs = golden(case)
    ours = convert(theirs, "adapters", tmp_path / "ours")
    for file in FILES:
        found, expected = load_file(ours / file), load_file(theirs / file)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)
    for file in ("adapter_config.json", "head_config.json"):
        found, expected = json.loads((ours / file).read_text()), json.loads((theirs / file).read_text())
        named = {"model_name": str(tmp_path / "backbone")}
        for key in ("init_weights",):  # of new weights alone
            found["config"].pop(key, None), expected["config"].pop(key, None)
        assert found == expected | named


@pytest.mark.parametrize(
    ("family", "method", "options", "kind", "files"),
    [
        ("bert", "adapter", {"adapter_size": 5}, "classification", {"layernorms", "model_head"}),
        ("bert", "adapter", {"adapter_size": 5, "pooling": "mean"}, "regression", {"layernorms", "head"}),
        ("roberta", "lora", {"targets": "query,key,up", "alpha": 5}, "multilabel", {"model_head"}),
        ("distilbert", "adapter", {"adapter_size": 3, "layers": "1"}, "classification", {"layernorms", "model_head"}),
        ("deberta-v2", "adapter", {"placement": "pfeiffer"}, "extractive_qa", {"layernorms", "model_head"}),
        ("electra", "adapter", {"placement": "parallel", "train_layernorms": False}, "classification", {"model_head"}),
    ],
)
def test_what_was_written_comes_back(
    family: str,
    method: str,
    options: Mapping[str, Scalar],
    kind: TaskKind,
    files: set[str],
    saved: Saved,
    tmp_path: Path,
) -> None:
    small = {"adapter_size": 4, **options} if method == "adapter" else options
    folder = saved(family, method, small, kind=kind, pair=kind == "extractive_qa")
    pairs = PAIRS if kind == "extractive_qa" else None
    out = convert(folder, "adapters", tmp_path / "out")
    assert {path.stem for path in out.glob("*.safetensors")} == {"adapter", *files}
    back, was = trainables.load(out), trainables.load(folder)
    np.testing.assert_array_equal(back.logits(TEXTS, pairs), was.logits(TEXTS, pairs))
    assert (back.task, back.scores, back.config.max_length) == (was.task, was.scores, was.config.max_length)
    assert ("load_state_dict" in (out / "README.md").read_text()) is ("layernorms" in files)


def test_it_is_a_banks_entry(golden: Callable[[str], Path]) -> None:
    folder = golden("houlsby")
    bank = trainables.AdapterBank(backbone_of(folder))
    bank.add("theirs", folder)
    found = np.stack(bank.logits([("theirs", text) for text in TEXTS]))
    np.testing.assert_allclose(found, trainables.load(folder).logits(TEXTS), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "method", "options", "reason"),
    [
        ("bert", "adapter", {"adapter_size": 4, "depth": 2}, "have one hidden layer, added and not normalised, but"),
        ("bert", "adapter", {"adapter_size": 4, "interaction": "multiply"}, "but here interaction multiply"),
        ("bert", "lora", {"targets": "query,output"}, "no low-rank change of output, the projection behind attention"),
        ("bert", "bitfit", {}, "equals of `adapter` and `lora` alone"),
        ("modernbert", "adapter", {"adapter_size": 4}, "a backbone of the family modernbert it does not"),
        ("albert", "lora", {}, "a backbone of the family albert it does not"),
    ],
)
def test_what_has_no_equal_there_is_refused_with_the_reason(
    family: str, method: str, options: Mapping[str, Scalar], reason: str, saved: Saved, tmp_path: Path
) -> None:
    folder = saved(family, method, options)
    with pytest.raises(FaultsError) as caught:
        convert(folder, "adapters", tmp_path / "out")
    assert reason in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "changes", "fault"),
    [
        ("adapter_config", {"model_name": None}, "model_name must be a text"),
        ("adapter_config", {"model_name": "../../no/such"}, "must be the path of a folder, a hub id"),
        ("adapter_config", {"config": "pfeiffer"}, "config must be a mapping, but got 'pfeiffer'"),
        ("adapter_config", {"inner": {"architecture": "reft"}}, "architecture must be null"),
        ("adapter_config", {"inner": {"ln_after": True}}, "ln_after is nothing that adaptune computes"),
        ("adapter_config", {"inner": {"inv_adapter": "nice"}}, "inv_adapter is nothing"),
        ("adapter_config", {"inner": {"phm_layer": True, "use_gating": True}}, "use_gating is nothing"),
        ("adapter_config", {"inner": {"new_in_2": "x"}}, "new_in_2 is nothing"),
        ("adapter_config", {"inner": {"scaling": "learned"}}, "scaling must be a number other than 0"),
        ("adapter_config", {"inner": {"scaling": float("nan")}}, "scaling must be a number other than 0"),
        ("adapter_config", {"inner": {"non_linearity": "leakyrelu"}}, "non_linearity must be one of gelu"),
        ("adapter_config", {"inner": {"original_ln_after": False}}, "original_ln_after must be true"),
        ("adapter_config", {"inner": {"is_parallel": True}}, "must be placed as one of houlsby"),
        ("adapter_config", {"inner": {"output_adapter": False}}, "must hold whole adapters as adapter_config.json"),
        ("adapter_config", {"name": "other"}, "must hold tensors such as bert.encoder.layer.0.attention.output.adap"),
        ("head_config", {"inner": {"layers": 2}}, "layers must be 1, a linear head, but got 2"),
        ("head_config", {"inner": {"head_type": "tagging"}}, "head_type must be one of classification"),
        ("head_config", {"name": "other"}, "must have a linear head"),
    ],
)
def test_what_adaptune_does_not_compute_is_refused(
    file: str, changes: dict[str, Any], fault: str, golden: Callable[[str], Path]
) -> None:
    folder = golden("houlsby")
    change(folder / f"{file}.json", **changes)
    with pytest.raises(FaultsError) as caught:
        trainables.load(folder)
    assert fault in str(caught.value)


def test_a_hostile_folder_is_one_clear_error(golden: Callable[[str], Path], subtests: Any) -> None:
    folder = golden("houlsby")
    weights = folder / "adapter.safetensors"
    tensors = load_file(weights)
    first = next(name for name in tensors if name.endswith("adapter_up.weight"))
    for name, value, fault in (
        (first, torch.full_like(tensors[first], torch.nan), "must hold finite numbers"),
        (first, torch.zeros(1, 4), "must be (16, 4), but is (1, 4)"),
        ("bert.embeddings.word_embeddings.weight", torch.zeros(2, 2), "an adapter and its linear head alone"),
    ):
        with subtests.test(fault):
            save_file({**tensors, name: value}, weights)
            with pytest.raises(FaultsError, match=_literal(fault)):
                trainables.load(folder)
    with subtests.test("without one of its tensors"):
        save_file({name: each for name, each in tensors.items() if name != first}, weights)
        with pytest.raises(FaultsError, match="must hold whole adapters"):
            trainables.load(folder)
    with subtests.test("a pickle"):
        weights.rename(folder / "pytorch_adapter.bin")
        with pytest.raises(FaultsError, match="use_safetensors=True"):
            trainables.load(folder)


def _literal(text: str) -> str:
    return "".join(f"[{letter}]" if letter in "()." else letter for letter in text)


def test_a_lora_of_before_the_library_scaled_it_is_read_as_it_was_trained(golden: Callable[[str], Path]) -> None:
    folder = golden("lora")
    assert trainables.load(folder).config.method_options["alpha"] == 6
    change(folder / "adapter_config.json", version="adapters.1.0.1")
    assert trainables.load(folder).config.method_options["alpha"] == 2

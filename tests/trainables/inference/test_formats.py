"""Saved adapters in the formats of other libraries: opened there by their own classes, they answer the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import trainables
from orchestrator.cli import main
from tests.saving import PAIRS, TEXTS, Saved
from trainables.config import Scalar
from trainables.faults import FaultsError
from trainables.inference.formats import convert, format_names
from trainables.inference.saved_adapter import backbone_of
from trainables.inference.stock_model import quietly
from trainables.metrics import TaskKind

EVERY_TARGET = "query,key,value,output,up,down"


def answers_of_the_card(folder: Path, *, pair: bool = False) -> np.ndarray:
    """Logits of `TEXTS` by the very code that the card of a folder shows."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    code = code.replace("path/to/this/folder", str(folder)).replace('["a text"]', str(TEXTS))
    code = code.replace('["and its pair"]', str(PAIRS))
    names: dict[str, Any] = {}
    with quietly(), torch.no_grad():
        exec(code, names)
    if "logits" in names:
        return names["logits"].numpy()
    outputs = names["outputs"]
    if hasattr(outputs, "start_logits"):
        return torch.stack([outputs.start_logits, outputs.end_logits], dim=-1).numpy()
    return outputs.logits.numpy()


def expected(folder: Path, *, pair: bool = False) -> np.ndarray:
    return trainables.load(folder).logits(TEXTS, PAIRS if pair else None)


def refusal(folder: Path, to: str, out: Path) -> str:
    with pytest.raises(FaultsError) as caught:
        convert(folder, to, out)
    assert not out.exists()
    assert not list(out.parent.glob(f".{out.name}*"))
    return str(caught.value)


@pytest.mark.parametrize("pair", [False, True], ids=["single", "pair"])
@pytest.mark.parametrize(
    ("family", "pooling"),
    [
        ("bert", "pooler"),
        ("bert", "first"),
        ("bert", "mean"),
        ("mpnet", "pooler"),
        ("distilbert", "first"),
        ("electra", "mean"),
        ("modernbert", "mean"),  # queries, keys and values joined
        ("nomic_bert", "mean"),  # what goes up is two projections
    ],
)
@pytest.mark.thinned(2)
def test_peft_opens_lora_and_answers_the_same(
    family: str, pooling: str, pair: bool, saved: Saved, tmp_path: Path
) -> None:
    folder = saved(family, "lora", {"rank": 3, "targets": EVERY_TARGET, "pooling": pooling}, pair=pair)
    out = convert(folder, "peft", tmp_path / "peft")
    found = answers_of_the_card(out, pair=pair)
    np.testing.assert_allclose(found, expected(folder, pair=pair), rtol=0, atol=1e-5)
    about = json.loads((out / "adapter_config.json").read_text())
    assert about["peft_type"] == "LORA"
    is_stock = (family, pooling) in (("bert", "pooler"), ("mpnet", "pooler"))
    assert about["task_type"] == ("SEQ_CLS" if is_stock else "FEATURE_EXTRACTION")
    assert (out / "head.safetensors").exists() is not is_stock


@pytest.mark.parametrize("to", ["peft", "transformers"])
@pytest.mark.parametrize("kind", ["regression", "multilabel"])
def test_other_kinds_of_tasks_have_their_classes_too(kind: TaskKind, to: str, saved: Saved, tmp_path: Path) -> None:
    folder = saved("bert", "lora", {"pooling": "pooler"}, kind=kind)
    found = answers_of_the_card(convert(folder, to, tmp_path / "out"))
    np.testing.assert_allclose(found, expected(folder), rtol=0, atol=1e-5)


@pytest.mark.parametrize("to", ["peft", "transformers"])
@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_answers_that_are_places_in_a_text_are_read_by_the_class_for_questions(
    family: str, to: str, saved: Saved, tmp_path: Path
) -> None:
    folder = saved(family, "lora", {}, kind="extractive_qa", pair=True)
    found = answers_of_the_card(convert(folder, to, tmp_path / "out"), pair=True)
    ours = expected(folder, pair=True)
    is_piece = ours > -1e4
    np.testing.assert_allclose(found[is_piece], ours[is_piece], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "peft_type", ["DORA", "FOURIERFT", "IA3", "LN_TUNING", "LOKR", "PREFIX_TUNING", "PROMPT_TUNING", "VERA"]
)
@pytest.mark.thinned(3)
def test_peft_opens_its_own_tuners_and_answers_the_same(peft_type: str, saved: Saved, tmp_path: Path) -> None:
    own = {"FOURIERFT": {"n_frequency": 20}, "VERA": {"r": 4}}.get(peft_type, {})
    prompts = ("PREFIX_TUNING", "PROMPT_TUNING")
    settings = json.dumps({"num_virtual_tokens": 4} if peft_type in prompts else own)
    folder = saved("bert", "peft", {"peft_type": peft_type, "settings": settings, "pooling": "pooler"})
    found = answers_of_the_card(convert(folder, "peft", tmp_path / "out"))
    np.testing.assert_allclose(found, expected(folder), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "method", "options"),
    [
        ("bert", "lora", {"targets": EVERY_TARGET}),
        ("roberta", "lora", {}),
        ("bert", "bitfit", {}),
        ("bert", "layernorm", {}),
        ("roberta", "layernorm", {}),
        ("bert", "top_layers", {}),
        ("albert", "full_finetuning", {}),
        ("ernie", "full_finetuning", {}),
        ("mpnet", "full_finetuning", {}),
        ("bert", "linear_probe", {}),
        ("bert", "peft", {"peft_type": "LOHA"}),
    ],
)
@pytest.mark.thinned(4)
def test_transformers_opens_a_checkpoint_of_merged_weights(
    family: str, method: str, options: Mapping[str, Scalar], saved: Saved, tmp_path: Path
) -> None:
    folder = saved(family, method, {**options, "pooling": "pooler"})
    out = convert(folder, "transformers", tmp_path / "out")
    np.testing.assert_allclose(answers_of_the_card(out), expected(folder), rtol=0, atol=1e-5)
    config = json.loads((out / "config.json").read_text())
    assert config["id2label"] == {"0": "no", "1": "perhaps", "2": "yes"}
    assert config["problem_type"] == "single_label_classification"


def test_the_folder_may_be_the_one_that_one_stands_in(
    saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folder = saved("bert", "linear_probe", {"pooling": "pooler"})
    written = convert(folder, "transformers", ".")
    assert {"config.json", "model.safetensors"} <= {path.name for path in Path.cwd().iterdir()}
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")] == []
    assert written.samefile(tmp_path / "here")


@pytest.mark.parametrize(
    ("to", "family", "method", "options", "reason"),
    [
        ("transformers", "bert", "lora", {"pooling": "mean"}, "the mean of all word pieces; train with the option"),
        ("transformers", "distilbert", "lora", {}, "reads, which is the first token itself"),
        ("transformers", "bert", "adapter", {"adapter_size": 4, "pooling": "pooler"}, "which no checkpoint of the"),
        ("transformers", "albert", "lora", {"pooling": "pooler"}, "share weights, but have changes of their own"),
        ("transformers", "bert", "peft", {"peft_type": "PROMPT_TUNING", "pooling": "pooler"}, "does not merge PROMPT"),
        ("peft", "bert", "adapter", {"adapter_size": 4}, "equals of `lora` and of its own tuners alone"),
        ("peft", "albert", "lora", {}, "share weights, but have changes of their own"),
    ],
)
def test_what_has_no_equal_there_is_refused_with_the_reason(
    to: str, family: str, method: str, options: Mapping[str, Scalar], reason: str, saved: Saved, tmp_path: Path
) -> None:
    folder = saved(family, method, options)
    assert reason in refusal(folder, to, tmp_path / "out")


def test_virtual_tokens_before_a_pair_are_refused(saved: Saved, tmp_path: Path) -> None:
    folder = saved("bert", "peft", {"peft_type": "PROMPT_TUNING"}, pair=True)
    assert "leaves out which text of a pair" in refusal(folder, "peft", tmp_path / "out")


def test_what_would_answer_otherwise_is_not_handed_over(
    saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainables.inference.formats.peft._whole", lambda number: 2 * number)  # alpha
    assert "opened there, its outputs differ by" in refusal(saved("bert", "lora", {}), "peft", tmp_path / "out")


def test_the_command_converts_a_folder(saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved("bert", "lora", {})
    assert main(["convert", str(folder), "--to", "peft", "--out", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(tmp_path / "out"), "format": "peft"}
    assert main(["convert", str(folder), "--to", "peft", "--out", str(tmp_path / "out")]) == 2
    assert "must be a new or empty folder" in capsys.readouterr().err
    assert main(["convert", str(folder), "--to", "pft", "--out", str(tmp_path / "other")]) == 2
    assert "did you mean 'peft'?" in capsys.readouterr().err


def test_the_card_has_front_matter_that_a_hub_reads(saved: Saved, tmp_path: Path) -> None:
    card = (convert(saved("bert", "lora", {}), "peft", tmp_path / "out") / "README.md").read_text()
    front = card.split("---")[1].strip().splitlines()
    assert front == ['library_name: "peft"', 'tags: ["adaptune", "lora"]']  # no folder of this machine
    assert "| test/accuracy | 0.5000 |" in card
    assert {"peft", "transformers"} <= set(format_names())


@pytest.mark.parametrize(
    ("family", "pooling", "pair"),
    [("bert", "pooler", True), ("bert", "mean", False), ("distilbert", "first", False), ("mpnet", "pooler", False)],
)
def test_what_peft_was_given_comes_back(family: str, pooling: str, pair: bool, saved: Saved, tmp_path: Path) -> None:
    folder = saved(family, "lora", {"rank": 3, "targets": EVERY_TARGET, "pooling": pooling}, pair=pair)
    back = trainables.load(convert(folder, "peft", tmp_path / "peft"))
    np.testing.assert_array_equal(back.logits(TEXTS, PAIRS if pair else None), expected(folder, pair=pair))
    assert back.task == trainables.load(folder).task
    assert back.scores == {"test/accuracy": 0.5}


def test_a_head_with_a_layer_of_its_own_is_refused(saved: Saved, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    out = convert(saved("mpnet", "lora", {"pooling": "pooler"}), "peft", tmp_path / "peft")
    tensors = load_file(out / "adapter_model.safetensors")
    tensors["base_model.model.classifier.dense.bias"] += 1
    save_file(tensors, out / "adapter_model.safetensors")
    with pytest.raises(FaultsError, match="must be the backbone's pooler"):
        trainables.load(out)


@pytest.fixture
def of_peft(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A folder that peft itself saved, of a LoRA over a class with a head."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    with quietly(), torch.random.fork_rng():
        torch.manual_seed(0)
        base = AutoModelForSequenceClassification.from_pretrained(checkpoint("bert"), num_labels=3)
        own = {"r": 4, "lora_alpha": 6, "use_rslora": True, "init_lora_weights": False}
        model = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", target_modules=["query", "key"], **own))
        model.save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


def test_a_lora_that_peft_saved_is_a_predictor_and_a_banks_entry(
    of_peft: Path, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    predictor = trainables.load(of_peft)
    with quietly(), torch.no_grad():
        base = AutoModelForSequenceClassification.from_pretrained(checkpoint("bert"), num_labels=3)
        model = PeftModel.from_pretrained(base, of_peft).eval()
        tokenizer = predictor.backbone.tokenizer
        assert tokenizer is not None
        theirs = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits.numpy()
    np.testing.assert_allclose(predictor.logits(TEXTS), theirs, rtol=0, atol=1e-5)
    assert backbone_of(of_peft) == str(checkpoint("bert"))
    bank = trainables.AdapterBank(backbone_of(of_peft))
    bank.add("theirs", of_peft)
    found = np.stack(bank.logits([("theirs", text) for text in TEXTS]))
    np.testing.assert_allclose(found, theirs, rtol=0, atol=1e-5)


def test_a_hostile_folder_of_peft_is_one_clear_error(of_peft: Path, subtests: Any) -> None:
    from safetensors.torch import load_file, save_file

    config, weights = of_peft / "adapter_config.json", of_peft / "adapter_model.safetensors"
    about, tensors = json.loads(config.read_text()), load_file(weights)
    first = next(name for name in tensors if "lora_A" in name)
    settings: list[tuple[dict[str, Any], str]] = [
        ({"peft_type": "IA3"}, "peft_type must be LORA"),
        ({"peft_type": ["LORA"]}, "peft_type must be LORA"),
        ({"base_model_name_or_path": None}, "must name the backbone"),
        ({"base_model_name_or_path": "../../../etc"}, "must hold a config.json"),
        ({"revision": 3}, "revision must be a text"),
        ({"lora_alpha": "16"}, "lora_alpha must be a number"),
        ({"lora_alpha": float("nan")}, "lora_alpha must be a number"),
        ({"bias": "all"}, "bias must be none"),
        ({"init_lora_weights": "pissa"}, "must leave the backbone's weights"),
        ({"use_dora": True}, "use_dora is nothing that `lora` computes"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens is nothing"),
        ({"alpha_pattern": {"query": 3}}, "alpha_pattern is nothing"),
        ({"new_in_peft_9": "x"}, "new_in_peft_9 is nothing"),
    ]
    for change, fault in settings:
        config.write_text(json.dumps(about | change))
        with subtests.test(fault, change=change), pytest.raises(FaultsError) as caught:
            trainables.load(of_peft)
        assert fault in str(caught.value)
        assert len(str(caught.value)) < 1000
    config.write_text(json.dumps(about))
    name = "base_model.model.classifier"
    contents: list[tuple[dict[str, Any], str]] = [
        ({first: torch.full_like(tensors[first], float("inf"))}, "must hold finite numbers"),
        ({first: torch.ones(3, 16)}, "must have one rank, but have 3, 4"),
        ({first: torch.ones(4, 15)}, "must be (4, 16), but is (4, 15)"),
        ({"base_model.model.bert.pooler.dense.lora_A.weight": torch.ones(4, 16)}, "must change projections of a bert"),
        ({f"{name}.extra": torch.ones(2)}, f"differs in '{name}.extra'"),
        ({f"{name}.weight": torch.ones(3)}, "must be outputs by width"),
        ({f"{name}.bias": torch.ones(2)}, "must be (3,), but is (2,)"),
        ({f"{name}.bias": None}, "must have a linear head"),
        ({first: None}, "the same projections in all 2 layers"),
        (dict.fromkeys(each for each in tensors if "lora" in each), "must hold changes of projections"),
    ]
    for changed, fault in contents:
        save_file({key: each for key, each in (tensors | changed).items() if each is not None}, weights)
        with subtests.test(fault), pytest.raises(FaultsError) as caught:
            trainables.load(of_peft)
        assert fault in str(caught.value)
    save_file(tensors, weights)
    notes: list[tuple[Any, str]] = [
        ({"pooling": "../x"}, "pooling must be one of"),
        ({"max_length": 10**9}, "max_length must be in [1, 32]"),
        ({"task": {"kind": "magic"}}, "task.name must be text"),
        ({"scores": [1]}, "scores must map names to numbers"),
        ({"backbone_fingerprint": "other"}, "fits only the weights it was trained on"),
        ([], "adaptune.json is no JSON object"),
    ]
    for note, fault in notes:
        (of_peft / "adaptune.json").write_text(json.dumps(note))
        with subtests.test(fault), pytest.raises(FaultsError) as caught:
            trainables.load(of_peft)
        assert fault in str(caught.value)

"""A bank of adapters: every method is served beside others as it is served alone, or refused by its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adaptune
import trainables
from tests.factories import trial_config
from trainables.backbones.loading import Backbone
from trainables.config import Scalar
from trainables.faults import FaultsError
from trainables.inference.bank import AdapterBank
from trainables.inference.saved_adapter import own_tensors, save
from trainables.methods import kind_faults, method_names
from trainables.nn.encoder import Encoder
from trainables.task import TaskInfo
from trainables.training.model import build_model

TEXTS = ["good w1 w2", "bad", "w3 w4 w5 w6 w7 w8 good bad", "w9 w1", "good good w2 w2 w3"]
PROMISED = {"adapter", "bitfit", "layernorm", "linear_probe", "lora"}  # of the others each says for itself

Save = Callable[..., Path]


@pytest.fixture
def saved(tmp_path: Path, tiny_bert: Path, backbone: Backbone, small_options: Callable[..., Any]) -> Save:
    """Writes an adapter of a method with weights of its own, drawn from a seed."""

    def write(
        method: str,
        seed: int = 0,
        *,
        labels: int = 2,
        kind: Any = "classification",
        pair: bool = False,
        options: dict[str, Scalar] | None = None,
    ) -> Path:
        names = tuple(f"label {number}" for number in range(labels)) if kind == "classification" else ()
        metric = {"classification": "accuracy", "regression": "pearson"}.get(kind, "squad_f1")
        task = TaskInfo(
            name=f"task {seed}",
            kind=kind,
            pair=pair,
            num_labels=labels,
            label_names=names,
            metric=metric,
            source="here",
        )
        chosen = small_options(method, backbone.encoder) | (options or {})
        config = trial_config(method, backbone=str(tiny_bert), method_options=chosen, seed=seed, max_length=16)
        model = build_model(backbone.encoder, [config], labels, kind=kind)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, tensor in own_tensors(model).items():
                noise = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(tensor + 0.3 * noise if "running_var" not in name else 1 + noise.abs())
        folder = tmp_path / f"{method}-{seed}-{len(list(tmp_path.iterdir()))}"
        fingerprint = str(backbone.info.fingerprint)
        save(folder, model, config, task, backbone_fingerprint=fingerprint, scores={"validation/accuracy": 0.5})
        return folder

    return write


@pytest.fixture
def bank(tiny_bert: Path) -> AdapterBank:
    return adaptune.AdapterBank(str(tiny_bert))


def alone(folder: Path, texts: Sequence[str]) -> np.ndarray:
    return trainables.load(folder).logits(texts)


def of(name: str, texts: Sequence[str] = TEXTS) -> list[tuple[str, Any]]:
    return [(name, text) for text in texts]


@pytest.mark.parametrize("method", method_names())
@pytest.mark.thinned(5)
def test_each_method_is_served_beside_others_as_alone_or_refused_by_its_name(
    method: str, saved: Save, bank: AdapterBank
) -> None:
    kind = "classification"
    info = TaskInfo(name="t", kind=kind, pair=False, num_labels=3, label_names=(), metric="accuracy", source="")
    assert not kind_faults(method, info)
    folder, other = saved(method, 1, labels=3), saved("adapter", 2)
    bank.add("other", other)
    refusal = ""
    try:
        bank.add("one", folder)
    except FaultsError as error:
        refusal = str(error)
    if refusal:
        assert method not in PROMISED
        assert f"{method} cannot be served together with others, because it" in refusal
        assert list(bank.adapters) == ["other"]
        np.testing.assert_allclose(np.stack(bank.logits(of("other"))), alone(other, TEXTS), atol=1e-5)
        return
    mixed = [row for pair in zip(of("one"), of("other"), strict=True) for row in pair]
    found = bank.logits(mixed)
    np.testing.assert_allclose(np.stack(found[::2]), alone(folder, TEXTS), atol=1e-5)
    np.testing.assert_allclose(np.stack(found[1::2]), alone(other, TEXTS), atol=1e-5)
    assert np.abs(np.stack(found[::2])).max() > 0.1
    assert bank.predict(of("one")) == trainables.load(folder).predict(TEXTS)


VARIANTS: list[tuple[str, dict[str, Scalar]]] = [
    ("adapter", {"adapter_size": 1, "placement": "pfeiffer", "pooling": "first"}),
    ("adapter", {"adapter_size": 9, "placement": "parallel", "train_layernorms": False, "pooling": "mean"}),
    ("adapter", {"depth": 2, "norm": "batch", "interaction": "multiply", "layers": "1"}),
    ("adapter", {"norm": "layer", "pooling": "mean"}),
    ("lora", {"rank": 3, "targets": "query,key,value,output,up,down"}),
    ("bitfit", {"pooling": "pooler"}),
    ("feature_based", {"head_hidden_size": 5}),
    ("layernorm", {"pooling": "mean"}),
    ("linear_probe", {"pooling": "first"}),
]


def test_designs_sizes_heads_kinds_and_poolings_pass_together(saved: Save, bank: AdapterBank) -> None:
    known = {"feature_based": {"pooling": "first"}}
    folders = {}
    for seed, (method, options) in enumerate(VARIANTS):
        chosen = known.get(method, options)
        folders[f"n{seed}"] = saved(method, seed, labels=2 + seed, options=chosen)
    folders["number"] = saved("lora", 20, labels=1, kind="regression")
    for name, folder in folders.items():
        bank.add(name, folder)
    rows = [(name, text) for text in TEXTS for name in folders]
    found = bank.logits(rows)
    for place, name in enumerate(folders):
        np.testing.assert_allclose(
            np.stack(found[place :: len(folders)]), alone(folders[name], TEXTS), atol=1e-5, err_msg=name
        )
    answers = bank.predict(rows)
    assert answers[: len(folders)] == [trainables.load(folder).predict(TEXTS[:1])[0] for folder in folders.values()]
    assert isinstance(answers[len(folders) - 1], float)


def test_answers_that_are_places_in_a_text_and_pairs_of_texts_pass_along(saved: Save, bank: AdapterBank) -> None:
    places = saved("adapter", 1, kind="extractive_qa", pair=True)
    pairs, single = saved("lora", 2, pair=True), saved("layernorm", 3)
    for name, folder in (("places", places), ("pairs", pairs), ("single", single)):
        bank.add(name, folder)
    long = " ".join(f"w{number}" for number in range(20))  # more than a window
    rows: list[tuple[str, Any]] = [
        ("places", ("good", long)),
        ("single", "good"),
        ("pairs", ("bad w1", "w2")),
        ("places", ("w1", "bad w1 w2")),
        ("pairs", ["good", "bad"]),
    ]
    found, answers = bank.logits(rows), bank.predict(rows)
    one = trainables.load(places)
    expected = one.logits(["good", "w1"], [long, "bad w1 w2"])
    together = np.concatenate([found[0], found[3]])
    kept = expected > -1e4
    np.testing.assert_allclose(together[kept], expected[kept], atol=1e-5)
    assert len(found[0]) > len(found[3]) == 1
    assert [answers[0], answers[3]] == one.predict(["good", "w1"], [long, "bad w1 w2"])
    np.testing.assert_allclose(
        np.stack([found[2], found[4]]),
        trainables.load(pairs).logits(["bad w1", "good"], ["w2", "bad"]),
        atol=1e-5,
    )


def test_no_task_changes_anothers_outputs_by_a_bit(saved: Save, bank: AdapterBank) -> None:
    """Neither by being in the bank, nor by the rows it has in the batch where they have the same shape."""
    methods = ["lora", "adapter", "bitfit", "layernorm", "linear_probe"]
    options: dict[str, Scalar] = {"pooling": "mean"}
    bank.add("a", saved("adapter", 1, options=options))
    bank.add("b", saved("linear_probe", 2, options=options))
    rows = [*of("a"), *of("b")]
    before = bank.logits(rows)
    long = [*of("a", TEXTS * 60), *of("b", TEXTS * 60)]  # several blocks of the feed-forward sub-layer
    before_long = bank.logits(long)
    everything: dict[str, Scalar] = {"targets": "query,key,value,output,up,down"}
    for seed, method in enumerate(methods, start=10):
        bank.add(method, saved(method, seed, options=options | (everything if method == "lora" else {})))
        for now, then in ((bank.logits(rows), before), (bank.logits(long), before_long)):
            assert all(np.array_equal(one, other) for one, other in zip(now, then, strict=True))
        others = bank.logits([*of("a"), *of(method)])
        assert all(np.array_equal(one, other) for one, other in zip(others[: len(TEXTS)], before, strict=False))
        others = bank.logits([*of("a", TEXTS * 60), *of(method, TEXTS * 60)])
        assert all(np.array_equal(one, other) for one, other in zip(others[: 5 * 60], before_long, strict=False))
    bank.remove("lora")
    assert all(np.array_equal(one, other) for one, other in zip(bank.logits(rows), before, strict=True))


def test_everything_wrong_with_texts_is_said_at_once(saved: Save, bank: AdapterBank) -> None:
    bank.add("single", saved("layernorm", 1))
    bank.add("pairs", saved("layernorm", 2, pair=True))
    with pytest.raises(FaultsError) as caught:
        bank.predict([("singl", "x"), ("single", ("x", "y")), ("pairs", "x"), ("single", None), ("single", "x")])  # type: ignore[list-item]
    assert len(caught.value.faults) == 4
    with pytest.raises(FaultsError, match=r"texts\[0\]: must be a pair of an adapter's name and its text, but got 'x'"):
        bank.predict(["x"])  # type: ignore[list-item]
    assert len(bank.faults_of(["x"] * 30)) == 10  # type: ignore[list-item]
    assert "texts[0]: unknown adapter 'singl'; did you mean 'single'?" in caught.value.faults[0]
    assert "texts[1]: single must be given one text" in caught.value.faults[1]
    assert "texts[2]: pairs must be given a pair of texts, but got 'x'" in caught.value.faults[2]
    assert bank.predict([]) == []
    with pytest.raises(FaultsError, match="name: must be free"):
        bank.add("single", saved("layernorm", 3))
    with pytest.raises(FaultsError, match="unknown adapter 'none'"):
        bank.remove("none")


def test_a_precision_that_there_is_not_is_refused_wherever_one_is_named(saved: Save, tiny_bert: Path) -> None:
    folder = saved("adapter", 1)
    for ask in (trainables.load, lambda path, precision: adaptune.AdapterBank(str(tiny_bert), precision=precision)):
        with pytest.raises(FaultsError, match="unknown precision 'half'"):
            ask(folder, precision="half")
        ask(folder, precision="auto")


def test_an_adapter_of_another_backbone_is_refused(saved: Save, checkpoint: Callable[[str], Path]) -> None:
    bank = AdapterBank(str(checkpoint("electra")))
    with pytest.raises(FaultsError, match="fits only the weights it was trained on"):
        bank.add("one", saved("layernorm"))


def test_one_backbone_is_held_however_many_adapters_there_are(saved: Save, bank: AdapterBank) -> None:
    frozen = {tensor.data_ptr() for tensor in bank.backbone.encoder.parameters()}
    for seed, method in enumerate(("adapter", "lora", "layernorm", "bitfit", "linear_probe")):
        bank.add(method, saved(method, seed))
    own = 0
    for predictor in bank.adapters.values():
        assert predictor.backbone is bank.backbone
        parameters = [p for p in predictor.model.parameters() if p.data_ptr() not in frozen]
        assert {p.data_ptr() for p in own_tensors(predictor.model).values()} >= {p.data_ptr() for p in parameters}
        own += sum(p.numel() for p in parameters)
    assert own < sum(p.numel() for p in bank.backbone.encoder.parameters())


@pytest.mark.parametrize("encoder", ["roberta", "electra-small", "distilbert"])
def test_other_families_of_backbones_are_mixed_too(
    encoder: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    bank = AdapterBank(str(checkpoint(encoder)))
    folders = {}
    for seed, method in enumerate(("adapter", "bitfit", "lora")):
        options: dict[str, Scalar] = {"adapter_size": 3} if method == "adapter" else {}
        config = trial_config(method, backbone=str(checkpoint(encoder)), method_options=options, max_length=16)
        task = TaskInfo(
            name="t", kind="regression", pair=False, num_labels=1, label_names=(), metric="pearson", source=""
        )
        model = build_model(bank.backbone.encoder, [dataclasses.replace(config, seed=seed)], 1, kind="regression")
        with torch.no_grad():
            for tensor in own_tensors(model).values():
                tensor.add_(0.3 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed)))
        folders[method] = tmp_path / method
        fingerprint = str(bank.backbone.info.fingerprint)
        save(folders[method], model, config, task, backbone_fingerprint=fingerprint, scores={})
        bank.add(method, folders[method])
    found = bank.logits([(method, text) for text in TEXTS for method in folders])
    for place, folder in enumerate(folders.values()):
        np.testing.assert_allclose(np.stack(found[place::3]), alone(folder, TEXTS), atol=1e-5)


def test_the_encoder_a_bank_was_made_of_is_as_it_was(saved: Save, backbone: Backbone) -> None:
    before = Encoder.view(backbone.encoder)
    bank = AdapterBank(backbone)
    bank.add("one", saved("adapter"))
    bank.predict(of("one"))
    assert [type(module) for module in backbone.encoder.modules()] == [type(module) for module in before.modules()]

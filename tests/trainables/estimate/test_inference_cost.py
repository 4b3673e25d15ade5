"""What models cost when they answer: merged ones what the backbone costs, and each kind once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.factories import trial_config
from tests.fixtures import smaller_options
from trainables.backbones import map_tensors
from trainables.backbones.loading import Backbone
from trainables.config import Scalar
from trainables.data.tokenized import TokenizedSplit
from trainables.estimate import inference_cost
from trainables.estimate.inference_cost import measure_inference
from trainables.faults import FaultsError
from trainables.inference.stock_model import checkpoint_tensors
from trainables.nn.encoder import Encoder
from trainables.training.evaluation import predict
from trainables.training.model import AdaptedModel, build_model

MERGED = ("bitfit", "full_finetuning", "layernorm", "linear_probe", "lora", "top_layers")


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference_cost, "LEAST_ROUNDS", 1)
    monkeypatch.setattr(inference_cost, "ENOUGH_S", 0.0)


def test_each_kind_is_measured_once_and_in_the_forms_it_is_served_in(tiny_bert: Path) -> None:
    small, large = ({"adapter_size": size} for size in (2, 8))
    configs = [
        *(trial_config(backbone=str(tiny_bert), method_options=small, learning_rate=rate) for rate in (1e-4, 1e-3)),
        trial_config(backbone=str(tiny_bert), method_options={**small, "init_std": 0.5}),  # decides no cost
        trial_config(backbone=str(tiny_bert), method_options=large),
        trial_config("lora", backbone=str(tiny_bert)),
        trial_config("full_finetuning", backbone=str(tiny_bert)),
        trial_config("no_bert", backbone=str(tiny_bert)),
    ]
    said: list[str] = []
    before = torch.get_num_threads()
    found = measure_inference(configs, length=8, device="cpu", num_threads=2, batch_sizes=(1, 4), note=said.append)
    assert torch.get_num_threads() == before
    assert found.machine["num_threads"] == "2"
    assert found.faults == ("no_bert: reads no backbone, and is not measured",)
    by_kind = {(cost.members, cost.form, cost.batch_size): cost for cost in found.costs}
    sizes = (1, 4)
    assert set(by_kind) == {
        *(((0, 1, 2), "beside", size) for size in sizes),
        *(((3,), "beside", size) for size in sizes),
        *(((4,), form, size) for form in ("merged", "beside") for size in sizes),
        *(((5,), "merged", size) for size in sizes),
    }
    assert len(said) == 4
    # What costs the backbone alone costs all the same, whatever else the machine does.
    for size in sizes:
        merged, full = by_kind[(4,), "merged", size], by_kind[(5,), "merged", size]
        assert merged.times_backbone == full.times_backbone == 1.0
        assert merged.latency_ms == full.latency_ms > 0
        for cost in by_kind.values():
            assert cost.latency_ms == pytest.approx(
                cost.times_backbone * by_kind[(5,), "merged", cost.batch_size].latency_ms
            )
            assert cost.examples_per_second == pytest.approx(1000 * cost.batch_size / cost.latency_ms)


@pytest.mark.parametrize("method", MERGED)
def test_a_merged_model_answers_as_before_and_does_the_work_of_the_backbone_alone(
    method: str, backbone: Backbone
) -> None:
    """Counted in products, which no other program on the machine can slow."""
    split = inference_cost._rows(4, 8, backbone.info.shape.vocab_size)
    options = dict(smaller_options(method, backbone.encoder.shape))
    config = trial_config(method, method_options=options)
    model = build_model(backbone.encoder, [config], 2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    assert inference_cost._merges(config, model)
    merged = Encoder(backbone.info.shape, map_tensors(backbone.info.shape, checkpoint_tensors(model)))
    merged.load(torch.device("cpu"), torch.float32)
    plain = build_model(merged, [trial_config("linear_probe", method_options=_pooling(model))], 2)
    plain.head.load_state_dict(model.head.state_dict())
    assert predict(plain, split)[0] == pytest.approx(predict(model, split)[0], abs=1e-5)
    alone = build_model(backbone.encoder, [trial_config("linear_probe", method_options=_pooling(model))], 2)
    assert _products(plain, split) == _products(alone, split)
    if method == "lora":
        assert _products(model, split) > _products(alone, split)


def test_an_adapter_does_more_than_the_backbone_and_cannot_be_merged(backbone: Backbone) -> None:
    split = inference_cost._rows(4, 8, backbone.info.shape.vocab_size)
    adapter = trial_config(method_options={"adapter_size": 2})
    model, alone = (build_model(backbone.encoder, [each], 2) for each in (adapter, trial_config("linear_probe")))
    assert not inference_cost._merges(adapter, model)
    assert _products(model, split) > _products(alone, split)


def _pooling(model: AdaptedModel) -> dict[str, Scalar]:
    return {"pooling": model.encoder.pooling}


def _products(model: AdaptedModel, split: TokenizedSplit) -> int:
    with FlopCounterMode(display=False) as counted:
        predict(model, split)
    return counted.get_total_flops()


def test_a_length_that_the_backbone_cannot_read_is_refused(tiny_bert: Path) -> None:
    with pytest.raises(FaultsError, match=r"length: must be in \[3, \d+\], the backbone's, but got 100000"):
        measure_inference([trial_config(backbone=str(tiny_bert))], length=100_000, device="cpu")

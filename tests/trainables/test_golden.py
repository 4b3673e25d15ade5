"""Numbers of independent implementations: the adapters library (kept in tests/golden) and peft (run here).

Logits and gradients in float32, on a small random BERT with a padded batch of single texts and pairs.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.factories import trial_config
from trainables.backbones import map_tensors, shape_of
from trainables.config import Scalar
from trainables.nn.encoder import Encoder
from trainables.training.model import AdaptedModel, build_model

GOLDEN = Path(__file__).parents[1] / "golden" / "adapters.safetensors"
NUM_OUTPUTS = 3
FUSED = ("first", "second", "third")
PLACES = {"attention.output.": "attention_output", "output.": "feedforward_output"}


def golden(prefix: str) -> dict[str, Tensor]:
    """The kept tensors whose names begin so, without the prefix."""
    with safe_open(GOLDEN, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 - no mapping
        return {name.removeprefix(prefix): file.get_tensor(name) for name in names}


def encoder() -> Encoder:
    with safe_open(GOLDEN, framework="pt") as file:
        shape = shape_of(json.loads(file.metadata()["config"]))
    return Encoder(shape, map_tensors(shape, golden("backbone/"))).load(torch.device("cpu"), torch.float32)


def build(method: str, **options: Scalar) -> AdaptedModel:
    config = trial_config(method, method_options=options)
    return build_model(encoder(), [config], NUM_OUTPUTS).eval()


def our_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the adapters library, by our names and in our orientation, without the trial axis."""
    leaves = {
        r"adapters\.\w+\.adapter_down\.0\.weight": "adapter.down_proj",
        r"adapters\.\w+\.adapter_down\.0\.bias": "adapter.down_bias",
        r"adapters\.\w+\.adapter_up\.weight": "adapter.up_proj",
        r"adapters\.\w+\.adapter_up\.bias": "adapter.up_bias",
        r"adapter_fusion_layer\.[\w,]+\.(?P<part>query|key|value)\.(?P<leaf>weight|bias)": r"adapter.\g<part>.\g<leaf>",
    }
    found = {}
    for name, tensor in tensors.items():
        ours = name
        if match := re.fullmatch(r"encoder\.layer\.(\d+)\.((?:attention\.)?output\.)(.+)", name):
            leaf = next(re.sub(theirs, ours, match[3]) for theirs, ours in leaves.items() if re.match(theirs, match[3]))
            ours = f"encoder.layers.{match[1]}.{PLACES[match[2]]}.{leaf}"
        found[ours] = tensor.T if tensor.dim() == 2 else tensor
    return found


def compare(model: AdaptedModel, case: str) -> None:
    """Give a model the kept weights of what it trains, and hold its logits and gradients against the kept ones."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    weights, gradients = our_names(golden(f"{case}/weights/")), our_names(golden(f"{case}/gradients/"))
    assert trained.keys() == gradients.keys()
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter[0] = weights[name]
    inputs = golden("inputs/")
    logits = model(inputs["input_ids"], inputs["token_types"], inputs["lengths"])
    torch.testing.assert_close(logits, golden(f"{case}/")["logits"], rtol=1e-5, atol=1e-5)
    F.cross_entropy(logits, inputs["labels"]).backward()
    for name, parameter in trained.items():
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad[0], gradients[name], rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer", "parallel"])
def test_adapters_compute_what_the_adapters_library_does(placement: str) -> None:
    # The library freezes every LayerNorm.
    compare(build("adapter", adapter_size=4, placement=placement, train_layernorms=False), placement)


def test_adapter_fusion_computes_what_the_adapters_library_does(tmp_path: Path) -> None:
    weights = golden("adapter_fusion/weights/")
    for task in FUSED:
        of_task = {name: tensor for name, tensor in weights.items() if f".adapters.{task}." in name}
        export(tmp_path / task, task, our_names(of_task))
    compare(build("adapter_fusion", adapters=str(tmp_path)), "adapter_fusion")


def export(folder: Path, task: str, tensors: Mapping[str, Tensor]) -> None:
    """An adapter as a trial of stage one leaves it."""
    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")
    options = {"adapter_size": 4, "placement": "pfeiffer", "train_layernorms": False}
    about = {
        "trial_config": {"method": "adapter", "method_options": options},
        "task": {"name": task, "metric": "accuracy"},
        "scores": {"validation/accuracy": 0.5},
        "library": "adaptune",
        "backbone": "any",
        "backbone_fingerprint": "any",
    }
    (folder / "adapter_config.json").write_text(json.dumps(about), encoding="utf-8")


@pytest.mark.parametrize("targets", ["query,value", "query,key,value,output,up,down"])
def test_lora_computes_what_peft_does(targets: str) -> None:
    model = build("lora", rank=4, alpha=6.0, targets=targets)
    theirs = peft_lora(rank=4, alpha=6, targets=targets.split(","))
    changes = dict(named_changes(theirs))
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.normal_(0, 0.3, generator=generator)
            if not name.startswith("head"):
                changes[name].copy_(parameter[0].T)
    assert trained.keys() == changes.keys() | {"head.weight", "head.bias"}
    inputs = golden("inputs/")
    logits = model(inputs["input_ids"], inputs["token_types"], inputs["lengths"])
    pooled = theirs(
        input_ids=inputs["input_ids"],
        token_type_ids=inputs["token_types"],
        attention_mask=torch.arange(inputs["input_ids"].shape[1]) < inputs["lengths"][:, None],
    ).pooler_output
    expected = pooled @ model.head.weight[0].detach() + model.head.bias[0].detach()
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    F.cross_entropy(logits, inputs["labels"]).backward()
    F.cross_entropy(expected, inputs["labels"]).backward()
    for name, tensor in changes.items():
        ours = trained[name].grad
        assert ours is not None
        assert tensor.grad is not None
        torch.testing.assert_close(ours[0], tensor.grad.T, rtol=1e-5, atol=1e-5, msg=name)


def peft_lora(rank: int, alpha: int, targets: list[str]) -> nn.Module:
    """LoRA of the peft library on the Hugging Face model of the kept backbone."""
    from peft import LoraConfig, get_peft_model
    from transformers import BertConfig, BertModel

    with safe_open(GOLDEN, framework="pt") as file:
        backbone = BertModel(BertConfig(**json.loads(file.metadata()["config"])))
    backbone.load_state_dict(golden("backbone/"))
    names = {
        "output": r"attention\.output\.dense",
        "up": r"intermediate\.dense",
        "down": r"\d+\.output\.dense",  # of the layer, not of its attention
    }
    modules = "|".join(names.get(target, target) for target in targets)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=rf".*\.({modules})", lora_dropout=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft 0.21 reads what transformers 5 renames
        return get_peft_model(backbone.eval(), config).eval()


def named_changes(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trained tensors of peft's LoRA by our names."""
    ours = {
        "attention.self.query": "attention.qkv.changes.0",
        "attention.self.key": "attention.qkv.changes.1",
        "attention.self.value": "attention.qkv.changes.2",
        "attention.output.dense": "attention_output.dense.changes.0",
        "intermediate.dense": "intermediate.changes.0",
        "output.dense": "feedforward_output.dense.changes.0",
    }
    found = {}
    for name, parameter in model.named_parameters():
        if match := re.search(r"layer\.(\d+)\.(.+)\.lora_([AB])\.default\.weight$", name):
            found[f"encoder.layers.{match[1]}.{ours[match[2]]}.lora_{match[3].lower()}"] = parameter
    return found

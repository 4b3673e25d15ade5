"""Make adapters.safetensors: what the adapters library computes on a small random BERT, logits and gradients.

It runs in an environment of its own, since the library pins an old transformers, and was last run so:

    python -m venv build/golden
    build/golden/bin/pip install adapters==1.3.0 transformers==4.57.6 torch==2.13.0 safetensors==0.8.0
    build/golden/bin/python tests/golden/make_adapters.py

Tensors are named `backbone/<name>` (transformers' names), `inputs/<name>`, and for each case `<case>/logits`,
`<case>/weights/<name>` and `<case>/gradients/<name>` (the library's names, and `head.weight`, `head.bias`). What has no
gradient there is frozen. The head is linear, over the frozen pooler; the loss is the mean cross-entropy.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import adapters
import torch
import torch.nn.functional as F
from adapters import AdapterConfig, DoubleSeqBnConfig, ParBnConfig, SeqBnConfig
from adapters.composition import Fuse
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel

NUM_OUTPUTS = 3
CONFIG = BertConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=12,
    type_vocab_size=2,
    layer_norm_eps=1e-12,
    hidden_act="gelu",
)
# Width 16 by reduction factor 4: adapters of size 4.
CASES: dict[str, AdapterConfig] = {
    "houlsby": DoubleSeqBnConfig(reduction_factor=4, non_linearity="gelu_new"),
    "pfeiffer": SeqBnConfig(reduction_factor=4, non_linearity="gelu_new"),
    "parallel": ParBnConfig(reduction_factor=4, non_linearity="gelu_new", scaling=4.0),
}
FUSED = ("first", "second", "third")


def main() -> None:
    torch.set_num_threads(1)
    backbone = BertModel(CONFIG)
    randomise(backbone, seed=0)
    backbone_weights = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    inputs = make_inputs()
    tensors = {f"backbone/{name}": tensor for name, tensor in backbone_weights.items()}
    tensors |= {f"inputs/{name}": tensor for name, tensor in inputs.items()}
    for seed, case in enumerate([*CASES, "adapter_fusion"], start=1):
        model = BertModel(CONFIG)
        model.load_state_dict(backbone_weights)
        adapters.init(model)
        if case == "adapter_fusion":
            for name in FUSED:
                model.add_adapter(name, config=CASES["pfeiffer"])
            model.add_adapter_fusion(Fuse(*FUSED))
            model.train_adapter_fusion(Fuse(*FUSED))
        else:
            model.add_adapter(case, config=CASES[case])
            model.train_adapter(case)
        head = nn.Linear(CONFIG.hidden_size, NUM_OUTPUTS)
        added = {name: each for name, each in model.named_parameters() if "adapter" in name}
        randomise_tensors([*added.values(), *head.parameters()], seed)
        found = run(model.eval(), head, inputs)
        found |= {f"weights/{name}": each.detach() for name, each in added.items()}
        found |= {f"weights/head.{name}": each.detach() for name, each in head.named_parameters()}
        tensors |= {f"{case}/{name}": tensor for name, tensor in found.items()}
    metadata = {package: version(package) for package in ("adapters", "transformers", "torch")}
    metadata["config"] = json.dumps({**CONFIG.to_diff_dict(), "type_vocab_size": CONFIG.type_vocab_size})
    save_file(tensors, Path(__file__).with_name("adapters.safetensors"), metadata)


def run(model: BertModel, head: nn.Linear, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The logits (B, C) and the gradient of everything that is trained."""
    hidden = model(
        input_ids=inputs["input_ids"],
        token_type_ids=inputs["token_types"],
        attention_mask=(torch.arange(inputs["input_ids"].shape[1]) < inputs["lengths"][:, None]).long(),
    )
    logits = head(hidden.pooler_output)
    F.cross_entropy(logits, inputs["labels"]).backward()
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    trained |= {f"head.{name}": each for name, each in head.named_parameters()}
    gradients = {name: each.grad for name, each in trained.items() if each.grad is not None}
    assert len(gradients) == len(trained), trained.keys() - gradients.keys()
    return {"logits": logits.detach(), **{f"gradients/{name}": each for name, each in gradients.items()}}


def make_inputs() -> dict[str, Tensor]:
    """A padded batch of four sequences, some of two texts."""
    generator = torch.Generator().manual_seed(100)
    lengths = torch.tensor([9, 4, 7, 2])
    positions = torch.arange(9)
    ids = torch.randint(4, CONFIG.vocab_size, (4, 9), generator=generator)
    padded = positions >= lengths[:, None]
    second_text = positions >= torch.tensor([5, 4, 3, 1])[:, None]
    return {
        "input_ids": ids.masked_fill(padded, 0),
        "token_types": second_text.long().masked_fill(padded, 0),
        "lengths": lengths,
        "labels": torch.tensor([0, 2, 1, 2]),
    }


def randomise(model: nn.Module, seed: int) -> None:
    """Random values in place of the initial ones, LayerNorm weights around one."""
    randomise_tensors(list(model.parameters()), seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight += 1


def randomise_tensors(tensors: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in tensors:
            tensor.normal_(0, 0.3, generator=generator)


if __name__ == "__main__":
    main()

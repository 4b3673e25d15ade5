"""Both sides of the race train the same model: the same tensors, drawn alike, with the same outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.opponents.adapter_bert import AdapterBert
from tests.pieces import laid_out
from trainables.backbones.loading import Backbone
from trainables.config import TrialConfig
from trainables.training.model import AdaptedModel, build_model, count_parameters
from trainables.training.optimizer import schedule
from trainables.training.weights import TrainedWeights

ADAPTER_SIZE, NUM_LABELS = 4, 3
# adaptune's names of trained tensors, without the place where they hang -> the opponents'.
NAMES = {
    "layernorm.weight": "LayerNorm.weight",
    "layernorm.bias": "LayerNorm.bias",
    "adapter.down_proj": "dropout.1.down.weight",
    "adapter.down_bias": "dropout.1.down.bias",
    "adapter.up_proj": "dropout.1.up.weight",
    "adapter.up_bias": "dropout.1.up.bias",
    "head.weight": "classifier.weight",
    "head.bias": "classifier.bias",
}
PLACES = {
    "encoder.embeddings.": "bert.embeddings.",
    "encoder.layers.": "bert.encoder.layer.",
    "attention_output.": "attention.output.",
    "feedforward_output.": "output.",
}


def ours_on(backbone: Backbone, size: int = ADAPTER_SIZE) -> AdaptedModel:
    options = {"adapter_size": size, "pooling": "mean"}  # as "auto" reads MiniLM
    trial = TrialConfig(task="any", backbone="any", method="adapter", method_options=options)
    return build_model(backbone.encoder, [trial], NUM_LABELS)


def theirs_on(folder: Path, size: int = ADAPTER_SIZE) -> AdapterBert:
    from transformers import BertModel

    torch.manual_seed(0)
    bert = BertModel.from_pretrained(folder, add_pooling_layer=False)
    return AdapterBert(bert, adapter_size=size, num_labels=NUM_LABELS)


def trained(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}


def under_their_names(model: AdaptedModel) -> dict[str, Tensor]:
    """Our trained tensors with the opponents' names and shapes: no trial axis, matrices as (outputs, inputs)."""
    found = {}
    for name, tensor in trained(model).items():
        renamed = name
        for words in (PLACES, NAMES):
            for here, there in words.items():
                renamed = renamed.replace(here, there)
        found[renamed] = tensor[0].T if tensor[0].dim() == 2 else tensor[0]
    return found


def test_the_same_tensors_are_trained_on_both_sides(backbone, tiny_bert):
    ours, theirs = ours_on(backbone), theirs_on(tiny_bert)
    shapes = {name: tensor.shape for name, tensor in trained(theirs).items()}
    assert {name: tensor.shape for name, tensor in under_their_names(ours).items()} == shapes
    assert sum(tensor.numel() for tensor in trained(theirs).values()) == count_parameters(ours).trained
    assert sum(tensor.numel() for tensor in theirs.parameters()) == count_parameters(ours).total


def test_with_the_same_weights_both_sides_give_the_same_logits_of_padded_rows(backbone, tiny_bert):
    ours, theirs = ours_on(backbone).eval(), theirs_on(tiny_bert).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in trained(ours).values():  # far from the identity
            tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator) + (tensor.mean() == 1))
        loaded = theirs.load_state_dict(under_their_names(ours), strict=False)
    assert not loaded.unexpected_keys
    ids = torch.randint(4, 40, (3, 9), generator=generator)
    types = torch.randint(0, 2, (3, 9), generator=generator)
    lengths = torch.tensor([9, 4, 1])
    mask = (torch.arange(9) < lengths[:, None]).long()
    labels = torch.tensor([0, 2, 1])
    with torch.no_grad():
        expected = ours(laid_out(ids, types, lengths))
        given = theirs(ids * mask, attention_mask=mask, token_type_ids=types * mask, labels=labels)
    torch.testing.assert_close(given.logits, expected, atol=1e-4, rtol=0)
    assert expected.std() > 0.1  # no logits that anything would be close to
    assert given.loss.item() == pytest.approx(torch.nn.functional.cross_entropy(expected, labels).item(), abs=1e-4)


def test_both_sides_drop_out_at_the_same_rates_and_their_head_is_float32(backbone, tiny_bert):
    theirs = theirs_on(tiny_bert).train()
    rates = {module.p for module in theirs.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {backbone.encoder.shape.hidden_dropout} == {backbone.encoder.shape.attention_dropout}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert theirs(torch.tensor([[5, 6]])).logits.dtype is torch.float32


@pytest.mark.parametrize(("part", "std"), [("up.weight", 0.01), ("down.weight", 0.01), ("classifier.weight", 0.02)])
def test_both_sides_draw_from_the_same_truncated_normal(backbone, tiny_bert, part, std):
    for model in (theirs_on(tiny_bert, size=16), ours_on(backbone, size=16)):
        tensors = under_their_names(model) if isinstance(model, AdaptedModel) else trained(model)
        values = torch.cat([tensor.flatten() for name, tensor in tensors.items() if name.endswith(part)])
        assert values.abs().max() <= 2 * std
        spread = 0.8796 * std  # of a normal cut at two sigma
        assert values.std().item() == pytest.approx(spread, rel=4 / (2 * len(values)) ** 0.5)
    biases = [
        tensor for name, tensor in trained(theirs_on(tiny_bert)).items() if name.endswith(("up.bias", "ier.bias"))
    ]
    assert biases
    assert not any(tensor.any() for tensor in biases)


def test_both_sides_decay_the_same_tensors(backbone, tiny_bert):
    from transformers import Trainer

    theirs, ours = theirs_on(tiny_bert), ours_on(backbone)
    decayed = set(Trainer.get_decay_parameter_names(None, theirs)) & trained(theirs).keys()
    assert decayed == {name for name, tensor in trained(theirs).items() if tensor.dim() == 2}
    layout = TrainedWeights(ours).layout
    assert layout.num_decayed == sum(trained(theirs)[name].numel() for name in decayed)
    assert layout.num_trained == sum(tensor.numel() for tensor in trained(theirs).values())


@pytest.mark.parametrize("steps", [1, 7, 10, 456])
def test_the_learning_rate_takes_the_same_course_on_both_sides(steps):
    from transformers import get_linear_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    course = get_linear_schedule_with_warmup(optimizer, int(0.1 * steps), steps)
    for step in range(steps):
        assert course.get_last_lr()[0] == pytest.approx(schedule(step, steps, 0.1))
        optimizer.step()
        course.step()

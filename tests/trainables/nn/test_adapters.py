"""The adapter module against its formula, and the names of its variants."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.factories import trial_config
from tests.pieces import sublayer_outputs
from trainables.backbones import shape_of
from trainables.backbones.loading import PUBLISHED_CONFIGS, Backbone
from trainables.config import Scalar
from trainables.faults import FaultsError
from trainables.methods import parse_options
from trainables.nn.adapters import PLACEMENTS, Adapter, Bottleneck, parse_layers
from trainables.nn.encoder import Batch
from trainables.training.model import AdaptedModel, build_model

CPU = torch.device("cpu")
PLAIN = Bottleneck(
    size=3,
    init_std=0.5,
    placement="houlsby",
    interaction="add",
    scaling=None,
    activation="gelu_new",
    depth=1,
    norm="none",
)


def adapter(**values: Any) -> Adapter:
    generator = torch.Generator().manual_seed(1)
    made = Adapter(8, [dataclasses.replace(PLAIN, **values)], [generator], CPU, Batch())
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("bias"):
                parameter += torch.randn(parameter.shape, generator=generator) * 0.3
    return made


def inputs() -> tuple[Tensor, Tensor, nn.LayerNorm]:
    """A projection, its residual and a LayerNorm that is called as ours are."""
    generator = torch.Generator().manual_seed(2)
    layernorm = nn.LayerNorm(8)
    hidden, residual = torch.randn(2, 2, 5, 8, generator=generator)
    return hidden, residual, layernorm


def change(made: Adapter, read: Tensor) -> Tensor:
    """W2 f(W1 . + b1) + b2, written out."""
    hidden = made.activation(read @ made.down_proj[0] + made.down_bias[0])
    for inner in made.inner:
        hidden = made.activation(hidden @ inner.weight[0] + inner.bias[0])
    return hidden @ made.up_proj[0] + made.up_bias[0]


def normed(hidden: Tensor, residual: Tensor) -> Tensor:
    return F.layer_norm(hidden + residual, (8,))


class TestFormula:
    """What reaches the residual and the LayerNorm, by placement and interaction."""

    def test_the_activation_is_the_tanh_approximation_of_gelu(self) -> None:
        values = torch.linspace(-3, 3, 50)
        expected = 0.5 * values * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (values + 0.044715 * values**3)))
        torch.testing.assert_close(adapter().activation(values), expected)

    @pytest.mark.parametrize("placement", PLACEMENTS)
    @pytest.mark.parametrize(
        "values", [{}, {"depth": 3, "activation": "tanh"}, {"activation": "relu", "scaling": -2.0}]
    )
    @torch.no_grad()
    def test_it_is_the_one_of_its_placement(self, placement: str, values: dict[str, Any]) -> None:
        made = adapter(placement=placement, **values)
        hidden, residual, _ = inputs()
        read = {"projection": hidden, "input": residual, "normalised": normed(hidden, residual)}[
            PLACEMENTS[placement][2]
        ]
        scale = values.get("scaling", 4.0 if placement == "parallel" else 1.0)
        expected = hidden + scale * change(made, read)
        given = made(hidden, residual, lambda h, r: normed(h, r), residual)
        torch.testing.assert_close(given, expected, rtol=0, atol=1e-5)

    @torch.no_grad()
    def test_a_multiplying_one_multiplies(self) -> None:
        made = adapter(interaction="multiply")
        hidden, residual, layernorm = inputs()
        torch.testing.assert_close(made(hidden, residual, layernorm, residual), hidden * (1 + change(made, hidden)))

    @pytest.mark.parametrize("norm", ["none", "layer", "batch"])
    @pytest.mark.parametrize("interaction", ["add", "multiply"])
    @pytest.mark.parametrize("placement", PLACEMENTS)
    @torch.no_grad()
    def test_a_zero_up_projection_makes_it_an_identity(self, placement: str, interaction: str, norm: str) -> None:
        made = adapter(placement=placement, interaction=interaction, norm=norm)
        made.up_proj.zero_()
        made.up_bias.zero_()
        hidden, residual, _ = inputs()
        assert torch.equal(made(hidden, residual, lambda h, r: normed(h, r), residual), hidden)

    @torch.no_grad()
    def test_a_layer_norm_stands_before_each_activation(self) -> None:
        made = adapter(norm="layer", depth=2)
        hidden, residual, layernorm = inputs()
        state = hidden @ made.down_proj[0] + made.down_bias[0]
        state = F.gelu(F.layer_norm(state, (3,)), approximate="tanh")
        state = state @ made.inner[0].weight[0] + made.inner[0].bias[0]
        state = F.gelu(F.layer_norm(state, (3,)), approximate="tanh")
        expected = hidden + state @ made.up_proj[0] + made.up_bias[0]
        # The biases of the norms were moved away from zero too.
        for norm in made.norms:
            norm.bias.zero_()
        torch.testing.assert_close(made(hidden, residual, layernorm, residual), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "values", [{}, {"depth": 3}, {"norm": "layer", "depth": 2}, {"norm": "batch"}, {"placement": "parallel"}]
)
def test_the_formula_counts_its_parameters(values: dict[str, Any]) -> None:
    design = dataclasses.replace(PLAIN, **values)
    assert design.params(8) == sum(parameter.numel() for parameter in adapter(**values).parameters())


class TestWhere:
    def model(self, backbone: Backbone, **options: Scalar) -> AdaptedModel:
        trial = trial_config(method_options={"adapter_size": 4, **options})
        return build_model(backbone.encoder, [trial], 2)

    @pytest.mark.parametrize(
        ("placement", "places"),
        [
            ("houlsby", [True, True]),
            ("attention_only", [True, False]),
            ("feedforward_only", [False, True]),
            ("pfeiffer", [False, True]),
            ("parallel", [False, True]),
        ],
    )
    def test_each_placement_stands_where_it_should(
        self, backbone: Backbone, placement: str, places: list[bool]
    ) -> None:
        ends = sublayer_outputs(self.model(backbone, placement=placement).encoder)
        assert [end.adapter is not None for end in ends] == places * backbone.info.shape.num_layers

    def test_only_the_named_layers_carry_adapters(self, backbone: Backbone) -> None:
        ends = sublayer_outputs(self.model(backbone, layers="1").encoder)
        assert [end.adapter is not None for end in ends] == [False, False, True, True]

    def test_layernorms_are_trained_or_not(self, backbone: Backbone) -> None:
        trained, frozen = (self.model(backbone, train_layernorms=value) for value in (True, False))
        for model, count in ((trained, 2 * 2 + 1), (frozen, 0)):
            names = [
                name for name, p in model.named_parameters() if p.requires_grad and name.endswith("layernorm.weight")
            ]
            assert len(names) == count


class TestLayers:
    @pytest.mark.parametrize(
        ("text", "layers"),
        [("all", (0, 1, 2, 3, 4, 5)), ("3", (3,)), ("0-2,4", (0, 1, 2, 4)), (" 5 , 1-2,2", (1, 2, 5))],
    )
    def test_a_text_names_layers(self, text: str, layers: tuple[int, ...]) -> None:
        assert parse_layers(text, 6) == layers

    @pytest.mark.parametrize("text", ["", "none", "6", "2-1", "0-6", "-1", "1,,2", "1.5"])
    def test_other_texts_are_refused_with_an_example(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"layers of 0 to 5 such as"):
            parse_layers(text, 6)


def test_every_fault_of_a_design_comes_at_once() -> None:

    wrong: dict[str, Scalar] = {
        "adapter_size": 0,
        "init_std": -1,
        "placement": "middle",
        "interaction": "divide",
        "scaling": 0,
        "activation": "gilu",
        "depth": 0,
        "norm": "instance",
        "layers": "13",
        "pooling": "max",
    }
    with pytest.raises(FaultsError) as refusal:
        parse_options("adapter", wrong, shape_of(PUBLISHED_CONFIGS["bert-base-uncased"]))
    assert len(refusal.value.faults) == len(wrong)
    for name in wrong:
        assert any(fault.startswith(f"adapter.{name}: ") for fault in refusal.value.faults), name

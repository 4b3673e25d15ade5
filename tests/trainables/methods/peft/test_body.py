"""The Hugging Face model with a tuner in it, as a body: its numbers, whose memory it uses, whose randomness."""

from __future__ import annotations

import dataclasses
import json
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.factories import trial_config
from trainables.nn.dropout import DropoutStream, DropoutStreams, connect
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape
from trainables.training.model import AdaptedModel, build_model

BERT = EncoderShape(
    model_type="bert",
    vocab_size=40,
    hidden_size=16,
    num_layers=2,
    num_heads=2,
    intermediate_size=24,
    max_positions=24,
    type_vocab_size=2,
    embedding_size=16,
)
SHAPES = {
    "bert": BERT,
    "roberta": dataclasses.replace(BERT, model_type="roberta", type_vocab_size=1, position_offset=2),
}
IDS = torch.tensor([[2, 5, 6, 7, 8, 9, 3], [2, 5, 10, 3, 0, 0, 0]])
TOKEN_TYPES = torch.tensor([[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0]])
LENGTHS = torch.tensor([7, 4])


def encoder(shape: EncoderShape = BERT, dtype: torch.dtype = torch.float32) -> Encoder:
    generator = torch.Generator().manual_seed(0)
    masters = {
        name: torch.randn(parameter.shape, generator=generator) * 0.3 + (1.0 if name.endswith("norm.weight") else 0.0)
        for name, parameter in Encoder(shape).named_parameters()
    }
    return Encoder(shape, masters).load(torch.device("cpu"), dtype)


def build(
    peft_type: str, backbone: Encoder, seed: int = 0, dropout: float | None = None, **fields: Any
) -> AdaptedModel:
    options = {"peft_type": peft_type, "settings": json.dumps(fields)}
    config = trial_config("peft", method_options=options, seed=seed, dropout=dropout)
    return build_model(backbone, [config], 3)


def trained(model: AdaptedModel) -> dict[str, Tensor]:
    return {name: p for name, p in model.encoder.named_parameters() if p.requires_grad}


class TestNumerics:
    @pytest.mark.parametrize("peft_type", ["PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CARTRIDGE"])
    @pytest.mark.parametrize("family", ["bert", "roberta"])
    def test_virtual_tokens_enter_as_they_do_in_the_library(self, peft_type: str, family: str) -> None:
        model = build(peft_type, encoder(SHAPES[family]), num_virtual_tokens=3).eval()
        model.encoder.pooling = "first"
        ids = IDS.masked_fill(IDS == 0, SHAPES[family].position_offset - 1) if family == "roberta" else IDS
        found = model.encoder(ids, torch.zeros_like(ids), LENGTHS)  # the library drops token types
        mask = torch.arange(7) < LENGTHS[:, None]
        assert model.encoder.body is not None
        states = model.encoder.body.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        torch.testing.assert_close(found, states[:, states.shape[1] - 7], rtol=1e-5, atol=1e-5)

    def test_token_types_reach_the_model(self) -> None:
        model = build("PROMPT_TUNING", encoder(), num_virtual_tokens=3).eval()
        with_types = model(IDS, TOKEN_TYPES, LENGTHS)
        assert not torch.allclose(with_types[0], model(IDS, torch.zeros_like(IDS), LENGTHS)[0], atol=1e-3)

    @pytest.mark.parametrize("start", ["pissa", "olora", "orthogonal"])
    def test_a_tuner_that_starts_from_the_weights_leaves_the_checkpoint_alone(self, start: str) -> None:
        backbone = encoder()
        masters = {name: master.clone() for name, master in backbone.masters.items()}
        model = build("LORA", backbone, init_lora_weights=start, r=4)
        assert all(torch.equal(masters[name], master) for name, master in backbone.masters.items())
        torch.testing.assert_close(
            model.encoder(IDS, TOKEN_TYPES, LENGTHS), backbone(IDS, TOKEN_TYPES, LENGTHS), rtol=0, atol=1e-4
        )

    @pytest.mark.parametrize("fields", [{"bias": "all"}, {"modules_to_save": ["LayerNorm"]}])
    def test_what_of_the_backbone_is_trained_is_a_copy(self, fields: dict[str, Any]) -> None:
        backbone = encoder()
        shared = {master.untyped_storage().data_ptr() for master in backbone.masters.values()}
        shared |= {parameter.untyped_storage().data_ptr() for parameter in backbone.parameters()}
        tensors = trained(build("LORA", backbone, **fields))
        assert len(tensors) > 2 * 2 * 2  # more than the matrices of queries and values
        assert not {tensor.untyped_storage().data_ptr() for tensor in tensors.values()} & shared

    def test_what_stays_frozen_is_not_copied(self) -> None:
        backbone = encoder(dtype=torch.bfloat16)
        shared = {parameter.untyped_storage().data_ptr() for parameter in backbone.parameters()}
        frozen = [p for p in build("LORA", backbone).encoder.parameters() if not p.requires_grad]
        assert {parameter.untyped_storage().data_ptr() for parameter in frozen} == shared
        assert {parameter.dtype for parameter in frozen} == {torch.bfloat16}

    def test_a_text_that_leaves_no_room_for_virtual_tokens_is_an_error(self) -> None:
        model = build("PROMPT_TUNING", encoder(), num_virtual_tokens=20)
        with pytest.raises(ValueError, match="20 virtual tokens and a text of 7 exceed 24 positions"):
            model(IDS, TOKEN_TYPES, LENGTHS)


class TestRandomness:
    def test_initial_values_follow_from_the_seed_and_nothing_else(self) -> None:
        backbone = encoder()
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first = trained(build("LORA", backbone))
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        assert all(torch.equal(tensor, first[name]) for name, tensor in trained(build("LORA", backbone)).items())
        other = trained(build("LORA", backbone, seed=1))
        assert not all(torch.equal(tensor, first[name]) for name, tensor in other.items())

    def step(self, seed: int, dropout: float | None, backbone: Encoder | None = None, **fields: Any) -> Tensor:
        """What a model in training makes of a batch, with the stream of this seed."""
        model = build("LORA", backbone or encoder(), dropout=dropout, init_lora_weights=False, **fields).train()
        streams = DropoutStreams([DropoutStream(seed, dropout, torch.device("cpu"))])
        streams.expect(2, None)
        connect(model, streams)
        return model(IDS, TOKEN_TYPES, LENGTHS)

    def test_masks_follow_from_the_trials_stream(self) -> None:
        backbone = encoder()
        torch.manual_seed(1)
        first = self.step(5, None, backbone)
        torch.manual_seed(2)
        before = torch.get_rng_state()
        assert torch.equal(self.step(5, None, backbone), first)
        assert torch.equal(torch.get_rng_state(), before)
        assert not torch.allclose(self.step(6, None, backbone), first)

    def test_a_trials_rate_replaces_the_backbones_but_not_the_tuners_own(self) -> None:
        assert torch.equal(self.step(5, 0.0), self.step(6, 0.0))
        assert not torch.allclose(self.step(5, 0.0, lora_dropout=0.5), self.step(6, 0.0, lora_dropout=0.5))
        assert not torch.allclose(self.step(5, 0.5), self.step(5, 0.1))

    def test_nothing_drops_out_without_a_stream(self) -> None:
        model = build("LORA", encoder(), lora_dropout=0.5, init_lora_weights=False)
        torch.testing.assert_close(
            model.train()(IDS, TOKEN_TYPES, LENGTHS), model.eval()(IDS, TOKEN_TYPES, LENGTHS), rtol=0, atol=1e-6
        )


def test_building_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build("BOFT", encoder())(IDS, TOKEN_TYPES, LENGTHS)

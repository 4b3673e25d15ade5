"""The encoder computes what transformers' own models compute, and its views share every tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.pieces import laid_out, sublayer_outputs
from trainables.backbones.loading import Backbone, load_backbone, meta_encoder
from trainables.nn.dropout import StepKeys, number_sites
from trainables.nn.encoder import Encoder
from trainables.nn.layers import ACTIVATIONS
from trainables.nn.pieces import Pieces

CPU = torch.device("cpu")
LENGTHS = torch.tensor([9, 4, 2, 9, 1])
FAMILIES = ["bert", "roberta", "xlm-roberta", "electra", "electra-small", "distilbert"]


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Encoder:
    encoder = load_backbone(str(folder), device=CPU, compute_dtype=dtype).encoder.eval()
    encoder.pooling = "first"
    return encoder


def inputs(encoder: Encoder, pad: int) -> tuple[Tensor, Tensor]:
    """Input ids and token types (5, 9), padded to ragged lengths."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(4, encoder.shape.vocab_size, (5, 9), generator=generator)
    types = (torch.arange(9) >= 3).long().expand(5, 9) if encoder.shape.type_vocab_size > 1 else torch.zeros_like(ids)
    padded = torch.arange(9) >= LENGTHS[:, None]
    return ids.masked_fill(padded, pad), types.masked_fill(padded, 0)


def batch(encoder: Encoder) -> Pieces:
    """The same word pieces laid end to end."""
    return laid_out(*inputs(encoder, 0), LENGTHS)


def transformers_model(folder: Path) -> nn.Module:
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder, local_files_only=True).eval()


def first_token(model: nn.Module, ids: Tensor, types: Tensor, mask: Tensor) -> Tensor:
    known = {} if model.config.model_type == "distilbert" else {"token_type_ids": types}
    return model(input_ids=ids, attention_mask=mask, **known).last_hidden_state[:, 0]


@pytest.mark.parametrize("family", FAMILIES)
class TestAgainstTransformers:
    @torch.no_grad()
    def test_the_first_token_is_that_of_transformers_own_model(
        self, family: str, checkpoint: Callable[[str], Path]
    ) -> None:
        encoder, reference = load(checkpoint(family)), transformers_model(checkpoint(family))
        ids, types = inputs(encoder, reference.config.pad_token_id or 0)
        mask = (torch.arange(9) < LENGTHS[:, None]).long()
        expected = first_token(reference, ids, types, mask)
        torch.testing.assert_close(encoder(batch(encoder)), expected, rtol=0, atol=1e-5)
        assert expected.std() > 0.1  # the comparison is not one of zeros

    @torch.no_grad()
    def test_sequences_of_one_length_are_no_special_case(self, family: str, checkpoint: Callable[[str], Path]) -> None:
        encoder, reference = load(checkpoint(family)), transformers_model(checkpoint(family))
        ids, types = inputs(encoder, 0)
        ids, types = ids[[0, 3]], types[[0, 3]]
        expected = first_token(reference, ids, types, torch.ones_like(ids))
        torch.testing.assert_close(encoder(laid_out(ids, types)), expected, rtol=0, atol=1e-5)

    def test_it_has_as_many_parameters(self, family: str, checkpoint: Callable[[str], Path]) -> None:
        encoder, reference = load(checkpoint(family)), transformers_model(checkpoint(family))
        count = sum(parameter.numel() for parameter in encoder.parameters())
        assert count == sum(parameter.numel() for parameter in reference.parameters())

    def test_the_formulas_of_its_shape_count_its_tensors(self, family: str, checkpoint: Callable[[str], Path]) -> None:
        encoder = load(checkpoint(family))
        shape = encoder.shape

        def count(module: nn.Module | None) -> int:
            return sum(parameter.numel() for parameter in module.parameters()) if module is not None else 0

        assert shape.embedding_params == count(encoder.embeddings)
        assert shape.layers_params() == shape.num_layers * shape.layer_params == count(encoder.layers)
        assert shape.pooler_params == count(encoder.pooler)
        assert shape.layernorm_params == sum(count(encoder.get_submodule(name)) for name in encoder.layernorm_names())
        assert len(encoder.layernorm_names()) == 2 * shape.num_layers + 1
        assert len(sublayer_outputs(encoder)) == 2 * shape.num_layers

    def test_the_longest_sequence_is_the_one_its_positions_allow(
        self, family: str, checkpoint: Callable[[str], Path]
    ) -> None:
        encoder = load(checkpoint(family))
        longest = encoder.shape.max_length
        assert longest == 32 - (2 if "roberta" in family else 0)
        assert encoder(laid_out(torch.full((1, longest), 5))).shape == (1, 16)
        with pytest.raises((RuntimeError, IndexError)):
            encoder(laid_out(torch.full((1, longest + 1), 5)))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_that_transformers_knows_by_the_same_names(name: str) -> None:
    from transformers.activations import ACT2FN

    values = torch.linspace(-6, 6, 101)
    torch.testing.assert_close(ACTIVATIONS[name](values), ACT2FN[name](values), rtol=0, atol=1e-6)


@torch.no_grad()
def test_the_path_that_drops_attention_computes_the_same(backbone: Backbone) -> None:
    view = backbone.encoder.view()
    pieces = batch(view)
    expected = view.eval()(pieces)
    for site in number_sites(view):
        site.keys = StepKeys([0], [0], [1e-9], pieces)  # active, but it rounds to never
    torch.testing.assert_close(view.train()(pieces), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_bf16_products_stay_near_float32(tiny_bert: Path) -> None:
    encoder = load(tiny_bert, torch.bfloat16)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.bfloat16}
    assert {master.dtype for master in encoder.masters.values()} == {torch.float32}
    exact = load(tiny_bert)(batch(encoder))
    torch.testing.assert_close(encoder(batch(encoder)).float(), exact, rtol=0.05, atol=0.15)


def test_everything_of_an_encoder_is_frozen(backbone: Backbone) -> None:
    assert not any(parameter.requires_grad for parameter in backbone.encoder.parameters())


def test_a_view_shares_every_tensor(backbone: Backbone) -> None:
    view = backbone.encoder.view()
    shared = dict(backbone.encoder.named_parameters())
    assert dict(view.named_parameters()).keys() == shared.keys()
    assert all(parameter is shared[name] for name, parameter in view.named_parameters())
    assert all(module is not backbone.encoder.get_submodule(name) for name, module in view.named_modules())


def test_a_trained_copy_belongs_to_its_view_alone(backbone: Backbone) -> None:
    view, other = backbone.encoder.view(), backbone.encoder.view()
    view.train_copy("layers.1")
    for name, parameter in view.named_parameters():
        original = backbone.encoder.get_parameter(name)
        inside = name.startswith("layers.1.")
        assert parameter.requires_grad == inside
        assert (parameter is original) == (not inside)
        assert torch.equal(parameter.reshape(original.shape), original)
        assert other.get_parameter(name) is original


def test_a_trained_copy_has_the_checkpoint_s_own_values_under_bf16(tiny_bert: Path, backbone: Backbone) -> None:
    view = load(tiny_bert, torch.bfloat16).view()
    view.train_copy("pooler")
    assert view.pooler is not None
    assert backbone.encoder.pooler is not None
    assert view.pooler.weight.dtype == torch.float32
    assert torch.equal(view.pooler.weight, backbone.encoder.pooler.weight)


def test_a_layernorm_is_copied_once_a_trial(backbone: Backbone) -> None:
    view = backbone.encoder.view()
    view.train_copy("embeddings.layernorm", num_trials=3)
    copies = view.embeddings.layernorm.weight
    assert copies.shape == (3, 16)
    assert len({row.data_ptr() for row in copies}) == 3
    assert all(torch.equal(row, backbone.encoder.embeddings.layernorm.weight) for row in copies)


def test_a_name_that_is_only_a_beginning_is_no_name(backbone: Backbone) -> None:
    view = backbone.encoder.view()
    with pytest.raises(KeyError, match=r"layers\.7"):
        view.train_copy("layers.7")
    with pytest.raises(KeyError, match="pool"):
        view.train_copy("pool")


def test_tensors_of_another_size_are_refused_by_name(backbone: Backbone) -> None:
    wider = replace(backbone.info.shape, intermediate_size=25)
    with pytest.raises(ValueError, match=r"layers\.0\.intermediate\.weight is \(24, 16\) instead of \(25, 16\)"):
        Encoder(wider, backbone.encoder.masters).load(CPU, torch.float32)


def test_an_encoder_on_the_meta_device_takes_no_memory(backbone: Backbone) -> None:
    encoder = meta_encoder(backbone.info.shape)
    assert {parameter.device.type for parameter in encoder.parameters()} == {"meta"}
    assert [p.shape for p in encoder.parameters()] == [p.shape for p in backbone.encoder.parameters()]


@pytest.mark.parametrize("pooling", ["first", "pooler", "mean"])
@torch.no_grad()
def test_what_a_head_reads_of_a_sequence_is_what_it_reads_of_it_alone(pooling: str, tiny_bert: Path) -> None:
    encoder = load(tiny_bert)
    encoder.pooling = pooling
    ids, types = inputs(encoder, 0)
    pieces = batch(encoder)
    read = encoder(pieces)
    states = encoder.run_prefix(pieces, encoder.shape.num_layers).split(LENGTHS.tolist())
    for row, length in enumerate(LENGTHS.tolist()):
        alone = encoder(laid_out(ids[row : row + 1, :length], types[row : row + 1, :length]))
        torch.testing.assert_close(read[row : row + 1], alone, rtol=0, atol=1e-5)
        expected = states[row].mean(dim=0) if pooling == "mean" else states[row][0]
        if pooling == "pooler":
            assert encoder.pooler is not None
            expected = torch.tanh(encoder.pooler(expected))
        torch.testing.assert_close(read[row], expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_every_word_piece_is_read_where_the_answer_is_a_place(tiny_bert: Path) -> None:
    encoder = load(tiny_bert)
    encoder.pooling = "tokens"
    states = encoder.run_prefix(batch(encoder), encoder.shape.num_layers)
    assert states.shape == (int(LENGTHS.sum()), 16)
    assert torch.equal(encoder(batch(encoder)), states)

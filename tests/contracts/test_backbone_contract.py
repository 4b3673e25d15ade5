"""What a family of backbones must do, whichever it is: it computes what transformers' own model computes.

Every `model_type` of a file of trainables/backbones is tested the moment it exists, on a random checkpoint that
transformers makes from its own configuration.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.fixtures import CHECKPOINT_VARIANTS
from tests.pieces import laid_out, sublayer_outputs
from trainables.backbones import checkpoint_names, families, map_tensors, shape_of
from trainables.backbones.loading import describe_backbone, load_backbone
from trainables.nn.encoder import Encoder

LENGTHS = torch.tensor([9, 4, 2, 9, 1])
Checkpoint = Callable[[str], Path]


@pytest.fixture(params=dict.fromkeys([*families(), *CHECKPOINT_VARIANTS]))
def folder(request: pytest.FixtureRequest, checkpoint: Checkpoint) -> Path:
    """The checkpoint of each model_type, and of what differs from it."""
    return checkpoint(request.param)


def load(folder: Path) -> Encoder:
    encoder = load_backbone(str(folder), device=torch.device("cpu"), compute_dtype=torch.float32).encoder.eval()
    encoder.pooling = "tokens"
    return encoder


def transformers_model(folder: Path) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder, local_files_only=True).eval()


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return json.loads((folder / "config.json").read_text(encoding="utf-8")), load_file(folder / "model.safetensors")


def inputs(encoder: Encoder, pad: int) -> tuple[Tensor, Tensor]:
    """Input ids and token types (5, 9), padded to ragged lengths."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(4, encoder.shape.vocab_size, (5, 9), generator=generator)
    types = (torch.arange(9) >= 3).long().expand(5, 9) if encoder.shape.type_vocab_size > 1 else torch.zeros_like(ids)
    padded = torch.arange(9) >= LENGTHS[:, None]
    return ids.masked_fill(padded, pad), types.masked_fill(padded, 0)


def hidden_states(model: Any, ids: Tensor, types: Tensor, mask: Tensor) -> Tensor:
    known = {"token_type_ids": types} if "token_type_ids" in inspect.signature(model.forward).parameters else {}
    return model(input_ids=ids, attention_mask=mask, **known).last_hidden_state


class TestComputation:
    @torch.no_grad()
    def test_the_hidden_states_are_those_of_transformers_own_model(self, folder: Path) -> None:
        encoder, reference = load(folder), transformers_model(folder)
        ids, types = inputs(encoder, reference.config.pad_token_id or 0)
        is_word = torch.arange(9) < LENGTHS[:, None]
        expected = hidden_states(reference, ids, types, is_word.long())
        torch.testing.assert_close(encoder(laid_out(ids, types, LENGTHS)), expected[is_word], rtol=0, atol=1e-5)
        assert expected[is_word].std() > 0.1  # the comparison is not one of zeros

    @torch.no_grad()
    @pytest.mark.thinned(7)
    def test_sequences_of_one_length_are_rows_without_dummies(self, folder: Path) -> None:
        encoder, reference = load(folder), transformers_model(folder)
        ids, types = (each[[0, 3]] for each in inputs(encoder, 0))
        expected = hidden_states(reference, ids, types, torch.ones_like(ids))
        torch.testing.assert_close(encoder(laid_out(ids, types)), expected.flatten(0, 1), rtol=0, atol=1e-5)

    @torch.no_grad()
    @pytest.mark.thinned(7)
    def test_the_longest_sequence_is_the_one_its_positions_allow(self, folder: Path) -> None:
        encoder, reference = load(folder), transformers_model(folder)
        longest = encoder.shape.max_length
        generator = torch.Generator().manual_seed(2)
        ids = torch.randint(4, encoder.shape.vocab_size, (1, longest + 1), generator=generator)
        fits, ones = ids[:, :longest], torch.ones_like(ids)
        expected = hidden_states(reference, fits, torch.zeros_like(fits), ones[:, :longest])
        torch.testing.assert_close(encoder(laid_out(fits)), expected[0], rtol=0, atol=1e-5)
        if encoder.shape.embeds_positions:  # else nothing ends with its positions
            with pytest.raises((IndexError, RuntimeError)):
                encoder(laid_out(ids))
            with pytest.raises((IndexError, RuntimeError)):
                hidden_states(reference, ids, torch.zeros_like(ids), ones)

    @torch.no_grad()
    @pytest.mark.thinned(7)
    def test_a_padding_token_that_stands_in_a_text_is_one_of_its_words(self, folder: Path) -> None:
        encoder, reference = load(folder), transformers_model(folder)
        ids, types = inputs(encoder, 0)
        ids[:, 2::3] = reference.config.pad_token_id or 0
        ids, types, lengths = ids[:2], types[:2], LENGTHS[:2]
        is_word = torch.arange(9) < lengths[:, None]
        expected = hidden_states(reference, ids, types, is_word.long())[is_word]
        torch.testing.assert_close(encoder(laid_out(ids, types, lengths)), expected, rtol=0, atol=1e-5)
        # As the texts of two trials, whose shorter segment ends in dummy rows.
        apart = encoder(laid_out(ids, types, lengths, num_trials=2)).view(2, 9, -1)
        torch.testing.assert_close(apart[is_word], expected, rtol=0, atol=1e-5)


class TestTensors:
    def test_what_is_described_is_what_is_loaded(self, folder: Path) -> None:
        shape, encoder = describe_backbone(str(folder)).shape, load(folder)
        assert encoder.shape == shape
        assert (encoder.pooler is not None) == shape.has_pooler

    def test_every_tensor_of_the_checkpoint_is_read_once(self, folder: Path) -> None:
        config, tensors = read(folder)
        names = [name for theirs in checkpoint_names(shape_of(config)).values() for name in theirs]
        assert sorted(names) == sorted(tensors)

    def test_it_has_as_many_parameters_as_transformers_own_model(self, folder: Path) -> None:
        count = sum(parameter.numel() for parameter in load(folder).parameters())
        assert count == sum(parameter.numel() for parameter in transformers_model(folder).parameters())

    def test_a_model_with_a_head_gives_the_same_tensors(self, folder: Path) -> None:
        config, tensors = read(folder)
        prefix = families()[config["model_type"]].PREFIX
        assert prefix == f"{transformers_model(folder).base_model_prefix}."
        wrapped = {f"{prefix}{name}": tensor for name, tensor in tensors.items()} | {"head.bias": torch.zeros(2)}
        plain, with_head = (map_tensors(shape_of(config), each) for each in (tensors, wrapped))
        assert plain.keys() == with_head.keys()
        assert all(torch.equal(plain[name], with_head[name]) for name in plain)

    def test_every_missing_tensor_is_counted_and_named(self, folder: Path) -> None:
        config, tensors = read(folder)
        lost = checkpoint_names(shape_of(config))["layers.0.attention.qkv.weight"]
        kept = {name: tensor for name, tensor in tensors.items() if name not in lost}
        assert len(kept) == len(tensors) - len(lost)
        with pytest.raises(ValueError, match=f"lacks {len(lost)}: ") as refusal:
            map_tensors(shape_of(config), kept)
        assert all(name in str(refusal.value) for name in lost)

    def test_a_configuration_that_lacks_a_size_is_refused_by_name(self, folder: Path) -> None:
        config, _ = read(folder)
        del config["vocab_size"]
        with pytest.raises(ValueError, match="must hold 'vocab_size'"):
            shape_of(config)

    def test_the_formulas_of_its_shape_count_its_tensors(self, folder: Path) -> None:
        encoder = load(folder)
        shape = encoder.shape

        def count(module: nn.Module | None) -> int:
            return sum(parameter.numel() for parameter in module.parameters()) if module is not None else 0

        assert shape.embedding_params == count(encoder.embeddings)
        assert shape.layers_params() == count(encoder.layers) + count(encoder.final_norm)
        assert shape.pooler_params == count(encoder.pooler)
        assert shape.params == count(encoder)
        assert shape.layernorm_params == sum(count(encoder.get_submodule(name)) for name in encoder.layernorm_names())
        assert shape.bias_params == sum(t.numel() for name, t in encoder.named_parameters() if name.endswith(".bias"))
        of_distances = shape.relative is not None and shape.relative.has_layernorm
        assert len(encoder.layernorm_names()) == 2 * shape.num_distinct_layers() + 1 + of_distances
        assert len(sublayer_outputs(encoder)) == 2 * shape.num_layers

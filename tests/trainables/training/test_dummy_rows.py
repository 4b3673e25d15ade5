"""Dummy rows, which fill the segments of a pack's shorter trials, change nothing: not a bit of any trial's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.trainables.training.packable import (
    CPU,
    ENCODER,
    NUM_OUTPUTS,
    PACKABLE,
    ROUNDED,
    ROWS,
    SmallOptions,
    make_config,
    make_pack,
    make_running,
)
from trainables.config import TrialConfig
from trainables.nn.dropout import StepKeys
from trainables.nn.encoder import Encoder
from trainables.nn.kernels import native
from trainables.training.evaluation import to_device


def _pass(
    configs: Sequence[TrialConfig], rows: Sequence[np.ndarray], encoder: Encoder, *, dummy_id: int = 0
) -> list[tuple[Tensor, Tensor]]:
    """Each trial's logits and gradient, after a pass with masks through a model that holds them all.

    Dummy rows hold this word piece.
    """
    pack = make_pack(encoder=encoder)
    trials = [make_running(config) for config in configs]
    pack.join(trials)
    _, pieces, labels = to_device(ROWS, np.concatenate(rows), len(configs), CPU)
    is_dummy = pieces.owners_N == pieces.num_sequences
    assert is_dummy.sum() == pieces.num_dummies
    pieces = replace(pieces, input_ids_N=pieces.input_ids_N.masked_fill(is_dummy, dummy_id))
    seeds, rates = [trial.dropout_seed for trial in trials], [trial.config.dropout for trial in trials]
    pack.weights.show(pack.model, 0, len(trials))
    pack.model.train()
    pack.model.drop_out(StepKeys(seeds, [3] * len(trials), rates, pieces))
    logits = pack.model(pieces)
    torch.nn.functional.cross_entropy(logits, labels, reduction="sum").backward()
    gradients = pack.weights.take_gradients(0, len(trials)).clone()
    return list(zip(logits.detach().view(len(trials), -1, NUM_OUTPUTS), gradients, strict=True))


BY_LENGTH = np.argsort(ROWS.lengths)
SHORT, MINE, LONG = BY_LENGTH[:4], BY_LENGTH[10:14], BY_LENGTH[-4:]


@pytest.mark.parametrize("encoder", [ENCODER, ROUNDED], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("method", PACKABLE)
@pytest.mark.thinned
def test_what_stands_in_dummy_rows_changes_no_bit_of_anything(
    method: str, encoder: Encoder, small_options: SmallOptions
) -> None:
    options = small_options(method, encoder)
    configs = [make_config(method, options, seed=seed, dropout=0.3) for seed in range(2)]
    one, other = (_pass(configs, [MINE, LONG], encoder, dummy_id=piece) for piece in (0, 17))
    for (logits, gradient), (expected_logits, expected_gradient) in zip(one, other, strict=True):
        assert gradient.any()
        assert torch.equal(logits, expected_logits)
        assert torch.equal(gradient, expected_gradient)


@pytest.mark.parametrize("encoder", [ENCODER, ROUNDED], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("method", PACKABLE)
@pytest.mark.thinned
def test_a_mate_of_longer_texts_changes_no_bit_of_what_is_computed(
    method: str, encoder: Encoder, small_options: SmallOptions
) -> None:
    """It lengthens the other trial's segment by dummy rows.

    A gradient is a sum over the segment, which a library of products adds up in other blocks where it is longer.
    """
    options = small_options(method, encoder)
    configs = [make_config(method, options, seed=seed, dropout=0.3) for seed in range(2)]
    (beside_shorter, _), (beside_longer, _) = (_pass(configs, [MINE, mates], encoder) for mates in (SHORT, LONG))
    if native.library() is None:  # torch pads sequences in groups, which the mate's lengths decide
        torch.testing.assert_close(beside_shorter[0], beside_longer[0], rtol=2e-6, atol=2e-6)
    else:
        assert torch.equal(beside_shorter[0], beside_longer[0])
    tolerance = 2e-6 if encoder is ENCODER else 2e-2
    torch.testing.assert_close(beside_shorter[1], beside_longer[1], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("pooling", ["first", "pooler", "mean"])
@pytest.mark.parametrize("encoder", [ENCODER, ROUNDED], ids=["float32", "bfloat16"])
def test_no_gradient_comes_from_a_dummy_row(encoder: Encoder, pooling: str) -> None:
    """Of what the embeddings and each layer give."""
    options = {"adapter_size": 4, "init_std": 0.1, "pooling": pooling}
    pack = make_pack(encoder=encoder)
    pack.join([make_running(make_config("adapter", options, seed=seed)) for seed in range(2)])
    _, pieces, labels = to_device(ROWS, np.concatenate([SHORT, LONG]), 2, CPU)
    is_dummy = pieces.owners_N == pieces.num_sequences
    states: list[Tensor] = []
    view = pack.model.encoder
    for module in (view.embeddings, *view.layers):
        module.register_forward_hook(lambda _module, _inputs, output: states.append(output) or output.retain_grad())
    pack.model.train()
    pack.model.drop_out(StepKeys([1, 2], [0, 0], [0.3, 0.3], pieces))
    torch.nn.functional.cross_entropy(pack.model(pieces), labels).backward()
    assert is_dummy.sum() > 4
    assert len(states) >= encoder.shape.num_layers
    for state in states:
        assert state.grad is not None
        assert not state.grad[is_dummy].any()
        assert state.grad[~is_dummy].any()

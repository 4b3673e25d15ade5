"""Deep and wide towers, each against what its definition says word by word."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tests.pieces import laid_out
from trainables.methods.no_bert.towers import BagOfWords, Convolution, DeepAndWide, HiddenLayer, WideTower
from trainables.methods.no_bert.word_embeddings import WordEmbeddings, Words, kind_vectors
from trainables.methods.no_bert.words import FIRST, PIECE, SECOND, SHARED
from trainables.nn.dropout import Dropout, StepKeys
from trainables.nn.pieces import Pieces

CPU = torch.device("cpu")
# Two rows: words 5 (pieces 6, 7), 8 | a pair: 9 | 9 (said by both), 3, 4 (piece 2).
IDS = torch.tensor([[5, 6, 7, 8, 0], [9, 9, 3, 4, 2]])
TYPES = torch.tensor([[FIRST, PIECE, PIECE, FIRST, FIRST], [FIRST, SHARED, SECOND, SECOND, PIECE]])
LENGTHS = torch.tensor([4, 5])


def generators(num_trials: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(num_trials)]


def batch(num_trials: int = 1) -> Pieces:
    """The two rows, for each trial."""
    repeated = IDS.repeat(num_trials, 1), TYPES.repeat(num_trials, 1), LENGTHS.repeat(num_trials)
    return laid_out(*repeated, num_trials=num_trials)


def words(num_trials: int = 1) -> Words:
    return Words.of(batch(num_trials))


def random(*size: int, seed: int = 7) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def test_a_bag_of_words_is_their_sum_over_the_root_of_their_number() -> None:
    vectors = random(6, 4)
    bags = BagOfWords()(vectors, words())
    torch.testing.assert_close(bags, torch.stack([vectors[:2].sum(0) / math.sqrt(2), vectors[2:].sum(0) / 2]))


def test_a_convolution_pools_windows_that_begin_at_a_word() -> None:
    convolution = Convolution(4, 3, 2, "tanh", generators(1), CPU, batch_norm=False, embedding_dropout=0.0, dropout=0.0)
    vectors = random(6, 4)
    features = convolution(vectors, words())
    for row, own in enumerate((vectors[:2], vectors[2:])):
        padded = torch.cat([own, torch.zeros(1, 4)])
        singles = torch.stack([torch.tanh(word @ convolution.filters[0].weight[0]) for word in own])
        pairs = [torch.cat(pair) for pair in pairwise(padded)]
        doubles = torch.stack([torch.tanh(pair @ convolution.filters[1].weight[0]) for pair in pairs])
        torch.testing.assert_close(features[row], torch.cat([singles.amax(0), doubles.amax(0)]))


def test_embedding_dropout_leaves_out_channels_of_the_whole_text() -> None:
    convolution = Convolution(4, 3, 2, "relu", generators(1), CPU, batch_norm=False, embedding_dropout=0.5, dropout=0.0)
    for module in convolution.modules():
        if isinstance(module, Dropout):
            module.keys = StepKeys([0], [0], [None], batch())
    vectors = torch.nn.Parameter(random(6, 4))
    convolution.train()(vectors, words()).sum().backward()
    assert vectors.grad is not None
    for own in (vectors.grad[:2], vectors.grad[2:]):
        dropped = ~own.any(dim=0)
        assert 0 < dropped.sum() < 4


def test_hidden_layers_of_a_pack_are_each_trials_own_with_every_norm() -> None:
    inputs = random(6, 4)
    for norm in ("none", "batch", "layer"):
        layer = HiddenLayer(4, 5, "swish", norm, 0.0, generators(2), CPU)
        outputs = layer(inputs)
        layer.dense.weight = torch.nn.Parameter(layer.dense.weight.detach() * torch.tensor([1.0, 2.0])[:, None, None])
        changed = layer(inputs)
        assert torch.equal(outputs[:3], changed[:3])
        assert not torch.allclose(outputs[3:], changed[3:]) or norm == "layer"


@pytest.mark.parametrize("scale", [0.5, 10.0])
def test_the_wide_tower_learns_at_its_own_rate(scale: float) -> None:
    """One step of AdamW moves each row by the scale times what it moves without one."""
    moved = []
    for each in (1.0, scale):
        wide = WideTower(50, 2, 2, each, 1, CPU)
        optimizer = torch.optim.AdamW(wide.parameters(), lr=1e-2, eps=0, weight_decay=0)
        (wide(words()) * random(2, 2)).sum().backward()
        optimizer.step()
        moved.append(wide.table.detach() * each)
    assert moved[0].any()
    torch.testing.assert_close(torch.nan_to_num(moved[1]), torch.nan_to_num(moved[0]) * scale)


def test_the_penalty_is_l2_of_products_and_of_the_wide_towers_rows() -> None:
    wide = WideTower(50, 2, 2, 3.0, 2, CPU)
    wide.table = torch.nn.Parameter(random(2, 50, 2))
    embeddings = WordEmbeddings(torch.nn.Parameter(random(2, 11, 4)), kind_vectors(4, 2, CPU), None)
    layer = HiddenLayer(4, 5, "relu", "none", 0.0, generators(2), CPU)
    body = DeepAndWide(embeddings, BagOfWords(), [layer], wide, deep_l2=0.1, wide_l2=0.01)
    expected = 0.1 * layer.dense.weight.square().sum((1, 2)) + 0.01 * (3 * wide.table).square().sum((1, 2))
    torch.testing.assert_close(body.penalty(), expected)
    free = DeepAndWide(embeddings, BagOfWords(), [layer], wide, deep_l2=0.0, wide_l2=0.0)
    assert free.penalty().tolist() == [0, 0]
    assert body(batch(2)).shape == (4, 5 + 2)

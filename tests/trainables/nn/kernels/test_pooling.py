"""First rows and means of sequences are those of plain indexing, in torch; their gradients too."""

from __future__ import annotations

import torch

from tests.trainables.nn.kernels.conftest import lay_out
from trainables.nn.kernels.pooling import mean, take_first


def test_first_rows_and_their_gradient_are_those_of_indexing() -> None:
    batch = lay_out([[3, 5], [4, 1]], [0.0, 0.0])
    hidden = torch.randn(batch.num_rows, 6, requires_grad=True)
    upstream = torch.randn(4, 6)
    first, expected = take_first(hidden, batch.sequences), hidden[batch.starts_S]
    assert torch.equal(first, expected)
    grads = [torch.autograd.grad(each, hidden, upstream)[0] for each in (first, expected)]
    assert torch.equal(*grads)


def test_a_sequence_without_rows_leaves_the_gradient_of_another_alone() -> None:
    batch = lay_out([[3, 0, 2]], [0.0])
    hidden = torch.randn(batch.num_rows, 6, requires_grad=True)
    upstream = torch.tensor([[1.0], [0.0], [2.0]]).expand(3, 6)
    (grad,) = torch.autograd.grad(take_first(hidden, batch.sequences), hidden, upstream)
    assert grad[:, 0].tolist() == [1, 0, 0, 2, 0, 0, 0]


def test_means_are_those_of_each_sequence_s_rows() -> None:
    batch = lay_out([[3, 5], [4, 1]], [0.0, 0.0])
    hidden, owners = torch.randn(batch.num_rows, 6), torch.full((batch.num_rows,), 4)
    expected = []
    for s, (start, length) in enumerate(zip(batch.starts_S.tolist(), batch.lengths_KB.ravel().tolist(), strict=True)):
        owners[start : start + length] = s
        expected.append(hidden[start : start + length].mean(dim=0))
    torch.testing.assert_close(mean(hidden, owners, batch.sequences), torch.stack(expected))

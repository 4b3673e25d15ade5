"""Attention in Triton is that of the torch reference, forwards and backwards, with the same masks to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainables.nn.kernels.conftest import Batch, lay_out
from tests.trainables.nn.kernels.test_attention import with_gradient
from tests.trainables.nn.kernels.triton.conftest import InTriton
from trainables.nn.kernels.attention import attend, attend_first
from trainables.nn.kernels.philox import attention_mask
from trainables.nn.kernels.sequences import DeviceSequences
from trainables.nn.kernels.triton import attention_kernels
from trainables.nn.kernels.triton.attention import backward_blocks, forward_blocks

SITE = 6
SHORT = [[18, 0], [0, 33], [7, 1]]
RATES = [0.1, 0.0, 0.5]
# Sequences in one block of keys and in several, of one query block and of several, many short and few long ones.
LAYOUTS = {
    "heads of 32": (SHORT, 2, 32),
    "an odd width": ([[5, 18, 0]], 2, 17),
    "long": ([[70, 40]], 1, 64),
    "one long": ([[67, 1, 9]], 1, 32),
    "alike": ([[53, 50]], 1, 32),
}


@pytest.fixture(autouse=True)
def nothing_is_left_over() -> Iterator[None]:
    """Memory that was not written shows: it holds what is not a number."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(name="launched")
def launched_fixture(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels that were launched."""
    launched: list[str] = []

    class Watched:
        def __init__(self, name: str) -> None:
            self.name, self.kernel = name, getattr(attention_kernels, name)

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., Any]:
            launched.append(self.name)
            return self.kernel[grid]

    for name in ("forward", "backward_queries", "backward_keys"):
        monkeypatch.setattr(attention_kernels, name, Watched(name))
    return launched


def random_rows(rows: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    numbers = torch.randn(rows, width, generator=torch.Generator().manual_seed(rows))
    return numbers.to(dtype).requires_grad_()


def assert_near(ours: list[Tensor], expected: list[Tensor], dtype: torch.dtype) -> None:
    # In bf16 the reference also rounds scores, which the kernels keep in float32.
    tolerance = 1e-5 if dtype is torch.float32 else 0.03
    for mine, other in zip(ours, expected, strict=True):
        assert mine.dtype == other.dtype == dtype
        assert other.abs().max() > 0.1
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance * float(other.detach().abs().max()))


@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.thinned(2)
def test_values_and_gradients_are_those_of_torch(
    layout: str, dtype: torch.dtype, drops: bool, in_triton: InTriton, launched: list[str]
) -> None:
    lengths, heads, width = LAYOUTS[layout]
    batch = lay_out(lengths, RATES[: len(lengths)])
    keys = batch.keys if drops else None
    qkv = random_rows(batch.num_rows, 3 * heads * width, dtype)

    def run() -> list[Tensor]:
        return with_gradient(attend(qkv, heads, batch.sequences, keys, SITE), qkv)

    expected = run()
    assert not launched
    with in_triton():
        ours = run()
    assert launched[0] == "forward"
    is_alone = batch.sequences.longest <= 32 or (layout == "alike" and dtype is torch.bfloat16)
    assert launched[1:] == (["backward_keys"] if is_alone else ["backward_queries", "backward_keys"])
    assert_near(ours, expected, dtype)
    for mine in ours:
        assert not mine[batch.is_dummy_N].any()


@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize(
    ("lengths", "dtype"), [([[20, 0], [2, 7]], torch.bfloat16), (SHORT, torch.float32), ([[0, 70]], torch.bfloat16)]
)
@pytest.mark.thinned(1)
def test_first_tokens_alone_get_what_they_get_in_torch(
    lengths: list[list[int]], dtype: torch.dtype, drops: bool, in_triton: InTriton
) -> None:
    batch, width = lay_out(lengths, RATES[: len(lengths)]), 32
    keys = batch.keys if drops else None
    query, both = random_rows(len(batch.starts_S), 2 * width, dtype), random_rows(batch.num_rows, 4 * width, dtype)
    key, value = both.split(2 * width, dim=1)

    def run() -> list[Tensor]:
        return with_gradient(attend_first(query, key, value, 2, batch.sequences, keys, SITE), query, both)

    expected = run()
    with in_triton():
        ours = run()
    assert_near(ours, expected, dtype)
    is_empty = torch.from_numpy(batch.lengths_KB.ravel() == 0)
    assert not ours[0][is_empty].any()
    assert not ours[1][is_empty].any()
    assert not ours[2][batch.is_dummy_N].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])  # with and without a block of all keys
@pytest.mark.thinned(1)
def test_masks_are_those_of_torch_to_the_bit_forwards_and_backwards(dtype: torch.dtype, in_triton: InTriton) -> None:
    batch, heads, width = lay_out([[50], [48]], [0.5, 0.73]), 2, 64
    # All probabilities are alike, and each value, and each gradient, has a column of its own.
    qkv = torch.zeros(batch.num_rows, 3, heads, width, dtype=dtype)
    upstream = torch.zeros(batch.num_rows, heads, width, dtype=dtype)
    for start, (length,) in zip(batch.starts_S.tolist(), batch.lengths_KB.tolist(), strict=True):
        for part in (qkv[:, 2], upstream):
            part[start : start + length, :, :length] = torch.eye(length, dtype=dtype)[:, None]
    qkv = qkv.flatten(1).requires_grad_()
    with in_triton():
        output = attend(qkv, heads, batch.sequences, batch.keys, SITE)
        (grad,) = torch.autograd.grad(output, qkv, upstream.flatten(1))
    places = torch.zeros(2, dtype=torch.int32)
    masks = attention_mask(batch.keys, torch.arange(2), places, heads, 50, SITE, torch.float32)
    for k, (start, (length,)) in enumerate(zip(batch.starts_S.tolist(), batch.lengths_KB.tolist(), strict=True)):
        mine = slice(start, start + length)
        is_kept = masks[k, :, :length, :length] != 0  # (H, Q, L)
        forwards = output.unflatten(1, (heads, width))[mine].transpose(0, 1)[..., :length]
        backwards = grad.unflatten(1, (3, heads, width))[mine, 2].transpose(0, 1)[..., :length]
        assert torch.equal(forwards != 0, is_kept)
        assert torch.equal(backwards.transpose(1, 2) != 0, is_kept)


def test_the_host_need_not_know_the_lengths(in_triton: InTriton) -> None:
    batch = lay_out(SHORT, RATES)
    starts_S, lengths_S = batch.starts_S, torch.from_numpy(batch.lengths_KB.ravel())
    bounded = DeviceSequences(starts_S, lengths_S, longest=64, num_trials=3, num_rows=batch.num_rows)
    qkv = random_rows(batch.num_rows, 3 * 32)
    with in_triton():
        known = with_gradient(attend(qkv, 1, batch.sequences, batch.keys, SITE), qkv)
        for mine, other in zip(with_gradient(attend(qkv, 1, bounded, batch.keys, SITE), qkv), known, strict=True):
            assert torch.equal(mine, other)


def test_evaluation_needs_no_gradient_and_no_keys(in_triton: InTriton, launched: list[str]) -> None:
    batch = lay_out(SHORT, RATES)
    qkv = random_rows(batch.num_rows, 3 * 32)
    expected = attend(qkv, 1, batch.sequences, None, SITE)
    with in_triton(), torch.inference_mode():
        ours = attend(qkv.detach(), 1, batch.sequences, None, SITE)
    assert launched == ["forward"]
    torch.testing.assert_close(ours, expected.detach(), rtol=1e-5, atol=1e-6)


def test_what_is_not_a_number_stays_in_its_sequence(in_triton: InTriton) -> None:
    batch: Batch = lay_out([[3, 20, 17]], RATES[:1])
    rows = random_rows(batch.num_rows, 3 * 32).detach()
    start = int(batch.starts_S[1])
    rows[start, 0] = float("nan")
    rows.requires_grad_()
    with in_triton():
        output = attend(rows, 1, batch.sequences, batch.keys, SITE)
        (grad,) = torch.autograd.grad(output, rows, torch.ones_like(output))
    outside = torch.ones(batch.num_rows, dtype=torch.bool)
    outside[start : start + 20] = False
    for mine in (output, grad):
        assert mine[start].isnan().any()
        assert mine[outside].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 17, 32, 64, 128, 256])
@pytest.mark.parametrize("mean", [1, 13, 100])
def test_blocks_follow_from_the_longest_length_s_power_of_two(mean: int, width: int, dtype: torch.dtype) -> None:
    chosen = set()
    for longest in range(1, 600):
        blocks = forward_blocks(longest, mean, width, dtype)
        behind, is_alone = backward_blocks(longest, mean, width, dtype)
        assert not is_alone or longest <= behind.keys
        chosen.add((blocks, behind, is_alone, max(16, 2 ** (longest - 1).bit_length())))
        for each in (blocks, behind):
            assert min(each.queries, each.keys) >= 16
            assert each.warps in (1, 2, 4, 8)
    assert len(chosen) == 7  # of 16, 32, 64, ... 1024

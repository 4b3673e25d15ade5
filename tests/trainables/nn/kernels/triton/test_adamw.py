"""AdamW in Triton is that in torch, of tensors that are whole and of slices of larger ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.trainables.nn.kernels.test_adamw import DECAYED, DECAYS, NORMS, RATES
from tests.trainables.nn.kernels.triton.conftest import InTriton
from trainables.nn.kernels.adamw import adamw_
from trainables.nn.kernels.triton import adamw as triton_adamw


class Pack:
    """Values, gradients, moments and the copy of some trials, each in a part of a tensor that is `spare` wider."""

    def __init__(self, num_trials: int, size: int, spare: int, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)
        wide = [torch.randn(num_trials, size + spare, generator=generator) for _ in range(2)]
        wide += [torch.zeros(num_trials, size + spare) for _ in range(2)]
        self.whole = [*wide, wide[0].to(dtype)]
        self.tensors = [tensor[:, spare // 2 : spare // 2 + size] for tensor in self.whole]

    def step(self, step: int, *, dtype: torch.dtype = torch.float64) -> None:
        values, grads, first, second, seen = self.tensors
        trials = len(values)
        grads.copy_(torch.randn(grads.shape, generator=torch.Generator().manual_seed(step)) * 10 ** (-step / 5))
        adamw_(
            values,
            grads,
            first,
            second,
            num_decayed=min(DECAYED, values.shape[1] // 2),
            rates_K=torch.tensor(RATES, dtype=dtype)[:trials],
            decays_K=torch.tensor(DECAYS, dtype=dtype)[:trials],
            max_norms_K=torch.tensor(NORMS, dtype=dtype)[:trials],
            steps_K=torch.arange(trials) + step,
            seen_KP=seen,
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("num_trials", "size", "spare"), [(1, 7, 0), (3, 2100, 13)])
def test_steps_are_those_of_torch(
    num_trials: int, size: int, spare: int, dtype: torch.dtype, in_triton: InTriton
) -> None:
    ours, other = (Pack(num_trials, size, spare, dtype) for _ in range(2))
    for step in (1, 2, 1000):
        with in_triton():
            ours.step(step)
        other.step(step)
    for mine, expected in zip(ours.whole[:-1], other.whole[:-1], strict=True):  # what lies beside the slices as well
        torch.testing.assert_close(mine, expected, rtol=1e-6, atol=1e-7)
    assert torch.equal(ours.tensors[-1], ours.tensors[0].to(dtype))


def test_the_order_of_sums_does_not_depend_on_the_other_trials(in_triton: InTriton) -> None:
    together, alone = (Pack(3, 5001, 0, torch.bfloat16) for _ in range(2))
    with in_triton():
        _update(together.tensors, slice(0, 3))
        _update(alone.tensors, slice(1, 2))
    for mine, other in zip(together.tensors, alone.tensors, strict=True):
        assert torch.equal(mine[1], other[1])


def _update(tensors: list[Tensor], trials: slice) -> None:
    values, grads, first, second, seen = (tensor[trials] for tensor in tensors)
    adamw_(
        values,
        grads,
        first,
        second,
        num_decayed=DECAYED,
        rates_K=torch.tensor(RATES)[trials],
        decays_K=torch.tensor(DECAYS)[trials],
        max_norms_K=torch.tensor(NORMS)[trials],
        steps_K=torch.tensor([2, 2, 2])[trials],
        seen_KP=seen,
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_ruins_its_trial_alone(bad: float, in_triton: InTriton) -> None:
    with in_triton():
        pack, healthy = (Pack(3, 100, 0, torch.bfloat16) for _ in range(2))
        pack.tensors[1][1, 5] = bad
        for each in (pack, healthy):
            _update(each.tensors, slice(0, 3))
    assert pack.tensors[1][1, 5].isnan()
    assert pack.tensors[0][1].isnan().any()
    for mine, other in zip(pack.tensors, healthy.tensors, strict=True):
        assert torch.equal(mine[[0, 2]], other[[0, 2]])


def test_more_numbers_than_sums_are_kept_of(in_triton: InTriton, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_adamw, "_MOST_PARTS", 3)
    ours, other = (Pack(2, 6 * triton_adamw._BLOCK + 5, 0, torch.bfloat16) for _ in range(2))
    with in_triton():
        ours.step(1)
    other.step(1)
    torch.testing.assert_close(ours.tensors[1], other.tensors[1], rtol=1e-6, atol=1e-9)


def test_numbers_of_another_dtype_are_torch_s(in_triton: InTriton) -> None:
    pack, other = (Pack(2, 16, 0, torch.bfloat16) for _ in range(2))
    for each in (pack, other):
        each.tensors[2] = each.tensors[2].double()
        each.tensors[3] = each.tensors[3].double()
        each.tensors[0], each.tensors[1] = each.tensors[0].double(), each.tensors[1].double()
    with in_triton():
        pack.step(1)
    other.step(1)
    assert torch.equal(pack.tensors[0], other.tensors[0])

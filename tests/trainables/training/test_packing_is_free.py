"""A step of many trials dispatches as many operations as a step of one: packing costs no call more."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trainables.config import TrialConfig
from trainables.data.tokenized import TokenizedSplit
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape
from trainables.nn.kernels import native
from trainables.training.pack import Pack
from trainables.training.running_trial import Job, RunningTrial

# What may come on top: the gradients of tensors that a single trial does not broadcast, and dummy rows.
HANDFUL = 8
SHAPE = EncoderShape(
    model_type="bert",
    vocab_size=40,
    hidden_size=16,
    num_layers=3,
    num_heads=2,
    intermediate_size=24,
    max_positions=20,
    type_vocab_size=2,
    embedding_size=16,
)
OPTIONS: dict[str, dict[str, Any]] = {
    "adapter": {"adapter_size": 4},
    "bitfit": {},
    "layernorm": {},
    "lora": {"rank": 2},
    "pals": {"size": 4, "num_heads": 2},
}


class Operations(TorchDispatchMode):
    """Counts what is dispatched, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def encoder(dtype: torch.dtype) -> Encoder:
    generator = torch.Generator().manual_seed(0)
    masters = {
        name: torch.randn(parameter.shape, generator=generator) * 0.3
        for name, parameter in Encoder(SHAPE).named_parameters()
    }
    return Encoder(SHAPE, masters).load(torch.device("cpu"), dtype)


def rows() -> TokenizedSplit:
    """Rows of different lengths that attention pads to one, so that it makes one group of them whoever draws them."""
    lengths = np.tile([3, 5, 8], 16)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return TokenizedSplit(
        offsets=offsets,
        input_ids=np.random.default_rng(0).integers(4, SHAPE.vocab_size, size=offsets[-1]).astype(np.int32),
        token_type_ids=np.zeros(offsets[-1], np.int8),
        labels=np.arange(len(lengths)) % 2,
    )


def step(backbone: Encoder, method: str, num_trials: int) -> Counter[str]:
    """What the second step of a pack dispatches; at the first, memory is made ready."""
    split = rows()
    pack = Pack(backbone, {"train": split}, 2)
    pack.tokens_per_slice = 10**6
    configs = [
        TrialConfig(
            task="any",
            backbone="any",
            method=method,
            method_options=OPTIONS[method],
            seed=seed,
            learning_rate=1e-3 * (seed + 1),
            dropout=0.1 * (seed + 1),
            batch_size=8,
        )
        for seed in range(num_trials)
    ]
    pack.join([RunningTrial(Job(config=config, done=lambda outcome: None), len(split)) for config in configs])
    pack.step()
    with Operations() as operations:
        pack.step()
    assert [trial.step for trial in pack.trials] == [2] * num_trials
    return operations.counts


@pytest.mark.parametrize(
    ("method", "compiled", "dtype"),
    [
        *((method, True, "bfloat16") for method in OPTIONS),
        *((method, False, "float32") for method in OPTIONS),
        ("adapter", True, "float32"),
        ("adapter", False, "bfloat16"),
    ],
)
@pytest.mark.thinned(5)
def test_the_operations_of_a_step_do_not_grow_with_the_number_of_trials(
    method: str, compiled: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(native, "library", lambda: None)
    backbone = encoder(getattr(torch, dtype))
    one, six = (step(backbone, method, num_trials) for num_trials in (1, 6))
    growth = {name: six[name] - one[name] for name in six | one if six[name] != one[name]}
    assert one.total() > 100  # the count is of the whole step
    assert six.total() - one.total() <= HANDFUL, growth

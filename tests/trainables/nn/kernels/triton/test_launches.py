"""How many kernels a whole step launches: of MiniLM's shape, with adapters, on a device that has no numbers.

What torch dispatches is counted, but for views and bare memory, and every launch of a kernel in Triton, none of which
is run. On an H200 the same step launched 283, 292 and 346 kernels at K = 1, 8 and 32 (benchmarks/NOTES.md), before the
weights' gradient of each of its 12 bottlenecks took one more.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from triton.runtime import interpreter

from trainables.config import TrialConfig
from trainables.data.tokenized import TokenizedSplit
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape
from trainables.nn.kernels import triton
from trainables.training import pack as pack_module
from trainables.training.pack import Pack
from trainables.training.running_trial import Job, RunningTrial

CEILING, NOT_THE_WHOLE_STEP = 295, 200
LENGTH, ROWS = 32, 256
MINILM = EncoderShape(
    model_type="bert",
    vocab_size=30522,
    hidden_size=384,
    num_layers=6,
    num_heads=12,
    intermediate_size=1536,
    max_positions=512,
    type_vocab_size=2,
    embedding_size=384,
)


class Launches(TorchDispatchMode):
    """Counts what a GPU would launch, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        name = str(func).removeprefix("aten.")
        is_view = any(each.alias_info is not None and not each.alias_info.is_write for each in func._schema.returns)
        # A number that is written to a tensor stays on the host.
        is_bare = name.startswith(("empty", "new_empty", "detach", "_unsafe_view", "scalar_tensor"))
        has_work = any(each.numel() for each in tree_leaves(found) if isinstance(each, Tensor))
        if has_work and not is_view and not is_bare:
            self.counts[name] += 1
        return found


def encoder() -> Encoder:
    with torch.device("meta"):
        made = Encoder(MINILM)
    made.compute_dtype = torch.bfloat16
    for name, parameter in list(made.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        setattr(made.get_submodule(owner), leaf, nn.Parameter(parameter.detach().bfloat16(), requires_grad=False))
    return made


def launched(num_trials: int, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What a step of such a pack launches."""
    launches = Launches()

    def count(kernel: Any, *args: Any, grid: Any, warmup: bool, **named: Any) -> None:
        launches.counts[f"triton {kernel.fn.__module__.rpartition('.')[2]}.{kernel.fn.__name__}"] += 1

    monkeypatch.setattr(interpreter.InterpretedFunction, "run", count)
    monkeypatch.setattr(triton, "serves", lambda rows: rows.dtype in (torch.bfloat16, torch.float32))
    monkeypatch.setitem(pack_module.TOKENS_PER_SLICE, "meta", 65_536)
    split = TokenizedSplit(
        offsets=np.arange(ROWS + 1) * LENGTH,
        input_ids=np.full(ROWS * LENGTH, 5, np.int32),
        token_type_ids=np.zeros(ROWS * LENGTH, np.int8),
        labels=np.arange(ROWS) % 2,
    )
    pack = Pack(encoder(), {"train": split}, 2)
    pack.gathers_on_device = True
    configs = [
        TrialConfig(
            task="any",
            backbone="any",
            method="adapter",
            method_options={"adapter_size": 64, "pooling": "pooler"},
            batch_size=32,
            seed=seed,
        )
        for seed in range(num_trials)
    ]
    pack.join([RunningTrial(Job(config=config, done=lambda outcome: None), ROWS) for config in configs])
    pack.step()  # at the first, memory is made ready
    shape = pack._current_course().shape()
    launches.counts.clear()
    with launches:
        pack.step_there(0, num_trials, *shape)
    return launches.counts


def test_a_step_launches_no_more_kernels_than_it_did_on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    one, eight = (launched(num_trials, monkeypatch) for num_trials in (1, 8))
    assert one["triton attention_kernels.forward"] == one["triton attention_kernels.backward_keys"] == 6
    assert one["triton adamw._update"] == 1
    for counts in (one, eight):
        assert NOT_THE_WHOLE_STEP < counts.total() <= CEILING, counts.most_common()
    assert eight.total() - one.total() <= 2, eight - one

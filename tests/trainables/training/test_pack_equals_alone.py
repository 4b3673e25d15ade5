"""A packed trial is the trial it would be alone, whoever trains beside it, joins it or leaves it.

Float32, dropout on, the trial's own seed. What differs is the order in which products add up, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.factories import trial_config
from trainables.config import Scalar, TrialConfig
from trainables.data.tokenized import TokenizedSplit, pad
from trainables.methods import method_names
from trainables.nn import attention, feedforward
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape
from trainables.training.model import stack_key
from trainables.training.pack import Pack
from trainables.training.running_trial import Job, RunningTrial

STEPS = 20
TOLERANCE = 1e-5
NUM_OUTPUTS = 3
SHAPE = EncoderShape(
    model_type="bert",
    vocab_size=40,
    hidden_size=16,
    num_layers=2,
    num_heads=2,
    intermediate_size=24,
    max_positions=20,
    type_vocab_size=2,
    embedding_size=16,
)
SmallOptions = Callable[[str, Encoder], dict[str, Scalar]]


def _config(method: str, options: Mapping[str, Scalar], **values: Any) -> TrialConfig:
    init_std = values.pop("init_std", None)
    own = dict(options) | ({"init_std": init_std} if "init_std" in options and init_std is not None else {})
    return trial_config(method, method_options=own, batch_size=4, **values)


PACKABLE = [method for method in method_names() if stack_key(_config(method, {})) is not None]


def _encoder() -> Encoder:
    generator = torch.Generator().manual_seed(0)
    masters = {
        name: torch.randn(parameter.shape, generator=generator) * 0.3 + (1.0 if name.endswith("norm.weight") else 0.0)
        for name, parameter in Encoder(SHAPE).named_parameters()
    }
    return Encoder(SHAPE, masters).load(torch.device("cpu"), torch.float32)


def _rows() -> TokenizedSplit:
    """Rows of 3 to 11 word pieces, so that trials of a pack meet batches of different lengths."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(3, 12, size=48)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(4, SHAPE.vocab_size, size=offsets[-1]).astype(np.int32)
    return TokenizedSplit(
        offsets=offsets,
        input_ids=ids,
        token_type_ids=np.zeros(offsets[-1], np.int8),
        labels=ids[offsets[:-1] + 1].astype(np.int64) % NUM_OUTPUTS,
        pad_token_id=0,
    )


ENCODER, ROWS = _encoder(), _rows()


@dataclass
class Trace:
    """What a trial computed in its first 20 steps."""

    losses: list[float] = field(default_factory=list)
    weights: Tensor | None = None
    logits: Tensor | None = None


def _pack(tokens_per_slice: int = 10_000) -> Pack:
    pack = Pack(ENCODER, {"train": ROWS}, NUM_OUTPUTS)
    pack.tokens_per_slice = tokens_per_slice
    return pack


def _running(config: TrialConfig) -> RunningTrial:
    return RunningTrial(Job(config=config, done=lambda outcome: None), ROWS.lengths, torch.device("cpu"))


def _train(entries: Sequence[tuple[int, int, TrialConfig]], tokens_per_slice: int) -> list[Trace]:
    """Train trials that join the pack before step `joins` and leave it after `stays` steps of their own."""
    pack, traces = _pack(tokens_per_slice), [Trace() for _ in entries]
    running: dict[int, RunningTrial] = {}
    batch = pad(ROWS, np.arange(6))
    for step in range(max(joins for joins, _, _ in entries) + STEPS):
        newcomers = {index: _running(config) for index, (joins, _, config) in enumerate(entries) if joins == step}
        if newcomers:
            running |= newcomers
            pack.join(list(newcomers.values()))
        if not pack.trials:
            continue
        pack.step()
        leaving = []
        for index, trial in running.items():
            traces[index].losses.append(float(trial.loss_sum))
            if trial.step == entries[index][1]:
                traces[index].weights = _without_key_biases(pack, trial.row.clone())
                model = pack.show(trial).eval()
                with torch.no_grad():
                    inputs = (batch.input_ids, batch.token_type_ids, batch.lengths)
                    traces[index].logits = model(*map(torch.from_numpy, inputs))
                leaving.append(index)
        if leaving:
            pack.leave([running.pop(index) for index in leaving])
    return traces


def _without_key_biases(pack: Pack, row: Tensor) -> Tensor:
    """A row without what has no effect: a bias of all keys moves every score of a query alike.

    Its gradient is rounding alone, of which Adam makes steps, so such biases wander differently in a pack.
    """
    for name, parameter in pack.model.named_parameters():
        if name.endswith("qkv.bias") and parameter.requires_grad:
            leaf = next(leaf for leaf in pack.weights._leaves if leaf.owner is pack.model.get_submodule(name[:-5]))
            width = parameter.shape[-1] // 3
            row[leaf.offset + width : leaf.offset + 2 * width] = 0
    return row


def _configs(method: str, options: Mapping[str, Scalar]) -> st.SearchStrategy[TrialConfig]:
    return st.builds(
        lambda **values: _config(method, options, **values),
        seed=st.integers(0, 5),
        learning_rate=st.sampled_from([3e-3, 1e-3, 1e-4]),
        num_epochs=st.sampled_from([2, 3, 10]),
        weight_decay=st.sampled_from([0.0, 0.01, 0.1]),
        warmup_ratio=st.sampled_from([0.0, 0.1, 0.5]),
        max_grad_norm=st.sampled_from([0.1, 1.0]),
        dropout=st.sampled_from([None, 0.0, 0.3]),
        init_std=st.sampled_from([1e-3, 1e-2, 0.3]),
    )


@pytest.mark.parametrize("method", PACKABLE)
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_a_packed_trial_equals_the_trial_alone_whatever_its_pack_mates_do(
    method: str, small_options: SmallOptions, data: st.DataObject
) -> None:
    configs = _configs(method, small_options(method, ENCODER))
    observed = data.draw(configs)
    # 12 batches of 4 an epoch: at least 20 steps for everyone.
    mates = data.draw(st.lists(st.tuples(st.integers(0, 15), st.integers(1, STEPS), configs), max_size=5))
    place, joins = data.draw(st.integers(0, len(mates))), data.draw(st.integers(0, 6))
    entries = [*mates[:place], (joins, STEPS, observed), *mates[place:]]
    packed = _train(entries, data.draw(st.sampled_from([1, 90, 10_000])))[place]
    alone = _train([(0, STEPS, observed)], 10_000)[0]
    np.testing.assert_allclose(packed.losses, alone.losses, rtol=0, atol=TOLERANCE * STEPS)
    torch.testing.assert_close(packed.weights, alone.weights, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(packed.logits, alone.logits, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("method", PACKABLE)
def test_blocks_that_suit_the_cache_change_nothing(
    method: str, small_options: SmallOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = small_options(method, ENCODER)
    entries = [(0, STEPS, _config(method, options, seed=seed, dropout=0.3, num_epochs=2)) for seed in range(3)]
    whole = _train(entries, 10_000)
    monkeypatch.setattr(attention, "BLOCK_ELEMENTS", 100)
    monkeypatch.setattr(feedforward, "BLOCK_ROWS", 7)
    for ours, theirs in zip(_train(entries, 10_000), whole, strict=True):
        torch.testing.assert_close(ours.weights, theirs.weights, rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(ours.logits, theirs.logits, rtol=0, atol=TOLERANCE)


def test_trials_of_different_seeds_do_train_differently() -> None:
    """What the comparisons above would miss if every trial were the same."""
    entries = [(0, STEPS, _config("adapter", {"adapter_size": 4}, seed=seed, num_epochs=2)) for seed in range(2)]
    first, second = _train(entries, 10_000)
    assert first.weights is not None
    assert second.weights is not None
    assert (first.weights - second.weights).abs().max() > 100 * TOLERANCE


def test_a_trial_that_was_suspended_goes_on_as_if_it_had_not_been() -> None:
    configs = [_config("adapter", {"adapter_size": 4}, seed=seed, dropout=0.3, num_epochs=2) for seed in range(3)]
    undisturbed = _train([(0, STEPS, config) for config in configs], 10_000)
    pack, trials = _pack(), [_running(config) for config in configs]
    pack.join(trials)
    for _ in range(5):
        pack.step()
    pack.suspend(trials[1:])
    for _ in range(STEPS - 5):
        pack.step()
    torch.testing.assert_close(trials[0].row, undisturbed[0].weights, rtol=0, atol=TOLERANCE)
    pack.resume(trials[1:])
    pack.leave(trials[:1])
    for _ in range(STEPS - 5):
        pack.step()
    for trial, expected in zip(trials[1:], undisturbed[1:], strict=True):
        torch.testing.assert_close(trial.row, expected.weights, rtol=0, atol=TOLERANCE)

"""A packed trial is the trial it would be alone, whoever trains beside it, joins it or leaves it.

Dropout on, the trial's own seed. What may differ is the order in which products add up, and nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.fixtures import MakeCheckpoint
from tests.trainables.training.packable import (
    CPU,
    ENCODER,
    PACKABLE,
    ROUNDED,
    ROWS,
    SmallOptions,
    make_config,
    make_pack,
    make_running,
)
from trainables.backbones import families
from trainables.backbones.loading import load_backbone
from trainables.config import Scalar, TrialConfig
from trainables.nn import feedforward
from trainables.nn.encoder import Encoder
from trainables.training.evaluation import to_device
from trainables.training.pack import Pack
from trainables.training.running_trial import RunningTrial

STEPS = 8
TOLERANCE = 1e-5
BF16_TOLERANCE = 1e-3


@dataclass
class Trace:
    """What a trial computed in its first steps."""

    losses: list[float] = field(default_factory=list)
    weights: Tensor | None = None
    logits: Tensor | None = None


def _train(
    entries: Sequence[tuple[int, int, TrialConfig]], tokens_per_slice: int, encoder: Encoder = ENCODER
) -> list[Trace]:
    """Train trials that join the pack before step `joins` and leave it after `stays` steps of their own."""
    pack, traces = make_pack(tokens_per_slice, encoder), [Trace() for _ in entries]
    running: dict[int, RunningTrial] = {}
    _, pieces, _ = to_device(ROWS, np.arange(6), 1, CPU)
    for step in range(max(joins for joins, _, _ in entries) + STEPS):
        newcomers = {index: make_running(config) for index, (joins, _, config) in enumerate(entries) if joins == step}
        if newcomers:
            running |= newcomers
            pack.join(list(newcomers.values()))
        if not pack.trials:
            continue
        pack.step()
        leaving = []
        for index, trial in running.items():
            place = pack.trials.index(trial)
            traces[index].losses.append(float(pack.weights.loss_sums[place]))
            if trial.step == entries[index][1]:
                traces[index].weights = _without_key_biases(pack, pack.weights.rows[place].clone())
                model = pack.show(trial).eval()
                with torch.no_grad():
                    traces[index].logits = model(pieces)
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
        lambda **values: make_config(method, options, **values),
        seed=st.integers(0, 5),
        learning_rate=st.sampled_from([3e-3, 1e-3, 1e-4]),
        num_epochs=st.sampled_from([2, 3, 10]),
        weight_decay=st.sampled_from([0.0, 0.01, 0.1]),
        warmup_ratio=st.sampled_from([0.0, 0.1, 0.5]),
        max_grad_norm=st.sampled_from([0.1, 1.0]),
        dropout=st.sampled_from([None, 0.0, 0.3]),
        class_weights=st.sampled_from(["none", "balanced", "1=9"]),
        init_std=st.sampled_from([1e-3, 1e-2, 0.3]),
    )


Entries = list[tuple[int, int, TrialConfig]]


@st.composite
def _packs(draw: st.DrawFn, method: str, options: Mapping[str, Scalar]) -> tuple[Entries, int, int]:
    """Who joins and leaves when, the place of the trial that is observed among them, and the word pieces of a slice."""
    configs = _configs(method, options)
    observed = draw(configs)
    # 12 batches of 4 an epoch, of which there are at least 2: there are enough steps for everyone.
    mates = draw(st.lists(st.tuples(st.integers(0, 7), st.integers(1, STEPS), configs), max_size=4))
    place, joins = draw(st.integers(0, len(mates))), draw(st.integers(0, 5))
    return [*mates[:place], (joins, STEPS, observed), *mates[place:]], place, draw(st.sampled_from([1, 90, 10_000]))


@pytest.mark.thorough
@pytest.mark.parametrize("method", PACKABLE)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_a_packed_trial_equals_the_trial_alone_whatever_its_pack_mates_do(
    method: str, small_options: SmallOptions, data: st.DataObject
) -> None:
    entries, place, tokens_per_slice = data.draw(_packs(method, small_options(method, ENCODER)))
    packed = _train(entries, tokens_per_slice)[place]
    (alone,) = _train([(0, STEPS, entries[place][2])], 10_000)
    np.testing.assert_allclose(packed.losses, alone.losses, rtol=0, atol=TOLERANCE * STEPS)
    torch.testing.assert_close(packed.weights, alone.weights, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(packed.logits, alone.logits, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("encoder", "tolerance"),
    [(ENCODER, TOLERANCE), pytest.param(ROUNDED, BF16_TOLERANCE, marks=pytest.mark.thorough)],
    ids=["float32", "bf16"],
)
@pytest.mark.parametrize("method", PACKABLE)
def test_beside_three_others_it_does_and_under_bf16_nearly(
    method: str, encoder: Encoder, tolerance: float, small_options: SmallOptions
) -> None:
    """Most trials to the bit. A sum in another order, once rounded to bf16, may be off by the last of its 8 bits."""
    rng = random.Random(method)
    options = small_options(method, encoder)

    def config() -> TrialConfig:
        return make_config(
            method,
            options,
            seed=rng.randrange(6),
            learning_rate=rng.choice([3e-3, 1e-3, 1e-4]),
            num_epochs=rng.choice([2, 3, 10]),
            dropout=rng.choice([None, 0.0, 0.3]),
        )

    observed = (rng.randrange(6), STEPS, config())
    mates = [(rng.randrange(8), rng.randint(1, STEPS), config()) for _ in range(3)]
    (packed, *_), (alone,) = (_train(entries, 90, encoder) for entries in ([observed, *mates], [(0, *observed[1:])]))
    np.testing.assert_allclose(packed.losses, alone.losses, rtol=0, atol=tolerance * STEPS)
    torch.testing.assert_close(packed.weights, alone.weights, rtol=0, atol=tolerance)
    torch.testing.assert_close(packed.logits, alone.logits, rtol=0, atol=tolerance)


@pytest.mark.thinned(3)
@pytest.mark.parametrize("method", PACKABLE)
def test_blocks_that_suit_the_cache_change_nothing(
    method: str, small_options: SmallOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = small_options(method, ENCODER)
    entries = [(0, STEPS, make_config(method, options, seed=seed, dropout=0.3, num_epochs=2)) for seed in range(3)]
    whole = _train(entries, 10_000)
    monkeypatch.setattr(feedforward, "BLOCK_ROWS", 7)
    for ours, theirs in zip(_train(entries, 10_000), whole, strict=True):
        torch.testing.assert_close(ours.weights, theirs.weights, rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(ours.logits, theirs.logits, rtol=0, atol=TOLERANCE)


def test_trials_of_different_seeds_do_train_differently() -> None:
    """What the comparisons above would miss if every trial were the same."""
    entries = [(0, STEPS, make_config("adapter", {"adapter_size": 4}, seed=seed, num_epochs=2)) for seed in range(2)]
    first, second = _train(entries, 10_000)
    assert first.weights is not None
    assert second.weights is not None
    assert (first.weights - second.weights).abs().max() > 100 * TOLERANCE


def test_a_trial_that_was_suspended_goes_on_as_if_it_had_not_been() -> None:
    configs = [make_config("adapter", {"adapter_size": 4}, seed=seed, dropout=0.3, num_epochs=2) for seed in range(3)]
    undisturbed = _train([(0, STEPS, config) for config in configs], 10_000)
    pack, trials = make_pack(), [make_running(config) for config in configs]
    pack.join(trials)
    for _ in range(5):
        pack.step()
    states = pack.suspend(trials[1:])
    for _ in range(STEPS - 5):
        pack.step()
    torch.testing.assert_close(pack.weights.rows[0], undisturbed[0].weights, rtol=0, atol=TOLERANCE)
    pack.resume(trials[1:], states)
    pack.leave(trials[:1])
    for _ in range(STEPS - 5):
        pack.step()
    for row, expected in zip(pack.weights.rows, undisturbed[1:], strict=True):
        torch.testing.assert_close(row, expected.weights, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("family", sorted(families()))
@pytest.mark.parametrize("method", ["adapter", "lora"])
def test_so_it_does_over_every_family_of_backbones(
    method: str, family: str, checkpoint: MakeCheckpoint, small_options: SmallOptions
) -> None:
    encoder = load_backbone(str(checkpoint(family)), device=CPU, compute_dtype=torch.float32).encoder
    options = small_options(method, encoder)
    configs = [make_config(method, options, seed=seed, dropout=0.3, learning_rate=1e-3) for seed in range(3)]
    observed, *mates = configs
    packed = _train([(2, STEPS, observed), (0, 4, mates[0]), (1, STEPS, mates[1])], 90, encoder)[0]
    (alone,) = _train([(0, STEPS, observed)], 10_000, encoder)
    np.testing.assert_allclose(packed.losses, alone.losses, rtol=0, atol=TOLERANCE * STEPS)
    torch.testing.assert_close(packed.weights, alone.weights, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(packed.logits, alone.logits, rtol=0, atol=TOLERANCE * STEPS)

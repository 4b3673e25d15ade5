"""A packed trial is the trial it would be alone, whoever trains beside it, joins it or leaves it.

Dropout on, the trial's own seed. What may differ is the order in which products add up, and nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.factories import trial_config
from trainables.config import Scalar, TrialConfig
from trainables.data.tokenized import TokenizedSplit
from trainables.methods import method_names
from trainables.nn import feedforward
from trainables.nn.dropout import StepKeys
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape
from trainables.training.evaluation import to_device
from trainables.training.model import stack_key
from trainables.training.pack import Pack
from trainables.training.running_trial import Job, RunningTrial

CPU = torch.device("cpu")
STEPS = 20
TOLERANCE = 1e-5
BF16_TOLERANCE = 1e-3
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


def _encoder(dtype: torch.dtype = torch.float32) -> Encoder:
    generator = torch.Generator().manual_seed(0)
    masters = {
        name: torch.randn(parameter.shape, generator=generator) * 0.3 + (1.0 if name.endswith("norm.weight") else 0.0)
        for name, parameter in Encoder(SHAPE).named_parameters()
    }
    return Encoder(SHAPE, masters).load(CPU, dtype)


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
    )


ENCODER, ROUNDED, ROWS = _encoder(), _encoder(torch.bfloat16), _rows()


@dataclass
class Trace:
    """What a trial computed in its first 20 steps."""

    losses: list[float] = field(default_factory=list)
    weights: Tensor | None = None
    logits: Tensor | None = None


def _pack(tokens_per_slice: int = 10_000, encoder: Encoder = ENCODER) -> Pack:
    pack = Pack(encoder, {"train": ROWS}, NUM_OUTPUTS)
    pack.tokens_per_slice = tokens_per_slice
    return pack


def _running(config: TrialConfig) -> RunningTrial:
    return RunningTrial(Job(config=config, done=lambda outcome: None), len(ROWS))


def _train(
    entries: Sequence[tuple[int, int, TrialConfig]], tokens_per_slice: int, encoder: Encoder = ENCODER
) -> list[Trace]:
    """Train trials that join the pack before step `joins` and leave it after `stays` steps of their own."""
    pack, traces = _pack(tokens_per_slice, encoder), [Trace() for _ in entries]
    running: dict[int, RunningTrial] = {}
    _, pieces, _ = to_device(ROWS, np.arange(6), 1, CPU)
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


Entries = list[tuple[int, int, TrialConfig]]


@st.composite
def _packs(draw: st.DrawFn, method: str, options: Mapping[str, Scalar]) -> tuple[Entries, int, int]:
    """Who joins and leaves when, the place of the trial that is observed among them, and the word pieces of a slice."""
    configs = _configs(method, options)
    observed = draw(configs)
    # 12 batches of 4 an epoch: at least 20 steps for everyone.
    mates = draw(st.lists(st.tuples(st.integers(0, 15), st.integers(1, STEPS), configs), max_size=5))
    place, joins = draw(st.integers(0, len(mates))), draw(st.integers(0, 12))
    return [*mates[:place], (joins, STEPS, observed), *mates[place:]], place, draw(st.sampled_from([1, 90, 10_000]))


@pytest.mark.parametrize("method", PACKABLE)
@settings(max_examples=4, deadline=None)
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


@pytest.mark.parametrize("method", PACKABLE)
@pytest.mark.parametrize("draw", range(3))
def test_under_bf16_it_nearly_does(method: str, draw: int, small_options: SmallOptions) -> None:
    """Most trials to the bit. A sum in another order, once rounded to bf16, may be off by the last of its 8 bits."""
    rng = random.Random(draw)
    options = small_options(method, ROUNDED)

    def config() -> TrialConfig:
        return _config(
            method,
            options,
            seed=rng.randrange(6),
            learning_rate=rng.choice([3e-3, 1e-3, 1e-4]),
            num_epochs=rng.choice([2, 3, 10]),
            dropout=rng.choice([None, 0.0, 0.3]),
        )

    observed = (rng.randrange(12), STEPS, config())
    mates = [(rng.randrange(16), rng.randint(1, STEPS), config()) for _ in range(4)]
    (packed, *_), (alone,) = (_train(entries, 90, ROUNDED) for entries in ([observed, *mates], [(0, *observed[1:])]))
    np.testing.assert_allclose(packed.losses, alone.losses, rtol=0, atol=BF16_TOLERANCE * STEPS)
    torch.testing.assert_close(packed.weights, alone.weights, rtol=0, atol=BF16_TOLERANCE)
    torch.testing.assert_close(packed.logits, alone.logits, rtol=0, atol=BF16_TOLERANCE)


@pytest.mark.parametrize("method", PACKABLE)
def test_blocks_that_suit_the_cache_change_nothing(
    method: str, small_options: SmallOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = small_options(method, ENCODER)
    entries = [(0, STEPS, _config(method, options, seed=seed, dropout=0.3, num_epochs=2)) for seed in range(3)]
    whole = _train(entries, 10_000)
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


def _pass(
    configs: Sequence[TrialConfig], rows: Sequence[np.ndarray], encoder: Encoder, *, dummy_id: int = 0
) -> list[tuple[Tensor, Tensor]]:
    """Each trial's logits and gradient, after a pass with masks through a model that holds them all.

    Dummy rows hold this word piece.
    """
    pack = _pack(encoder=encoder)
    trials = [_running(config) for config in configs]
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
def test_what_stands_in_dummy_rows_changes_no_bit_of_anything(
    method: str, encoder: Encoder, small_options: SmallOptions
) -> None:
    options = small_options(method, encoder)
    configs = [_config(method, options, seed=seed, dropout=0.3) for seed in range(2)]
    one, other = (_pass(configs, [MINE, LONG], encoder, dummy_id=piece) for piece in (0, 17))
    for (logits, gradient), (expected_logits, expected_gradient) in zip(one, other, strict=True):
        assert gradient.any()
        assert torch.equal(logits, expected_logits)
        assert torch.equal(gradient, expected_gradient)


@pytest.mark.parametrize("encoder", [ENCODER, ROUNDED], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("method", PACKABLE)
def test_a_mate_of_longer_texts_changes_no_bit_of_what_is_computed(
    method: str, encoder: Encoder, small_options: SmallOptions
) -> None:
    """It lengthens the other trial's segment by dummy rows.

    A gradient is a sum over the segment, which a library of products adds up in other blocks where it is longer.
    """
    options = small_options(method, encoder)
    configs = [_config(method, options, seed=seed, dropout=0.3) for seed in range(2)]
    (beside_shorter, _), (beside_longer, _) = (_pass(configs, [MINE, mates], encoder) for mates in (SHORT, LONG))
    assert torch.equal(beside_shorter[0], beside_longer[0])
    tolerance = 2e-6 if encoder is ENCODER else 2e-2
    torch.testing.assert_close(beside_shorter[1], beside_longer[1], rtol=tolerance, atol=tolerance)

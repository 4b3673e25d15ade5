"""The sizer: packs grow while that pays and memory lasts, and never beyond."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.pieces import drop_out, laid_out
from trainables.backbones.loading import Backbone
from trainables.config import TrialConfig
from trainables.engine.pack_size import (
    MAX_TRIALS,
    SAFETY,
    STEPS_PER_JUDGEMENT,
    WORTHWHILE,
    MemoryModel,
    PackSizer,
    activation_bytes,
)
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape
from trainables.nn.kernels import native
from trainables.training.model import build_model

MEMORY = MemoryModel(bytes_per_trial=1000, bytes_per_token=10, tokens_per_trial=100, tokens_per_slice=400)
PLENTY = 10**9


def sizer(free_bytes: int = PLENTY, *, typical_tokens: int = 400) -> PackSizer:
    return PackSizer(MEMORY, free_bytes, typical_tokens=typical_tokens)


def train(sizer: PackSizer, seconds: Callable[[int], float], steps: int = 10 * STEPS_PER_JUDGEMENT) -> list[int]:
    """Steps at whatever size the sizer allows; the sizes in order."""
    sizes = []
    for _ in range(steps):
        sizer.observe(sizer.limit, seconds(sizer.limit))
        sizes.append(sizer.limit)
    return sizes


def saved_bytes(shape: EncoderShape, sequences: int, length: int) -> int:
    """All that autograd keeps of a training step of a trial of small adapters, weights left out."""
    encoder = Encoder(shape).load(torch.device("cpu"), torch.float32)
    config = TrialConfig(task="any", backbone="any", method="adapter", method_options={"adapter_size": 1})
    model = build_model(encoder, [config], 2).train()
    pieces = laid_out(torch.full((sequences, length), 5))
    drop_out(model, pieces)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(pieces)
    assert output.requires_grad  # and so all that was kept has lived until here
    return sum(saved.values())


class TestMemory:
    def test_a_pack_needs_its_trials_and_one_slice_of_activations(self) -> None:
        assert MEMORY.pack_bytes(1) == 1000 + 100 * 10
        assert MEMORY.pack_bytes(3) == 3 * 1000 + 300 * 10
        assert MEMORY.pack_bytes(8) == 8 * 1000 + 400 * 10  # more than four go slice after slice

    def test_a_trial_longer_than_a_slice_is_a_slice(self) -> None:
        memory = MemoryModel(bytes_per_trial=1, bytes_per_token=10, tokens_per_trial=900, tokens_per_slice=400)
        assert memory.pack_bytes(2) == 2 + 9000

    def test_graphs_keep_another_slice_of_activations(self) -> None:
        memory = dataclasses.replace(MEMORY, has_graphs=True)
        assert memory.pack_bytes(3) == 3 * 1000 + 2 * 300 * 10
        assert memory.pack_bytes(8) == 8 * 1000 + 2 * 400 * 10
        assert memory.max_trials(20_000) < MEMORY.max_trials(20_000)

    @given(free_bytes=st.integers(0, 100_000))
    def test_as_many_fit_as_the_share_of_free_memory_holds(self, free_bytes: int) -> None:
        most = MEMORY.max_trials(free_bytes)
        assert 1 <= most <= MAX_TRIALS
        assert most == 1 or MEMORY.pack_bytes(most) <= SAFETY * free_bytes
        assert most == MAX_TRIALS or MEMORY.pack_bytes(most + 1) > SAFETY * free_bytes

    @pytest.mark.parametrize("length", [8, 32])
    @pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "torch"])
    def test_a_layer_keeps_what_the_arithmetic_says(
        self, compiled: bool, length: int, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What a layer more adds to all that autograd saves, at Transformer proportions. Kernels in C keep less."""
        if not compiled:
            monkeypatch.setattr(native, "library", lambda: None)
        thin = dataclasses.replace(backbone.info.shape, hidden_size=32, embedding_size=32, intermediate_size=128)
        deep = [dataclasses.replace(thin, num_layers=num_layers) for num_layers in (2, 3)]
        saved, promised = (
            float(np.diff([measure(shape, 4, length) for shape in deep])[0])
            for measure in (saved_bytes, lambda *given: 4 * length * activation_bytes(given[0], length, torch.float32))
        )
        assert saved <= promised
        assert compiled or saved > 0.9 * promised

    def test_activations_of_bf16_take_half(self, backbone: Backbone) -> None:
        wide, narrow = (activation_bytes(backbone.info.shape, 32, dtype) for dtype in (torch.float32, torch.bfloat16))
        assert wide == 2 * narrow


class TestGrowth:
    @pytest.mark.parametrize(("typical_tokens", "first"), [(1, 32), (50, 8), (100, 4), (130, 2), (400, 1), (5000, 1)])
    def test_it_starts_with_what_fills_one_pass_through_the_encoder(self, typical_tokens: int, first: int) -> None:
        assert sizer(typical_tokens=typical_tokens).limit == first

    def test_it_grows_while_an_example_takes_less_time(self) -> None:
        sizes = train(sizer(), lambda size: 1 / size)
        assert sorted(set(sizes)) == [1, 2, 4, 8, 16, MAX_TRIALS]
        assert sizes == sorted(sizes)
        assert sizes.count(2) == STEPS_PER_JUDGEMENT

    @pytest.mark.parametrize("best", [1, 2, 8])
    def test_it_stops_growing_when_that_no_longer_pays(self, best: int) -> None:
        sizes = train(sizer(), lambda size: max(1 / size, 1 / best))
        assert max(sizes) == 2 * best  # tried once
        assert set(sizes[-5 * STEPS_PER_JUDGEMENT :]) == {best}

    @pytest.mark.parametrize(("gain", "grows"), [(WORTHWHILE - 0.001, True), (WORTHWHILE + 0.001, False)])
    def test_a_small_gain_is_not_worth_the_memory(self, gain: float, grows: bool) -> None:
        sizes = train(sizer(), lambda size: gain if size == 2 else 1.0)
        assert sizes[-1] == (2 if grows else 1)

    def test_a_few_slow_steps_do_not_decide(self) -> None:
        steps = iter(range(10**6))
        sizes = train(sizer(), lambda size: 100.0 if next(steps) % 5 == 0 else 1 / size)
        assert sizes[-1] == MAX_TRIALS

    def test_packs_that_are_not_full_say_nothing(self) -> None:
        mine = sizer(typical_tokens=100)
        for _ in range(5 * STEPS_PER_JUDGEMENT):
            mine.observe(3, 0.1)
        assert mine.limit == 4

    def test_only_steps_of_full_packs_are_judged_and_only_until_it_is_settled(self) -> None:
        mine = sizer(typical_tokens=100)
        assert [size for size in range(1, 9) if mine.judges(size)] == [4]
        judged = 0
        while mine.judges(mine.limit):
            mine.observe(mine.limit, 1 / mine.limit)
            judged += 1
        assert judged == 4 * STEPS_PER_JUDGEMENT  # at 4, 8, 16 and 32
        assert mine.is_settled

    @given(free_bytes=st.integers(0, 60_000), typical_tokens=st.integers(1, 500))
    def test_it_never_outgrows_memory(self, free_bytes: int, typical_tokens: int) -> None:
        mine = sizer(free_bytes, typical_tokens=typical_tokens)
        assert 1 <= mine.limit <= mine.max_trials == MEMORY.max_trials(free_bytes)
        assert max(train(mine, lambda size: 1 / size)) <= mine.max_trials


class TestCorrection:
    def test_less_than_was_promised_changes_nothing(self) -> None:
        mine = sizer(20_000, typical_tokens=50)
        before = (mine.limit, mine.max_trials)
        mine.correct(mine.limit, MEMORY.pack_bytes(mine.limit))
        assert (mine.limit, mine.max_trials) == before

    def test_what_graphs_keep_is_no_part_of_a_measured_peak(self) -> None:
        memory = dataclasses.replace(MEMORY, has_graphs=True)
        mine = PackSizer(memory, 30_000, typical_tokens=50)
        before = mine.max_trials
        mine.correct(8, MEMORY.pack_bytes(8))
        assert mine.max_trials == before
        mine.correct(8, 2 * MEMORY.pack_bytes(8))
        assert mine.max_trials == memory.max_trials(15_000) < before

    def test_a_measured_peak_bounds_what_follows_in_proportion(self) -> None:
        mine = sizer(20_000, typical_tokens=50)
        assert (mine.limit, mine.max_trials) == (8, 12)
        mine.correct(8, 2 * MEMORY.pack_bytes(8))
        assert mine.max_trials == MEMORY.max_trials(10_000) == 4
        assert mine.limit == 4
        assert max(train(mine, lambda size: 1 / size)) == 4

    def test_one_trial_is_always_allowed(self) -> None:
        mine = sizer(20_000)
        mine.correct(1, 10**12)
        assert (mine.limit, mine.max_trials) == (1, 1)

    @pytest.mark.parametrize(("fitted", "limit"), [(3, 3), (1, 1), (0, 1)])
    def test_what_did_not_fit_is_never_tried_again(self, fitted: int, limit: int) -> None:
        mine = sizer(typical_tokens=50)
        mine.shrink(fitted)
        assert set(train(mine, lambda size: 1 / size)) == {limit}

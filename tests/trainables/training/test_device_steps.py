"""Steps whose batches the device gathers: the same batches, the same training, and nothing a graph could not capture.

No GPU is needed for any of it: the same code runs on the CPU, and on the meta device, which has no numbers to read.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.trainables.training.packable import (
    CPU,
    ENCODER,
    NUM_OUTPUTS,
    PACKABLE,
    ROWS,
    SHAPE,
    SmallOptions,
    make_config,
    make_pack,
    make_running,
)
from tests.trainables.training.tape import TapeCapture
from trainables.data.tokenized import TokenizedSplit
from trainables.methods import is_fitted, method_names
from trainables.nn.encoder import Encoder
from trainables.nn.kernels import native
from trainables.training import pack as pack_module
from trainables.training.captured_step import CapturedSteps
from trainables.training.device_data import (
    Course,
    TrialCourse,
    bucket_of_length,
    bucket_of_rows,
    few_sizes,
    on_device,
)
from trainables.training.evaluation import predict_stacked, predict_there, to_device
from trainables.training.model import build_model, stack_key
from trainables.training.optimizer import learning_rate
from trainables.training.pack import Pack
from trainables.training.running_trial import RunningTrial
from trainables.training.weights import TrialState

TOLERANCE = 1e-5
ADAPTER = {"adapter_size": 4}
META = torch.device("meta")


@st.composite
def batches(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Any rows of the split, an equal number for each of some trials."""
    num_trials, per_trial = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    size = num_trials * per_trial
    return np.array(draw(st.lists(st.integers(0, len(ROWS) - 1), min_size=size, max_size=size))), num_trials


@settings(deadline=None)
@given(batch=batches())
def test_a_gathered_batch_is_the_one_the_host_lays_out(batch: tuple[np.ndarray, int]) -> None:
    rows, num_trials = batch
    laid, expected, labels = to_device(ROWS, rows, num_trials, CPU)
    longest = int(laid.lengths_S.max())
    found, found_labels = on_device(ROWS, CPU).batch(torch.from_numpy(rows), num_trials, laid.rows_per_trial, longest)
    for name in ("input_ids_N", "token_types_N", "positions_N", "owners_N", "first_rows_S", "padded_SL"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.dtype == theirs.dtype, name
        assert torch.equal(ours, theirs), name
    for name in ("starts_S", "lengths_S"):
        ours, theirs = getattr(found.sequences, name), getattr(expected.sequences, name)
        assert ours.dtype == theirs.dtype == torch.int32
        assert torch.equal(ours, theirs)
    assert (len(found.sequences), found.sequences.longest) == (len(rows), longest)
    assert torch.equal(found_labels, labels)
    is_piece = found.is_piece_KM
    assert is_piece is not None
    assert is_piece.sum() == laid.lengths_S.sum()


@settings(deadline=None)
@given(batch=batches())
def test_rows_that_only_fill_a_bucket_change_nothing(batch: tuple[np.ndarray, int]) -> None:
    rows, num_trials = batch
    laid, exact, _ = to_device(ROWS, rows, num_trials, CPU)
    longest = bucket_of_length(int(laid.lengths_S.max()))
    padded, _ = on_device(ROWS, CPU).batch(
        torch.from_numpy(rows), num_trials, bucket_of_rows(laid.rows_per_trial), longest
    )
    configs = [make_config("adapter", ADAPTER, seed=seed) for seed in range(num_trials)]
    model = build_model(ENCODER, configs, NUM_OUTPUTS).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(padded), model(exact), rtol=0, atol=1e-6)


@given(num_rows=st.integers(1, 10**6))
def test_a_bucket_wastes_at_most_a_quarter(num_rows: int) -> None:
    bucket = bucket_of_rows(num_rows)
    assert num_rows <= bucket <= max(num_rows + 15, 1.25 * num_rows)
    assert bucket % 16 == 0
    assert bucket_of_rows(bucket) == bucket
    assert num_rows <= bucket_of_length(num_rows) < max(17, 2 * num_rows)


def test_there_are_four_buckets_between_a_number_and_its_double() -> None:
    assert {bucket_of_rows(each) for each in range(513, 1025)} == {640, 768, 896, 1024}


@given(num_rows=st.integers(1, 10**6))
def test_a_segment_on_a_cpu_wastes_at_most_a_32nd(num_rows: int) -> None:
    rows = few_sizes(num_rows)
    assert num_rows <= rows <= num_rows + num_rows / 32
    assert few_sizes(rows) == rows


def test_there_are_32_sizes_between_a_number_and_its_double() -> None:
    assert len({few_sizes(each) for each in range(513, 1025)}) == 32


def test_batches_on_a_cpu_are_of_few_sizes() -> None:
    """Each size has oneDNN build its kernels."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 24, 600)
    num_pieces = lengths.sum()
    split = TokenizedSplit(
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        input_ids=np.ones(num_pieces, np.int32),
        token_type_ids=np.zeros(num_pieces, np.int8),
        labels=np.zeros(600, np.int64),
    )
    batches = [rng.permutation(600)[:64] for _ in range(300)]
    needed = {int(lengths[rows].reshape(2, 32).sum(axis=1).max()) for rows in batches}
    sizes = {to_device(split, rows, 2, CPU)[1].num_rows for rows in batches}
    assert len(sizes) < 20 < len(needed) / 3


def test_the_device_knows_each_step_s_rows_and_learning_rate() -> None:
    configs = [
        make_config("adapter", ADAPTER, seed=seed, num_epochs=seed + 1, learning_rate=1e-3 / 3, warmup_ratio=0.3)
        for seed in range(3)
    ]
    trials = [make_running(config) for config in configs]
    trials[2].step = 5
    course = Course(trials, [TrialCourse.of(trial, ROWS.lengths, CPU) for trial in trials], CPU)
    for _ in range(len(trials[0].batches)):
        rows = course.rows_S(0, 3).view(3, -1)
        numbers = course.numbers(0, 3)
        for place, trial in enumerate(trials):
            assert rows[place].tolist() == trial.batches[trial.step].tolist()
            expected = learning_rate(trial.config, trial.step, len(trial.batches))
            assert numbers.rates_K[place].item() == expected  # to the last bit
            assert numbers.steps_K[place].item() == trial.step + 1
            trial.step += 1
        pieces = [int(ROWS.lengths[trial.batches[trial.step - 1]].sum()) for trial in trials]
        assert course.shape()[0] == bucket_of_rows(max(pieces))
        course.advance(0, 3)
        course.count(0, 3)


Prepare = Callable[[Pack], None]


def _by_host(pack: Pack) -> None:
    pack.gathers_on_device = False


def _there(pack: Pack) -> None:
    pack.gathers_on_device = True


def _captured(pack: Pack, capture: TapeCapture) -> None:
    pack.gathers_on_device, pack.captured = True, CapturedSteps(capture)


def _train(
    trials: list[RunningTrial], prepare: Prepare, tokens_per_slice: int = 10_000, *, steps: int = 16
) -> tuple[Tensor, Tensor]:
    """What four trials have trained after so many steps among which they join, leave, are suspended and resumed."""
    pack = make_pack(tokens_per_slice)
    prepare(pack)
    pack.join(trials[:2])
    states: list[TrialState] = []
    for step in range(steps):
        if step == 3:
            pack.join(trials[2:])
        if step == 6:
            pack.leave(trials[1:2])
        if step == 8:
            states = pack.suspend(trials[2:3])
        if step == 9:
            pack.resume(trials[2:3], states)
        pack.step()
        assert pack.diverged() == []
    return pack.weights.rows.clone(), pack.weights.loss_sums.clone()


def _four(method: str, small_options: SmallOptions) -> list[RunningTrial]:
    options = small_options(method, ENCODER)
    own = zip([None, 0.3, 0.0, 0.2], ["none", "balanced", "none", "2=5"], strict=True)
    return [
        make_running(
            make_config(
                method, options, seed=seed, dropout=rate, num_epochs=3, learning_rate=1e-3, class_weights=weights
            )
        )
        for seed, (rate, weights) in enumerate(own)
    ]


# A bias of all keys moves every score of a query alike, so that Adam makes steps of rounding (test_pack_equals_alone).
TRAINED_ALIKE = [method for method in PACKABLE if method != "bitfit"]


@pytest.mark.parametrize(("method", "tokens_per_slice"), [*((each, 10_000) for each in TRAINED_ALIKE), ("adapter", 90)])
@pytest.mark.thinned(1)
def test_training_with_gathered_batches_is_the_same_training(
    method: str, tokens_per_slice: int, small_options: SmallOptions
) -> None:
    expected = _train(_four(method, small_options), _by_host, tokens_per_slice)
    found = _train(_four(method, small_options), _there, tokens_per_slice)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("method", ["adapter", "lora", "no_bert"])
@pytest.mark.thorough
def test_what_was_recorded_once_trains_on_as_the_step_itself_does(
    method: str, small_options: SmallOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "library", lambda: None)  # the tape hears of torch's operations alone
    expected = _train(_four(method, small_options), _by_host, steps=24)
    capture = TapeCapture()
    found = _train(_four(method, small_options), functools.partial(_captured, capture=capture), steps=24)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE)
    if method == "no_bert":  # its body asks the host about the batch
        assert capture.log == []
    else:
        assert capture.log.count("replay") >= 6
        assert capture.log.count("release") == 4  # two joined, one left, one was suspended and resumed


def test_a_recorded_step_goes_on_with_the_rows_rates_and_masks_of_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "library", lambda: None)
    monkeypatch.setattr(Course, "shape", lambda self: (64, 16))  # every batch fits this one shape
    capture, found = TapeCapture(), []
    for captured in (None, CapturedSteps(capture, steps_before=1)):
        pack = make_pack()
        pack.gathers_on_device, pack.captured = True, captured
        pack.join([make_running(make_config("adapter", ADAPTER, seed=seed, dropout=0.2)) for seed in range(2)])
        for _ in range(4):
            pack.step()
        found.append((pack.weights.rows.clone(), pack.weights.loss_sums.clone()))
    assert capture.log == ["warm up", "record", *["replay"] * 3]
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE)


class Watching(TorchDispatchMode):
    """Fails on what cannot be captured."""

    FORBIDDEN = (
        *("_local_scalar_dense", "item", "equal", "is_nonzero", "nonzero", "masked_select", "_unique", "unique_dim"),
        *(
            "bincount",
            "repeat_interleave.Tensor",
            "native_dropout",
            "bernoulli",
            "normal",
            "uniform",
            "rand",
            "randint",
        ),
    )

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.")
        assert not any(name.startswith((f"{word}.", f"{word}_.")) or name == word for word in self.FORBIDDEN), name
        if name.startswith(("index.", "index_put")):
            assert not any(each.dtype in (torch.bool, torch.uint8) for each in args[1] if each is not None), (
                f"{name} by a mask"
            )
        found = func(*args, **(kwargs or {}))
        tensors = [each for each in tree_leaves((args, kwargs, found)) if isinstance(each, Tensor)]
        assert all(each.device == META for each in tensors), f"{name} between the host and the device"
        self.count += 1
        return found


def _on_meta(method: str, small_options: SmallOptions, num_trials: int, batch_size: int = 4) -> Pack:
    with META:
        encoder = Encoder(SHAPE)
    pack = Pack(encoder, {"train": ROWS}, NUM_OUTPUTS)
    pack.gathers_on_device = True
    options = small_options(method, ENCODER)
    weights = ["balanced", "none", "0=2"]
    pack.join(
        [
            make_running(
                make_config(method, options, seed=seed, dropout=0.2, num_epochs=4, class_weights=weights[seed % 3])
            )
            for seed in range(num_trials)
        ]
    )
    return pack


def _gathering_methods() -> list[str]:
    """Those whose encoder is the frozen one with something in it."""
    without = {"no_bert", "peft"}
    return [method for method in method_names() if method not in without and not is_fitted(method)]


@pytest.fixture(autouse=True)
def meta_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pack_module.TOKENS_PER_SLICE, "meta", 65_536)


@pytest.mark.parametrize("method", _gathering_methods())
@pytest.mark.thinned(2)
def test_a_step_does_nothing_that_a_graph_cannot_capture(method: str, small_options: SmallOptions) -> None:
    num_trials = 1 if stack_key(make_config(method, small_options(method, ENCODER))) is None else 3
    pack = _on_meta(method, small_options, num_trials)
    assert pack._gathers()
    pack.step()
    course = pack._current_course()
    with Watching() as watching:
        pack.step_there(0, num_trials, *course.shape())
    assert watching.count > 100


class Shapes(TorchDispatchMode):
    """Notes every operation with the shapes of what it reads and gives."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, tuple[torch.Size, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        tensors = [each for each in tree_leaves((args, kwargs, found)) if isinstance(each, Tensor)]
        self.seen.append((str(func), tuple(each.shape for each in tensors)))
        return found


def test_the_shapes_of_a_step_follow_from_its_bucket_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "library", lambda: None)
    pack = make_pack()
    pack.gathers_on_device = True
    pack.join([make_running(make_config("adapter", ADAPTER, seed=seed, num_epochs=4)) for seed in range(2)])
    pack.step()
    found: dict[tuple[int, int], set[Any]] = defaultdict(set)
    pieces: dict[tuple[int, int], set[int]] = defaultdict(set)
    for _ in range(8):
        course = pack._current_course()
        shape = course.shape()
        pieces[shape].add(max(int(c.pieces_T[s]) for c, s in zip(course._courses, course.steps, strict=True)))
        with Shapes() as shapes:
            pack._train_there(0, 2, *shape)
        found[shape].add(tuple(shapes.seen))
    assert len(found) <= 3
    assert max(map(len, pieces.values())) > 2  # batches did differ
    assert all(len(shapes) == 1 for shapes in found.values())


@pytest.mark.parametrize("pooling", ["pooler", "mean"])
def test_evaluation_with_gathered_batches_gives_the_same_outputs(pooling: str) -> None:
    configs = [make_config("adapter", ADAPTER | {"pooling": pooling}, seed=seed) for seed in range(3)]
    model = build_model(ENCODER, configs, NUM_OUTPUTS)
    found, expected = predict_there(model, ROWS), predict_stacked(model, ROWS)
    assert found.shape == expected.shape == (3, len(ROWS), NUM_OUTPUTS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_evaluation_of_places_in_a_text_does_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pack_module.EVALUATED_TOGETHER, "cpu", 2)
    model = build_model(ENCODER, [make_config("adapter", ADAPTER)], 2, kind="extractive_qa")
    monkeypatch.setattr("trainables.training.evaluation.MAX_TOKENS", {"cpu": 60})  # several batches, of other lengths
    found, expected = predict_there(model, ROWS), predict_stacked(model, ROWS)
    assert found.shape == expected.shape == (1, len(ROWS), int(ROWS.lengths.max()), 2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)

"""Which steps are recorded, replayed and dropped; what happens where one cannot be recorded."""

from __future__ import annotations

import contextlib
import logging
import sys
import weakref
from collections.abc import Iterator

import pytest
import torch

from tests.trainables.training.packable import make_config, make_pack, make_running
from tests.trainables.training.tape import TapeCapture
from trainables.device.hardware import DeviceLostError
from trainables.training.captured_step import CapturedSteps, CudaCapture, Step
from trainables.training.device_data import Course
from trainables.training.pack import Pack
from trainables.training.running_trial import RunningTrial

ADAPTER = {"adapter_size": 4}


class Noted:
    """A capture whose recordings are named after the steps they are of."""

    def __init__(self, error: Exception | None = None) -> None:
        self.log: list[str] = []
        self.error = error

    def warm_up(self, step: Step) -> None:
        self.log.append("warm up")
        step()

    def record(self, step: Step) -> Step:
        if self.error is not None:
            raise self.error
        self.log.append("record")
        return lambda: (self.log.append("replay"), step())[1]

    def release(self) -> None:
        self.log.append("release")


def take(steps: CapturedSteps, log: list[str], keys: str) -> None:
    for key in keys:
        steps.take(key, lambda key=key: log.append(key))  # type: ignore[misc]


def test_a_shape_is_recorded_once_it_was_seen_a_few_times_and_replayed_from_then_on() -> None:
    capture = Noted()
    take(CapturedSteps(capture, steps_before=3), capture.log, "aaaaa")
    assert capture.log == ["a", "a", "warm up", "a", "record", "replay", "a", "replay", "a"]


def test_each_shape_is_counted_by_itself() -> None:
    capture = Noted()
    take(CapturedSteps(capture, steps_before=2), capture.log, "abab")
    assert capture.log == ["a", "b", "warm up", "a", "warm up", "b"]


def test_the_graph_that_was_not_used_for_longest_goes_first() -> None:
    capture = Noted()
    steps = CapturedSteps(capture, steps_before=1, max_graphs=2)
    take(steps, capture.log, "aabbaccb")
    # c drops b, whose graph was used before a's; b warms up anew.
    assert capture.log[-2:] == ["warm up", "b"]
    take(steps, capture.log, "a")
    assert capture.log[-2:] == ["replay", "a"]


def test_all_graphs_go_when_the_tensors_do() -> None:
    capture = Noted()
    steps = CapturedSteps(capture, steps_before=1)
    take(steps, capture.log, "aa")
    steps.forget()
    steps.forget()
    assert capture.log.count("release") == 1  # there was nothing the second time
    take(steps, capture.log, "a")
    assert capture.log[-3:] == ["release", "warm up", "a"]


def test_where_a_step_cannot_be_recorded_every_step_is_taken_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    capture = Noted(RuntimeError("operation not permitted when stream is capturing"))
    steps = CapturedSteps(capture, steps_before=1)
    with caplog.at_level(logging.WARNING):
        take(steps, capture.log, "aaabbb")
        steps.forget()
        take(steps, capture.log, "a")
    assert [each for each in capture.log if each in "ab"] == list("aaabbba")
    assert "record" not in capture.log
    assert [record.message for record in caplog.records] == [
        "steps are launched kernel by kernel, since one could not be captured: "
        "operation not permitted when stream is capturing"
    ]


class Ballast:
    """What a step has made so far, such as its activations."""


class Breaking(Noted):
    """A capture whose recordings make something and then break."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.broken_by = error
        self.made: list[weakref.ref[Ballast]] = []

    def record(self, step: Step) -> Step:
        ballast = Ballast()
        self.made.append(weakref.ref(ballast))
        raise self.broken_by

    @property
    def is_gone(self) -> bool:
        return all(each() is None for each in self.made)


def test_what_could_not_be_recorded_is_gone_when_the_step_is_taken() -> None:
    capture = Breaking(RuntimeError("operation not permitted when stream is capturing"))
    steps, taken = CapturedSteps(capture, steps_before=1), []

    def step() -> None:
        taken.append((len(capture.made), capture.is_gone, sys.exception()))

    for _ in range(3):
        steps.take("a", step)
    assert taken == [(0, True, None), (1, True, None), (1, True, None)]


def test_out_of_memory_while_recording_is_raised_and_leaves_half_the_graphs_room() -> None:
    capture = Noted()
    steps = CapturedSteps(capture, steps_before=1)
    take(steps, capture.log, "aabbcc")
    capture.error = torch.OutOfMemoryError("out of memory")
    take(steps, capture.log, "d")
    with pytest.raises(torch.OutOfMemoryError):
        take(steps, capture.log, "d")
    assert steps.make_room()
    capture.error = None
    capture.log.clear()
    take(steps, capture.log, "aabbccccaa")  # of four, one of them half recorded, two may come again
    assert capture.log.count("record") == 2
    assert capture.log[-8:] == ["c", "c", "c", "c", "replay", "a", "replay", "a"]


def test_memory_that_is_short_again_and_again_leaves_no_graph(caplog: pytest.LogCaptureFixture) -> None:
    capture = Noted()
    steps = CapturedSteps(capture, steps_before=1)
    take(steps, capture.log, "aabbcc")
    with caplog.at_level(logging.WARNING):
        assert steps.make_room()  # three graphs
        take(steps, capture.log, "aabb")
        assert not steps.is_broken
        assert steps.make_room()  # one
    assert steps.is_broken
    assert not steps.make_room()
    capture.log.clear()
    take(steps, capture.log, "aaaa")
    assert capture.log == ["a"] * 4
    assert [record.message for record in caplog.records] == [
        "steps are launched kernel by kernel, since graphs leave too little memory for a step"
    ]


def test_where_nothing_was_recorded_there_is_no_room_to_make() -> None:
    capture = Noted()
    steps = CapturedSteps(capture, steps_before=1)
    take(steps, capture.log, "a")
    assert not steps.make_room()
    take(steps, capture.log, "aa")
    assert capture.log[-2:] == ["replay", "a"]


def test_an_error_of_the_step_itself_is_raised() -> None:
    steps = CapturedSteps(Noted(), steps_before=1)

    def step() -> None:
        raise torch.OutOfMemoryError("out of memory")

    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            steps.take("a", step)


@pytest.mark.parametrize("holds_a_graph", [False, True])
def test_out_of_memory_drops_the_graphs_and_if_that_does_not_do_halves_the_slice(
    holds_a_graph: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = [make_running(make_config("adapter", ADAPTER, seed=seed, num_epochs=2)) for seed in range(4)]
    pack, capture = make_pack(), TapeCapture()
    pack.gathers_on_device, pack.captured = True, CapturedSteps(capture, steps_before=5)
    pack.join(trials)
    pack.step()
    if holds_a_graph:
        for _ in range(6):
            pack.captured.take("another shape", lambda: None)
    original, refused = pack.step_there, []

    def refuse(first: int, last: int, rows_per_trial: int, longest: int) -> None:
        if last - first > 2:
            refused.append((first, last))
            raise torch.OutOfMemoryError("out of memory")
        original(first, last, rows_per_trial, longest)

    monkeypatch.setattr(pack, "step_there", refuse)
    pack.step()
    assert refused == [(0, 4)] * (2 if holds_a_graph else 1)
    assert "release" in capture.log
    assert [trial.step for trial in trials] == [2] * 4
    monkeypatch.undo()

    assert_as_undisturbed(pack, trials)


def assert_as_undisturbed(pack: Pack, trials: list[RunningTrial]) -> None:
    """That a pack's trials have trained in two steps what they train where nothing goes wrong."""
    undisturbed = make_pack()
    undisturbed.join([make_running(trial.config) for trial in trials])
    for _ in range(2):
        undisturbed.step()
    torch.testing.assert_close(pack.weights.rows, undisturbed.weights.rows, rtol=0, atol=1e-6)


@pytest.mark.parametrize("breaks", ["recording", "replay"])
def test_a_step_that_fits_only_without_its_graph_is_taken_without_it(breaks: str) -> None:
    """Slices stay as they are: it was the graph that did not fit."""
    trials = [make_running(make_config("adapter", ADAPTER, seed=seed, num_epochs=2)) for seed in range(2)]
    pack, capture = make_pack(), TapeCapture()
    refused: list[str] = []

    def refuse(*_: object) -> Step:
        refused.append(breaks)
        raise RuntimeError("CUDA error: out of memory")

    capture.record = refuse if breaks == "recording" else lambda step: refuse  # type: ignore[method-assign]
    pack.gathers_on_device, pack.captured = True, CapturedSteps(capture, steps_before=1)
    pack.join(trials)
    assert pack.has_graphs
    shape = pack._current_course().shape()
    course_shape = Course.shape
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Course, "shape", lambda self: tuple(map(max, course_shape(self), shape)))
        for _ in range(2):
            pack.step()
    assert refused == [breaks]
    assert pack.tokens_per_slice == 10_000
    assert not pack.has_graphs
    assert [trial.step for trial in trials] == [2, 2]
    assert_as_undisturbed(pack, trials)


def test_a_lost_device_that_speaks_of_memory_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    pack, asked = make_pack(), []

    def raise_if_lost(device: torch.device, error: Exception) -> None:
        asked.append(device)
        raise DeviceLostError("cuda does nothing more for this process") from error

    def broken(*_: object) -> None:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    monkeypatch.setattr("trainables.training.pack.raise_if_lost", raise_if_lost)
    monkeypatch.setattr(pack, "train_slice", broken)
    pack.join([make_running(make_config("adapter", ADAPTER, seed=seed)) for seed in range(2)])
    with pytest.raises(DeviceLostError):
        pack.step()
    assert asked == [torch.device("cpu")]  # once: nothing else was tried


def test_a_step_that_breaks_while_it_warms_up_is_over_before_anything_else_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it asked of its own stream may still write to statistics that are put back meanwhile."""
    waits: list[tuple[str, str]] = []

    class Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def wait_stream(self, other: Stream) -> None:
            waits.append((self.name, other.name))

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("current"))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("own"))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())

    def broken() -> None:
        assert waits == [("own", "current")]
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        CudaCapture(torch.device("cuda")).warm_up(broken)
    assert waits == [("own", "current"), ("current", "own")]


def test_of_a_recording_that_breaks_and_cannot_be_ended_the_step_s_own_error_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put_back: list[str] = []

    @contextlib.contextmanager
    def graph(*given: object, **named: object) -> Iterator[None]:
        try:
            yield
        finally:
            raise RuntimeError("the recording cannot be ended")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: "own")
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "current")
    monkeypatch.setattr(torch.cuda, "set_stream", put_back.append)

    def broken() -> None:
        raise torch.OutOfMemoryError("out of memory")

    capture = CudaCapture(torch.device("cuda"))
    with pytest.raises(torch.OutOfMemoryError):
        capture.record(broken)
    with pytest.raises(RuntimeError, match="cannot be ended"):
        capture.record(lambda: None)
    assert put_back == ["current", "current"]

"""Which steps are recorded, replayed and dropped; what happens where one cannot be recorded."""

from __future__ import annotations

import contextlib
import logging

import pytest
import torch

from tests.trainables.training.packable import make_config, make_pack, make_running
from tests.trainables.training.tape import TapeCapture
from trainables.training.captured_step import CapturedSteps, CudaCapture, Step

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

    undisturbed = make_pack()
    undisturbed.join([make_running(trial.config) for trial in trials])
    for _ in range(2):
        undisturbed.step()
    torch.testing.assert_close(pack.weights.rows, undisturbed.weights.rows, rtol=0, atol=1e-6)


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

"""One engine's actor, in this process: what it does when trials come together, stop and break it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from orchestrator.engine_status import EngineStatus
from orchestrator.scheduling import engine_actor
from orchestrator.scheduling.engine_actor import EngineActor, EngineLeavesError, EngineLostError
from tests.factories import epoch_report, outcome, trial_config
from trainables.config import TrialConfig
from trainables.device.hardware import DeviceLostError
from trainables.engine.inbox import Inbox
from trainables.engine.pack_run import PackStatus
from trainables.outcome import EpochReport, OutcomeStatus, TrialOutcome
from trainables.training.running_trial import Job

CONFIG = trial_config("layernorm", num_epochs=3)
OTHER = trial_config("full_finetuning", num_epochs=3)
WAIT_S = 10.0


def epoch(number: int) -> EpochReport:
    return epoch_report(number)


class FakeEngine:
    """Trains packs of one method, each trial as many epochs as the engine is let: one for each `go`."""

    name = "host/fake"
    device = torch.device("cpu")

    def __init__(self, num_threads: int, share: float, device: str | None) -> None:
        self.go = threading.Semaphore(0)
        self.breaks: BaseException | None = None
        self.pack: dict[Job, int] = {}

    @property
    def status(self) -> PackStatus | None:
        if not self.pack:
            return None
        return PackStatus(task="a", method="m", num_trials=len(self.pack), limit=2, examples_per_second=10.0)

    def work(self, inbox: Inbox) -> None:
        while jobs := inbox.take(1, lambda job: True):
            method = jobs[0].config.method
            self.pack = dict.fromkeys(jobs, 0)
            while self.pack:
                self.pack |= dict.fromkeys(inbox.take(2 - len(self.pack), lambda job: job.config.method == method), 0)  # noqa: B023
                self._train()

    def _train(self) -> None:
        for job in [job for job in self.pack if job.cancelled()]:
            self._end(job, OutcomeStatus.CANCELLED)
        if not self.go.acquire(timeout=0.01):
            return
        if self.breaks is not None:
            error, self.breaks, self.pack = self.breaks, None, {}
            raise error
        for job in list(self.pack):
            self.pack[job] += 1
            job.report(epoch(self.pack[job]))
            if self.pack[job] == job.config.num_epochs:
                self._end(job, OutcomeStatus.COMPLETED)

    def _end(self, job: Job, status: OutcomeStatus) -> None:
        last = epoch(max(1, self.pack.pop(job)))
        job.done(outcome(status, epochs=(last,)))


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> EngineActor:
    for name in ("OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.setenv(name, "")  # which the actor sets, and monkeypatch sets back
    monkeypatch.setattr("trainables.engine.engine.Engine", FakeEngine)
    return EngineActor(1)


def fake(actor: EngineActor) -> FakeEngine:
    engine = actor._engine
    assert isinstance(engine, FakeEngine)
    return engine


def until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.001)


def start_all(actor: EngineActor, *trials: str, config: TrialConfig = CONFIG, training: int) -> None:
    """Hand trials to the engine and wait until so many train together."""
    for trial in trials:
        assert actor.start(trial, config) == "host/fake"
    until(lambda: len(fake(actor).pack) == training)


def end_of(actor: EngineActor, trial: str) -> TrialOutcome | None:
    """The last news of a trial."""
    while isinstance(news := actor.next(trial), EpochReport):
        pass
    return news


def test_it_tells_of_every_epoch_and_of_the_last_with_the_outcome(actor: EngineActor) -> None:
    start_all(actor, "t", training=1)
    fake(actor).go.release(3)
    assert [actor.next("t"), actor.next("t")] == [epoch(1), epoch(2)]
    outcome = actor.next("t")
    assert isinstance(outcome, TrialOutcome)
    assert outcome.status is OutcomeStatus.COMPLETED


def test_trials_train_together_and_each_hears_of_its_own_epochs(actor: EngineActor) -> None:
    start_all(actor, "t", training=1)
    fake(actor).go.release(1)
    assert actor.next("t") == epoch(1)
    start_all(actor, "u", "v", training=2)
    assert actor.status() == EngineStatus(
        engine="host/fake", task="a", method="m", num_trials=2, num_waiting=1, limit=2, examples_per_second=10.0
    )
    fake(actor).go.release(2)
    assert actor.next("t") == epoch(2)
    assert actor.next("u") == epoch(1)
    assert end_of(actor, "t") is not None
    until(lambda: len(fake(actor).pack) == 2)  # the one that waited has taken the place
    fake(actor).go.release(3)
    assert [end_of(actor, trial) is not None for trial in ("u", "v")] == [True, True]
    until(lambda: actor.status().is_idle)


def test_of_a_trial_that_another_process_trained_it_knows_nothing(actor: EngineActor) -> None:
    with pytest.raises(EngineLostError, match="that trained t has died"):
        actor.next("t")


def test_a_trial_is_stopped_once_whoever_waits_hears_of_it_and_the_others_go_on(actor: EngineActor) -> None:
    start_all(actor, "t", "u", training=2)
    heard: list[Any] = []
    waiting = threading.Thread(target=lambda: heard.append(actor.next("t")))
    waiting.start()
    actor.stop("t")
    actor.stop("t")
    waiting.join(WAIT_S)
    assert [outcome.status for outcome in heard] == [OutcomeStatus.CANCELLED]
    assert len(fake(actor).pack) == 1
    fake(actor).go.release(3)
    outcome = end_of(actor, "u")
    assert outcome is not None
    assert outcome.status is OutcomeStatus.COMPLETED


def test_a_trial_that_waits_is_withdrawn_at_once_and_never_begins(actor: EngineActor) -> None:
    start_all(actor, "t", training=1)
    actor.start("u", OTHER)
    heard: list[Any] = []
    waiting = threading.Thread(target=lambda: heard.append(actor.next("u")))
    waiting.start()
    actor.stop("u")  # though the engine does not take a step
    waiting.join(WAIT_S)
    assert heard == [None]
    assert actor.status().num_waiting == 0
    actor.stop("t")


def test_a_trial_that_is_started_again_begins_anew(actor: EngineActor) -> None:
    start_all(actor, "t", training=1)
    fake(actor).go.release(2)
    assert actor.next("t") == epoch(1)
    until(lambda: list(fake(actor).pack.values()) == [2])
    actor.start("t", CONFIG)
    until(lambda: list(fake(actor).pack.values()) == [0])
    fake(actor).go.release(3)
    assert actor.next("t") == epoch(1)
    assert end_of(actor, "t") is not None


def test_once_cancelled_what_trains_ends_with_its_epoch_and_nothing_more_begins(actor: EngineActor) -> None:
    start_all(actor, "t", "u", training=2)
    actor.start("v", OTHER)
    actor.cancel_all()
    time.sleep(0.05)
    assert len(fake(actor).pack) == 2  # in the middle of an epoch
    assert actor.presence().is_cancelled
    fake(actor).go.release(1)
    for trial in ("t", "u"):
        assert actor.next(trial) == epoch(1)
        outcome = end_of(actor, trial)
        assert outcome is not None
        assert outcome.status is OutcomeStatus.CANCELLED
    actor.start("w", CONFIG)
    assert [end_of(actor, trial) for trial in ("v", "w")] == [None, None]


def test_a_trial_in_its_last_epoch_completes_though_the_sweep_is_cancelled(actor: EngineActor) -> None:
    start_all(actor, "t", training=1)
    fake(actor).go.release(2)
    until(lambda: epochs_trained(actor) == [2])
    actor.cancel_all()
    fake(actor).go.release(1)
    outcome = end_of(actor, "t")
    assert outcome is not None
    assert outcome.status is OutcomeStatus.COMPLETED


def test_it_says_which_process_it_is_and_whom_it_trains(actor: EngineActor) -> None:
    start_all(actor, "t", "u", training=2)
    seen = actor.presence()
    assert (seen.trials, seen.status.num_trials, seen.is_cancelled) == (("t", "u"), 2, False)
    actor.stop("t")
    assert actor.presence().trials == ("u",)
    assert actor.presence().process == seen.process
    assert EngineActor(1).presence().process != seen.process


def epochs_trained(actor: EngineActor) -> list[int]:
    return list(fake(actor).pack.values())


def test_a_trial_that_may_be_pruned_is_never_more_than_an_epoch_ahead_of_its_verdict(actor: EngineActor) -> None:
    config = trial_config("layernorm", num_epochs=5)
    actor.start("t", config, may_be_pruned=True)
    until(lambda: len(fake(actor).pack) == 1)
    fake(actor).go.release(4)
    assert actor.next("t") == epoch(1)
    until(lambda: epochs_trained(actor) == [2])
    time.sleep(0.05)
    assert epochs_trained(actor) == [2]  # the second has ended, and nobody has asked for it yet
    assert actor.next("t") == epoch(2)
    until(lambda: epochs_trained(actor) == [3])
    actor.stop("t")  # the verdict on the second, which wakes it
    assert fake(actor).pack == {}


def test_once_cancelled_a_trial_that_waits_for_its_verdict_ends(actor: EngineActor) -> None:
    actor.start("t", CONFIG, may_be_pruned=True)
    until(lambda: len(fake(actor).pack) == 1)
    fake(actor).go.release(1)
    until(lambda: epochs_trained(actor) == [1])
    actor.cancel_all()
    outcome = end_of(actor, "t")
    assert outcome is not None
    assert outcome.status is OutcomeStatus.CANCELLED


def test_trials_that_train_together_wait_for_no_verdict(actor: EngineActor) -> None:
    for trial in ("t", "u"):
        actor.start(trial, CONFIG, may_be_pruned=True)
    until(lambda: len(fake(actor).pack) == 2)
    fake(actor).go.release(2)
    until(lambda: epochs_trained(actor) == [2, 2])  # and nobody has asked for any news
    fake(actor).go.release(1)
    assert [end_of(actor, trial) is not None for trial in ("t", "u")] == [True, True]


def test_a_trial_that_is_left_alone_waits_for_the_verdicts_on_all_its_epochs(actor: EngineActor) -> None:
    config = trial_config("layernorm", num_epochs=9)
    for trial in ("t", "u"):
        actor.start(trial, config, may_be_pruned=True)
    until(lambda: len(fake(actor).pack) == 2)
    for number in (1, 2, 3):
        fake(actor).go.release(1)
        assert actor.next("t") == epoch(number)
    actor.stop("u")
    fake(actor).go.release(6)
    until(lambda: epochs_trained(actor) == [4])
    time.sleep(0.05)
    assert epochs_trained(actor) == [4]  # what was asked for while it trained with another one is used up
    actor.stop("t")


def test_an_engine_that_breaks_tells_those_it_trained_and_trains_those_that_waited(actor: EngineActor) -> None:
    start_all(actor, "t", "u", training=2)
    actor.start("v", OTHER)
    fake(actor).breaks = SystemExit()
    fake(actor).go.release()
    for trial in ("t", "u"):
        with pytest.raises(EngineLostError, match=f"broke while it trained {trial}"):
            actor.next(trial)
    actor.stop("t")
    fake(actor).go.release(3)
    outcome = end_of(actor, "v")
    assert outcome is not None
    assert outcome.status is OutcomeStatus.COMPLETED


def test_an_engine_that_lost_its_device_ends_after_it_has_told_those_it_trained(
    actor: EngineActor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray starts its process again; trials to come would only fail by what is no fault of theirs."""
    ends: queue.SimpleQueue[int] = queue.SimpleQueue()
    monkeypatch.setattr("os._exit", ends.put)
    monkeypatch.setattr("orchestrator.scheduling.engine_actor.LAST_ANSWERS_S", 0.0)
    start_all(actor, "t", training=1)
    fake(actor).breaks = DeviceLostError("cuda:0 does nothing more for this process")
    fake(actor).go.release()
    with pytest.raises(EngineLostError, match="broke while it trained t"):
        actor.next("t")
    assert ends.get(timeout=WAIT_S) == 1


def test_a_trial_is_asked_for_predictions_only_where_they_are_wanted(actor: EngineActor) -> None:
    actor.start("t", CONFIG, False, True)
    until(lambda: len(fake(actor).pack) == 1)
    (job,) = fake(actor).pack
    assert job.keep_predictions
    actor.start("u", CONFIG)
    assert not actor._runs["u"].job.keep_predictions


def test_an_engine_whose_training_does_not_move_says_for_how_long(actor: EngineActor) -> None:
    hangs = threading.Event()
    fake(actor)._train = hangs.wait  # type: ignore[method-assign]
    start_all(actor, "t", training=1)
    until(lambda: actor.presence().stands_still_s > 0.05)
    hangs.set()


def test_an_engine_that_works_or_has_nothing_to_do_does_not_stand_still(actor: EngineActor) -> None:
    assert actor.presence().stands_still_s == 0.0
    time.sleep(0.1)
    assert actor.presence().stands_still_s == 0.0


def test_a_trial_that_waits_for_its_verdict_is_no_standstill(actor: EngineActor) -> None:
    actor.start("t", CONFIG, may_be_pruned=True)
    fake(actor).go.release(3)
    until(lambda: any(run.awaits_verdict for run in actor._unended))
    actor.presence()
    time.sleep(0.1)
    assert actor.presence().stands_still_s == 0.0
    assert end_of(actor, "t") is not None


def test_an_engine_that_is_given_notice_gives_back_what_cannot_end_and_finishes_what_can(actor: EngineActor) -> None:
    long, config = replace(CONFIG, num_epochs=10**6), CONFIG
    actor.start("ends", config)
    actor.start("long", long)
    until(lambda: len(fake(actor).pack) == 2)
    fake(actor).go.release(1)
    assert [actor.next("ends"), actor.next("long")] == [epoch(1), epoch(1)]
    actor.start("waits", config)
    actor.hand_over(60.0)
    assert actor.presence().has_notice
    actor.start("comes", config)
    for trial in ("long", "waits", "comes"):
        with pytest.raises(EngineLeavesError):
            actor.next(trial)
    fake(actor).go.release(3)
    ended = end_of(actor, "ends")
    assert ended is not None
    assert ended.status is OutcomeStatus.COMPLETED


@pytest.mark.parametrize(
    ("device", "given", "seen", "is_built", "said"),
    [
        (None, [0], 0, False, "was given a GPU by Ray, but torch has no CUDA"),
        (None, [0], 0, True, "was given a GPU by Ray, but torch cannot use it: its driver may be too old"),
        ("cpu", [], 2, True, "trains on the CPU, though torch sees 2 GPUs there: start Ray with --num-gpus=2"),
        ("cpu", [], 0, True, None),
        (None, [], 0, False, None),
    ],
)
def test_gpus_that_ray_and_torch_see_differently_are_told_of(
    device: str | None,
    given: list[int],
    seen: int,
    is_built: bool,
    said: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.get_gpu_ids", lambda: given)
    monkeypatch.setattr("trainables.device.hardware.gpus_seen", lambda: seen)
    monkeypatch.setattr("trainables.device.hardware.is_built_for_gpus", lambda: is_built)
    told = engine_actor._gpu_fault(device)
    assert told is None if said is None else (told or "").startswith(said)

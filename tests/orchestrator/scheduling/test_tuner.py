"""Whole sweeps on a real Ray of this machine: every planned trial ends in exactly one record, whatever happens."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import safetensors.numpy

from orchestrator.planning.plan import PlannedTrial, plan_sweep
from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.scheduling import tuner
from orchestrator.scheduling.engine_layout import EngineLayout
from orchestrator.scheduling.engines import engine_pool
from orchestrator.scheduling.pool import EnginePool
from orchestrator.scheduling.recorder import Recorder
from orchestrator.scheduling.tuner import run_trials
from orchestrator.trial_source import FixedTrials
from tests.local_ray import local_ray
from tests.orchestrator.scheduling.observer import Observer

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]
DIVERGING = 1e30
LONG = 100  # epochs of a trial that is met in the middle


@pytest.fixture(scope="module", autouse=True)
def _ray_of_two_cores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with local_ray(tmp_path_factory.mktemp("cache"), num_cpus=2):
        yield


@pytest.fixture(scope="module")
def trials(small_backbone: Path, write_task: Callable[..., Path]) -> tuple[PlannedTrial, ...]:
    """Two trials of two epochs, two that diverge, and two long ones of different length."""
    plan = plan_sweep(
        {
            "name": "small",
            "backbone": str(small_backbone),
            "tasks": [str(write_task())],
            "seeds": [0],
            "space": {"num_epochs": 2, "batch_size": 16, "learning_rate": 1e-2},
            "methods": [
                {"adapter": {"adapter_size": 2, "num_epochs": {"grid": [LONG, LONG + 1]}}},
                {"adapter": {"adapter_size": {"grid": [1, 2]}}},
                {"adapter": {"adapter_size": {"grid": [1, 2]}, "learning_rate": DIVERGING}},
            ],
        }
    )
    return plan.trials


@pytest.fixture(scope="module")
def undisturbed(trials: tuple[PlannedTrial, ...], _ray_of_two_cores: None) -> Observer:
    """The sweep on two engines, with nothing done to it."""
    observer = Observer()
    assert not run_trials("small", FixedTrials(trials), observer)
    return observer


def test_every_trial_ends_in_one_record_and_a_failed_one_does_not_stop_the_others(
    undisturbed: Observer, trials: tuple[PlannedTrial, ...]
) -> None:
    records = undisturbed.by_id()
    assert records.keys() == {trial.trial_id for trial in trials}
    assert sorted(undisturbed.started) == sorted(records)
    assert undisturbed.starting == len(undisturbed.engines) == 2
    assert undisturbed.predictions == {}  # nobody asked for them
    for trial in trials:
        record = records[trial.trial_id]
        assert (record.sweep, record.config_id, record.task) == ("small", trial.config_id, "opinion")
        assert record.engine in undisturbed.engines
        if trial.config.learning_rate == DIVERGING:
            assert record.status is TrialStatus.FAILED
            assert "Traceback" in (record.error or "")
        else:
            assert record.status is TrialStatus.COMPLETED
            epochs = list(range(1, trial.config.num_epochs + 1))
            assert [epoch.epoch for epoch in record.epochs] == epochs
            assert [number for trial_id, number in undisturbed.epochs if trial_id == trial.trial_id] == epochs
            assert record.trained_params == trial.trained_params
            assert record.test_score is not None
            assert record.pack_size is not None
            assert record.pack_size >= 1


def test_it_leaves_a_ray_of_the_callers_own_as_it_was(undisturbed: Observer) -> None:
    assert ray.is_initialized()
    ends = time.monotonic() + 20
    while ray.available_resources().get("CPU") != 2 and time.monotonic() < ends:
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] == 2


@pytest.fixture(scope="module")
def engine(undisturbed: Observer) -> Iterator[Any]:
    """One engine for the tests below, which has to load only once."""
    with engine_pool(EngineLayout(count=1, num_gpus=0, num_threads=1)) as (_, engines):
        yield engines[0]


@pytest.fixture
def _on_one_engine(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps get a pool of their own over that engine."""

    @contextmanager
    def pool_of_one(layout: EngineLayout, *arguments: Any, **options: Any) -> Iterator[tuple[Any, list[Any]]]:
        pool = ray.remote(EnginePool).options(num_cpus=0, max_concurrency=100).remote([engine])
        yield pool, [engine]
        ray.kill(pool)

    monkeypatch.setattr(tuner, "engine_pool", pool_of_one)


@pytest.mark.usefixtures("_on_one_engine")
def test_trials_survive_the_death_of_their_engine_and_of_their_own_process_with_the_same_results(
    undisturbed: Observer,
    trials: tuple[PlannedTrial, ...],
    engine: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    processes: list[int] = []

    def remember(recorder: Any, *args: Any, result: dict[str, Any], **kwargs: Any) -> None:
        processes.append(result["pid"])
        on_trial_result(recorder, *args, result=result, **kwargs)

    on_trial_result = Recorder.on_trial_result
    monkeypatch.setattr(Recorder, "on_trial_result", remember)
    observer = Observer(
        {
            LONG: lambda: os.kill(ray.get(engine.process_id.remote()), signal.SIGKILL),
            LONG + 1: lambda: os.kill(processes[-1], signal.SIGKILL),
        }
    )
    assert not run_trials("small", FixedTrials(trials), observer)
    firsts = Counter(trial_id for trial_id, number in observer.epochs if number == 1)
    met = {trial.trial_id for trial in trials if trial.config.num_epochs >= LONG}
    assert {trial_id for trial_id, count in firsts.items() if count > 1} >= met  # they were trained again
    assert len(observer.engines) == 1
    records, expected = observer.by_id(), undisturbed.by_id()
    assert records.keys() == expected.keys()
    for trial_id, record in records.items():
        assert record.status is expected[trial_id].status
        assert curve(record) == pytest.approx(curve(expected[trial_id]), abs=1e-3)  # pack-mates differ
    captured = capfd.readouterr()
    assert "Traceback" not in captured.out + captured.err


def curve(record: TrialRecord) -> list[float]:
    return [epoch.train_loss for epoch in record.epochs]


@pytest.mark.usefixtures("_on_one_engine")
def test_trials_that_can_train_together_do(small_backbone: Path, write_task: Callable[..., Path]) -> None:
    plan = plan_sweep(
        {
            "name": "packed",
            "backbone": str(small_backbone),
            "tasks": [str(write_task())],
            "seeds": [0, 1],
            "space": {"num_epochs": LONG, "batch_size": 16, "learning_rate": {"grid": [1e-3, 1e-2]}},
            "methods": ["layernorm"],
        }
    )
    assert len({trial.pack_key for trial in plan.trials}) == 1
    observer = Observer()
    assert not run_trials("packed", FixedTrials(plan.trials), observer, keep_predictions=True, keep_weights=True)
    records = observer.by_id().values()
    for trial_id, record in observer.by_id().items():
        about = json.loads(observer.weights[trial_id]["adapter_config.json"])
        assert about["trial_config"]["seed"] == record.seed
        assert about["started_at"] == record.started_at
        assert about["scores"]["test/accuracy"] == record.test_score
        weights = safetensors.numpy.load(observer.weights[trial_id]["adapter_model.safetensors"])
        assert sum(tensor.size for tensor in weights.values()) == record.trained_params
    for record in records:
        assert observer.predictions[record.trial_id].keys() == {"validation", "test"}
        found = observer.predictions[record.trial_id]["test"]
        assert record.test_score == np.mean(found.values == found.rows.labels)
    assert {record.status for record in records} == {TrialStatus.COMPLETED}
    assert max(record.pack_size or 0 for record in records) > 1.5
    assert max(engine.num_trials for engine in observer.working) > 1
    assert {engine.method for engine in observer.working} >= {"layernorm"}


@pytest.mark.usefixtures("_on_one_engine")
def test_a_trial_that_promises_little_is_pruned_and_one_that_promises_more_goes_on(
    small_backbone: Path, write_task: Callable[..., Path]
) -> None:
    plan = plan_sweep(
        {
            "name": "pruned",
            "backbone": str(small_backbone),
            "tasks": [str(write_task())],
            "seeds": [0],
            "space": {"num_epochs": 12, "batch_size": 16},
            "methods": [
                {"no_bert": {"learning_rate": {"grid": [2e-2, 1e-9]}, "hidden_layers": 0, "convolution": False}}
            ],
            "early_stopping": {"asha": {"grace_period": 6, "max_epochs": 6}},
        }
    )
    observer = Observer()
    source = FixedTrials(plan.trials)
    rule = plan.spec.early_stopping
    assert not run_trials("pruned", source, observer, max_concurrent_trials=1, early_stopping=rule)
    good, pruned = (observer.by_id()[trial.trial_id] for trial in plan.trials)
    assert (good.status, pruned.status) == (TrialStatus.COMPLETED, TrialStatus.PRUNED)
    assert [epoch.epoch for epoch in pruned.epochs] == list(range(1, 7))
    assert pruned.validation_score == pruned.epochs[-1].validation_score
    assert (pruned.metric, pruned.test_score) == ("accuracy", None)
    assert (pruned.duration_s or 0) >= sum(epoch.duration_s for epoch in pruned.epochs)
    # All that an engine measures and knows of a trial is known of a pruned one too.
    assert pruned.best_epoch in range(1, 7)
    assert pruned.pack_size == 1
    assert min(pruned.examples_per_second or 0, pruned.peak_memory_bytes or 0) > 0
    assert pruned.provenance == good.provenance


@pytest.mark.usefixtures("_on_one_engine")
def test_tune_keeps_neither_ended_trials_nor_starts_a_process_for_each(
    small_backbone: Path, write_task: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_sweep(
        {
            "name": "many",
            "backbone": str(small_backbone),
            "tasks": [str(write_task())],
            "seeds": list(range(12)),
            "space": {"num_epochs": 1, "batch_size": 16},
            "methods": ["layernorm"],
        }
    )
    held, processes = [], set()

    def look(recorder: Any, iteration: int, trials: list[Any], **info: Any) -> None:
        held.append(len(trials))
        on_step_begin(recorder, iteration=iteration, trials=trials, **info)

    def remember(recorder: Any, *args: Any, result: dict[str, Any], **kwargs: Any) -> None:
        processes.add(result["pid"])
        on_trial_result(recorder, *args, result=result, **kwargs)

    on_step_begin, on_trial_result = Recorder.on_step_begin, Recorder.on_trial_result
    monkeypatch.setattr(Recorder, "on_step_begin", look)
    monkeypatch.setattr(Recorder, "on_trial_result", remember)
    observer = Observer()
    assert not run_trials("many", FixedTrials(plan.trials), observer, max_concurrent_trials=3)
    assert len(observer.by_id()) == 12
    assert max(held) <= 6
    assert len(processes) <= 4


@pytest.mark.usefixtures("_on_one_engine")
def test_what_an_observer_raises_ends_the_sweep_and_reaches_the_caller(trials: tuple[PlannedTrial, ...]) -> None:
    def disk_is_full() -> None:
        raise OSError(28, "no space left")

    observer = Observer({LONG: disk_is_full})
    with pytest.raises(OSError, match="no space left"):
        run_trials("small", FixedTrials(trials[:1]), observer, max_concurrent_trials=1)
    assert observer.records == []


@pytest.mark.usefixtures("_on_one_engine")  # which is cancelled for good: the last test
def test_an_interrupt_ends_what_runs_and_leaves_the_rest_planned(
    trials: tuple[PlannedTrial, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    observer = Observer({LONG: lambda: os.kill(os.getpid(), signal.SIGINT)})
    assert run_trials("small", FixedTrials(trials), observer, max_concurrent_trials=1)
    assert signal.getsignal(signal.SIGINT) is before
    (record,) = observer.by_id().values()
    assert observer.started == [record.trial_id]
    assert record.status is TrialStatus.CANCELLED
    assert 1 <= len(record.epochs) < LONG
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""

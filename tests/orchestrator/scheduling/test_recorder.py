"""What the recorder tells of engines that hung, of a trial that Tune stopped, and of one that could not say its end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from orchestrator.planning.plan import plan_sweep
from orchestrator.scheduling import recorder as recorder_module
from orchestrator.scheduling.engine_actor import EngineLostError
from orchestrator.scheduling.pool import PoolStatus
from orchestrator.scheduling.recorder import ENGINE_START_TIMEOUT_S, Recorder
from orchestrator.scheduling.trial import ENGINE, EPOCH_REPORT, IF_PRUNED, OUTCOME
from tests.factories import epoch_report, outcome
from trainables.faults import FaultsError
from trainables.outcome import OutcomeStatus


class Watch:
    """Looks at engines that say what a test has them say."""

    def __init__(self) -> None:
        self.told: tuple[str, ...] = ()

    def newly_ready(self) -> None:
        return None

    def latest(self) -> PoolStatus:
        return PoolStatus(lent=(), engines=(), told=self.told)


def test_each_engine_that_hung_is_told_of_once_even_after_the_pool_began_anew() -> None:
    observer, watch = MagicMock(), Watch()
    recorder = Recorder("sweep", MagicMock(), observer, MagicMock(), lambda: None, lambda: None, lambda *count: None)
    recorder._watch = watch  # type: ignore[assignment]
    told = []
    # The pool's process dies after the second one, and a third hangs after that.
    for watch.told in ((), ("one",), ("one",), ("one", "two"), (), ("three",), ("three",)):
        recorder.on_step_begin(0, [])
        told.append([call.args[0] for call in observer.notice.call_args_list])
    assert told == [
        *([], ["one"], ["one"], ["one", "two"]),
        *(["one", "two"], ["one", "two", "three"], ["one", "two", "three"]),
    ]


def test_how_long_a_trial_took_is_not_told_by_a_clock_that_somebody_may_set(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, observer = plan_sweep(values).trials[0], MagicMock()
    source, pool = MagicMock(), MagicMock()
    recorder = Recorder("sweep", source, observer, pool, lambda: None, lambda: None, lambda *count: None)
    recorder.handed_out(trial)
    monkeypatch.setattr(recorder_module, "now", lambda: "2001-01-01T00:00:00.000+00:00")  # it was set since
    recorder._start(trial)
    recorder.finish()
    ((records,), _) = observer.trials_ended.call_args
    assert records[0].started_at == "2001-01-01T00:00:00.000+00:00"
    assert records[0].duration_s < 60


def test_a_trial_that_tune_stops_has_all_that_its_engine_said_with_the_last_epoch(values: dict[str, Any]) -> None:
    trial, observer = plan_sweep(values).trials[0], MagicMock()
    recorder = Recorder("sweep", MagicMock(), observer, MagicMock(), lambda: None, lambda: None, lambda *count: None)
    recorder.handed_out(trial)
    of_tune: Any = SimpleNamespace(config={"trial_id": trial.trial_id})
    epochs = tuple(epoch_report(number, duration_s=0.1) for number in (1, 2))
    for number in (1, 2):
        so_far = {"epochs": epochs[:number], "duration_s": 0.1 * number, "pack_size": 3.0, "best_epoch": 1}
        measured = {"peak_memory_bytes": 7, "provenance": {"device": "a card"}}
        if_pruned = outcome(OutcomeStatus.PRUNED, **so_far, **measured)
        recorder.on_trial_result(
            0, [], of_tune, {ENGINE: "host/cpu", EPOCH_REPORT: epochs[number - 1], IF_PRUNED: if_pruned}
        )
    recorder.on_trial_complete(0, [], of_tune)
    recorder.finish()
    ((records,), _) = observer.trials_ended.call_args
    (record,) = records
    assert (record.status, record.epochs, record.duration_s) == ("pruned", epochs, 0.2)
    assert (record.pack_size, record.best_epoch, record.peak_memory_bytes) == (3.0, 1, 7)
    assert record.provenance["device"] == "a card"


def test_a_trial_whose_process_died_has_its_epochs_and_like_every_failed_one_no_score(values: dict[str, Any]) -> None:
    trial, observer = plan_sweep(values).trials[0], MagicMock()
    recorder = Recorder("sweep", MagicMock(), observer, MagicMock(), lambda: None, lambda: None, lambda *count: None)
    recorder.handed_out(trial)
    of_tune: Any = SimpleNamespace(config={"trial_id": trial.trial_id}, get_error=lambda: RuntimeError("it died"))
    recorder.on_trial_result(0, [], of_tune, {ENGINE: "host/cpu", EPOCH_REPORT: epoch_report(1)})
    recorder.on_trial_error(0, [], of_tune)
    recorder.finish()
    ((records,), _) = observer.trials_ended.call_args
    (record,) = records
    assert (record.status, record.epochs) == ("failed", (epoch_report(1),))
    assert "it died" in record.error
    assert (record.validation_score, record.validation) == (None, {})


@pytest.mark.parametrize("is_kept", [True, False])
def test_trials_that_have_ended_are_recorded_though_the_sweep_ends_by_an_error(
    values: dict[str, Any], is_kept: bool
) -> None:
    trial, observer, watch = plan_sweep(values).trials[0], MagicMock(), MagicMock()
    recorder = Recorder("sweep", MagicMock(), observer, MagicMock(), lambda: None, lambda: None, lambda *count: None)
    recorder._watch = watch
    recorder.handed_out(trial)
    told = {OUTCOME: outcome(OutcomeStatus.COMPLETED)}
    recorder.on_trial_result(0, [], SimpleNamespace(config={"trial_id": trial.trial_id}), told)  # type: ignore[arg-type]
    watch.newly_ready.side_effect = TimeoutError("the engines did not start")
    with pytest.raises(TimeoutError):
        recorder.on_step_begin(0, [])
    if not is_kept:
        observer.trials_ended.side_effect = RuntimeError("nor can it be recorded")
    recorder.finish()
    ((records,), _) = observer.trials_ended.call_args
    assert [record.trial_id for record in records] == [trial.trial_id]
    assert str(recorder.error) == "the engines did not start"


class Pool:
    """Whose engines come when a test says so, or never."""

    def __init__(self) -> None:
        self.ready = SimpleNamespace(remote=object)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the time is."""
    now = [1000.0]
    monkeypatch.setattr(recorder_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(recorder_module.ray, "available_resources", lambda: {"CPU": 3.0, "memory": 1e9})
    return now


def test_where_no_node_may_join_engines_that_do_not_start_are_a_fault(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "_is_there", lambda answer: False)
    watch = recorder_module._Watch(Pool())
    clock[0] += ENGINE_START_TIMEOUT_S
    assert watch.newly_ready() is None
    clock[0] += 1
    with pytest.raises(FaultsError, match=r"no engine has started for 10 min; Ray has free: 3 CPU; end what else"):
        watch.newly_ready()


def test_on_a_cluster_engines_are_waited_for_and_it_is_told_now_and_then(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "_is_there", lambda answer: False)
    told: list[str] = []
    watch = recorder_module._Watch(Pool(), told.append)
    for passed_s, lines in ((1, 0), (ENGINE_START_TIMEOUT_S, 1), (1, 1), (ENGINE_START_TIMEOUT_S, 2)):
        clock[0] += passed_s
        assert watch.newly_ready() is None
        assert len(told) == lines
    assert "no engine has started for 10 min; Ray has free: 3 CPU" in told[0]


def test_engines_that_all_died_are_a_fault_that_says_what_ray_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def died(answer: Any) -> Any:
        raise EngineLostError("every engine has died; of the last Ray says: ModuleNotFoundError: No module 'torch'")

    monkeypatch.setattr(recorder_module, "_is_there", lambda answer: True)
    monkeypatch.setattr(recorder_module.ray, "get", died)
    with pytest.raises(FaultsError, match=r"an engine must start, but every engine has died.*No module 'torch'"):
        recorder_module._Watch(Pool()).newly_ready()

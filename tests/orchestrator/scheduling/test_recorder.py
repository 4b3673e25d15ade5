"""What the recorder tells of engines that hung, of a trial that Tune stopped, and of one that could not say its end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from orchestrator.planning.plan import plan_sweep
from orchestrator.scheduling import recorder as recorder_module
from orchestrator.scheduling.pool import PoolStatus
from orchestrator.scheduling.recorder import Recorder
from orchestrator.scheduling.trial import ENGINE, EPOCH_REPORT, IF_PRUNED, OUTCOME
from tests.factories import epoch_report, outcome
from trainables.outcome import OutcomeStatus


class Watch:
    """Looks at engines that say what a test has them say."""

    def __init__(self) -> None:
        self.replaced: tuple[str, ...] = ()

    def newly_ready(self) -> None:
        return None

    def latest(self) -> PoolStatus:
        return PoolStatus(lent=(), engines=(), replaced=self.replaced)


def test_each_engine_that_hung_is_told_of_once_even_after_the_pool_began_anew() -> None:
    observer, watch = MagicMock(), Watch()
    recorder = Recorder("sweep", MagicMock(), observer, MagicMock(), lambda: None, lambda: None, lambda count: None)
    recorder._watch = watch  # type: ignore[assignment]
    told = []
    # The pool's process dies after the second one, and a third hangs after that.
    for watch.replaced in ((), ("one",), ("one",), ("one", "two"), (), ("three",), ("three",)):
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
    recorder = Recorder("sweep", source, observer, pool, lambda: None, lambda: None, lambda count: None)
    recorder.handed_out(trial)
    monkeypatch.setattr(recorder_module, "now", lambda: "2001-01-01T00:00:00.000+00:00")  # it was set since
    recorder._start(trial)
    recorder.finish()
    ((records,), _) = observer.trials_ended.call_args
    assert records[0].started_at == "2001-01-01T00:00:00.000+00:00"
    assert records[0].duration_s < 60


def test_a_trial_that_tune_stops_has_all_that_its_engine_said_with_the_last_epoch(values: dict[str, Any]) -> None:
    trial, observer = plan_sweep(values).trials[0], MagicMock()
    recorder = Recorder("sweep", MagicMock(), observer, MagicMock(), lambda: None, lambda: None, lambda count: None)
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
    recorder = Recorder("sweep", MagicMock(), observer, MagicMock(), lambda: None, lambda: None, lambda count: None)
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
    recorder = Recorder("sweep", MagicMock(), observer, MagicMock(), lambda: None, lambda: None, lambda count: None)
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

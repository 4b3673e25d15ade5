"""Against a real SQLite MLflow, read back through MLflow's own client."""

from __future__ import annotations

import logging
import subprocess
import sys
import time

import pytest

from orchestrator.record import TrialStatus
from orchestrator.tracking import Tracker

# MLflow still uses a loader strategy that SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")

COMPLETED = TrialStatus.COMPLETED


def wait_until(condition) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


def test_a_trial_becomes_a_run_below_the_sweep_s(start, planned, record, epoch, look):
    tracker = start('{"name": "quickstart", "seeds": [0, 1]}', varied={"adapter": ("adapter_size",)})
    tracker.trial_started(planned("a"))
    for number in (1, 2):
        tracker.epoch("a", epoch(number))
    tracker.trial_ended(record("a"))
    assert tracker.close(COMPLETED)
    parent, runs = look()
    assert (parent.status, parent.name) == ("FINISHED", "quickstart")
    assert parent.tags["adaptune.spec.seeds"] == "[0, 1]"
    run = runs["a"]
    assert (run.status, run.name) == ("FINISHED", "seed 0 trec adapter adapter_size=64")
    assert run.params["adapter_size"] == "64"
    assert run.tags["adaptune.config_id"] == "c-a"
    assert run.tags["adaptune.commit"] == "abc"
    assert run.metrics["validation/accuracy"] == [(1, 0.1), (2, 0.2)]
    assert run.metrics["train/loss"] == [(1, 1.0), (2, 0.5)]
    assert run.metrics["test/accuracy"] == [(2, 0.25)]
    assert run.metrics["trained_params"] == [(2, 1234.0)]


@pytest.mark.parametrize(
    ("status", "shown"),
    [("completed", "FINISHED"), ("pruned", "KILLED"), ("failed", "FAILED"), ("cancelled", "KILLED")],
)
def test_a_run_ends_as_its_trial_did(start, record, look, status, shown):
    tracker = start()
    tracker.trial_ended(record("a", status, error="Traceback" if status == "failed" else None))
    assert tracker.close(COMPLETED)
    run = look()[1]["a"]
    assert (run.status, run.tags["adaptune.status"]) == (shown, status)
    assert (run.start_ms, run.end_ms) == (1735787045000, 1735787066500)
    assert run.tags["adaptune.error"] == ("Traceback" if status == "failed" else "")


def test_a_trial_that_ended_before_its_start_was_heard_of_has_the_times_of_its_record(start, planned, record, look):
    tracker = start(flush_interval_s=60.0)
    tracker.trial_started(planned("a"))
    tracker.trial_ended(record("a"))
    assert tracker.close(COMPLETED)
    run = look()[1]["a"]
    assert (run.start_ms, run.end_ms) == (1735787045000, 1735787066500)


def test_no_run_ends_before_it_began(start, planned, record, look):
    tracker = start()
    tracker.trial_started(planned("a"))
    wait_until(lambda: tracker.is_open and "a" in look()[1])
    tracker.trial_ended(record("a"))  # of a machine whose clock is late, or all over before it was heard of
    assert tracker.close(COMPLETED)
    run = look()[1]["a"]
    assert run.status == "FINISHED"
    assert run.end_ms == run.start_ms


def test_the_curve_of_a_running_trial_is_there_while_it_runs(start, planned, epoch, look):
    tracker = start()
    tracker.trial_started(planned("a"))
    tracker.epoch("a", epoch(1))

    def is_shown() -> bool:
        run = look()[1].get("a") if tracker.is_open else None
        return run is not None and run.status == "RUNNING" and run.metrics.get("validation_score") == [(1, 0.1)]

    wait_until(is_shown)


def test_no_run_is_left_running(start, planned, look):
    tracker = start()
    tracker.trial_started(planned("a"))
    assert tracker.close(TrialStatus.CANCELLED)
    parent, runs = look()
    assert (parent.status, parent.tags["adaptune.status"]) == ("KILLED", "cancelled")
    assert (runs["a"].status, runs["a"].tags["adaptune.status"]) == ("KILLED", "cancelled")


def test_artifacts_lie_beside_the_database(start, tmp_path, look):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.html").write_text("<html>")
    tracker = start('{"name": "quickstart"}')
    tracker.log_artifacts(tmp_path / "report", "report")
    tracker.log_artifacts(tmp_path / "missing.png")
    assert tracker.close(COMPLETED)
    artifacts = tmp_path / "sweeps" / "mlartifacts" / look()[0].run_id / "artifacts"
    assert (artifacts / "spec.json").read_text() == '{"name": "quickstart"}'
    assert (artifacts / "report" / "report.html").read_text() == "<html>"


def test_resuming_continues_the_same_runs(start, window, planned, record, epoch, look, tracking_uri):
    killed = start(flush_interval_s=0.01)
    killed.trial_ended(record("done"))
    for trial_id in ("again", "gone"):
        killed.trial_started(planned(trial_id))
        killed.epoch(trial_id, epoch(1))

    def is_written() -> bool:
        runs = look()[1] if killed.is_open else {}
        return len(runs) == 3 and all("validation_score" in run.metrics for run in runs.values())

    wait_until(is_written)
    window.is_down = True  # this driver writes no more, as if it had been killed
    before = look()

    resumed = start('{"name": "quickstart", "wider": true}', window=type(window)(tracking_uri))
    resumed.refill([record("done")], planned=["done", "again"])
    wait_until(lambda: look()[1]["gone"].status == "KILLED")
    assert look()[1]["again"].status == "RUNNING"
    resumed.trial_started(planned("again"))
    for number in (1, 2):
        resumed.epoch("again", epoch(number))
    resumed.trial_ended(record("again"))
    assert resumed.close(COMPLETED)

    parent, runs = look()
    assert parent.run_id == before[0].run_id
    assert parent.tags["adaptune.spec.wider"] == "true"
    assert {i: run.run_id for i, run in runs.items()} == {i: run.run_id for i, run in before[1].items()}
    assert runs["done"] == before[1]["done"]
    assert runs["again"].status == "FINISHED"
    assert runs["again"].metrics["validation_score"] == [(1, 0.1), (2, 0.2)]


def test_a_failed_trial_that_is_retried_keeps_its_run_and_loses_its_error(
    start, window, planned, record, look, tracking_uri
):
    first = start()
    first.trial_ended(record("a", "failed", error="boom", epochs=()))
    assert first.close(TrialStatus.FAILED)
    failed = look()[1]["a"]
    second = start(window=type(window)(tracking_uri))
    second.trial_started(planned("a"))
    second.trial_ended(record("a", started_at="2025-01-03T00:00:00+00:00"))
    assert second.close(COMPLETED)
    run = look()[1]["a"]
    assert (run.run_id, run.status, run.tags["adaptune.error"]) == (failed.run_id, "FINISHED", "")


def test_refilling_what_is_there_costs_no_request(start, window, record, tracking_uri):
    records = [record("a"), record("b", "failed")]
    first = start()
    first.refill(records)
    assert first.close(COMPLETED)
    again = type(window)(tracking_uri)
    second = start(window=again)
    second.refill(records)
    assert second.close(COMPLETED)
    assert again.requests[:2] == ["open", "runs"]
    assert not {"create", "steps", "delete"} & set(again.requests)
    assert again.requests.count("end") == 1  # the sweep's


def test_a_deleted_mlflow_is_filled_again_from_the_records(start, record, look, window, tracking_uri):
    records = [record(trial_id) for trial_id in ("a", "b", "c")]
    first = start()
    first.refill(records)
    assert first.close(COMPLETED)
    before = look()[1]
    window.client.delete_experiment(window.experiment_id)
    window.client.delete_run(before["b"].run_id)
    second = start(window=type(window)(tracking_uri))
    second.refill(records)
    assert second.close(COMPLETED)
    after = look()[1]
    assert {i: (run.status, run.metrics, run.params) for i, run in after.items()} == {
        i: (run.status, run.metrics, run.params) for i, run in before.items()
    }


def test_an_outage_is_said_once_and_mended_when_it_ends(start, window, planned, record, epoch, look, caplog):
    window.is_down = True
    tracker = start()
    tracker.trial_started(planned("a"))
    tracker.epoch("a", epoch(1))
    wait_until(lambda: window.requests.count("open") >= 2)
    tracker.epoch("a", epoch(2))
    tracker.trial_ended(record("a"))
    window.is_down = False
    assert tracker.close(COMPLETED)
    assert look()[1]["a"].metrics["validation_score"] == [(1, 0.1), (2, 0.2)]
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert "cannot be written (ConnectionError: connection refused); the sweep goes on" in warning


@pytest.mark.parametrize("lost", [1, 2, 3, 4, 5, 6])
@pytest.mark.thinned(2)
def test_a_lost_answer_makes_no_second_run_and_no_second_point(start, window, record, look, lost):
    window.loses_answers = lost
    tracker = start()
    tracker.trial_ended(record("a"))
    tracker.trial_ended(record("b"))
    assert tracker.close(COMPLETED)
    parent, runs = look()
    assert set(runs) == {"a", "b"}
    for run in [parent, *runs.values()]:
        assert run.status == "FINISHED"
    for run in runs.values():
        assert run.metrics["validation_score"] == [(1, 0.1), (2, 0.2)]
        assert run.metrics["test_score"] == [(2, 0.25)]


def test_a_sweep_ends_though_mlflow_never_comes_back(start, window, planned, record, caplog):
    window.is_down = True
    tracker = start()
    began = time.monotonic()
    for number in range(2000):
        tracker.trial_started(planned(f"t{number % 50}"))
        tracker.trial_ended(record(f"t{number % 50}"))
    assert time.monotonic() - began < 2.0
    assert tracker.close(COMPLETED, timeout_s=0.3) is False
    assert time.monotonic() - began < 5.0
    assert tracker.close(COMPLETED, timeout_s=0.3) is False  # as a driver does whatever happened
    assert caplog.text.count("resuming it fills the gap") == 1


@pytest.mark.thorough
def test_a_sweep_waits_for_an_mlflow_that_is_slow_but_takes_things(start, window, record, look, monkeypatch):
    """As on a machine that many others use: a write takes nearly as long as a close waits for one that says nothing."""
    tracker = start(flush_interval_s=60.0)
    write = tracker._writer.write_whole

    def slowly(news):
        time.sleep(0.4)
        return write(news)

    monkeypatch.setattr(tracker._writer, "write_whole", slowly)
    monkeypatch.setattr("orchestrator.tracking.tracker._AT_ONCE", 1)
    for name in "abcdef":
        tracker.trial_ended(record(name))
    assert tracker.close(COMPLETED, timeout_s=1.5)
    assert set(look()[1]) == set("abcdef")


def test_what_was_not_remembered_is_filled_in_from_the_records(start, window, record, look):
    window.is_down = True
    tracker = start(most_held=2)
    wait_until(lambda: tracker.is_away)
    records = [record(str(number)) for number in range(5)]
    for ended in records:
        tracker.trial_ended(ended)
    assert tracker.num_waiting == 2
    window.is_down = False
    assert tracker.close(COMPLETED, lambda: records)
    assert {run.status for run in look()[1].values()} == {"FINISHED"}
    assert len(look()[1]) == 5


def test_a_trial_that_mlflow_refuses_does_not_hold_up_the_others(start, window, record, look, caplog):
    window.refused_names = {"trec adapter seed 7"}
    tracker = start()
    records = [record("refused", seed=7), record("a"), record("b")]
    for ended in records:
        tracker.trial_ended(ended)
    assert tracker.close(COMPLETED, lambda: records) is False
    parent, runs = look()
    assert set(runs) == {"a", "b"}
    assert parent.status == "FINISHED"
    assert "MLflow refuses trial refused" in caplog.text


def test_rival_runs_of_one_trial_are_reduced_to_one(start, window, record, look, tracking_uri):
    first = start()
    first.trial_ended(record("a"))
    assert first.close(COMPLETED)
    tags = {"adaptune.kind": "trial", "adaptune.trial_id": "a", "mlflow.parentRunId": look()[0].run_id}
    window.create("a rival's", tags, None)
    second = start(window=type(window)(tracking_uri))
    second.refill([record("a")])
    assert second.close(COMPLETED)
    assert look()[1]["a"].status == "FINISHED"


def test_a_thousand_epochs_are_all_there(start, epoch, record, look):
    tracker = start()
    tracker.trial_ended(record("a", epochs=tuple(epoch(number) for number in range(1, 1001))))
    assert tracker.close(COMPLETED)
    run = look()[1]["a"]
    assert [step for step, _ in run.metrics["validation/loss"]] == list(range(1, 1001))
    assert run.tags["adaptune.status"] == "completed"


@pytest.mark.thorough
def test_two_drivers_may_begin_with_the_same_missing_database(tmp_path, record):
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    trackers = [Tracker(name, "{}", tracking_uri=uri) for name in ("one", "two")]
    for tracker in trackers:
        tracker.trial_ended(record("a"))
    assert [tracker.close(COMPLETED, timeout_s=40) for tracker in trackers] == [True, True]


def test_the_package_is_imported_without_mlflow():
    code = "import sys, orchestrator.tracking; sys.exit(bool({'mlflow', 'torch', 'ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

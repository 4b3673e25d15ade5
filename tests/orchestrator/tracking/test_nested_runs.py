"""Sweep, configuration, seed: nested runs in a real SQLite MLflow, read back through MLflow's own client."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from orchestrator.engine_status import EngineStatus
from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.tracking import TaskData
from orchestrator.tracking.runs import MlflowRuns

# MLflow still uses a loader strategy that SQLAlchemy 2.1 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning")

COMPLETED = TrialStatus.COMPLETED
DATA = (
    TaskData(task="trec", reference="/data/trec", fingerprint="0123456789abcdef" * 4, rows={"train": 10, "test": 5}),
    TaskData(task="cola", reference="glue/cola", fingerprint="f" * 64),
)


def spec(*seeds: int) -> str:
    entries = {"name": "quickstart", "tasks": ["a", "b"], "methods": [{"adapter": {}}, {"layernorm": {}}]}
    return json.dumps({**entries, "seeds": seeds or (0, 1, 2)})


@pytest.fixture
def replicates(record) -> Callable[..., list[TrialRecord]]:
    """`replicates(config_id, seeds=3)`: the ends of a configuration's trials, the scores of each its own."""

    def make(config_id: str, seeds: int = 3, **changes: Any) -> list[TrialRecord]:
        rng = np.random.default_rng(sum(map(ord, config_id)))
        return [
            record(
                f"{config_id}-{seed}",
                config_id=config_id,
                seed=seed,
                **({"validation_score": rng.random(), "test_score": rng.random()} | changes),
            )
            for seed in range(seeds)
        ]

    return make


@pytest.fixture
def runs(tracking_uri: str) -> Callable[[], SimpleNamespace]:
    """`runs()`: the runs of each kind as MLflow's client has them: `sweep`, and the others by their ids of ours."""
    from mlflow.tracking.client import MlflowClient

    def read() -> SimpleNamespace:
        client = MlflowClient(tracking_uri=tracking_uri)
        experiment = client.get_experiment_by_name("quickstart")
        found = client.search_runs([experiment.experiment_id], max_results=1000)
        by_kind = {kind: [r for r in found if r.data.tags["adaptune.kind"] == kind] for kind in ("sweep", "trial")}
        configurations = [run for run in found if run.data.tags["adaptune.kind"] == "configuration"]
        (sweep,) = by_kind["sweep"]
        seen = SimpleNamespace(
            experiment=experiment,
            sweep=sweep,
            configurations={run.data.tags["adaptune.config_id"]: run for run in configurations},
            trials={run.data.tags["adaptune.trial_id"]: run for run in by_kind["trial"]},
        )
        assert len(found) == 1 + len(seen.configurations) + len(seen.trials)  # none twice
        return seen

    return read


def check_nesting(seen: SimpleNamespace) -> None:
    """Each trial is below its configuration, each configuration below the sweep."""
    for config_id, run in seen.configurations.items():
        assert run.data.tags["mlflow.parentRunId"] == seen.sweep.info.run_id
        below = [t for t in seen.trials.values() if t.data.tags["mlflow.parentRunId"] == run.info.run_id]
        assert {t.data.tags["adaptune.config_id"] for t in below} == {config_id}
    above = {run.info.run_id for run in seen.configurations.values()}
    for run in seen.trials.values():
        assert run.data.tags["mlflow.parentRunId"] in above
        assert run.data.tags["adaptune.sweep_run"] == seen.sweep.info.run_id


def ids(seen: SimpleNamespace) -> set[str]:
    return {run.info.run_id for run in (seen.sweep, *seen.configurations.values(), *seen.trials.values())}


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


def inputs(run: Any) -> list[Mapping[str, Any]]:
    return sorted(
        (
            {
                "name": each.dataset.name,
                "digest": each.dataset.digest,
                "source": json.loads(each.dataset.source),
                "source_type": each.dataset.source_type,
                "profile": json.loads(each.dataset.profile),
                "tags": {tag.key: tag.value for tag in each.tags},
            }
            for each in run.inputs.dataset_inputs
        ),
        key=lambda each: each["name"],
    )


@pytest.mark.parametrize("writes_whole_runs", [False, True])
def test_a_configuration_s_run_carries_the_mean_over_its_seeds(start, window, replicates, runs, writes_whole_runs):
    window.writes_whole_runs = writes_whole_runs
    tracker = start(spec(), data=DATA, varied={"adapter": ("adapter_size",)}, flush_interval_s=30)
    wait_until(lambda: "log_text" in window.requests)
    ended = replicates("c1") + replicates("c2")
    for each in ended:
        tracker.trial_ended(each)
    assert tracker.close(COMPLETED)
    seen = runs()
    check_nesting(seen)
    assert {run.info.status for run in seen.configurations.values()} == {"FINISHED"}
    run = seen.configurations["c1"]
    assert run.info.run_name == "trec adapter adapter_size=64"
    assert run.info.start_time == min(seen.trials[f"c1-{seed}"].info.start_time for seed in range(3))
    assert run.info.end_time == max(seen.trials[f"c1-{seed}"].info.end_time for seed in range(3))
    for name in ("validation_score", "test_score"):
        scores = np.array([getattr(each, name) for each in ended[:3]])
        assert run.data.metrics[f"mean/{name}"] == pytest.approx(scores.mean(), abs=1e-12)
        assert run.data.metrics[f"sem/{name}"] == pytest.approx(scores.std(ddof=1) / np.sqrt(3), abs=1e-12)
    assert run.data.metrics["num_seeds"] == 3
    trial = seen.trials["c1-0"]
    assert trial.info.run_name == "seed 0 trec adapter adapter_size=64"
    assert run.data.params == {key: value for key, value in trial.data.params.items() if key != "seed"}
    assert run.data.tags["mlflow.note.content"].startswith("3 of 3 seeds completed")
    assert trial.data.tags["mlflow.source.git.commit"] == "abc"
    assert {tags["mlflow.source.type"] for tags in (run.data.tags, trial.data.tags)} == {"LOCAL"}


@pytest.mark.parametrize("writes_whole_runs", [False, True])
@pytest.mark.thinned(1)
def test_what_a_run_trains_on_is_its_input(start, window, replicates, runs, writes_whole_runs):
    window.writes_whole_runs = writes_whole_runs
    tracker = start(spec(), data=DATA, flush_interval_s=30)
    wait_until(lambda: "log_text" in window.requests)
    for each in replicates("c1"):
        tracker.trial_ended(each)
    assert tracker.close(COMPLETED)
    trec = {
        "name": "trec",
        "digest": "0123456789ab",
        "source": {"uri": "/data/trec"},
        "source_type": "local",
        "profile": {"num_rows": 15, "train_rows": 10, "test_rows": 5, "fingerprint": "0123456789abcdef" * 4},
        "tags": {"mlflow.data.context": "training"},
    }
    seen = runs()
    assert inputs(seen.configurations["c1"]) == [trec]
    cola, also_trec = inputs(seen.sweep)
    assert also_trec == trec
    assert (cola["source_type"], cola["source"]) == ("adaptune", {"task": "glue/cola"})


@pytest.mark.parametrize("writes_whole_runs", [False, True])
@pytest.mark.thinned(1)
def test_configurations_share_their_few_requests_among_their_seeds(start, window, replicates, writes_whole_runs):
    """A trial's run costs three requests; a configuration's four, one of them for its dataset, whatever its seeds."""
    window.writes_whole_runs = writes_whole_runs
    tracker = start(spec(), data=DATA, flush_interval_s=30)
    wait_until(lambda: "log_text" in window.requests)
    window.requests.clear()
    for config_id in ("c1", "c2", "c3"):
        for each in replicates(config_id):
            tracker.trial_ended(each)
    assert tracker.close(COMPLETED)
    sweep_end = ["log", "end"]
    if writes_whole_runs:
        assert window.requests == ["insert", *sweep_end]
    else:
        assert len(window.requests) == 9 * 3 + 3 * 4 + len(sweep_end)
        assert window.requests.count("create") == 9 + 3
        assert window.requests.count("log_data") == 3


def test_a_run_of_a_configuration_is_there_while_its_seeds_train(start, planned, replicates, runs, epoch):
    tracker = start(spec(), flush_interval_s=0.01)
    tracker.trial_started(dataclasses.replace(planned("c1-0"), config_id="c1"))
    tracker.epoch("c1-0", epoch(1))
    wait_until(
        lambda: tracker.is_open and bool(runs().trials) and "validation_score" in runs().trials["c1-0"].data.metrics
    )
    assert runs().configurations["c1"].info.status == "RUNNING"
    check_nesting(runs())
    first, second, third = replicates("c1")
    tracker.trial_ended(first)
    tracker.trial_ended(second)
    wait_until(lambda: runs().trials.keys() == {"c1-0", "c1-1"})
    assert runs().configurations["c1"].info.status == "RUNNING"
    tracker.trial_ended(third)
    wait_until(lambda: runs().configurations["c1"].info.status == "FINISHED")
    assert runs().configurations["c1"].data.metrics["num_seeds"] == 3


def test_a_sweep_that_is_cut_short_leaves_no_configuration_running(
    start, planned, replicates, runs, window, tracking_uri
):
    tracker = start(spec())
    tracker.trial_started(dataclasses.replace(planned("c2-0"), config_id="c2"))
    for each in replicates("c1")[:2]:
        tracker.trial_ended(each)
    assert tracker.close(TrialStatus.CANCELLED)
    seen = runs()
    assert {run.info.status for run in (seen.sweep, *seen.configurations.values())} == {"KILLED"}
    assert seen.configurations["c1"].data.metrics["num_seeds"] == 2
    assert seen.trials["c2-0"].info.status == "KILLED"

    resumed = start(spec(), window=type(window)(tracking_uri))
    resumed.refill(replicates("c1")[:2], planned=[f"c{n}-{s}" for n in (1, 2) for s in range(3)])
    for each in [*replicates("c1")[2:], *replicates("c2")]:
        resumed.trial_ended(each)
    assert resumed.close(COMPLETED)
    after = runs()
    assert ids(seen) < ids(after)
    check_nesting(after)
    assert {run.info.status for run in (*after.configurations.values(), *after.trials.values())} == {"FINISHED"}
    assert after.configurations["c1"].data.metrics["num_seeds"] == 3


def test_a_failed_seed_fails_its_configuration_until_it_is_retried(start, replicates, runs, window, tracking_uri):
    good, bad = replicates("c1")[:2], replicates("c1", status="failed", error="boom", epochs=())[2:]
    first = start(spec())
    for each in good + bad:
        first.trial_ended(each)
    assert first.close(TrialStatus.FAILED)
    assert runs().configurations["c1"].info.status == "FAILED"
    second = start(spec(), window=type(window)(tracking_uri))
    second.refill(good, planned=[each.trial_id for each in good + bad])
    (retried,) = replicates("c1", started_at="2025-01-03T00:00:00+00:00")[2:]
    second.trial_ended(retried)
    assert second.close(COMPLETED)
    run = runs().configurations["c1"]
    assert (run.info.status, run.data.metrics["num_seeds"]) == ("FINISHED", 3)
    assert len(runs().trials) == 3


def test_refilling_what_is_there_costs_no_request(start, window, replicates, tracking_uri):
    records = replicates("c1") + replicates("c2", status="failed", error="boom")
    first = start(spec(), data=DATA)
    first.refill(records)
    assert first.close(COMPLETED)
    again = type(window)(tracking_uri)
    second = start(spec(), data=DATA, window=again)
    second.refill(records)
    assert second.close(COMPLETED)
    assert again.requests == ["open", "runs", "set_running", "log", "log_text", "log", "end"]


def test_more_seeds_continue_the_same_runs(start, window, replicates, runs, tracking_uri):
    first = start(spec(0, 1))
    for each in replicates("c1", seeds=2):
        first.trial_ended(each)
    assert first.close(COMPLETED)
    before = runs()
    wider = start(spec(0, 1, 2, 3), window=type(window)(tracking_uri))
    wider.refill(replicates("c1", seeds=2), planned=[f"c1-{seed}" for seed in range(4)])
    for each in replicates("c1", seeds=4)[2:]:
        wider.trial_ended(each)
    assert wider.close(COMPLETED)
    after = runs()
    assert ids(before) < ids(after)
    assert after.configurations["c1"].data.metrics["num_seeds"] == 4
    history = window_history(window, after.configurations["c1"].info.run_id, "num_seeds")
    assert history == [(2, 2.0), (4, 4.0)]


def window_history(window: MlflowRuns, run_id: str, key: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in window.client.get_metric_history(run_id, key)]


def test_runs_that_lie_flat_are_moved_below_their_configurations(start, window, replicates, runs, tracking_uri):
    """As an earlier version left them, or a sweep of one seed that has been widened."""
    records = replicates("c1") + replicates("c2")
    flat = start('{"name": "quickstart"}')
    for each in records:
        flat.trial_ended(each)
    assert flat.close(COMPLETED)
    before = runs()
    assert not before.configurations
    assert before.trials["c1-0"].info.run_name == "trec adapter seed 0"

    moving = type(window)(tracking_uri)
    nested = start(spec(), window=moving)
    nested.refill(records)
    assert nested.close(COMPLETED)
    after = runs()
    check_nesting(after)
    assert {i: run.info.run_id for i, run in after.trials.items()} == {
        i: run.info.run_id for i, run in before.trials.items()
    }
    assert after.trials["c1-0"].info.run_name == "seed 0 trec adapter"
    for trial_id, run in after.trials.items():
        assert run.data.metrics == before.trials[trial_id].data.metrics
        assert (run.info.status, run.info.end_time) == ("FINISHED", before.trials[trial_id].info.end_time)
    trial_requests = (
        len(moving.requests) - 2 * 3 - len(["open", "runs", "set_running", "log", "log_text", "log", "end"])
    )
    assert trial_requests == len(records)  # one each

    again = type(window)(tracking_uri)
    third = start(spec(), window=again)
    third.refill(records)
    assert third.close(COMPLETED)
    assert again.requests == ["open", "runs", "set_running", "log", "log_text", "log", "end"]


@pytest.mark.parametrize("writes_whole_runs", [False, True])
@pytest.mark.parametrize("lost", [1, 2, 3, 5, 8])
@pytest.mark.thinned(2)
def test_a_lost_answer_makes_no_run_and_no_point_twice(start, window, replicates, runs, writes_whole_runs, lost):
    window.writes_whole_runs, window.loses_answers = writes_whole_runs, lost
    tracker = start(spec(), data=DATA)
    for each in replicates("c1"):
        tracker.trial_ended(each)
    assert tracker.close(COMPLETED)
    seen = runs()
    check_nesting(seen)
    assert {run.info.status for run in (*seen.configurations.values(), *seen.trials.values())} == {"FINISHED"}
    run_id = seen.configurations["c1"].info.run_id
    assert [step for step, _ in window_history(window, run_id, "mean/test_score")] == [3]
    assert [each["name"] for each in inputs(seen.configurations["c1"])] == ["trec"]


def test_a_deleted_mlflow_is_filled_again_from_the_records(start, window, replicates, runs, tracking_uri):
    records = replicates("c1") + replicates("c2")
    first = start(spec(), data=DATA)
    first.refill(records)
    assert first.close(COMPLETED)
    before = runs()
    for run_id in (before.configurations["c1"].info.run_id, before.trials["c2-1"].info.run_id):
        window.client.delete_run(run_id)
    second = start(spec(), data=DATA, window=type(window)(tracking_uri))
    second.refill(records)
    assert second.close(COMPLETED)
    after = runs()
    check_nesting(after)
    for kind in ("configurations", "trials"):
        assert {i: (run.data.metrics, run.data.params) for i, run in getattr(after, kind).items()} == {
            i: (run.data.metrics, run.data.params) for i, run in getattr(before, kind).items()
        }


def test_the_experiment_opens_on_training_runs_unless_somebody_chose_otherwise(start, window, runs, tracking_uri):
    assert start().close(COMPLETED)
    kind = "mlflow.experimentKind"
    assert runs().experiment.tags[kind] == "custom_model_development"
    assert "mlflow.note.content" in runs().experiment.tags
    window.client.set_experiment_tag(runs().experiment.experiment_id, kind, "finetuning")
    assert start(window=type(window)(tracking_uri)).close(COMPLETED)
    assert runs().experiment.tags[kind] == "finetuning"
    window.client.delete_experiment_tag(runs().experiment.experiment_id, kind)  # as an earlier version left it
    assert start(window=type(window)(tracking_uri)).close(COMPLETED)
    assert runs().experiment.tags[kind] == "custom_model_development"


def best_row(config_id: str) -> Mapping[str, Any]:
    scores = {"validation_mean": 0.9, "validation_sem": 0.01, "test_mean": 0.8, "test_sem": 0.02}
    counts = {"num_seeds": 3, "num_configs_tried": 2, "trained_params": 7}
    return {"task": "trec", "config_id": config_id, "method": "adapter", "metric": "accuracy", **scores, **counts}


@pytest.mark.parametrize(("seeds", "shown_by"), [((0, 1, 2), "configurations"), ((0,), "trials")])
def test_the_sweep_s_run_names_the_best_of_each_task_and_links_to_it(
    start, replicates, runs, tmp_path, seeds: Sequence[int], shown_by
):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.html").write_text("<html>")
    tracker = start(spec(*seeds))
    for each in replicates("c1", seeds=len(seeds)):
        tracker.trial_ended(each)
    tracker.show_best([best_row("c1")])
    tracker.log_artifacts(tmp_path / "report", "report")
    assert tracker.close(COMPLETED)
    seen = runs()
    sweep, (best, *_) = seen.sweep, getattr(seen, shown_by).values()
    assert sweep.data.metrics["best_test/trec"] == 0.8
    assert sweep.data.metrics["best_validation_sem/trec"] == 0.01
    note = sweep.data.tags["mlflow.note.content"]
    page = f"#/experiments/{seen.experiment.experiment_id}/runs/"
    if shown_by == "configurations":
        assert sweep.data.tags["adaptune.best/trec"] == best.info.run_id
        assert f"[trec adapter]({page}{best.info.run_id}?" in note
    else:
        assert sweep.data.tags["adaptune.best/trec"] in {run.info.run_id for run in seen.trials.values()}
    assert f"[Report]({page}{sweep.info.run_id}/artifacts/report/report.html?" in note


def test_what_engines_did_is_shown_once_with_the_sweep(start, replicates, runs):
    tracker = start(spec(), engines_interval_s=0.05)
    busy = EngineStatus(engine="host/cpu", task="trec", method="adapter", num_trials=3, examples_per_second=100.0)
    for _ in range(20):
        tracker.engines_working([busy])
        time.sleep(0.02)
    for each in replicates("c1", peak_memory_bytes=123):
        tracker.trial_ended(each)
    assert tracker.close(COMPLETED)
    metrics = runs().sweep.data.metrics
    assert metrics["system/host/cpu/busy_percentage"] == pytest.approx(100)
    assert metrics["system/host/cpu/examples_per_second"] == pytest.approx(100)
    assert metrics["system/host/cpu/peak_memory_bytes"] == 123
    assert not [key for run in runs().trials.values() for key in run.data.metrics if key.startswith("system/")]

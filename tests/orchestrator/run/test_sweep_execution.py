"""What `execute` keeps, trains and tells, with a scheduler that trains nothing and an MLflow that only listens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from orchestrator.planning.plan import plan_sweep, plan_table
from orchestrator.planning.preflight import data_warnings
from orchestrator.record import TrialStatus
from orchestrator.run.continuation import outcome_notice
from orchestrator.run.recording import Silent
from orchestrator.run.sweep import execute, load_results, prepare
from orchestrator.store import Store
from tests.orchestrator.run.pretended import Listener, Scheduler, Values, run
from trainables.faults import FaultsError


class Counting(Silent):
    def __init__(self) -> None:
        self.counts: tuple[int, int] | None = None
        self.failing: list[str] = []

    def planned(self, trials: int, done: int) -> None:
        self.counts = (trials, done)

    def storage_failing(self, reason: str, waiting: int) -> None:
        self.failing.append(reason)


class TestSweepsThatShareAStore:
    def test_train_nothing_that_another_has_trained_and_keep_their_own_plans(
        self, values: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        assert run(values, tmp_path).trained == 6
        other = {**values, "name": "other", "seeds": [1, 2], "methods": ["layernorm", "bitfit"]}
        progress = Counting()
        done = run(other, tmp_path, progress=progress)
        assert done.trained == 3  # of layernorm with seed 1 there is a record
        assert progress.counts == (4, 1)
        assert len(scheduler.trained) == len(set(scheduler.trained)) == 9
        store = Store(tmp_path)
        assert store.sweeps() == ("other", "small")
        assert done.results.counts() == {TrialStatus.COMPLETED: 4}
        assert load_results(tmp_path, "small").counts() == {TrialStatus.COMPLETED: 6}
        assert load_results(tmp_path).counts() == {TrialStatus.COMPLETED: 9}
        assert set(load_results(tmp_path, "other").epochs()["trial_id"].to_pylist()) == set()
        assert run(values, tmp_path).trained == 0
        assert store.sweeps() == ("small", "other")
        assert len(store.records()) == 9

    def test_have_each_all_of_its_trials_in_mlflow(self, values: Values, scheduler: Scheduler, tmp_path: Path) -> None:
        run(values, tmp_path)
        run({**values, "name": "other", "seeds": [1, 2]}, tmp_path)
        first, second = Listener.made
        assert (first.sweep, first.planned, len(first.ended)) == ("small", None, 6)
        assert (second.sweep, len(second.refilled), len(second.ended)) == ("other", 3, 3)
        planned = {trial.trial_id for trial in plan_sweep({**values, "seeds": [1, 2]}).trials}
        assert set(second.planned or ()) == {*second.refilled, *second.ended} == set(second.all) == planned
        assert second.end is TrialStatus.COMPLETED

    def test_leave_each_others_failures_alone(self, values: Values, scheduler: Scheduler, tmp_path: Path) -> None:
        failing = {**values, "name": "failing", "methods": [{"adapter": {"adapter_size": 1, "learning_rate": 1}}]}
        assert run(failing, tmp_path).results.counts() == {TrialStatus.FAILED: 2}
        run(values, tmp_path)
        assert not (tmp_path / "superseded").exists()
        both = {**failing, "name": "both", "seeds": [1, 2]}
        assert run(both, tmp_path).trained == 2  # seed 1 of them again
        assert load_results(tmp_path, "failing").counts() == {TrialStatus.FAILED: 2}
        assert len(list((tmp_path / "superseded").iterdir())) == 1

    def test_refuse_a_sweep_of_a_name_they_have_that_is_another(
        self, values: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        run(values, tmp_path)
        run({**values, "name": "other"}, tmp_path)
        with pytest.raises(FaultsError, match="6 of the 6 trials planned for small"):
            prepare({**values, "seeds": [7, 8]}, tmp_path)


class TestASweepWithFolds:
    @pytest.fixture
    def folded(self, values: Values) -> Values:
        return {**values, "methods": ["layernorm"], "folds": 3}

    def test_trains_each_seed_on_each_fold_and_is_continued_and_widened_like_any(
        self, folded: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        assert run({**folded, "seeds": [0]}, tmp_path).trained == 3
        assert run({**folded, "seeds": [0]}, tmp_path).trained == 0
        done = run(folded, tmp_path, widen=True)
        assert done.trained == 3
        trials = done.results.trials()
        pairs = zip(trials["seed"].to_pylist(), trials["fold"].to_pylist(), strict=True)
        assert sorted(pairs) == [(seed, fold) for seed in (0, 1) for fold in range(3)]
        (best,) = done.results.best().to_pylist()
        assert (best["num_seeds"], best["num_folds"], best["num_configs_tried"]) == (6, 3, 1)
        with pytest.raises(FaultsError, match="6 of the 6 trials planned for small"):
            prepare({**folded, "folds": 4}, tmp_path)
        assert run({**folded, "name": "whole", "folds": None}, tmp_path).trained == 2
        assert load_results(tmp_path, "whole").trials()["fold"].null_count == 2
        assert load_results(tmp_path).trials()["fold"].null_count == 2

    def test_keeps_the_weights_of_the_best_replicate(
        self, folded: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        best = next(trial for trial in plan_sweep(folded).trials if (trial.config.seed, trial.config.fold) == (1, 1))
        scheduler.better = {best.trial_id}
        run(folded, tmp_path)
        assert [path.name for path in (tmp_path / "kept").iterdir()] == [best.trial_id]

    def test_searches_by_the_mean_over_all_replicates(
        self, folded: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        search = {**folded, "search": {"algorithm": "tpe", "num_samples": 2}}
        search["space"] = {"num_epochs": 1, "max_length": 16, "learning_rate": {"grid": [1e-4, 2e-4, 3e-4, 4e-4]}}
        scheduler.stop_after = 4
        progress = Counting()
        assert run(search, tmp_path, progress=progress).interrupted
        assert progress.counts == (12, 0)
        scheduler.stop_after = None
        done = run(search, tmp_path)
        assert (done.trained, done.results.counts()) == (8, {TrialStatus.COMPLETED: 12})
        assert run(search, tmp_path).trained == 0


class TestASearchThatPlansAsItGoes:
    @pytest.fixture
    def search(self, values: Values) -> Values:
        space = {"num_epochs": 1, "max_length": 16, "learning_rate": {"grid": [1e-4, 2e-4, 3e-4, 4e-4]}}
        return {
            **values,
            "methods": ["layernorm"],
            "space": space,
            "search": {"algorithm": "tpe", "num_samples": 3},
        }

    def test_has_what_it_proposed_in_its_plan_and_goes_on_where_it_was(
        self, search: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        scheduler.stop_after = 3
        progress = Counting()
        assert run(search, tmp_path, progress=progress).interrupted
        assert progress.counts == (6, 0)
        store = Store(tmp_path)
        planned = store.plan_table()["trial_id"].to_pylist()
        assert (len(planned), store.unproposed()) == (4, 2)
        assert load_results(tmp_path).counts() == {TrialStatus.COMPLETED: 3, TrialStatus.PLANNED: 3}
        scheduler.stop_after = None
        done = run(search, tmp_path, progress=progress)
        assert (done.trained, progress.counts) == (3, (6, 3))
        assert done.results.counts() == {TrialStatus.COMPLETED: 6}
        assert store.plan_table()["trial_id"].to_pylist()[:4] == planned
        assert len(scheduler.trained) == len(set(scheduler.trained)) == 6
        assert run(search, tmp_path).trained == 0

    def test_takes_what_another_sweep_trained_from_the_store(
        self, search: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        grid = {key: value for key, value in search.items() if key != "search"}
        assert run({**grid, "name": "all"}, tmp_path).trained == 8
        done = run(search, tmp_path)
        assert (done.trained, done.results.counts()) == (0, {TrialStatus.COMPLETED: 6})
        assert len(Listener.made[-1].ended) == 6

    def test_tries_again_what_failed_for_another_sweep(
        self, search: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        search["space"]["learning_rate"] = {"grid": [1]}
        search["search"]["num_samples"] = 1
        grid = {key: value for key, value in search.items() if key != "search"}
        assert run({**grid, "name": "all"}, tmp_path).trained == 2
        assert run(search, tmp_path).trained == 2
        assert len(Store(tmp_path).records()) == 2


def test_what_an_older_adaptune_trained_is_moved_aside_and_trained_again(
    values: Values, scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as past:
        past.setattr("trainables.config.OUTCOME_VERSION", 1)
        run(values, tmp_path)
    plan, store = prepare(values, tmp_path)
    notice = outcome_notice(plan, store)
    assert notice is not None
    assert notice.startswith("6 records are of outcome version 1")
    done = execute(plan, store, Silent(), make_report=False)
    assert (done.trained, done.results.counts()) == (6, {TrialStatus.COMPLETED: 6})
    assert len(store.records()) == 6
    assert store.plan_table()["trial_id"].to_pylist() == [trial.trial_id for trial in plan.trials]
    assert len(list((tmp_path / "superseded").iterdir())) == 1
    assert (tmp_path / "history" / "0001-plan.parquet").exists()
    assert outcome_notice(plan, store) is None


def test_early_stopping_is_told_of_what_the_store_holds(values: Values, scheduler: Scheduler, tmp_path: Path) -> None:
    values["early_stopping"] = "median"
    run(values, tmp_path)
    assert scheduler.earlier == []
    run({**values, "seeds": [0, 1, 2]}, tmp_path, widen=True)
    assert len(scheduler.earlier) == 6


def test_what_is_odd_in_the_data_is_kept_for_the_report(values: Values, scheduler: Scheduler, tmp_path: Path) -> None:
    plan, store = prepare(values, tmp_path)
    odd = pa.table({"task": [plan.trials[0].task], "warning": ["few-rows"], "sentence": ["test has 10 rows"]})
    done = execute(plan, store, Silent(), make_report=False, warnings=odd)
    assert done.results.data_warnings().equals(odd)
    looked_for = run(values, tmp_path).results.data_warnings()
    assert set(looked_for["warning"].to_pylist()) == set(data_warnings(plan)["warning"].to_pylist())


class TestAStorageThatFails:
    def test_at_the_end_costs_the_report_and_nothing_else(
        self, values: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        (tmp_path / "store").mkdir()
        (tmp_path / "store" / "report").write_text("in the way")
        done = execute(*prepare(values, tmp_path / "store"), Silent())
        assert done.report == ()
        assert done.report_fault is not None
        assert done.results.counts() == {TrialStatus.COMPLETED: 6}
        assert Listener.made[0].end is TrialStatus.COMPLETED

    def test_until_an_interrupt_leaves_the_count_of_what_is_lost(
        self, values: Values, scheduler: Scheduler, tmp_path: Path, failing: Any
    ) -> None:
        handler, filesystem = failing
        plan, _ = prepare(values, tmp_path)
        store = Store(str(tmp_path), filesystem=filesystem)
        scheduler.stop_after = 3

        def fail() -> None:
            handler.after = 0 if len(scheduler.trained) == 2 else None

        scheduler.before_each = fail
        progress = Counting()
        done = execute(plan, store, progress, only_driver=True)
        assert (done.interrupted, done.trained, done.unrecorded) == (True, 2, 1)
        assert progress.failing == ["No space left on device"]
        assert done.report_fault is not None
        assert len(Store(tmp_path).records()) == 2
        assert Listener.made[0].ended == scheduler.trained[:2]
        assert Listener.made[0].end is TrialStatus.CANCELLED


def test_a_cluster_that_cannot_be_joined_leaves_the_records_of_failed_trials_where_they_are(
    values: Values, scheduler: Scheduler, tmp_path: Path
) -> None:
    values = {**values, "methods": [*values["methods"], {"adapter": {"adapter_size": 8, "learning_rate": 1}}]}
    before = run(values, tmp_path).results
    assert before.counts()[TrialStatus.FAILED] == 2
    scheduler.fault = FaultsError("Ray", ["it must run there, but it does not"])
    with pytest.raises(FaultsError, match="it must run there"):
        run(values, tmp_path)
    assert load_results(tmp_path).trials().equals(before.trials())
    assert len(Listener.made) == 1  # MLflow is not told of a sweep that did not begin
    scheduler.fault = None
    assert run(values, tmp_path).trained == 2


def test_what_was_widened_meanwhile_is_not_narrowed(values: Values, scheduler: Scheduler, tmp_path: Path) -> None:
    plan, store = prepare(values, tmp_path)
    wider = plan_sweep({**values, "seeds": [0, 1, 2]})
    Store(tmp_path).create(wider.spec.to_json(), plan_table(wider))
    with pytest.raises(FaultsError, match="3 of the 9 trials"):
        execute(plan, store, Silent(), make_report=False)
    assert store.plan_table().num_rows == 9

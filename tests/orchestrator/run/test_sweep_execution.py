"""What `execute` keeps, trains and tells, with a scheduler that trains nothing and an MLflow that only listens."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import signal
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

import orchestrator.scheduling.tuner
import orchestrator.tracking
from orchestrator.planning.plan import plan_sweep, plan_table
from orchestrator.planning.preflight import data_warnings
from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.run import recording as recording_module
from orchestrator.run.continuation import outcome_notice
from orchestrator.run.recording import Silent
from orchestrator.run.sweep import SweepRun, execute, load_results, prepare
from orchestrator.scheduling.early_end import EarlyEnd
from orchestrator.store import Store
from orchestrator.store.files import Folder
from orchestrator.tracking import WinnerModel
from tests.factories import trial_record
from tests.predicted import of_trial
from trainables.faults import FaultsError

Values = dict[str, Any]


@dataclasses.dataclass
class Scheduler:
    """Ends every trial of a source at once with the same score; those whose learning rate is 1 fail."""

    trained: list[str] = dataclasses.field(default_factory=list)
    stop_after: int | None = None  # trials, and then an interrupt comes
    before_each: Callable[[], None] = lambda: None
    earlier: Sequence[TrialRecord] = ()
    asked_to_keep: list[bool] = dataclasses.field(default_factory=list)
    better: set[str] = dataclasses.field(default_factory=set)  # trials with another score
    lost: set[str] = dataclasses.field(default_factory=set)  # whose weights do not arrive

    def run(
        self, sweep: str, source: Any, observer: Any, *, earlier: Sequence[TrialRecord], **settings: Any
    ) -> EarlyEnd | None:
        self.earlier = earlier
        observer.engines_starting(1)
        observer.is_interrupted = lambda: self.stop_after is not None and len(self.trained) >= self.stop_after
        while not observer.is_interrupted() and (trial := source.next()) is not None:
            self.before_each()
            failed = trial.config.learning_rate == 1
            status = TrialStatus.FAILED if failed else TrialStatus.COMPLETED
            score, error = (None, "no") if failed else (0.5 + 0.1 * (trial.trial_id in self.better), None)
            record = trial_record(trial, status, sweep=sweep, metric="accuracy", validation_score=score, error=error)
            self.trained.append(trial.trial_id)
            self.asked_to_keep.append(settings["keep_predictions"])
            source.ended(record)
            if settings["keep_predictions"] and not failed:
                record = dataclasses.replace(record, started_at=f"training {len(self.trained)}")
                observer.trial_predicted(record, of_trial(len(self.trained)).splits)
            if settings["keep_weights"] and not failed:
                record = dataclasses.replace(record, started_at=f"training {len(self.trained)}")
                observer.trial_trained(record, lambda record=record: self._weights(record))
            observer.trials_ended([record])
        return EarlyEnd(signal=signal.SIGINT) if observer.is_interrupted() else None

    def _weights(self, record: TrialRecord) -> dict[str, bytes]:
        if record.trial_id in self.lost:
            raise ConnectionError("the engine has died")
        weights = record.trial_id.encode()
        about = {"started_at": record.started_at, "weights_sha256": hashlib.sha256(weights).hexdigest()}
        return {"adapter_model.safetensors": weights, "adapter_config.json": json.dumps(about).encode()}


class Listener:
    """A tracker that notes which trials it was told of, and how the sweep ended."""

    made: ClassVar[list[Listener]] = []

    def __init__(
        self, sweep: str, spec_json: str, *, varied: Any, data: Sequence[Any], tracking_uri: str | None = None
    ) -> None:
        self.sweep, self.refilled, self.ended, self.planned = sweep, [], [], None
        self.end: TrialStatus | None = None
        self.models: Sequence[WinnerModel] | None = None
        Listener.made.append(self)

    def refill(self, records: Sequence[TrialRecord], planned: Collection[str] | None = None) -> None:
        self.refilled, self.planned = [record.trial_id for record in records], planned

    def trial_ended(self, record: TrialRecord) -> None:
        self.ended.append(record.trial_id)

    def show_best(self, best: Sequence[Any]) -> None: ...

    def show_models(self, models: Sequence[WinnerModel]) -> None:
        self.models = models

    def log_artifacts(self, path: Any, folder: str) -> None: ...

    def close(self, status: TrialStatus, records: Callable[[], Sequence[TrialRecord]]) -> None:
        self.end = self.end or status
        self.all = [record.trial_id for record in records()]


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Scheduler:
    made = Scheduler()
    monkeypatch.setattr(orchestrator.scheduling.tuner, "run_trials", made.run)
    monkeypatch.setattr(orchestrator.tracking, "Tracker", Listener)
    monkeypatch.setattr(recording_module, "FIRST_WAIT_S", 0.01)
    Listener.made = []
    return made


class Counting(Silent):
    def __init__(self) -> None:
        self.counts: tuple[int, int] | None = None
        self.failing: list[str] = []

    def planned(self, trials: int, done: int) -> None:
        self.counts = (trials, done)

    def storage_failing(self, reason: str, waiting: int) -> None:
        self.failing.append(reason)


def _run(values: Values, store: Path, *, widen: bool = False, progress: Silent | None = None) -> SweepRun:
    return execute(*prepare(values, store, widen=widen), progress or Silent(), make_report=False)


class TestSweepsThatShareAStore:
    def test_train_nothing_that_another_has_trained_and_keep_their_own_plans(
        self, values: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        assert _run(values, tmp_path).trained == 6
        other = {**values, "name": "other", "seeds": [1, 2], "methods": ["layernorm", "bitfit"]}
        progress = Counting()
        done = _run(other, tmp_path, progress=progress)
        assert done.trained == 3  # of layernorm with seed 1 there is a record
        assert progress.counts == (4, 1)
        assert len(scheduler.trained) == len(set(scheduler.trained)) == 9
        store = Store(tmp_path)
        assert store.sweeps() == ("other", "small")
        assert done.results.counts() == {TrialStatus.COMPLETED: 4}
        assert load_results(tmp_path, "small").counts() == {TrialStatus.COMPLETED: 6}
        assert load_results(tmp_path).counts() == {TrialStatus.COMPLETED: 9}
        assert set(load_results(tmp_path, "other").epochs()["trial_id"].to_pylist()) == set()
        assert _run(values, tmp_path).trained == 0
        assert store.sweeps() == ("small", "other")
        assert len(store.records()) == 9

    def test_have_each_all_of_its_trials_in_mlflow(self, values: Values, scheduler: Scheduler, tmp_path: Path) -> None:
        _run(values, tmp_path)
        _run({**values, "name": "other", "seeds": [1, 2]}, tmp_path)
        first, second = Listener.made
        assert (first.sweep, first.planned, len(first.ended)) == ("small", None, 6)
        assert (second.sweep, len(second.refilled), len(second.ended)) == ("other", 3, 3)
        planned = {trial.trial_id for trial in plan_sweep({**values, "seeds": [1, 2]}).trials}
        assert set(second.planned or ()) == {*second.refilled, *second.ended} == set(second.all) == planned
        assert second.end is TrialStatus.COMPLETED

    def test_leave_each_others_failures_alone(self, values: Values, scheduler: Scheduler, tmp_path: Path) -> None:
        failing = {**values, "name": "failing", "methods": [{"adapter": {"adapter_size": 1, "learning_rate": 1}}]}
        assert _run(failing, tmp_path).results.counts() == {TrialStatus.FAILED: 2}
        _run(values, tmp_path)
        assert not (tmp_path / "superseded").exists()
        both = {**failing, "name": "both", "seeds": [1, 2]}
        assert _run(both, tmp_path).trained == 2  # seed 1 of them again
        assert load_results(tmp_path, "failing").counts() == {TrialStatus.FAILED: 2}
        assert len(list((tmp_path / "superseded").iterdir())) == 1

    def test_refuse_a_sweep_of_a_name_they_have_that_is_another(
        self, values: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        _run(values, tmp_path)
        _run({**values, "name": "other"}, tmp_path)
        with pytest.raises(FaultsError, match="6 of the 6 trials planned for small"):
            prepare({**values, "seeds": [7, 8]}, tmp_path)


class TestASweepWithFolds:
    @pytest.fixture
    def folded(self, values: Values) -> Values:
        return {**values, "methods": ["layernorm"], "folds": 3}

    def test_trains_each_seed_on_each_fold_and_is_continued_and_widened_like_any(
        self, folded: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        assert _run({**folded, "seeds": [0]}, tmp_path).trained == 3
        assert _run({**folded, "seeds": [0]}, tmp_path).trained == 0
        done = _run(folded, tmp_path, widen=True)
        assert done.trained == 3
        trials = done.results.trials()
        pairs = zip(trials["seed"].to_pylist(), trials["fold"].to_pylist(), strict=True)
        assert sorted(pairs) == [(seed, fold) for seed in (0, 1) for fold in range(3)]
        (best,) = done.results.best().to_pylist()
        assert (best["num_seeds"], best["num_folds"], best["num_configs_tried"]) == (6, 3, 1)
        with pytest.raises(FaultsError, match="6 of the 6 trials planned for small"):
            prepare({**folded, "folds": 4}, tmp_path)
        assert _run({**folded, "name": "whole", "folds": None}, tmp_path).trained == 2
        assert load_results(tmp_path, "whole").trials()["fold"].null_count == 2
        assert load_results(tmp_path).trials()["fold"].null_count == 2

    def test_keeps_the_weights_of_the_best_replicate(
        self, folded: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        best = next(trial for trial in plan_sweep(folded).trials if (trial.config.seed, trial.config.fold) == (1, 1))
        scheduler.better = {best.trial_id}
        _run(folded, tmp_path)
        assert [path.name for path in (tmp_path / "kept").iterdir()] == [best.trial_id]

    def test_searches_by_the_mean_over_all_replicates(
        self, folded: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        search = {**folded, "search": {"algorithm": "tpe", "num_samples": 2}}
        search["space"] = {"num_epochs": 1, "max_length": 16, "learning_rate": {"grid": [1e-4, 2e-4, 3e-4, 4e-4]}}
        scheduler.stop_after = 4
        progress = Counting()
        assert _run(search, tmp_path, progress=progress).interrupted
        assert progress.counts == (12, 0)
        scheduler.stop_after = None
        done = _run(search, tmp_path)
        assert (done.trained, done.results.counts()) == (8, {TrialStatus.COMPLETED: 12})
        assert _run(search, tmp_path).trained == 0


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
        assert _run(search, tmp_path, progress=progress).interrupted
        assert progress.counts == (6, 0)
        store = Store(tmp_path)
        planned = store.plan_table()["trial_id"].to_pylist()
        assert (len(planned), store.unproposed()) == (4, 2)
        assert load_results(tmp_path).counts() == {TrialStatus.COMPLETED: 3, TrialStatus.PLANNED: 3}
        scheduler.stop_after = None
        done = _run(search, tmp_path, progress=progress)
        assert (done.trained, progress.counts) == (3, (6, 3))
        assert done.results.counts() == {TrialStatus.COMPLETED: 6}
        assert store.plan_table()["trial_id"].to_pylist()[:4] == planned
        assert len(scheduler.trained) == len(set(scheduler.trained)) == 6
        assert _run(search, tmp_path).trained == 0

    def test_takes_what_another_sweep_trained_from_the_store(
        self, search: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        grid = {key: value for key, value in search.items() if key != "search"}
        assert _run({**grid, "name": "all"}, tmp_path).trained == 8
        done = _run(search, tmp_path)
        assert (done.trained, done.results.counts()) == (0, {TrialStatus.COMPLETED: 6})
        assert len(Listener.made[-1].ended) == 6

    def test_tries_again_what_failed_for_another_sweep(
        self, search: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        search["space"]["learning_rate"] = {"grid": [1]}
        search["search"]["num_samples"] = 1
        grid = {key: value for key, value in search.items() if key != "search"}
        assert _run({**grid, "name": "all"}, tmp_path).trained == 2
        assert _run(search, tmp_path).trained == 2
        assert len(Store(tmp_path).records()) == 2


def test_what_an_older_adaptune_trained_is_moved_aside_and_trained_again(
    values: Values, scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as past:
        past.setattr("trainables.config.OUTCOME_VERSION", 1)
        _run(values, tmp_path)
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
    _run(values, tmp_path)
    assert scheduler.earlier == []
    _run({**values, "seeds": [0, 1, 2]}, tmp_path, widen=True)
    assert len(scheduler.earlier) == 6


def test_what_is_odd_in_the_data_is_kept_for_the_report(values: Values, scheduler: Scheduler, tmp_path: Path) -> None:
    plan, store = prepare(values, tmp_path)
    odd = pa.table({"task": [plan.trials[0].task], "warning": ["few-rows"], "sentence": ["test has 10 rows"]})
    done = execute(plan, store, Silent(), make_report=False, warnings=odd)
    assert done.results.data_warnings().equals(odd)
    looked_for = _run(values, tmp_path).results.data_warnings()
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
        done = execute(plan, store, progress)
        assert (done.interrupted, done.trained, done.unrecorded) == (True, 2, 1)
        assert progress.failing == ["No space left on device"]
        assert done.report_fault is not None
        assert len(Store(tmp_path).records()) == 2
        assert Listener.made[0].ended == scheduler.trained[:2]
        assert Listener.made[0].end is TrialStatus.CANCELLED


def test_what_was_widened_meanwhile_is_not_narrowed(values: Values, scheduler: Scheduler, tmp_path: Path) -> None:
    plan, store = prepare(values, tmp_path)
    wider = plan_sweep({**values, "seeds": [0, 1, 2]})
    Store(tmp_path).create(wider.spec.to_json(), plan_table(wider))
    with pytest.raises(FaultsError, match="3 of the 9 trials"):
        execute(plan, store, Silent(), make_report=False)
    assert store.plan_table().num_rows == 9


class TestPredictions:
    def test_are_kept_unless_the_sweep_says_no_and_a_resume_may_change_its_mind(
        self, values: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        scheduler.stop_after = 2
        _run({**values, "keep_predictions": False}, tmp_path)
        assert scheduler.asked_to_keep == [False, False]
        assert not (tmp_path / "predictions").exists()
        without = list(scheduler.trained)
        results = load_results(tmp_path)
        with pytest.raises(FaultsError, match="because sweep small says keep_predictions: false"):
            results.predictions(without[0])
        scheduler.stop_after = None
        results = _run(values, tmp_path).results
        assert scheduler.asked_to_keep[2:] == [True] * 4
        assert len(scheduler.trained) == len(set(scheduler.trained)) == 6
        for trial_id in scheduler.trained[2:]:
            assert results.predictions(trial_id, "test").num_rows == 4
        with pytest.raises(
            FaultsError, match="none were kept when it was trained, or their file in predictions/ is gone"
        ):
            results.predictions(without[0])
        assert results.counts() == {TrialStatus.COMPLETED: 6}

    def test_asking_for_them_or_not_makes_no_other_trials(self, values: Values) -> None:
        with_them, without = (plan_sweep({**values, "keep_predictions": keep}) for keep in (True, False))
        assert with_them.trials == without.trials == plan_sweep(values).trials

    def test_of_a_training_that_was_never_recorded_are_not_taken_for_those_of_the_next(
        self, values: Values, scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Killed(BaseException):
            """The driver dies after it has kept predictions and before it has kept the record."""

        def die(store: Store, records: Sequence[TrialRecord]) -> None:
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Store, "append", die)
            with pytest.raises(Killed):
                _run(values, tmp_path)
        (first,) = scheduler.trained
        assert list(Store(tmp_path).statuses()) == []
        assert Store(tmp_path).predictions({first: "training 1"})
        results = _run(values, tmp_path).results
        assert scheduler.trained.count(first) == 2  # without a record it has to be trained
        assert len(scheduler.trained) == 7
        again = scheduler.trained.index(first, 1) + 1
        expected = of_trial(again).splits["test"].values
        assert results.predictions(first, "test")["prediction"].to_pylist() == list(expected)
        assert load_results(tmp_path).counts() == {TrialStatus.COMPLETED: 6}

    def test_older_and_newer_trials_answer_everything_else_side_by_side(
        self, values: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        done = _run(values, tmp_path)
        best = done.results.best().to_pylist()
        spec = (tmp_path / "spec.json").read_text(encoding="utf-8")
        (tmp_path / "spec.json").write_text(spec.replace(',\n  "keep_predictions": true', ""), encoding="utf-8")
        for path in sorted((tmp_path / "predictions").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        results = load_results(tmp_path)
        assert results.best().to_pylist() == best
        with pytest.raises(FaultsError, match="because it was trained by an adaptune that kept none"):
            results.predictions(scheduler.trained[0])

    def test_are_read_by_no_other_question(
        self, values: Values, scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _run(values, tmp_path)
        opened: list[str] = []
        for name in ("names", "sizes", "read", "exists"):
            original = getattr(Folder, name)

            def noting(self: Folder, *rest: Any, original: Any = original) -> Any:
                opened.append(self.path)
                return original(self, *rest)

            monkeypatch.setattr(Folder, name, noting)
        results = load_results(tmp_path)
        for ask in (
            results.trials,
            results.epochs,
            results.best,
            results.recommend,
            results.counts,
            results.throughput,
        ):
            ask()
        assert opened
        assert not [path for path in opened if "predictions" in path]
        results.predictions(scheduler.trained[0])
        assert [path for path in opened if "predictions" in path]


class TestWeights:
    def test_of_winners_alone_are_left_in_the_end_and_export_finds_them(
        self, values: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        plan = plan_sweep(values)
        scheduler.better = {trial.trial_id for trial in plan.trials if trial.config.seed == 1}
        done = _run(values, tmp_path)
        rows = {row["trial_id"]: row for row in done.results.trials().to_pylist()}
        best = done.results.best().to_pylist()
        kept = Store(tmp_path).kept_weights()
        assert kept <= scheduler.better  # the better seed stands for its configuration
        assert {rows[trial_id]["config_id"] for trial_id in kept} == {row["config_id"] for row in best}
        for trial_id in kept:
            files = Store(tmp_path).weights(trial_id, rows[trial_id]["started_at"])
            assert files is not None
            assert files["adapter_model.safetensors"] == trial_id.encode()
        assert _run(values, tmp_path).trained == 0
        assert Store(tmp_path).kept_weights() == kept

    def test_of_winners_become_models_once_the_sweep_has_ended_and_those_to_ship_versions(
        self, values: Values, scheduler: Scheduler, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        values = {**values, "register_model": "toys", "keep": "all"}
        scheduler.stop_after = 3
        _run(values, tmp_path)
        assert Listener.made[-1].models is None  # others may win yet
        scheduler.stop_after = None
        results = _run(values, tmp_path).results
        models = Listener.made[-1].models
        assert models is not None
        assert {model.record.config_id for model in models} == set(results.best()["config_id"].to_pylist())
        assert all(model.store == str(tmp_path) for model in models)
        for model in models:  # as the store has them
            files = model.files()
            assert files is not None
            assert files["adapter_model.safetensors"] == model.record.trial_id.encode()
        shipped = {model.record.config_id: model.register_as for model in models if model.register_as}
        (row,) = results.recommend().to_pylist()
        assert shipped == {row["config_id"]: "toys"}
        assert not caplog.records
        _run({**values, "register_model": None, "log_models": False}, tmp_path)
        assert Listener.made[-1].models is None

        (told,) = {model.record.trial_id for model in models if model.register_as}
        Store(tmp_path).remove_weights([told])
        _run(values, tmp_path)
        assert f"there are no weights of trial {told}" in caplog.text

    @pytest.mark.parametrize(("keep", "number"), [("all", 6), ("none", 0)])
    def test_of_all_or_none_are_kept_as_the_sweep_says(
        self, keep: str, number: int, values: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        _run({**values, "keep": keep}, tmp_path)
        assert len(Store(tmp_path).kept_weights()) == number
        assert plan_sweep({**values, "keep": keep}).trials == plan_sweep(values).trials

    def test_an_interrupted_sweep_keeps_who_may_win_and_a_resume_goes_on_with_them(
        self, values: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        scheduler.stop_after = 3
        _run(values, tmp_path)
        early = Store(tmp_path).kept_weights()
        assert early <= set(scheduler.trained)
        # A driver died after it had written the weights of a trial and before its record.
        (never,) = {trial.trial_id for trial in plan_sweep(values).trials[-1:]}
        Store(tmp_path).keep_weights(never, {"adapter_config.json": b"{}", "adapter_model.safetensors": b""})
        foreign = "0" * 16  # of another sweep
        Store(tmp_path).keep_weights(foreign, {"adapter_config.json": b"{}", "adapter_model.safetensors": b""})
        scheduler.stop_after = None
        scheduler.better = {trial.trial_id for trial in plan_sweep(values).trials} - set(scheduler.trained)
        results = _run(values, tmp_path).results
        rows = {row["trial_id"]: row for row in results.trials().to_pylist()}
        kept = Store(tmp_path).kept_weights()
        assert foreign in kept
        chosen = {row["config_id"] for row in results.best().to_pylist()}
        # The smaller adapter is one standard error behind the better one: among adapters it is the recommended.
        chosen |= {row["config_id"] for row in rows.values() if row["method"] == "adapter"}
        assert {rows[trial_id]["config_id"] for trial_id in kept - {foreign}} == chosen
        for trial_id in kept - {foreign}:
            assert Store(tmp_path).weights(trial_id, rows[trial_id]["started_at"]) is not None

    def test_that_do_not_arrive_cost_no_record_and_are_told_of(
        self, values: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        class Told(Silent):
            notices: ClassVar[list[str]] = []

            def notice(self, line: str) -> None:
                self.notices.append(line)

        scheduler.lost = {trial.trial_id for trial in plan_sweep(values).trials}
        done = _run(values, tmp_path, progress=Told())
        assert done.results.counts() == {TrialStatus.COMPLETED: 6}
        assert Store(tmp_path).kept_weights() == frozenset()
        (line,) = Told.notices
        assert "weights of 2 trials are not kept: the engine has died; `adaptune export` trains again" in line

    def test_that_the_storage_refuses_are_tried_again_with_the_next_records(
        self, values: Values, scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original, refusals = Store.keep_weights, iter([True, True, False])

        def refuse(store: Store, trial_id: str, files: Any) -> None:
            if next(refusals, False):
                raise OSError("No space left on device")
            original(store, trial_id, files)

        monkeypatch.setattr(Store, "keep_weights", refuse)
        results = _run({**values, "keep": "all"}, tmp_path).results
        assert results.counts() == {TrialStatus.COMPLETED: 6}
        assert Store(tmp_path).kept_weights() == set(scheduler.trained)

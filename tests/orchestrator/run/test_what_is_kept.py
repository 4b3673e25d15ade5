"""What a sweep keeps beside its records: what trials predicted, and the weights of those that may win."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from orchestrator.planning.plan import plan_sweep
from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.run.recording import Silent
from orchestrator.run.sweep import load_results
from orchestrator.store import Store
from orchestrator.store.files import Folder
from tests.orchestrator.run.pretended import Listener, Scheduler, Values, run
from tests.predicted import of_trial
from trainables.faults import FaultsError


class TestPredictions:
    def test_are_kept_unless_the_sweep_says_no_and_a_resume_may_change_its_mind(
        self, values: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        scheduler.stop_after = 2
        run({**values, "keep_predictions": False}, tmp_path)
        assert scheduler.asked_to_keep == [False, False]
        assert not (tmp_path / "predictions").exists()
        without = list(scheduler.trained)
        results = load_results(tmp_path)
        with pytest.raises(FaultsError, match="because sweep small says keep_predictions: false"):
            results.predictions(without[0])
        scheduler.stop_after = None
        results = run(values, tmp_path).results
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
                run(values, tmp_path)
        (first,) = scheduler.trained
        assert list(Store(tmp_path).statuses()) == []
        assert Store(tmp_path).predictions({first: "training 1"})
        results = run(values, tmp_path).results
        assert scheduler.trained.count(first) == 2  # without a record it has to be trained
        assert len(scheduler.trained) == 7
        again = scheduler.trained.index(first, 1) + 1
        expected = of_trial(again).splits["test"].values
        assert results.predictions(first, "test")["prediction"].to_pylist() == list(expected)
        assert load_results(tmp_path).counts() == {TrialStatus.COMPLETED: 6}

    def test_older_and_newer_trials_answer_everything_else_side_by_side(
        self, values: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        done = run(values, tmp_path)
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
        run(values, tmp_path)
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
        done = run(values, tmp_path)
        rows = {row["trial_id"]: row for row in done.results.trials().to_pylist()}
        best = done.results.best().to_pylist()
        kept = Store(tmp_path).kept_weights()
        assert kept <= scheduler.better  # the better seed stands for its configuration
        assert {rows[trial_id]["config_id"] for trial_id in kept} == {row["config_id"] for row in best}
        for trial_id in kept:
            files = Store(tmp_path).weights(trial_id, rows[trial_id]["started_at"])
            assert files is not None
            assert files["adapter_model.safetensors"] == trial_id.encode()
        assert run(values, tmp_path).trained == 0
        assert Store(tmp_path).kept_weights() == kept

    def test_of_winners_become_models_once_the_sweep_has_ended_and_those_to_ship_versions(
        self, values: Values, scheduler: Scheduler, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        values = {**values, "register_model": "toys", "keep": "all"}
        scheduler.stop_after = 3
        run(values, tmp_path)
        assert Listener.made[-1].models is None  # others may win yet
        scheduler.stop_after = None
        results = run(values, tmp_path).results
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
        run({**values, "register_model": None, "log_models": False}, tmp_path)
        assert Listener.made[-1].models is None

        (told,) = {model.record.trial_id for model in models if model.register_as}
        Store(tmp_path).remove_weights([told])
        run(values, tmp_path)
        assert f"there are no weights of trial {told}" in caplog.text

    @pytest.mark.parametrize(("keep", "number"), [("all", 6), ("none", 0)])
    def test_of_all_or_none_are_kept_as_the_sweep_says(
        self, keep: str, number: int, values: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        run({**values, "keep": keep}, tmp_path)
        assert len(Store(tmp_path).kept_weights()) == number
        assert plan_sweep({**values, "keep": keep}).trials == plan_sweep(values).trials

    def test_an_interrupted_sweep_keeps_who_may_win_and_a_resume_goes_on_with_them(
        self, values: Values, scheduler: Scheduler, tmp_path: Path
    ) -> None:
        scheduler.stop_after = 3
        run(values, tmp_path)
        early = Store(tmp_path).kept_weights()
        assert early <= set(scheduler.trained)
        # A driver died after it had written the weights of a trial and before its record.
        (never,) = {trial.trial_id for trial in plan_sweep(values).trials[-1:]}
        Store(tmp_path).keep_weights(never, {"adapter_config.json": b"{}", "adapter_model.safetensors": b""})
        foreign = "0" * 16  # of another sweep
        Store(tmp_path).keep_weights(foreign, {"adapter_config.json": b"{}", "adapter_model.safetensors": b""})
        scheduler.stop_after = None
        scheduler.better = {trial.trial_id for trial in plan_sweep(values).trials} - set(scheduler.trained)
        results = run(values, tmp_path).results
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
        done = run(values, tmp_path, progress=Told())
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
        results = run({**values, "keep": "all"}, tmp_path).results
        assert results.counts() == {TrialStatus.COMPLETED: 6}
        assert Store(tmp_path).kept_weights() == set(scheduler.trained)

"""The engine: whatever a trial does, an outcome comes of it, and the next trial trains."""

from __future__ import annotations

import dataclasses
import pickle
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch

from tests.factories import brief_config
from trainables import tasks
from trainables.config import OUTCOME_VERSION, TrialConfig
from trainables.device.hardware import DeviceLostError
from trainables.engine import engine as module
from trainables.engine.engine import Engine
from trainables.engine.inbox import Inbox
from trainables.outcome import EpochReport, OutcomeStatus, TrialOutcome
from trainables.training.device_data import on_device
from trainables.training.pack import Pack
from trainables.training.running_trial import Job

MakeConfig = Callable[..., TrialConfig]


def comparable(outcome: TrialOutcome) -> TrialOutcome:
    """All of an outcome but what a clock or the process decides."""
    return dataclasses.replace(
        outcome,
        started_at="",
        duration_s=0.0,
        examples_per_second=None,
        peak_memory_bytes=None,
        epochs=tuple(dataclasses.replace(epoch, duration_s=0.0) for epoch in outcome.epochs),
    )


def test_a_fold_trains_as_a_task_with_its_rows_does(
    engine: Engine, tiny_bert: Path, tmp_path: Path, task_folder: Callable[..., Path]
) -> None:
    config = brief_config(task=str(task_folder()), backbone=str(tiny_bert), max_length=16, folds=3, fold=1)
    (tmp_path / "own").mkdir()
    for split, table in tasks.load_trial(config).splits.items():
        pyarrow.parquet.write_table(table, tmp_path / "own" / f"{split}.parquet")
    own = dataclasses.replace(config, task=str(tmp_path / "own"), folds=None, fold=None)
    folds = [dataclasses.replace(config, fold=fold) for fold in range(3)]
    first, second, third = engine.run_all(folds)  # each alone: a pack is of one fold
    assert comparable(second) == comparable(engine.run(own))
    assert len({outcome.validation["loss"] for outcome in (first, second, third)}) == 3
    assert {outcome.pack_size for outcome in (first, second, third)} == {1.0}


class TestRun:
    def test_an_outcome_says_all_that_came_of_a_trial(self, engine: Engine, config: MakeConfig) -> None:
        reports: list[EpochReport] = []
        outcome = engine.run(config(), report=lambda epoch: reports.append(epoch) is None)
        assert outcome.status is OutcomeStatus.COMPLETED
        assert outcome.error is None
        assert outcome.epochs == tuple(reports)
        assert len(reports) == 2
        assert outcome.metric == "accuracy"
        assert outcome.validation_score == reports[-1].validation_score == outcome.validation["accuracy"]
        assert outcome.test_score == outcome.test["accuracy"]
        without_head = 2 * 2 * (2 * 16 * 4 + 16 + 4) + 4 * 2 * 16 + 2 * 16
        assert outcome.trained_params_without_head == without_head
        assert outcome.trained_params == without_head + 2 * 17
        assert outcome.total_params is not None
        assert outcome.total_params > outcome.trained_params
        assert outcome.duration_s > 0
        assert outcome.examples_per_second is not None
        assert outcome.examples_per_second > 0
        assert outcome.pack_size == 1
        assert outcome.peak_memory_bytes is None or outcome.peak_memory_bytes > 1_000_000
        assert outcome.started_at.endswith("+00:00")

    def test_an_outcome_says_what_made_it(self, engine: Engine, config: MakeConfig) -> None:
        provenance = engine.run(config(num_epochs=1)).provenance
        assert provenance["torch"] == torch.__version__
        assert provenance["outcome_version"] == str(OUTCOME_VERSION)
        assert provenance["precision"] == "float32"
        assert provenance.keys() >= {"transformers", "numpy", "python", "device", "num_threads"}
        assert all(isinstance(value, str) and value for value in provenance.values())

    def test_an_outcome_crosses_processes(self, engine: Engine, config: MakeConfig) -> None:
        outcome = engine.run(config(num_epochs=1))
        assert pickle.loads(pickle.dumps(outcome)) == outcome

    def test_the_same_trial_twice_is_the_same_outcome(self, config: MakeConfig, cache_dir: Path) -> None:
        first, again = (Engine(device="cpu", cache_dir=cache_dir).run(config(seed=5)) for _ in range(2))
        assert comparable(first) == comparable(again)

    def test_a_trial_s_outcome_does_not_depend_on_the_trials_before_it(
        self, engine: Engine, config: MakeConfig, cache_dir: Path
    ) -> None:
        engine.run(config(method="full_finetuning", method_options={}, seed=1))
        after = engine.run(config(seed=5))
        assert comparable(after) == comparable(Engine(device="cpu", cache_dir=cache_dir).run(config(seed=5)))

    def test_another_seed_is_another_outcome(self, engine: Engine, config: MakeConfig) -> None:
        first, other = (engine.run(config(seed=seed)) for seed in (5, 6))
        assert first.epochs[-1].train_loss != other.epochs[-1].train_loss

    def test_a_regression_is_measured_as_its_task_says(self, engine: Engine, config: MakeConfig) -> None:
        outcome = engine.run(config("regression", num_epochs=10, dropout=0.0))
        assert outcome.metric == "pearson"
        assert outcome.test.keys() == {"pearson", "loss"}
        assert outcome.test_score is not None
        assert outcome.test_score > 0.5

    def test_bf16_scores_are_near_those_of_float32(self, engine: Engine, config: MakeConfig) -> None:
        exact, rounded = (engine.run(config(precision=each, num_epochs=3, dropout=0.0)) for each in ("fp32", "bf16"))
        assert rounded.provenance["precision"] == "bfloat16"
        for ours, theirs in zip(exact.epochs, rounded.epochs, strict=True):
            assert ours.train_loss == pytest.approx(theirs.train_loss, rel=0.05)
            assert ours.validation["loss"] == pytest.approx(theirs.validation["loss"], rel=0.1)
            assert ours.validation["loss"] != theirs.validation["loss"]
        assert exact.test_score == pytest.approx(rounded.test_score, abs=0.15)

    @pytest.mark.parametrize("metric", ["accuracy", "least"])
    def test_the_best_epoch_is_the_first_of_the_best_and_scores_are_the_last(
        self, metric: str, engine: Engine, config: MakeConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        scores = iter([0.5, 0.9, 0.4, 0.9, 0.4, 0.7, 0.6])  # of six epochs, then of the test split
        accuracy = module.metrics.get("accuracy")
        direction = dataclasses.replace(accuracy, mode="max" if metric == "accuracy" else "min")
        monkeypatch.setattr(module.metrics, "get", lambda name: direction)
        monkeypatch.setattr("trainables.training.pack.score", lambda *given: {"accuracy": next(scores), "loss": 1.0})
        outcome = engine.run(config(num_epochs=6))
        assert outcome.best_epoch == (2 if metric == "accuracy" else 3)
        assert (outcome.validation_score, outcome.test_score) == (0.7, 0.6)


class TestSeveralBackbones:
    @pytest.mark.thorough
    def test_one_is_held_at_a_time_and_those_of_the_loaded_one_come_first(
        self, engine: Engine, config: MakeConfig, checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loaded, other = [], str(checkpoint("distilbert"))
        held: list[weakref.ref[Any]] = []

        def load(name: str, **how: Any) -> Any:
            assert all(each() is None for each in held)  # its memory is free before the next one's is taken
            backbone = load_backbone(name, **how)
            loaded.append(name)
            held.append(weakref.ref(backbone.encoder))
            return backbone

        load_backbone = module.load_backbone
        monkeypatch.setattr(module, "load_backbone", load)
        first = config().backbone
        alternating = [config(num_epochs=1, seed=n, backbone=name) for n in range(2) for name in (first, other)]
        together = engine.run_all([*alternating, config(method="no_bert", method_options={}, num_epochs=1)])
        assert loaded == [first, other]
        monkeypatch.undo()
        alone = Engine(device="cpu", cache_dir=engine.cache_dir)
        by_turns = [alone.run(each) for each in alternating]  # it changes three times
        assert [each.validation_score for each in together[:4]] == [each.validation_score for each in by_turns]


class TestEnding:
    def test_a_trial_that_diverges_fails_and_the_next_one_trains(self, engine: Engine, config: MakeConfig) -> None:
        failed = engine.run(config(learning_rate=1e30))
        assert failed.status is OutcomeStatus.FAILED
        assert failed.error is not None
        assert "TrainingDivergedError: the training loss became" in failed.error
        assert (failed.validation_score, failed.test_score, failed.best_epoch) == (None, None, None)
        assert failed.provenance["torch"] == torch.__version__
        after = engine.run(config())
        assert after.status is OutcomeStatus.COMPLETED
        assert comparable(after) == comparable(Engine(device="cpu", cache_dir=engine.cache_dir).run(config()))

    @pytest.mark.parametrize(
        ("values", "reason"),
        [
            ({"task": "/no/such/task"}, "no such folder"),
            ({"backbone": "/no/such/backbone"}, "/no/such/backbone"),
            ({"method": "adaptor"}, "did you mean 'adapter'"),
            ({"method_options": {"adapter_size": 17}}, r"must be in [1, 16]"),
        ],
    )
    def test_a_fault_of_a_trial_is_its_outcome(
        self, values: dict[str, Any], reason: str, engine: Engine, config: MakeConfig
    ) -> None:
        outcome = engine.run(config(**values))
        assert outcome.status is OutcomeStatus.FAILED
        assert outcome.error is not None
        assert reason in outcome.error

    def test_a_trial_that_fails_late_keeps_the_epochs_it_reported(self, engine: Engine, config: MakeConfig) -> None:
        def report(epoch: EpochReport) -> bool:
            if epoch.epoch == 2:
                raise RuntimeError("the reader of reports is gone")
            return True

        outcome = engine.run(config(num_epochs=3), report=report)
        assert outcome.status is OutcomeStatus.FAILED
        assert [epoch.epoch for epoch in outcome.epochs] == [1, 2]
        assert "the reader of reports is gone" in (outcome.error or "")

    def test_a_trial_may_be_pruned_or_cancelled(self, engine: Engine, config: MakeConfig) -> None:
        pruned = engine.run(config(), report=lambda epoch: False)
        assert (pruned.status, len(pruned.epochs), pruned.test_score) == (OutcomeStatus.PRUNED, 1, None)
        assert (pruned.validation_score, pruned.best_epoch) == (pruned.epochs[0].validation_score, 1)
        cancelled = engine.run(config(), cancelled=lambda: True)
        assert (cancelled.status, cancelled.epochs) == (OutcomeStatus.CANCELLED, ())
        assert (cancelled.validation_score, cancelled.best_epoch) == (None, None)
        assert cancelled.trained_params is not None

    def test_an_interrupt_is_not_taken_for_a_failure(self, engine: Engine, config: MakeConfig) -> None:
        def interrupt() -> bool:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            engine.run(config(), cancelled=interrupt)


class TestLostDevice:
    """A GPU that fails every call after the first error must not be the end of all trials that are still to come."""

    @pytest.fixture
    def lost(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Where something is written, the device is lost."""
        found: list[str] = []

        def raise_if_lost(device: torch.device, error: BaseException | None) -> None:
            if found:
                raise DeviceLostError(found[0]) from error

        monkeypatch.setattr("trainables.engine.pack_run.raise_if_lost", raise_if_lost)
        monkeypatch.setattr("trainables.engine.engine.raise_if_lost", raise_if_lost)
        return found

    def break_at(self, method: str, lost: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*given: Any) -> None:
            lost.append("the device is gone")
            raise RuntimeError("CUDA error")

        monkeypatch.setattr(Pack, method, broken)

    @pytest.mark.parametrize("method", ["step", "end_epochs", "join", "diverged"])
    def test_no_trial_is_told_that_it_failed_and_those_that_wait_go_on_waiting(
        self, method: str, engine: Engine, config: MakeConfig, lost: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.break_at(method, lost, monkeypatch)
        inbox, told = Inbox(), list[TrialOutcome]()
        jobs = [
            Job(config=config(seed=0), done=told.append),
            Job(config=config(method="layernorm", method_options={}), done=told.append),
        ]
        for job in jobs:
            inbox.put(job)
        with pytest.raises(DeviceLostError, match="the device is gone"):
            engine.work(inbox)
        assert not told
        assert inbox.take(2, lambda job: True) == jobs[1:]

    def test_one_that_is_trained_alone_fails_with_it(
        self, engine: Engine, config: MakeConfig, lost: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.break_at("step", lost, monkeypatch)
        outcome = engine.run(config())
        assert outcome.status is OutcomeStatus.FAILED
        assert "the device is gone" in str(outcome.error)


@pytest.mark.parametrize(("memory_bytes", "is_in_memory"), [(1000, False), (2**30, True)])
def test_what_is_kept_of_frozen_layers_fits_beside_packs_into_the_engine_s_memory(
    memory_bytes: int, is_in_memory: bool, config: MakeConfig, cache_dir: Path
) -> None:
    """An engine a core, of which each kept a gigabyte, would together take more than there is."""
    engine = Engine(device="cpu", cache_dir=cache_dir, memory_bytes=memory_bytes)
    context = engine._prepare(config(method="feature_based", method_options={}))
    features = context.prefixes.features(context.data["train"], context.backbone.encoder)
    assert isinstance(features.values, np.memmap) == (not is_in_memory)


def test_an_outcome_that_nobody_takes_does_no_harm_to_other_trials(engine: Engine, config: MakeConfig) -> None:
    def refuse(outcome: TrialOutcome) -> None:
        raise RuntimeError("nobody is there")

    inbox, told = Inbox(), list[TrialOutcome]()
    inbox.put(Job(config=config(task="no/such"), done=refuse))  # which fails before its pack begins
    inbox.put(Job(config=config(num_epochs=1), done=refuse))
    inbox.put(Job(config=config(seed=1, num_epochs=1), done=told.append))
    engine.work(inbox)
    assert [outcome.status for outcome in told] == [OutcomeStatus.COMPLETED]


def test_what_a_task_has_on_the_device_goes_with_its_pack(
    engine: Engine, config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = list[weakref.ref[torch.Tensor]]()

    def gathers(self: Pack) -> bool:
        held.append(weakref.ref(on_device(self._data["train"], self.weights.device).labels))
        return False

    monkeypatch.setattr(Pack, "_gathers", gathers)
    assert engine.run(config(num_epochs=1)).status is OutcomeStatus.COMPLETED
    assert held
    assert not any(each() is not None for each in held)


def test_a_backbone_and_a_task_are_loaded_once(
    engine: Engine, config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("load_backbone", "tokenize"):
        original = getattr(module, name)

        def counted(*given: Any, name: str = name, original: Any = original, **options: Any) -> Any:
            calls.append(name)
            return original(*given, **options)

        monkeypatch.setattr(module, name, counted)
    for seed in range(2):
        assert engine.run(config(seed=seed, num_epochs=1)).status is OutcomeStatus.COMPLETED
    assert sorted(calls) == ["load_backbone", "tokenize"]
    engine.run(config(num_epochs=1, max_length=8))
    engine.run(config(num_epochs=1, precision="bf16"))
    assert sorted(calls) == ["load_backbone", "load_backbone", "tokenize", "tokenize"]


def test_an_engine_is_named_by_host_and_device() -> None:
    import platform

    assert Engine(device="cpu").name == f"{platform.node()}/cpu"


def test_an_engine_takes_as_many_threads_as_it_is_given() -> None:
    Engine(device="cpu", num_threads=2)
    assert torch.get_num_threads() == 2
    Engine(device="cpu", num_threads=1)
    assert torch.get_num_threads() == 1

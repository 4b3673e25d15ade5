"""`adaptune plan` as a price tag: time, cost, memory and packs, in words and as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main
from orchestrator.estimate.sweep_calibration import representatives
from orchestrator.planning.plan import SweepPlan, plan_sweep, plan_table
from orchestrator.record import TrialRecord
from orchestrator.spec.absolute_paths import with_absolute_paths
from orchestrator.spec.sweep_file import read_sweep
from orchestrator.store import Store
from tests.factories import epoch_report, trial_record
from trainables.device.hardware import default_device, device_name
from trainables.estimate import calibration
from trainables.estimate.benchmark import BenchmarkEngine, Sample

Plan = Callable[..., dict[str, Any]]
WriteSweep = Callable[..., str]
ESTIMATE_KEYS = {
    "devices", "price", "seconds", "low_seconds", "high_seconds", "cost", "low_cost", "high_cost", "source", "shares",
    "error", "within_factor", "start_seconds", "seconds_without_early_stopping", "epochs", "memory_bytes",
    "memory_is_measured", "packs", "unknown", "notes",
}  # fmt: skip


@pytest.fixture
def plan(write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str]) -> Plan:
    """Plans the small sweep and gives what was printed for scripts."""

    def run(*arguments: str, **changes: Any) -> dict[str, Any]:
        assert main(["plan", write_sweep(**changes), "--json", *arguments]) == 0
        (line,) = capsys.readouterr().out.strip().splitlines()
        answer: dict[str, Any] = json.loads(line)
        return answer

    return run


def test_without_a_measurement_arithmetic_tells_within_a_factor_of_two(plan: Plan) -> None:
    answer = plan()
    found = answer["estimate"]
    assert set(found) == ESTIMATE_KEYS
    assert (found["source"], found["error"], found["within_factor"]) == ("arithmetic", 1.0, 2.0)
    assert 0 < found["low_seconds"] < found["seconds"] < found["high_seconds"]
    assert found["cost"] is None
    assert found["epochs"] == {"expected": 12, "most": 12}
    assert found["packs"]["count"] >= 1
    assert found["memory_bytes"] > 0
    assert (answer["num_trials"], answer["num_remaining"], answer["is_adaptive"]) == (6, 6, False)
    methods = {each["method"]: each for each in answer["methods"]}
    assert methods["adapter"]["num_configurations"] == 2
    low, high = methods["adapter"]["trained_params"]
    assert low < high


def test_devices_and_their_price_are_ones_to_name(plan: Plan) -> None:
    one, four = (plan("--devices", count, "--price", "3.6")["estimate"] for count in ("1", "4"))
    assert one["seconds"] >= four["seconds"]
    for found, devices in ((one, 1), (four, 4)):
        assert found["cost"] == pytest.approx(found["seconds"] * devices * 1e-3)
        assert found["low_cost"] < found["cost"] < found["high_cost"]


def test_of_a_search_the_trials_of_other_sweeps_in_its_store_are_left_to_train(
    plan: Plan, write_sweep: WriteSweep
) -> None:
    planned = _planned(write_sweep())
    _store("sweeps/shared", planned, _records(planned, step_s=0.01))
    space = {"learning_rate": {"loguniform": [1e-4, 1e-2]}, "num_epochs": 2}
    search = {"algorithm": "tpe", "num_samples": 1}
    answer = plan("--store", "sweeps/shared", name="other", space=space, methods=["layernorm"], search=search)
    assert answer["num_remaining"] == answer["num_trials"] < len(planned.trials)
    assert answer["estimate"]["seconds"] > 0


def test_what_has_a_finished_record_costs_nothing_more(plan: Plan, write_sweep: WriteSweep) -> None:
    planned = _planned(write_sweep())
    _store("sweeps/small", planned, _records(planned, step_s=0.01))
    answer = plan("--price", "1")
    assert (answer["num_finished"], answer["num_remaining"]) == (6, 0)
    assert (answer["estimate"]["seconds"], answer["estimate"]["cost"]) == (0.0, 0.0)
    wider = plan(seeds=[0, 1, 2])
    assert wider["num_remaining"] == 3
    assert wider["estimate"]["source"] == "records"


def test_records_of_an_earlier_sweep_are_learned_from(plan: Plan, write_sweep: WriteSweep) -> None:
    earlier = _planned(write_sweep(seeds=[7]))
    _store("earlier", earlier, _records(earlier, step_s=2.0))
    found = plan("--from", "earlier", "--devices", "1", "--store", "new")["estimate"]
    assert found["source"] == "records"
    assert found["error"] < 0.5
    assert found["notes"] == []
    # 6 trials of 8 steps of 2 s, and 2 s for what evaluates them.
    assert found["seconds"] - found["start_seconds"] == pytest.approx(6 * (8 * 2 + 2), rel=0.15)


def test_records_of_another_host_are_said_to_be(plan: Plan, write_sweep: WriteSweep) -> None:
    earlier = _planned(write_sweep(seeds=[7]))
    _store("earlier", earlier, _records(earlier, step_s=2.0, host="elsewhere"))
    found = plan("--from", "earlier", "--store", "new")["estimate"]
    assert found["source"] == "records"
    assert "another host" in found["notes"][0]


def test_a_store_to_learn_from_must_be_one(write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", write_sweep(), "--from", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_a_calibration_measures_and_serves_later_plans(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Sample] = []

    def here(samples: Sequence[Sample], **options: Any) -> calibration.Calibration:
        """In this process, which spares the start of others."""
        measured.extend(samples)
        engine = BenchmarkEngine(device="cpu", num_threads=1)
        return calibration.combine([engine.measure_all(samples, seconds=0.2, wait=lambda: None)])

    monkeypatch.setattr(calibration, "calibrate", here)
    assert plan()["estimate"]["source"] == "arithmetic"
    calibrated = plan("--calibrate")["estimate"]
    assert calibrated["source"] == "calibration"
    assert calibrated["error"] <= 0.25
    methods = [sample.config.method for sample in measured]
    assert sorted(methods) == ["adapter", "adapter", "full_finetuning"]  # the smallest and the largest adapter
    later = plan()["estimate"]
    assert len(measured) == 3
    assert (later["source"], later["seconds"]) == ("calibration", calibrated["seconds"])
    assert not Path("sweeps").exists()


@pytest.mark.timeout(240)
@pytest.mark.thorough
def test_engines_measure_in_processes_of_their_own(write_sweep: WriteSweep) -> None:
    planned = _planned(write_sweep())
    heard: list[str] = []
    samples = [_sample(planned)]
    found = calibration.calibrate(samples, engines=2, num_threads=1, seconds=0.2, note=heard.append)
    assert (found.engines, len(found.throughputs), found.faults) == (2, 1, ())
    assert found.start_s > 0
    assert heard


def test_early_stopping_gives_what_to_expect_and_the_most(plan: Plan) -> None:
    space = {"num_epochs": 9, "learning_rate": {"grid": [1e-4, 2e-4, 4e-4, 1e-3]}, "batch_size": 16}
    found = plan(early_stopping="asha", space=space)["estimate"]
    assert found["epochs"]["most"] == 24 * 9
    assert 24 < found["epochs"]["expected"] < 24 * 9
    assert found["seconds"] < found["seconds_without_early_stopping"]
    median = plan(early_stopping="median", space=space)["estimate"]
    assert median["epochs"]["expected"] is None
    assert median["notes"]


def test_an_adaptive_search_is_estimated_by_as_many_trials_drawn_by_chance(plan: Plan) -> None:
    space = {"num_epochs": 2, "learning_rate": {"loguniform": [1e-4, 1e-2]}, "batch_size": 16}
    answer = plan(search={"algorithm": "tpe", "num_samples": 5}, space=space, methods=["layernorm"])
    assert answer["is_adaptive"]
    assert (answer["num_trials"], answer["num_configurations"], answer["trials"]) == (10, 5, [])
    assert answer["estimate"]["seconds"] > 0
    assert "by chance" in answer["estimate"]["notes"][0]


def test_what_cannot_be_known_is_null(plan: Plan) -> None:
    answer = plan(backbone="google-bert/bert-base-uncased")
    found = answer["estimate"]
    assert set(found) == ESTIMATE_KEYS
    assert (found["seconds"], found["cost"], found["source"], found["packs"]) == (None, None, None, None)
    assert found["unknown"]
    assert answer["missing"]


def test_the_same_is_said_in_words(write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", write_sweep(early_stopping="asha"), "--devices", "2", "--price", "1.5"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in ("6 trials", "Time: about", "2 devices", "arithmetic", "Cost: about", "Memory: about", "packs of"):
        assert part in text


def test_of_many_kinds_those_that_the_sweep_spends_most_on_are_measured(write_sweep: WriteSweep) -> None:
    sizes = {"adapter": {"adapter_size": {"grid": [1, 2, 3, 4]}}}
    planned = _planned(write_sweep(methods=[sizes, "layernorm", "bitfit", "feature_based"]))
    costs = [_cost(trial) for trial in planned.trials]
    chosen = representatives(planned.trials, costs, 4)
    assert [sample.config.method_options.get("adapter_size") for sample in chosen[:2]] == [1, 4]
    assert chosen[0].pack_size == 2  # there are no more of this kind than two seeds
    assert len({sample.config.method for sample in chosen}) == 4


def _planned(path: str) -> SweepPlan:
    return plan_sweep(with_absolute_paths(read_sweep(path, ())))


def _cost(trial: Any) -> Any:
    from trainables.estimate.flops import measure_task
    from trainables.estimate.preview import preview_backbone
    from trainables.estimate.trial_cost import trial_cost

    return trial_cost(
        trial.config,
        measure_task(trial.config.task, trial.config.max_length),
        task_fingerprint=trial.provenance["data_fingerprint"],
        backbone=preview_backbone(trial.config.backbone).info,
        trained_params=trial.trained_params,
        device=default_device(),
    )


def _sample(planned: SweepPlan) -> Sample:
    found = _cost(planned.trials[0])
    return Sample(config=planned.trials[0].config, kind=found.kind, work=found.work, pack_size=2)


def _store(place: str, planned: SweepPlan, records: Sequence[TrialRecord]) -> None:
    store = Store(place)
    with store.lock():
        store.create(planned.spec.to_json(), plan_table(planned))
        store.append(records)


def _records(planned: SweepPlan, *, step_s: float, host: str | None = None) -> list[TrialRecord]:
    """Of trials that trained alone, 4 steps an epoch, with an evaluation of a quarter of a step."""
    engine = f"{host or platform.node()}/cpu"
    epochs = tuple(epoch_report(number, step=4 * number, duration_s=4 * step_s + step_s / 4) for number in (1, 2))
    return [
        trial_record(
            trial,
            sweep=planned.spec.name,
            engine=engine,
            duration_s=8 * step_s + step_s,
            epochs=epochs,
            metric="accuracy",
            validation_score=0.5,
            examples_per_second=trial.config.batch_size / step_s,
            pack_size=1.0,
            provenance={**trial.provenance, "device": device_name(default_device())},
        )
        for trial in planned.trials
    ]

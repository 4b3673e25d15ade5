"""`adaptune simulate`: a store timed by its own records, a sweep timed by those of a store or by arithmetic."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from orchestrator.cli import main
from orchestrator.estimate.plan_estimate import existing
from orchestrator.planning.plan import PlannedTrial, SweepPlan, plan_table
from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.spec.early_stopping import Asha
from orchestrator.spec.spec import MethodSpec, SearchSpec, SweepSpec
from orchestrator.store import Store
from tests.factories import epoch_report, planned_trial, trial_config, trial_record
from trainables.estimate import flops
from trainables.estimate.throughput import DeviceRate

Simulate = Callable[..., dict[str, Any]]
STEP_S, EVALUATION_S, EPOCHS, STEPS = 2.0, 6.0, 3, 20


@pytest.fixture
def simulate(home: Any, capsys: pytest.CaptureFixture[str]) -> Simulate:
    """Simulates and gives what was printed for scripts."""

    def run(*arguments: str) -> dict[str, Any]:
        assert main(["simulate", *arguments, "--json"]) == 0
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    return run


def trials(count: int) -> Iterator[PlannedTrial]:
    for seed in range(count):
        config = trial_config(task="opinion", backbone="any", seed=seed, num_epochs=EPOCHS, batch_size=8)
        yield planned_trial(f"t{seed}", config, num_steps=EPOCHS * STEPS, pack_key="pack", provenance={})


def record(trial: PlannedTrial, *, epochs: int = EPOCHS, **changes: Any) -> TrialRecord:
    """Of a trial alone on an engine: so many steps an epoch, an evaluation after each, and a test as long as one."""
    reports = tuple(epoch_report(number + 1, step=STEPS * (number + 1)) for number in range(epochs))
    duration_s = epochs * (STEPS * STEP_S + EVALUATION_S) + EVALUATION_S
    fixed = {"engine": "elsewhere/cuda:0", "examples_per_second": 8 / STEP_S, "pack_size": 1.0, "test_score": 0.5}
    found = trial_record(trial, sweep="wide", epochs=reports, duration_s=duration_s, provenance={"device": "GPU X"})
    return dataclasses.replace(found, **(fixed | changes))


def write_store(home: Any, count: int = 8, recorded: int = 8, *, records: Any = (), **spec: Any) -> str:
    made = SweepSpec(name="wide", tasks=("opinion",), methods=(MethodSpec(method="adapter"),), **spec)
    plan = SweepPlan(spec=made, trials=tuple(trials(count)))
    store = Store(home / "wide")
    with store.lock():
        store.create(made.to_json(), plan_table(plan))
        store.append(records or [record(trial) for trial in plan.trials[:recorded]])
    return str(home / "wide")


def test_a_store_is_simulated_as_its_records_tell(simulate: Simulate, home: Any) -> None:
    answer = simulate(write_store(home), "--nodes", "1,8", "--price", "3.6")
    alone = EPOCHS * STEPS * STEP_S + EPOCHS * EVALUATION_S + EVALUATION_S
    one, eight = answer["sizes"]
    assert (answer["num_trials"], one["devices"], eight["devices"]) == (8, 1, 8)
    # The next trial is under way before the one before it ends.
    assert one["seconds"] - answer["start_seconds"] == pytest.approx(8 * alone, rel=0.02)
    assert eight["seconds"] - answer["start_seconds"] == pytest.approx(alone, rel=0.02)
    assert eight["cost"] == pytest.approx(eight["seconds"] * 8 / 1000)
    assert answer["least_seconds"] == pytest.approx(eight["seconds"], rel=0.01)
    assert answer["stops_paying_at"] is None
    assert any("GPU X" in note for note in answer["notes"])


def test_trials_without_a_record_take_what_their_like_took(simulate: Simulate, home: Any) -> None:
    whole = simulate(write_store(home, recorded=3), "--nodes", "2")
    assert whole["num_trials"] == 8
    assert whole["sizes"][0]["utilisation"] > 0.9


def test_pruned_and_failed_trials_end_where_they_ended(simulate: Simulate, home: Any) -> None:
    planned = list(trials(8))
    ends = [record(trial) for trial in planned[:2]]
    ends += [record(planned[2], status=TrialStatus.FAILED, epochs=0)]
    ends += [record(trial, status=TrialStatus.PRUNED, epochs=1) for trial in planned[3:]]
    answer = simulate(write_store(home, records=ends, early_stopping=Asha()), "--nodes", "1")
    epoch_s = STEPS * STEP_S + EVALUATION_S
    expected = 2 * (3 * epoch_s + EVALUATION_S) + 6 * epoch_s
    assert answer["sizes"][0]["seconds"] - answer["start_seconds"] == pytest.approx(expected, rel=0.05)


def test_more_nodes_than_there_are_trials_stop_paying(simulate: Simulate, home: Any) -> None:
    answer = simulate(write_store(home), "--nodes", "1000 1,10,100")
    assert [size["nodes"] for size in answer["sizes"]] == [1, 10, 100, 1000]
    assert answer["stops_paying_at"] == 10
    assert [step["pays"] for step in answer["steps"]] == [True, False, False]


def test_failures_come_by_the_seed_and_begin_trials_anew(simulate: Simulate, home: Any) -> None:
    store = write_store(home, 40)
    options = (store, "--nodes", "4", "--failures-per-hour", "10", "--seed")
    first, again, other = (simulate(*options, seed) for seed in ("1", "1", "2"))
    assert first == again
    assert first["sizes"] != other["sizes"]
    assert first["sizes"][0]["begun_anew"] > 0


def test_a_search_that_asks_for_few_trials_at_a_time_leaves_nodes_idle(simulate: Simulate, home: Any) -> None:
    store = write_store(home, search=SearchSpec(max_concurrent_trials=2))
    few, many = simulate(store, "--nodes", "2,8")["sizes"]
    assert few["seconds"] == many["seconds"]


def test_nodes_without_gpus_are_counted_in_cores(
    home: Any, simulate: Simulate, capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_store(home)
    assert simulate(store, "--nodes", "2", "--cpus-per-node", "3")["sizes"][0]["devices"] == 6
    assert main(["simulate", store, "--nodes", "2,20", "--cpus-per-node", "2", "--price", "1"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in ("Sweep wide, 8 trials", "nodes cores time", "More than 4 cores stop paying", "No number of cores"):
        assert part in text


def test_a_sweep_without_records_is_timed_by_arithmetic(
    simulate: Simulate, write_sweep: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flops, "measure_device", lambda *_, **__: DeviceRate(products=1e10, numbers=1e9))
    answer = simulate(write_sweep(), "--nodes", "1,2", "--gpus-per-node", "2")
    assert answer["notes"][0] == "step times come from arithmetic"
    assert any("not of a GPU" in note for note in answer["notes"])
    assert [size["devices"] for size in answer["sizes"]] == [2, 4]
    assert answer["num_trials"] == 6


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nodes", "0"], "--nodes must be"),
        (["--nodes", "1,x"], "'1,x'"),
        (["--nodes", ""], "--nodes must be"),
        (["--nodes", "9" * 5000], "--nodes must be"),
        (["--nodes", "10000", "--cpus-per-node", "1000"], "at most 1,000,000 engines, but are 10,000,000"),
        (["--gpus-per-node", "99999999999999999999999"], "'--gpus-per-node'"),
        (["--cpus-per-node", "99999999999999999999999"], "'--cpus-per-node'"),
        (["--failures-per-hour", "1e400"], "'--failures-per-hour'"),
        (["--price", "1e400"], "'--price'"),
        (["--gpus-per-node", "2", "--cpus-per-node", "2"], "--cpus-per-node is for nodes without a GPU"),
        (["--set", "seeds=[0]"], "is a store"),
        (["--from", "nowhere"], "nowhere"),
    ],
)
def test_what_makes_no_sense_is_a_fault(
    home: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["simulate", write_store(home), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_store_of_which_nothing_tells_a_time_is_a_fault(home: Any, capsys: pytest.CaptureFixture[str]) -> None:
    store = write_store(home, records=[record(next(trials(1)), status=TrialStatus.FAILED)])
    assert existing(store).exists()
    assert main(["simulate", store]) == 2
    assert "completed trials" in capsys.readouterr().err

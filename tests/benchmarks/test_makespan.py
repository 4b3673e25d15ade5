"""The race over whole sweeps, without racing: what is asked for, how sides are summed up and compared."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from benchmarks import NotMeasuredError, _opponent, _race, makespan
from benchmarks._paired import paired_difference
from benchmarks._race import Race, Trial, grid, parse

FOUR = grid()[:4]


def asked(**more: str) -> Race:
    return parse({"ADAPTUNE_BENCH_TASK": "here/trec, here/mrpc", **more})


def test_unless_told_otherwise_every_trial_is_raced_against_every_opponent():
    race = asked()
    assert race.tasks == ["here/trec", "here/mrpc"]
    assert race.opponents == ["loop", "documented"]
    assert (race.num_epochs, len(race.trials)) == (3, 16)
    assert set(race.opponents) == makespan.SCRIPTS.keys() == makespan.IMPORTED.keys()
    assert all((_opponent.SCRIPTS / script).is_file() for script in makespan.SCRIPTS.values())


def test_a_race_can_be_made_shorter():
    race = asked(ADAPTUNE_BENCH_OPPONENTS="documented", ADAPTUNE_BENCH_TRIALS="4", ADAPTUNE_BENCH_EPOCHS="1")
    assert race == Race(tasks=["here/trec", "here/mrpc"], opponents=["documented"], trials=FOUR, num_epochs=1)


def test_every_faulty_variable_is_named_at_once():
    given = {"OPPONENTS": "loop,documentd", "TRIALS": "3", "EPOCHS": "many"}
    with pytest.raises(NotMeasuredError) as refused:
        parse({f"ADAPTUNE_BENCH_{name}": value for name, value in given.items()})
    for word in ("set ADAPTUNE_BENCH_TASK", "did you mean 'documented'", "an even number from 2 to 16", "'many'"):
        assert word in str(refused.value)


@pytest.mark.parametrize("few", ["0", "1", "17", "18", "-2"])
def test_a_number_of_trials_that_the_grid_cannot_give_is_refused(few):
    with pytest.raises(NotMeasuredError, match="ADAPTUNE_BENCH_TRIALS must be an even number from 2 to 16"):
        asked(ADAPTUNE_BENCH_TRIALS=few)


def test_the_grid_holds_every_trial_once_and_its_first_trials_differ_most():
    trials = grid()
    every = {(size, rate, seed) for size in _race.SIZES for rate in _race.LEARNING_RATES for seed in _race.SEEDS}
    assert {dataclasses.astuple(trial) for trial in trials} == every
    assert len(trials) == len(every) == 16
    assert len({trial.learning_rate for trial in FOUR}) == len({trial.adapter_size for trial in FOUR}) == 2
    assert {trial.learning_rate for trial in trials[:8]} == set(_race.LEARNING_RATES)
    assert [trial.adapter_size for trial in trials[:8:2]] == [8, 64, 8, 64]


def test_a_paired_difference_is_the_mean_of_the_differences_with_its_t_interval():
    rng = np.random.default_rng(0)
    theirs = rng.normal(0.8, 0.1, 16)
    ours = theirs + rng.normal(0.002, 0.01, 16)
    mean, interval = paired_difference(ours.tolist(), theirs.tolist())
    differences = ours - theirs
    assert mean == pytest.approx(differences.mean())
    half_width = scipy.stats.t.ppf(0.975, 15) * differences.std(ddof=1) / 4
    assert interval == pytest.approx((differences.mean() - half_width, differences.mean() + half_width))
    assert mean == pytest.approx(np.mean(interval))


def test_the_difference_of_a_single_trial_has_no_interval_and_sides_must_be_as_long():
    assert paired_difference([0.5], [0.25]) == (0.25, None)
    with pytest.raises(ValueError, match="longer"):
        paired_difference([0.5], [0.25, 0.5])


def trained(**changes: Any) -> list[dict[str, Any]]:
    """What a side tells of the first four trials, in another order; they end 10 s after each other."""
    return [
        dataclasses.asdict(trial)
        | {"began_at": 100.0 + 5 * place, "ended_at": 110.0 + 10 * place}
        | {"validation_score": trial.learning_rate, "test_score": None}
        | changes
        for place, trial in enumerate(reversed(FOUR))
    ]


def test_a_side_is_summed_up_in_the_order_of_the_trials_and_unmeasured_stays_unmeasured():
    summary = makespan.summarize(trained(), FOUR)
    assert summary["training_s"] == 40
    assert summary["trial_s"] == [25, 20, 15, 10]
    assert summary["validation_scores"] == [1e-3, 1e-3, 3e-3, 3e-3]
    assert summary["mean_validation_score"] == pytest.approx(2e-3)
    assert summary["mean_test_score"] is summary["test_scores"] is None


@pytest.mark.parametrize(
    "given", [trained()[1:], [*trained(), trained()[0]], trained(seed=7)], ids=["lost", "twice", "other"]
)
def test_a_side_that_did_not_train_every_trial_has_not_raced(given):
    with pytest.raises(RuntimeError, match="should have trained"):
        makespan.summarize(given, FOUR)


def test_sides_are_compared_by_seconds_and_by_differences_where_both_have_scores():
    ours = {"s": 10.0, **makespan.summarize(trained(validation_score=0.75), FOUR)}
    theirs = {"s": 25.0, **makespan.summarize(trained(validation_score=0.5, test_score=0.5), FOUR)}
    compared = makespan.compare(ours, theirs)
    assert (compared["ratio"], compared["training_ratio"]) == (2.5, 1.0)
    assert compared["validation_difference"] == 0.25
    assert compared["validation_difference_interval"] == (0.25, 0.25)
    assert compared["test_difference"] is compared["test_difference_interval"] is None


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch, task_folder: Any) -> None:
    """A race of four trials on two tasks, of which there is one, where nobody trains and "documented" breaks."""

    def sweep(scratch: Path, race: Race) -> Mapping[str, Any]:
        return {"s": 10.0, **makespan.summarize(trained(), race.trials)}

    def run_opponent(script: str, settings: Mapping[str, Any], folder: Path) -> _opponent.Finished:
        json.dumps(settings)
        if script != makespan.SCRIPTS["loop"]:
            raise RuntimeError("out of luck")
        assert [Trial(**trial) for trial in settings["trials"]] == FOUR
        return _opponent.Finished(seconds=30.0, events=trained())

    monkeypatch.setattr(makespan, "_adaptune_sweep", sweep)
    monkeypatch.setattr(_opponent, "run_opponent", run_opponent)
    monkeypatch.setattr(_opponent, "opponent_python", lambda: "python")
    monkeypatch.setattr(_opponent, "warm_up", lambda python, modules: None)
    monkeypatch.setenv("ADAPTUNE_BENCH_TASK", f"nowhere/at-all,{task_folder()}")
    monkeypatch.setenv("ADAPTUNE_BENCH_TRIALS", "4")


@pytest.mark.usefixtures("staged")
def test_what_was_measured_is_told_at_once_and_kept_where_a_task_or_an_opponent_fails(capsys):
    measured = makespan.measure()
    assert "nowhere/at-all" in measured["at-all_not_measured"]
    assert measured["opinion_adaptune_s"] == 10
    assert measured["opinion_loop_ratio"] == 3
    assert measured["opinion_documented_not_measured"] == "out of luck"
    assert measured["trial_adapter_sizes"] == [8, 8, 64, 64]
    assert measured["trial_learning_rates"] == [1e-3, 1e-3, 3e-3, 3e-3]
    told = capsys.readouterr().err.splitlines()
    for name in ("opinion_loop_ratio = 3.0", "opinion_documented_not_measured", "at-all_not_measured"):
        assert any(line.startswith(f"makespan: {name}") for line in told)

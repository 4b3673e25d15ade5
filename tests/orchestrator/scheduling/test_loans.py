"""Which waiting trial gets which engine: packs, what is loaded, and engines without a GPU beside those with one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from orchestrator.scheduling.loans import ANYTHING, LONGEST_FEATURES_S, Waiting, Wants, missing, next_loan, wants_of
from tests.factories import planned_trial

LIMIT = 4


@dataclass(eq=False)
class Engine:
    is_helper: bool = False
    loaded: set[str] = field(default_factory=set)
    key: str | None = None
    num_trials: int = 0

    def takes(self, key: str | None) -> bool:
        return not self.num_trials or (key is not None and key == self.key and self.num_trials < LIMIT)

    def take(self, trial: Waiting) -> None:
        self.key, self.num_trials = trial.key, self.num_trials + 1
        self.loaded.update(trial.wants.loads)


def waiting(key: str | None, *loads: str, on_cpu: bool = False) -> Waiting:
    return Waiting(key=key, wants=Wants(loads=loads, runs_on_cpu=on_cpu))


def lend(trials: Sequence[Waiting], engines: Sequence[Engine]) -> list[tuple[int, Engine]]:
    """All loans that can be made, in their order."""
    left, made = list(enumerate(trials)), []
    while found := next_loan([trial for _, trial in left], engines):
        place, engine = found
        number, trial = left.pop(place)
        engine.take(trial)
        made.append((number, engine))
    return made


def test_an_engine_gets_the_work_that_it_has_loaded_even_where_other_work_has_waited_longer() -> None:
    first, second = Engine(loaded={"b", "a for b"}), Engine(loaded={"c", "a for c"})
    made = lend([waiting(None, "c", "a for c"), waiting(None, "b", "a for b")], [first, second])
    assert dict(made) == {0: second, 1: first}
    first, other = Engine(loaded={"b"}), Engine()
    assert lend([waiting(None, "c", "a for c"), waiting(None, "b", "a for b")], [first]) == [(1, first)]
    assert lend([waiting(None, "b")], [other]) == [(0, other)]  # none is left idle


def test_trials_that_can_train_together_spread_over_idle_engines_first() -> None:
    engines = [Engine(loaded={"b"}), Engine()]
    made = lend([waiting("k", "b")] * 9, engines)
    assert [engine.num_trials for engine in engines] == [LIMIT, LIMIT]
    assert [number for number, _ in made] == list(range(8))


@pytest.mark.parametrize(
    ("trials", "gpus_free", "expected"),
    [
        (["cheap"], True, ["gpu"]),  # where nobody else wants it, it is faster there
        (["cheap", "dear"], True, ["cpu", "gpu"]),
        (["cheap"], False, ["cpu"]),
        (["dear"], False, [None]),
        (["cheap", "cheap", "dear"], True, ["cpu", None, "gpu"]),
    ],
)
def test_trials_that_need_no_gpu_go_to_cpus_where_gpus_are_busy_or_waited_for(
    trials: list[str], gpus_free: bool, expected: list[str | None]
) -> None:
    gpu, cpu = Engine(), Engine(is_helper=True)
    if not gpus_free:
        gpu.take(waiting(None))
    made = dict(lend([waiting(None, on_cpu=trial == "cheap") for trial in trials], [gpu, cpu]))
    names = {gpu: "gpu", cpu: "cpu"}
    assert [names.get(made[number]) if number in made else None for number in range(len(trials))] == expected


def test_what_needs_no_gpu_is_told_from_its_cost() -> None:
    trial = planned_trial()
    config = replace(trial.config, method="feature_based", method_options={}, max_length=100)
    sizes = {"rows": "4000 train, 500 validation, 500 test", "encoder_params": "10000000"}
    small = replace(trial, config=config, trained_params_without_head=0, provenance=sizes)
    assert LONGEST_FEATURES_S > 2 * 10_000_000 * 100 * 5000 / 3e10
    assert wants_of(small).runs_on_cpu
    assert not wants_of(replace(small, provenance=sizes | {"encoder_params": "85000000"})).runs_on_cpu
    assert not wants_of(replace(small, provenance={})).runs_on_cpu
    assert not wants_of(replace(small, trained_params_without_head=1)).runs_on_cpu
    without = wants_of(replace(trial, config=replace(config, method="no_bert")))
    assert without.runs_on_cpu
    assert config.backbone not in without.loads
    assert wants_of(small).loads[0] == config.backbone


def loads(trials: Sequence[Waiting], *, engines: int, under_way: int, sees_loads: bool) -> int:
    """How much is loaded until all trials have ended, each of them in its turn; trials end in the order of chance."""
    chance = random.Random(0)
    pool = [Engine() for _ in range(engines)]
    left, at_work, loaded = list(trials), [], 0
    while left or at_work:
        # So many are known to the pool at once, those that wait for an engine included.
        known = left[: max(0, under_way - len(at_work))]
        asked = known if sees_loads else [replace(trial, wants=ANYTHING) for trial in known]
        if found := next_loan(asked, pool):
            place, engine = found
            trial = left.pop(place)
            loaded += missing(trial.wants, engine)
            engine.take(trial)
            at_work.append(engine)
        else:
            ended = at_work.pop(chance.randrange(len(at_work)))
            ended.num_trials -= 1
    return loaded


def test_engines_that_keep_to_what_they_hold_load_a_third_less() -> None:
    """Six tasks on two backbones, with four kinds of trials each that cannot train together, in the order of chance."""
    trials = [
        waiting(f"{task} {backbone} {kind}", backbone, f"{task} for {backbone}")
        for task in range(6)
        for backbone in ("small", "large")
        for kind in range(4)
        for _ in range(3)
    ]
    random.Random(1).shuffle(trials)
    before, after = (loads(trials, engines=4, under_way=16, sees_loads=sees) for sees in (False, True))
    assert before >= 40
    assert 2 + 12 <= after <= before * 2 / 3

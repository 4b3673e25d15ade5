"""Engines played through by hand: who shares a pack, who waits, who works alone at last."""

from __future__ import annotations

import math
import random
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.estimate.makespan import Engine, EngineIndex, Load, NeverEndsError, Waiting, play
from orchestrator.estimate.outages import LOSS_SEEN_S, Outages
from orchestrator.scheduling import loans


def load(
    key: str | None = "a", steps: float = 10, *, trial_s: float = 1.0, fixed_s: float = 0.0, **more: object
) -> Load:
    values = {"own_s": 0.0, "limit": 4, **more}
    return Load(key=key, num_steps=steps, fixed_s=fixed_s, trial_s=trial_s, **values)  # type: ignore[arg-type]


def test_a_trial_alone_takes_its_steps_and_what_is_its_own() -> None:
    span = play([load(own_s=5.0, fixed_s=0.5, once=(("task", 2.0),))], engines=1)
    assert span.seconds == pytest.approx(10 * 1.5 + 5 + 2)
    assert (span.packs, span.mean_pack_size) == (1, pytest.approx(1.0))


def test_a_pack_pays_its_own_seconds_once_a_step() -> None:
    together = play([load(fixed_s=1.0), load(fixed_s=1.0)], engines=1)
    assert together.seconds == pytest.approx(10 * (1 + 2))
    assert (together.packs, together.mean_pack_size) == (1, pytest.approx(2.0))
    apart = play([load("a", fixed_s=1.0), load("b", fixed_s=1.0)], engines=1)
    assert apart.seconds == pytest.approx(2 * 10 * (1 + 1))
    assert apart.packs == 2


def test_trials_of_one_key_are_spread_over_idle_engines() -> None:
    span = play([load(), load(), load(), load()], engines=2)
    assert span.seconds == pytest.approx(20)
    assert span.busy_s == pytest.approx(40)


def test_the_last_trial_works_alone() -> None:
    # Three equal trials without a key on two engines: one engine has two of them.
    span = play([load(None), load(None), load(None)], engines=2)
    assert span.seconds == pytest.approx(20)
    assert span.busy_s == pytest.approx(30)


def test_no_pack_is_larger_than_its_limit() -> None:
    span = play([load(limit=2, fixed_s=1.0)] * 4, engines=1)
    assert span.seconds == pytest.approx(2 * 10 * (1 + 2))
    assert span.mean_pack_size == pytest.approx(2.0)


def test_what_one_engine_may_not_have_another_trains_when_it_is_free() -> None:
    loads = [load("b", steps=15), *[load("a")] * 4]
    assert play(loads, engines=2).seconds == pytest.approx(40)  # one engine has all four
    assert play(loads, engines=2, most_each=2).seconds == pytest.approx(35)


def test_trials_of_other_keys_that_wait_keep_packs_small() -> None:
    """With as few under way as there are keys, nobody finds a pack to join."""
    loads = [load(key, fixed_s=1.0) for _ in range(2) for key in ("a", "b")]
    few = play(loads, engines=1, concurrent=2, dispatch_s=0.0)
    many = play(loads, engines=1, concurrent=4, dispatch_s=0.0)
    assert few.mean_pack_size < many.mean_pack_size == pytest.approx(2.0)
    assert few.seconds > many.seconds


def test_what_is_done_once_is_done_once_an_engine() -> None:
    loads = [load(None, once=(("task", 3.0),)) for _ in range(4)]
    assert play(loads, engines=1).seconds == pytest.approx(43)
    assert play(loads, engines=2).seconds == pytest.approx(23)


def test_the_next_trial_comes_a_moment_after_the_one_before() -> None:
    assert play([load(None)] * 3, engines=1, concurrent=1, dispatch_s=0.5).seconds == pytest.approx(31)


def test_nothing_to_train_takes_no_time() -> None:
    span = play([], engines=2)
    assert (span.seconds, span.packs, span.mean_pack_size) == (0.0, 0, 0.0)


LOADS = st.lists(
    st.builds(
        load,
        st.sampled_from(["a", "b", None]),
        st.integers(1, 20),
        trial_s=st.floats(0.1, 2),
        fixed_s=st.just(0.0),
        own_s=st.floats(0, 3),
    ),
    min_size=1,
    max_size=12,
)


@given(LOADS, st.integers(1, 5))
def test_no_engine_is_quicker_than_its_share_and_no_sweep_slower_than_one_engine(
    loads: list[Load], engines: int
) -> None:
    total = sum(each.num_steps * each.trial_s + each.own_s for each in loads)
    span = play(loads, engines=engines, dispatch_s=0.0)
    assert span.busy_s == pytest.approx(total, rel=1e-6)
    assert total / engines <= span.seconds * (1 + 1e-6)
    assert span.seconds <= total * (1 + 1e-6)


@given(st.lists(st.floats(1, 50), min_size=1, max_size=12))
def test_more_engines_never_take_longer_over_trials_of_one_length(steps: list[float]) -> None:
    loads = [load(None, steps[0]) for _ in steps]
    spans = [play(loads, engines=engines).seconds for engines in (1, 2, 3, 8)]
    assert spans == sorted(spans, reverse=True)


def test_an_engine_finishes_a_backbone_before_it_changes_and_a_change_costs_its_load() -> None:
    large = {"backbone": "large", "load_s": 7.0, "once": (("task", 2.0),)}
    loads = [load(None, backbone="small"), load(None, **large), load(None, backbone="small"), load(None, **large)]
    span = play(loads, engines=1, dispatch_s=0.0)
    assert span.seconds == pytest.approx(4 * 10 + 7 + 2)
    by_turns = play(loads, engines=1, concurrent=1, dispatch_s=0.0)  # nobody waits, so it follows the order
    assert by_turns.seconds == pytest.approx(4 * 10 + 2 * (7 + 2))
    assert play(loads, engines=2, dispatch_s=0.0).seconds == pytest.approx(2 * 10 + 2)  # each starts with its own


class OnceAt(Outages):
    """Nodes of which the first fails once, at the time 5."""

    def of(self, node: int) -> Any:
        moments = iter([5.0] if node == 0 else [])
        return SimpleNamespace(next_failure=lambda up_since: next(moments, math.inf))


ONCE = OnceAt(per_hour=1, replaced_after_s=20, start_s=2)


def test_a_trial_whose_node_fails_begins_anew_on_the_one_in_its_place() -> None:
    span = play([load(None)], engines=1, outages=ONCE)
    assert span.seconds == pytest.approx(5 + LOSS_SEEN_S + 10)
    assert span.busy_s == pytest.approx(5 + 10)
    assert span.up_s == pytest.approx(span.seconds - 22)
    assert (span.failures, span.begun_anew) == (1, 1)


def test_the_trials_of_a_node_fail_together_and_those_of_others_go_on() -> None:
    span = play([load(None)] * 3, engines=3, engines_per_node=2, outages=ONCE)
    assert (span.failures, span.begun_anew) == (1, 2)
    assert span.busy_s == pytest.approx(10 + 2 * (5 + 10))
    assert span.up_s == pytest.approx(3 * span.seconds - 2 * 22)


def test_a_trial_that_begins_anew_stands_behind_those_that_wait_and_does_again_what_its_engine_did_once() -> None:
    loads = [load(None, once=(("task", 3.0),)) for _ in range(2)]
    span = play(loads, engines=1, outages=ONCE)
    assert span.seconds == pytest.approx(27 + 3 + 10 + 10)
    assert span.packs == 3


def test_failures_are_drawn_by_the_seed_and_every_node_has_its_own() -> None:
    loads = [load(None, 300) for _ in range(40)]
    first, again, other = (play(loads, engines=4, outages=Outages(per_hour=3, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert first.begun_anew == first.failures > 0
    assert play(loads, engines=4, outages=Outages(per_hour=0)) == play(loads, engines=4)


def test_nodes_that_fail_too_often_are_said_to_never_end_it() -> None:
    with pytest.raises(NeverEndsError, match="began anew"):
        play([load(None, 36_000)], engines=1, outages=Outages(per_hour=60))


def test_a_driver_starts_no_more_trials_in_a_second_than_it_can() -> None:
    span = play([load(None, 1)] * 100, engines=100, starts_per_s=2)
    assert span.seconds == pytest.approx(50 + 1)


class Lent:
    """An engine of the simulation as the pool's rule sees it."""

    is_helper = False

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def num_trials(self) -> int:
        return len(self.engine.trials)

    @property
    def loaded(self) -> frozenset[str]:
        return self.engine.loaded

    def takes(self, key: str | None) -> bool:
        return self.engine.takes(key)


def asks(load: Load) -> loans.Waiting:
    return loans.Waiting(key=load.key, wants=loans.Wants(loads=tuple(sorted(load.needs))))


def test_the_indices_find_what_the_pool_s_rule_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine for a trial that comes, and a trial for an engine that is free."""
    chance = random.Random(0)
    found: list[Any] = []
    waiting: list[int] = []

    def find(index: EngineIndex, asked: Load) -> Engine | None:
        engine = by_index(index, asked)
        expected = loans.next_loan([asks(asked)], [Lent(each) for each in index._engines])
        assert engine is (None if expected is None else expected[1].engine)
        found.append(engine)
        return engine

    def pop_for(self: Waiting, loaded: frozenset[str]) -> int | None:
        number = by_needs(self, loaded)
        free = Engine(0)
        free.loaded = loaded
        expected = loans.next_loan([asks(loads[each]) for each in waiting], [Lent(free)])
        assert number == (None if expected is None else waiting[expected[0]])
        if number is not None:
            waiting.remove(number)
        return number

    def pop_of(self: Waiting, key: str | None) -> int | None:
        number = by_key(self, key)
        if number is not None:
            waiting.remove(number)
        return number

    def add(self: Waiting, number: int, asked: Load) -> None:
        waiting.append(number)
        added(self, number, asked)

    by_index, by_needs, by_key, added = EngineIndex.find, Waiting.pop_for, Waiting.pop_of, Waiting.add
    monkeypatch.setattr(EngineIndex, "find", find)
    monkeypatch.setattr(Waiting, "pop_for", pop_for)
    monkeypatch.setattr(Waiting, "pop_of", pop_of)
    monkeypatch.setattr(Waiting, "add", add)
    for seed in range(5):
        loads = []
        for _ in range(80):
            backbone, task = chance.choice(["", "small", "large"]), chance.choice("tuv")
            key = f"{backbone} {task} {chance.choice('ab')}" if chance.random() < 0.8 else None
            once = ((f"{task} for {backbone}", 1.0),)
            loads.append(load(key, chance.randint(1, 99), backbone=backbone, load_s=2.0, once=once))
        play(loads, engines=6, concurrent=chance.randint(10, 40), outages=Outages(per_hour=20, seed=seed))
        assert not waiting
    assert any(found)
    assert not all(found)


def test_ten_thousand_trials_on_a_thousand_engines_take_a_moment() -> None:
    loads = [load(f"k{number % 250}", 100 + number % 7, limit=16) for number in range(10_000)]
    began = time.process_time()
    span = play(loads, engines=1000, concurrent=16_000, outages=Outages(per_hour=0.5))
    assert span.begun_anew > 0
    assert time.process_time() - began < 10

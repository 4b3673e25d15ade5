"""The autoscaler of engines: what it makes as a cluster grows, and what it leaves alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.scheduling import engine_autoscaler as autoscaler_module
from orchestrator.scheduling.engine_autoscaler import GPU_FIRST_S, EngineAutoscaler
from orchestrator.scheduling.engine_demand import GIVE_BACK_S, STEP, Idle
from orchestrator.scheduling.engine_layout import EngineLayout


class Call:
    """What a method of an actor is called by."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.remote = method


class FakePool:
    """Is told of engines, and says which of them are gone or idle."""

    def __init__(self) -> None:
        self.known: list[Any] = []
        self.helpers: list[Any] = []
        self.gone: list[int] = []
        self.idle_engines: list[Any] = []
        self.keep, self.idle, self.retire = Call(self._keep), Call(self._idle), Call(self._retire)

    def _keep(self, engines: list[Any], helpers: list[int]) -> list[int]:
        self.known, self.helpers = list(engines), [engines[place] for place in helpers]
        gone, self.gone = self.gone, []
        return gone

    def _idle(self, engines: list[Any]) -> list[Idle]:
        places = [place for place, engine in enumerate(engines) if engine in self.idle_engines]
        return [Idle(place=place, idle_s=GIVE_BACK_S, node="n") for place in places]

    def _retire(self, engines: list[Any]) -> list[bool]:
        return [engine in self.idle_engines for engine in engines]


class Engine:
    """Answers once it has a node."""

    def __init__(self, num_gpus: float, node: str | None) -> None:
        self.num_gpus, self.node = num_gpus, node
        self.is_there = False
        self.process_id = Call(lambda: self)


class Cluster:
    """How many engines it has room for."""

    def __init__(self, count: int, num_gpus: int = 0) -> None:
        self.count, self.num_gpus = count, num_gpus
        self.made = 0
        self.waiting: list[Engine] = []

    def room(self) -> EngineLayout:
        return EngineLayout(count=self.count, num_gpus=self.num_gpus, num_threads=1)

    def make(self, layout: EngineLayout, count: int, node: str | None) -> list[Any]:
        self.made += count
        new = [Engine(layout.num_gpus, node) for _ in range(count)]
        self.waiting += new
        return new


@pytest.fixture
def ended() -> list[Engine]:
    """The engines that were ended."""
    return []


@pytest.fixture(autouse=True)
def _answers_are_there(monkeypatch: pytest.MonkeyPatch, ended: list[Engine]) -> None:
    ray = autoscaler_module.ray
    monkeypatch.setattr(ray, "get", lambda answer, timeout: answer)
    monkeypatch.setattr(ray, "wait", lambda asked, timeout: ([each for each in asked if each.is_there], []))
    monkeypatch.setattr(ray, "kill", ended.append)


def autoscaler_of(
    cluster: Cluster, pool: FakePool, count: int | None = None, **options: Any
) -> tuple[EngineAutoscaler, list[Any]]:
    layout = EngineLayout(count=cluster.count if count is None else count, num_gpus=cluster.num_gpus, num_threads=1)
    engines: list[Any] = [object() for _ in range(layout.count)]
    return EngineAutoscaler(pool, engines, layout, cluster.room, cluster.make, **options), engines


def test_a_node_that_joins_gets_engines_and_one_that_leaves_keeps_its_own() -> None:
    cluster, pool = Cluster(2), FakePool()
    autoscaler, engines = autoscaler_of(cluster, pool)
    autoscaler.look()
    assert (cluster.made, len(pool.known)) == (0, 2)
    cluster.count = 5
    autoscaler.look()
    assert pool.known == engines
    assert len(engines) == 5
    cluster.count = 1  # their nodes left: they wait for others in their place
    autoscaler.look()
    cluster.count = 5
    autoscaler.look()
    assert (cluster.made, len(engines)) == (3, 5)


def test_what_was_left_out_at_first_stays_left_out() -> None:
    cluster, pool = Cluster(4), FakePool()
    autoscaler, engines = autoscaler_of(cluster, pool, count=1)
    autoscaler.look()
    assert cluster.made == 0
    cluster.count = 6
    autoscaler.look()
    assert len(engines) == 3


def test_gpus_that_join_a_cluster_without_any_get_engines() -> None:
    cluster, pool = Cluster(2), FakePool()
    autoscaler, engines = autoscaler_of(cluster, pool)
    cluster.count, cluster.num_gpus = 3, 1
    autoscaler.look()
    assert (cluster.made, len(engines)) == (3, 5)
    autoscaler.look()
    assert [pool.known.index(helper) for helper in pool.helpers] == [0, 1]


def test_where_nothing_may_train_yet_a_gpu_is_asked_for_first_and_cpus_if_none_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(autoscaler_module.time, "monotonic", lambda: now[0])
    under_way: list[bool] = []
    cluster = Cluster(0)
    autoscaler, _ = autoscaler_of(
        cluster, FakePool(), left=lambda: {"k": 40}, wants_gpus=lambda: under_way[0] if under_way else None
    )

    def asked() -> list[float]:
        return [engine.num_gpus for engine in cluster.waiting]

    autoscaler.look()
    assert asked() == []  # no trial is under way: what the plan needs is not known
    under_way.append(True)
    autoscaler.look()
    assert asked() == [1]
    now[0] += GPU_FIRST_S - 1
    autoscaler.look()
    assert asked() == [1]
    now[0] += 1
    autoscaler.look()
    assert asked() == [1] + [0] * STEP


def test_where_nothing_may_train_yet_trials_that_need_no_gpu_ask_for_cpus() -> None:
    cluster = Cluster(0)
    autoscaler, _ = autoscaler_of(cluster, FakePool(), left=lambda: {"k": 8}, wants_gpus=lambda: False)
    autoscaler.look()
    assert [engine.num_gpus for engine in cluster.waiting] == [0, 0]


def test_nodes_without_a_gpu_get_helpers_where_others_have_one() -> None:
    cluster, pool = Cluster(1, num_gpus=1), FakePool()
    autoscaler, engines = autoscaler_of(cluster, pool, helpers=lambda: {"cpu": 2})
    for _ in range(2):
        autoscaler.look()
    assert pool.helpers == engines[1:]
    assert [engine.node for engine in pool.helpers] == ["cpu", "cpu"]


def test_helpers_that_were_given_back_are_not_made_anew() -> None:
    cluster, pool = Cluster(1, num_gpus=1), FakePool()
    autoscaler, engines = autoscaler_of(cluster, pool, helpers=lambda: {"cpu": 2}, left=lambda: {"k": 1})
    autoscaler.look()
    pool.idle_engines = engines[1:]
    for _ in range(2):
        autoscaler.look()
        assert len(engines) == 1


def test_a_cluster_that_grows_is_asked_for_what_the_plan_can_use_and_gets_it_back(ended: list[Engine]) -> None:
    cluster, pool, left = Cluster(1), FakePool(), {"k": 40}
    autoscaler, engines = autoscaler_of(cluster, pool, left=lambda: left, wants_gpus=lambda: True)
    autoscaler.look()
    asked = [engine for engine in cluster.waiting if not engine.num_gpus]
    assert len(asked) == STEP
    assert len(cluster.waiting) == STEP + 1  # one with a GPU, should the cluster have any
    assert len(engines) == len(pool.known) == 1  # none that has no node yet
    for engine in asked[:3]:
        engine.is_there = True
    cluster.count = 4
    autoscaler.look()
    assert engines == pool.known == [engines[0], *asked[:3]]
    cluster_wide = len(cluster.waiting)
    autoscaler.look()
    assert len(cluster.waiting) == cluster_wide  # no more than asked for once
    left["k"] = 8  # two engines are enough: the rest of what was asked for is taken back
    autoscaler.look()
    assert {engine for engine in cluster.waiting if not engine.num_gpus} - {*engines} <= {*ended}
    pool.idle_engines = engines[2:]
    autoscaler.look()
    assert len(engines) == 2
    left.clear()
    autoscaler.look()
    assert {*cluster.waiting} - {*engines} == {*ended}  # and so is the one with a GPU
    made = cluster.made
    autoscaler.look()
    assert cluster.made == made  # though there is room


def test_what_has_been_asked_for_ends_with_the_sweep(ended: list[Engine]) -> None:
    cluster, pool = Cluster(1), FakePool()
    autoscaler, _ = autoscaler_of(cluster, pool, left=lambda: {None: 3}, wants_gpus=lambda: True)
    with autoscaler:
        autoscaler.look()
    assert len(ended) == 3  # two beyond the room there is, and one with a GPU


def test_an_engine_that_is_gone_for_good_is_made_anew_but_not_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(autoscaler_module.time, "monotonic", lambda: now)
    cluster, pool = Cluster(2), FakePool()
    autoscaler, engines = autoscaler_of(cluster, pool)
    first, second = engines
    for waits in (autoscaler_module.FIRST_WAIT_S, 2 * autoscaler_module.FIRST_WAIT_S):
        pool.gone = [len(engines) - 1]
        autoscaler.look()
        assert engines == [first]
        now += waits - 0.1
        autoscaler.look()
        assert engines == [first]
        now += 0.2
        autoscaler.look()
        assert len(engines) == 2
    assert second not in engines


def test_it_looks_while_its_context_lasts_and_a_cluster_that_does_not_answer_does_not_stop_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(autoscaler_module, "LOOK_EVERY_S", 0.001)
    cluster, pool = Cluster(1), FakePool()
    autoscaler, engines = autoscaler_of(cluster, pool)
    answers = iter([ConnectionError(), EngineLayout(count=2, num_gpus=0, num_threads=1)])

    def room() -> EngineLayout:
        answer = next(answers, None)
        if isinstance(answer, Exception):
            raise answer
        return answer or cluster.room()

    monkeypatch.setattr(autoscaler, "_room", room)
    ends = time.monotonic() + 10
    with autoscaler:
        while len(engines) < 2:
            assert time.monotonic() < ends
            time.sleep(0.001)
    assert not autoscaler._thread.is_alive()

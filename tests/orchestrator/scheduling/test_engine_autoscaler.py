"""The autoscaler of engines: what it makes as a cluster grows, and what it leaves alone."""

from __future__ import annotations

import time
from typing import Any

import pytest

from orchestrator.scheduling import engine_autoscaler as autoscaler_module
from orchestrator.scheduling.engine_autoscaler import EngineAutoscaler
from orchestrator.scheduling.engine_layout import EngineLayout


class FakePool:
    """Is told of engines, and says which of them are gone."""

    def __init__(self) -> None:
        self.known: list[Any] = []
        self.gone: list[int] = []

    @property
    def keep(self) -> FakePool:
        return self

    def remote(self, engines: list[Any]) -> list[int]:
        self.known = list(engines)
        gone, self.gone = self.gone, []
        return gone


class Cluster:
    """How many engines it has room for."""

    def __init__(self, count: int, num_gpus: int = 0) -> None:
        self.count, self.num_gpus = count, num_gpus
        self.made = 0

    def room(self) -> EngineLayout:
        return EngineLayout(count=self.count, num_gpus=self.num_gpus, num_threads=1)

    def make(self, layout: EngineLayout, count: int) -> list[Any]:
        self.made += count
        return [object() for _ in range(count)]


@pytest.fixture(autouse=True)
def _answers_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoscaler_module.ray, "get", lambda answer, timeout: answer)


def autoscaler_of(cluster: Cluster, pool: FakePool, count: int | None = None) -> tuple[EngineAutoscaler, list[Any]]:
    layout = EngineLayout(count=cluster.count if count is None else count, num_gpus=cluster.num_gpus, num_threads=1)
    engines: list[Any] = [object() for _ in range(layout.count)]
    return EngineAutoscaler(pool, engines, layout, cluster.room, cluster.make), engines


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

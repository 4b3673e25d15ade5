"""The pool where engines are given notice, idle or given back; without Ray."""

from __future__ import annotations

import asyncio

import pytest

from orchestrator.scheduling.loans import Wants
from orchestrator.scheduling.notice import NOTICE_S
from orchestrator.scheduling.pool import EnginePool
from orchestrator.scheduling.pooled_engine import Life
from tests.orchestrator.scheduling.fake_engines import (  # noqa: F401
    FakeHandle,
    _quick_looks,
    dead_nodes,
    draining,
    several_looks,
    with_pool,
)

pytestmark = pytest.mark.usefixtures("_quick_looks", "dead_nodes")


def test_an_engine_whose_node_goes_is_told_once_and_its_trial_gets_another_and_is_not_to_blame(
    draining: dict[str, float],  # noqa: F811
) -> None:
    async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
        for number, engine in enumerate(engines):
            engine.node = f"node {number}"
        engines[0].process = "moved"  # so that the pool sees its node
        await several_looks()
        for _ in range(5):  # more often than a trial may lose engines that crash
            first = await pool.acquire("a", "k")
            going = engines.index(first)
            draining[first.node] = 0.0
            await several_looks()
            assert first.handed_over == [NOTICE_S]
            await pool.release("a", lost=True, had_notice=True)
            assert await pool.acquire("a", "k") is engines[1 - going]
            assert await pool.acquire("mate", "k") is engines[1 - going]  # nor need it be alone
            for trial in ("a", "mate"):
                await pool.release(trial)
            draining.clear()
            first.process, first.has_notice, first.handed_over = f"after {first.process}", False, []
            await several_looks()

    with_pool(2, scene)


def test_an_engine_that_says_itself_that_it_goes_is_lent_to_nobody() -> None:
    async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
        engines[0].has_notice = True
        await several_looks()
        waiting = asyncio.ensure_future(pool.acquire("a", "k"))
        await several_looks()
        assert not waiting.done()
        engines[0].has_notice, engines[0].process = False, "after first"
        assert await waiting is engines[0]

    with_pool(1, scene)


def test_a_process_that_is_first_seen_under_notice_has_it_from_then_on() -> None:
    async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
        engines[0].has_notice = True
        life = Life(await engines[0].presence.remote())
        assert life.has_notice
        life.end(is_crash=True)
        assert not await life.is_crash

    with_pool(1, scene)


def test_idle_engines_are_told_of_and_those_that_are_retired_are_lent_no_more() -> None:
    async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
        lent = await pool.acquire("a", "k")
        other = engines[1 - engines.index(lent)]
        assert [engines[idle.place] for idle in await pool.idle(engines)] == [other]
        assert await pool.retire([lent, other]) == [False, True]
        waiting = asyncio.ensure_future(pool.acquire("b", None))
        await several_looks()
        assert not waiting.done()
        await pool.release("a")
        assert await waiting is lent

    with_pool(2, scene)


def test_helpers_are_lent_to_trials_that_need_no_gpu_alone() -> None:
    async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
        await pool.keep(engines, [1])
        assert await pool.acquire("a", None) is engines[0]
        dear = asyncio.ensure_future(pool.acquire("b", None))
        assert await pool.acquire("c", None, Wants(runs_on_cpu=True)) is engines[1]
        await pool.release("c")
        await several_looks()
        assert not dear.done()
        await pool.keep(engines)  # the GPUs are gone: what is left trains everything
        assert await dear is engines[1]

    with_pool(2, scene)

"""The pool where engines hang: told of, killed and lent again; without Ray."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from orchestrator.scheduling import pooled_engine
from orchestrator.scheduling.pool import EnginePool, TrialGivenUpError
from tests.orchestrator.scheduling.fake_engines import (  # noqa: F401
    FakeHandle,
    _quick_looks,
    dead_nodes,
    killed,
    several_looks,
    with_pool,
)

pytestmark = pytest.mark.usefixtures("dead_nodes", "_quick_looks")


@pytest.fixture(autouse=True)
def _short_silences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooled_engine, "SILENCE_S", 0.02)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # for as long as the scene may last
        await asyncio.sleep(0.001)


def test_an_engine_that_stands_still_is_told_of_and_killed_once_and_its_trial_begins_anew(
    killed: list[FakeHandle],  # noqa: F811
) -> None:
    async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
        assert await pool.acquire("a", "k") is engines[0]
        engines[0].stands_still_s = pooled_engine.STANDSTILL_S
        await until(lambda: killed != [])
        await several_looks()
        assert killed == [engines[0]]
        assert (await pool.status()).told == (
            "Engine engine 0 has not moved for 10 min while training. It is started again, and its trials begin anew.",
        )
        await pool.release("a", lost=True)  # as the trial does that hears of the death
        assert await pool.acquire("a", "k") is engines[0]
        assert engines[0].process == "after first"

    with_pool(1, scene)


def test_one_that_loads_may_stand_still_for_longer(killed: list[FakeHandle]) -> None:  # noqa: F811
    async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
        await pool.acquire("a", "k")
        engines[0].task, engines[0].stands_still_s = None, pooled_engine.LOADING_STANDSTILL_S - 1
        await several_looks()
        assert killed == []
        engines[0].stands_still_s += 1
        await until(lambda: killed == [engines[0]])
        assert "has not moved for 60 min while loading" in (await pool.status()).told[0]

    with_pool(1, scene)


def test_nothing_is_lent_on_an_engine_between_its_kill_and_its_return(killed: list[FakeHandle]) -> None:  # noqa: F811
    async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
        engines[0].stands_still_s = pooled_engine.STANDSTILL_S
        await until(lambda: killed != [])
        waiting = asyncio.ensure_future(pool.acquire("a", "k"))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        assert await waiting is engines[0]
        assert engines[0].process == "after first"

    with_pool(1, scene)


def test_an_engine_that_does_not_answer_is_killed_after_several_silences(killed: list[FakeHandle]) -> None:  # noqa: F811
    async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
        await pool.acquire("a", "k")
        engines[0].is_stopped = True
        began = time.monotonic()
        while (await pool.status()).engines:  # after the first silence it is shown to nobody as at work
            await asyncio.sleep(0.001)
        await until(lambda: killed == [engines[0]])
        assert time.monotonic() - began >= pooled_engine.SILENCES_BORNE * pooled_engine.SILENCE_S
        assert (await pool.status()).told[0].startswith("Engine engine 0 does not answer.")
        await pool.release("a", lost=True)
        assert await pool.acquire("a", "k") is engines[0]

    with_pool(1, scene)


def test_an_engine_that_is_slow_to_start_again_is_left_to_start(killed: list[FakeHandle]) -> None:  # noqa: F811
    async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
        engines[0].dies()
        await several_looks()
        engines[0].error, engines[0].is_stopped = None, True  # its process is there and imports
        await asyncio.sleep(6 * pooled_engine.SILENCE_S)
        assert killed == []

    with_pool(1, scene)


def test_a_trial_under_which_every_engine_hangs_is_given_up(killed: list[FakeHandle]) -> None:  # noqa: F811
    async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
        for times in (1, 2, 3):
            await pool.acquire("a", "k")
            engines[0].stands_still_s = pooled_engine.STANDSTILL_S
            await until(lambda: len(killed) == times)  # noqa: B023
            await pool.release("a", lost=True)
        with pytest.raises(TrialGivenUpError, match="an engine that was ended because it hung"):
            await pool.acquire("a", "k")
        assert len(killed) == 3

    with_pool(1, scene)

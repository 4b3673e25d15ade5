"""The pool that lends engines, without Ray: who trains with whom, and what happens when engines die and sweeps end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.exceptions import ActorDiedError, ActorUnavailableError

from orchestrator.engine_status import EngineStatus
from orchestrator.scheduling import pool as pool_module
from orchestrator.scheduling.engine_actor import EngineLostError
from orchestrator.scheduling.pool import ASSUMED_LIMIT, EnginePool

WAIT_S = 10.0


class FakeHandle:
    """What the pool needs of an engine's handle: remote calls of `stop`, `name`, `status` and `cancel_all`."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.limit: int | None = None
        self.stopped: list[str] = []
        self.cancelled = False
        self.errors: list[Exception] = []
        self.may_stop = asyncio.Event()
        self.may_stop.set()

    def __getattr__(self, method: str) -> Any:
        class Remote:
            def remote(_, *arguments: Any) -> Any:
                return asyncio.ensure_future(getattr(self, f"_{method}")(*arguments))

        return Remote()

    async def _name(self) -> str:
        return f"engine {self.number}"

    async def _status(self) -> EngineStatus:
        return EngineStatus(engine=f"engine {self.number}", task="t", method="m", num_trials=1, limit=self.limit)

    async def _stop(self, trial_id: str) -> None:
        await self.may_stop.wait()
        if self.errors:
            raise self.errors.pop(0)
        self.stopped.append(trial_id)

    async def _cancel_all(self) -> None:
        self.cancelled = True


Scene = Callable[[EnginePool, list[FakeHandle]], Coroutine[Any, Any, None]]


def with_pool(count: int, scene: Scene) -> None:
    """Play a scene with a ready pool."""

    async def play() -> None:
        engines = [FakeHandle(number) for number in range(count)]
        pool = EnginePool(engines)
        assert await pool.ready() == [f"engine {number}" for number in range(count)]
        await asyncio.wait_for(scene(pool, engines), WAIT_S)

    asyncio.run(play())


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


class TestLending:
    def test_a_trial_that_trains_alone_has_an_engine_to_itself(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            first, second = await pool.acquire("a", None), await pool.acquire("b", None)
            assert {first, second} == set(engines)
            third = asyncio.ensure_future(pool.acquire("c", None))
            await settle()
            assert not third.done()
            await pool.release("b")
            assert await third is second

        with_pool(2, scene)

    def test_trials_that_can_train_together_spread_over_engines_and_then_share_them(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            lent = [await pool.acquire(str(number), "k") for number in range(2 * ASSUMED_LIMIT)]
            assert [lent.count(engine) for engine in engines] == [ASSUMED_LIMIT, ASSUMED_LIMIT]
            one_more = asyncio.ensure_future(pool.acquire("more", "k"))
            await settle()
            assert not one_more.done()
            await pool.release("3")
            assert await one_more is lent[3]

        with_pool(2, scene)

    def test_a_trial_that_fits_a_running_pack_need_not_wait_behind_one_that_does_not(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            await pool.acquire("a", "k")
            other = asyncio.ensure_future(pool.acquire("b", "l"))
            alone = asyncio.ensure_future(pool.acquire("c", None))
            await settle()
            assert await pool.acquire("d", "k") is engines[0]
            await pool.release("a")
            await settle()
            assert not other.done()
            await pool.release("d")
            assert await other is engines[0]
            assert not alone.done()
            await pool.release("b")
            assert await alone is engines[0]

        with_pool(1, scene)

    def test_an_engine_takes_as_many_as_its_pack_may_hold_once_it_has_said_so(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pool_module, "WATCH_S", 0.01)
        monkeypatch.setattr(pool_module, "IDLE_WATCH_S", 0.01)

        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            engines[0].limit = 6
            lent = [await pool.acquire(str(number), "k") for number in range(6)]  # the last two wait until it says
            assert lent == [engines[0]] * 6
            status = await pool.status()
            assert sorted(status.lent) == [str(number) for number in range(6)]
            assert [engine.limit for engine in status.engines] == [6]
            full = asyncio.ensure_future(pool.acquire("more", "k"))
            await asyncio.sleep(0.05)
            assert not full.done()
            for number in range(6):
                await pool.release(str(number))
            assert await full is engines[0]
            # What it said of one pack says nothing of the next.
            engines[0].limit = None
            for number in range(1, ASSUMED_LIMIT):
                await pool.acquire(f"next {number}", "k")

        with_pool(1, scene)

    @given(keys=st.lists(st.sampled_from([None, "k", "l", "m"]), max_size=20), count=st.integers(1, 3))
    def test_whoever_comes_only_trials_of_one_key_share_an_engine_and_nobody_is_forgotten(
        self, keys: list[str | None], count: int
    ) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            asked = {str(n): asyncio.ensure_future(pool.acquire(str(n), key)) for n, key in enumerate(keys)}
            served: set[str] = set()
            while len(served) < len(keys):
                await settle()
                lent = {trial: asked[trial].result() for trial in asked if asked[trial].done() and trial not in served}
                is_waiting = len(served) + len(lent) < len(keys)
                assert not is_waiting or set(lent.values()) == set(engines)  # none is idle while a trial waits
                for engine in engines:
                    packed = [keys[int(trial)] for trial in lent if lent[trial] is engine]
                    assert len(packed) <= (1 if None in packed else ASSUMED_LIMIT)
                    assert len(set(packed)) <= 1
                first = min(lent, key=int)
                await pool.release(first)
                served.add(first)

        with_pool(count, scene)


class TestReleasing:
    def test_an_engine_is_free_of_a_trial_before_it_is_lent_again(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            await pool.acquire("a", None)
            await pool.release("a")
            await pool.acquire("b", None)
            assert engines[0].stopped == ["a"]

        with_pool(1, scene)

    def test_a_trial_that_asks_again_gets_the_engine_it_has(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            first = await pool.acquire("a", "k")
            assert await pool.acquire("a", "k") is first
            await pool.release("a")
            await pool.release("a")  # as a trial and the driver both do
            assert {await pool.acquire("b", None), await pool.acquire("c", None)} == set(engines)

        with_pool(2, scene)

    def test_a_trial_that_comes_back_while_its_engine_ends_it_waits_until_that_is_done(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            await pool.acquire("a", "k")
            await pool.acquire("b", "k")
            engines[0].may_stop.clear()
            leaving = asyncio.ensure_future(pool.release("a", lost=True))
            await settle()
            again = asyncio.ensure_future(pool.acquire("a", "k"))
            await settle()
            assert not again.done()  # else the engine would be told to stop what it has just been given
            engines[0].may_stop.set()
            await leaving
            assert await again is engines[0]
            assert engines[0].stopped == ["a"]

        with_pool(1, scene)

    def test_a_trial_whose_process_died_waiting_keeps_no_engine(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            await pool.acquire("a", None)
            dead = asyncio.ensure_future(pool.acquire("b", None))
            await settle()
            again = asyncio.ensure_future(pool.acquire("b", None))
            await settle()
            await pool.release("b")
            assert await dead is None
            assert await again is None
            await pool.release("a")
            assert await pool.acquire("c", None) is engines[0]

        with_pool(1, scene)

    def test_a_cancelled_pool_lends_nothing_and_turns_away_those_who_wait(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            await pool.acquire("a", None)
            waiting = asyncio.ensure_future(pool.acquire("b", None))
            await settle()
            await pool.cancel_all()
            assert await waiting is None
            assert await pool.acquire("c", None) is None
            await settle()
            assert engines[0].cancelled
            await pool.release("a")

        with_pool(1, scene)


class TestLosses:
    def test_an_engine_that_comes_back_is_lent_again_to_all_it_had(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            await pool.acquire("a", "k")
            await pool.acquire("b", "k")
            engines[0].errors = [ActorUnavailableError("restarting", None)]
            await asyncio.gather(pool.release("a", lost=True), pool.release("b", lost=True))
            assert await pool.acquire("b", "k") is engines[0]
            assert await pool.acquire("a", "k") is engines[0]

        with_pool(1, scene)

    def test_a_trial_that_lost_two_engines_trains_alone(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            for _ in range(2):
                await pool.acquire("a", "k")
                await pool.release("a", lost=True)
            await pool.acquire("a", "k")
            mate = asyncio.ensure_future(pool.acquire("b", "k"))
            await settle()
            assert not mate.done()
            await pool.release("a")
            assert await mate is engines[0]

        with_pool(1, scene)

    def test_an_engine_that_is_gone_is_lent_no_more_and_the_others_are(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            for trial in ("a", "b", "c", "d"):
                await pool.acquire(trial, "k")
            engines[0].errors = [ActorDiedError(), ActorDiedError()]
            await asyncio.gather(pool.release("a", lost=True), pool.release("c", lost=True))
            assert await pool.acquire("a", "k") is engines[1]
            assert [engine.engine for engine in (await pool.status()).engines] == ["engine 1"]

        with_pool(2, scene)

    def test_when_no_engine_comes_back_everybody_hears_of_it(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            await pool.acquire("a", None)
            waiting = [asyncio.ensure_future(pool.acquire(trial, "k")) for trial in ("b", "c")]
            await settle()
            engines[0].errors = [ActorDiedError()]
            await pool.release("a")
            for trial in waiting:
                with pytest.raises(EngineLostError):
                    await trial
            with pytest.raises(EngineLostError):
                await pool.acquire("d", "k")

        with_pool(1, scene)

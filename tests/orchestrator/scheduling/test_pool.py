"""The pool that lends engines, without Ray: who trains with whom, and what happens when engines die and sweeps end."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.scheduling.loans import Wants
from orchestrator.scheduling.pool import EnginePool
from orchestrator.scheduling.pooled_engine import ASSUMED_LIMIT
from tests.orchestrator.scheduling.fake_engines import (  # noqa: F401
    WAIT_S,
    FakeHandle,
    Scene,
    _quick_looks,
    dead_nodes,
    settle,
    several_looks,
    with_pool,
)

SMALL, LARGE = (Wants(backbone=name, loads=(name,)) for name in ("small", "large"))


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

    def test_an_engine_gets_no_more_than_its_part_while_another_is_at_something_else(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            other = await pool.acquire("other", "l")
            asked = [asyncio.ensure_future(pool.acquire(str(number), "k")) for number in range(3)]
            await settle()
            first = asked[0].result()
            assert first is not other
            assert asked[1].result() is first
            assert not asked[2].done()  # the pack would hold more
            await pool.release("other")
            assert await asked[2] is other

        with_pool(2, scene, most_each=2)

    def test_a_gpu_that_joined_engines_on_cpus_is_lent_as_many_as_its_pack_holds(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            gpu = FakeHandle(1)
            gpu.is_on_cpu = False
            await pool.acquire("other", "l")
            await pool.keep([*engines, gpu])
            await settle()
            asked = [asyncio.ensure_future(pool.acquire(str(number), "k")) for number in range(ASSUMED_LIMIT)]
            assert [await each for each in asked] == [gpu] * ASSUMED_LIMIT
            assert (await pool.status()).gpu_engines == 1

        with_pool(1, scene, most_each=2)

    def test_an_engine_that_lacks_the_gpu_it_was_given_is_told_of_once(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            lacking = FakeHandle(1)
            lacking.gpu_fault = "was given a GPU by Ray, but torch has no CUDA"
            await pool.keep([*engines, lacking])
            await several_looks()
            status = await pool.status()
            assert status.told == ("Engine engine 1 was given a GPU by Ray, but torch has no CUDA.",)
            assert status.gpu_engines == 0

        with_pool(1, scene)

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

    def test_an_engine_takes_as_many_as_its_pack_may_hold_once_it_has_said_so(self) -> None:
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

    def test_an_engine_keeps_to_its_backbone_while_a_trial_waits_for_it_and_then_changes(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            await pool.acquire("a", None, SMALL)
            older = asyncio.ensure_future(pool.acquire("b", None, LARGE))
            await settle()
            newer = asyncio.ensure_future(pool.acquire("c", None, SMALL))
            await settle()
            await pool.release("a")
            assert await newer is engines[0]
            assert not older.done()
            await pool.release("c")
            assert await older is engines[0]

        with_pool(1, scene)

    def test_of_idle_engines_a_trial_gets_the_one_with_its_backbone(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            small, large = await pool.acquire("a", None, SMALL), await pool.acquire("b", None, LARGE)
            await pool.release("a")
            await pool.release("b")
            assert await pool.acquire("c", None, LARGE) is large
            assert await pool.acquire("d", None, LARGE) is small  # nobody waits for the other, so none stays idle

        with_pool(2, scene)

    @given(keys=st.lists(st.sampled_from([None, "k", "l", "m"]), max_size=20), count=st.integers(1, 3))
    @pytest.mark.thorough
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

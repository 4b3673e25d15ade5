"""The pool while engines are away, crash or come back, and after its own process died; without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from orchestrator.scheduling import pool as pool_module
from orchestrator.scheduling.engine_actor import EngineLostError
from orchestrator.scheduling.pool import EnginePool, TrialGivenUpError
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


@pytest.mark.usefixtures("dead_nodes")
class TestAbsence:
    def test_a_trial_that_lost_its_engine_gets_another_at_once(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            lent = await pool.acquire("a", None)
            assert lent is engines[0]
            engines[0].dies()
            await pool.release("a", lost=True)
            assert await pool.acquire("a", None) is engines[1]
            assert [engine.engine for engine in (await pool.status()).engines] == ["engine 1"]

        with_pool(2, scene)

    def test_an_engine_that_comes_back_is_lent_again_to_all_it_had(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            await pool.acquire("a", "k")
            await pool.acquire("b", "k")
            engines[0].dies()
            await asyncio.gather(pool.release("a", lost=True), pool.release("b", lost=True))
            again = [asyncio.ensure_future(pool.acquire(trial, "k")) for trial in ("b", "a")]
            await several_looks()
            assert not any(trial.done() for trial in again)  # where no engine is there, they wait for one
            assert (await pool.status()).engines == ()
            engines[0].returns()
            assert await asyncio.gather(*again) == [engines[0], engines[0]]

        with_pool(1, scene)

    def test_a_trial_whose_own_process_died_with_its_engine_gets_another(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            await pool.acquire("a", "k")
            engines[0].dies()
            await several_looks()
            assert await pool.acquire("a", "k") is engines[1]

        with_pool(2, scene)

    def test_an_engine_that_was_only_out_of_reach_ends_what_others_train_by_now(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            await pool.acquire("a", "k")
            engines[0].error, engines[0].trials = ActorUnavailableError("unplugged", None), ("a",)
            await pool.release("a", lost=True)
            assert await pool.acquire("a", "k") is engines[1]
            engines[0].error = None
            await several_looks()
            assert engines[0].stopped == ["a"]
            assert engines[1].stopped == []

        with_pool(2, scene)

    def test_a_release_does_not_wait_for_an_engine_that_leaves_meanwhile(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            await pool.acquire("a", "k")
            engines[0].may_stop.clear()
            leaving = asyncio.ensure_future(pool.release("a"))
            await settle()
            engines[0].dies()
            await leaving
            assert await pool.acquire("b", None) is engines[1]

        with_pool(2, scene)

    def test_when_no_engine_can_be_started_that_is_an_error(self) -> None:
        async def play() -> None:
            engine = FakeHandle(0)
            engine.dies(ActorDiedError())
            pool = EnginePool([engine])
            with pytest.raises(EngineLostError):
                await pool.ready()
            assert await pool.keep([engine]) == [0]

        asyncio.run(asyncio.wait_for(play(), WAIT_S))

    def test_an_engine_that_does_not_come_is_not_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pool_module, "SET_ASIDE_S", 0.1)

        async def play() -> None:
            engines = [FakeHandle(0), FakeHandle(1)]
            engines[0].dies()
            assert await EnginePool(engines).ready() == ["engine 1"]

        asyncio.run(asyncio.wait_for(play(), WAIT_S))

    def test_an_engine_that_joins_takes_trials_that_wait(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            await pool.acquire("a", None)
            waiting = asyncio.ensure_future(pool.acquire("b", None))
            newcomer = FakeHandle(1)
            assert await pool.keep([*engines, newcomer]) == []
            assert await pool.keep([*engines, newcomer]) == []
            assert await waiting is newcomer
            assert len((await pool.status()).engines) == 2

        with_pool(1, scene)

    def test_one_that_comes_back_to_a_cancelled_sweep_is_told(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            engines[0].dies()
            await pool.cancel_all()
            engines[0].returns()
            await several_looks()
            assert engines[0].cancelled

        with_pool(1, scene)


class TestLosses:
    def crash(self, pool: EnginePool, engine: FakeHandle, *trials: str) -> Coroutine[Any, Any, None]:
        """The engine dies under trials and comes back."""

        async def play() -> None:
            engine.dies()
            await asyncio.gather(*(pool.release(trial, lost=True) for trial in trials))
            engine.returns()
            await several_looks()

        return play()

    @pytest.mark.usefixtures("dead_nodes")
    def test_a_trial_that_lost_two_engines_trains_alone_and_after_three_it_gets_no_more(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            for _ in range(2):
                await pool.acquire("a", "k")
                await self.crash(pool, engines[0], "a")
            await pool.acquire("a", "k")
            mate = asyncio.ensure_future(pool.acquire("b", "k"))
            await several_looks()
            assert not mate.done()
            await self.crash(pool, engines[0], "a")
            assert await mate is engines[0]
            with pytest.raises(TrialGivenUpError, match="each of the 3 times"):
                await pool.acquire("a", "k")

        with_pool(1, scene)

    def test_engines_that_were_lost_with_their_nodes_do_not_count(self, dead_nodes: set[str]) -> None:  # noqa: F811
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            for _ in range(4):
                await pool.acquire("a", "k")
                dead_nodes.add(engines[0].node)
                engines[0].node += "'"
                await self.crash(pool, engines[0], "a")
            assert await pool.acquire("a", "k") is engines[0]
            assert await pool.acquire("b", "k") is engines[0]  # nor need it be alone

        with_pool(1, scene)

    @pytest.mark.usefixtures("dead_nodes")
    def test_a_trial_is_not_given_up_before_it_is_known_why_its_engines_died(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pool_module, "SET_ASIDE_S", 0.2)

        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            for _ in range(3):
                lent = await pool.acquire("a", None)
                lent.dies()
                await pool.release("a", lost=True)
            asking = asyncio.ensure_future(pool.acquire("a", None))
            await several_looks()
            assert not asking.done()
            with pytest.raises(TrialGivenUpError):  # they are set aside, and their nodes are up
                await asking
            assert await pool.acquire("b", None) is engines[3]

        with_pool(4, scene)

    @pytest.mark.usefixtures("dead_nodes")
    def test_an_engine_that_breaks_under_a_trial_without_dying_counts_too(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            for _ in range(3):
                await pool.acquire("a", "k")
                await pool.release("a", lost=True)
            with pytest.raises(TrialGivenUpError):
                await pool.acquire("a", "k")

        with_pool(1, scene)

    @pytest.mark.usefixtures("dead_nodes")
    @pytest.mark.parametrize(
        ("killed", "said"), [(3, "each time it was killed"), (1, "1 of these times it was killed")]
    )
    def test_engines_that_the_kernel_killed_for_want_of_memory_are_told_apart(self, killed: int, said: str) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            for time in range(3):
                await pool.acquire("a", "k")
                engines[0].memory_kills = 8 + min(time, killed - 1)
                await self.crash(pool, engines[0], "a")
            with pytest.raises(TrialGivenUpError, match=f"{said} for want of memory.*137.*batch_size"):
                await pool.acquire("a", "k")
            told = (await pool.status()).told
            assert len(told) == killed
            assert "engine 0 was killed for want of memory. It is started again" in told[0]

        with_pool(1, scene)

    @pytest.mark.usefixtures("dead_nodes")
    def test_what_ray_says_it_killed_for_want_of_memory_counts_as_that(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            engines[0].memory_kills = None
            for _ in range(3):
                await pool.acquire("a", "k")
                engines[0].dies()
                await pool.release("a", lost=True, wanted_memory=True)
                engines[0].returns()
                await several_looks()
            with pytest.raises(TrialGivenUpError, match="each time it was killed for want of memory"):
                await pool.acquire("a", "k")

        with_pool(1, scene)

    @pytest.mark.usefixtures("dead_nodes")
    def test_a_crash_while_nothing_wanted_memory_says_so(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            for _ in range(3):
                await pool.acquire("a", "k")
                await self.crash(pool, engines[0], "a")
            with pytest.raises(TrialGivenUpError, match="nothing says that it was for want of memory"):
                await pool.acquire("a", "k")
            assert (await pool.status()).told == ()

        with_pool(1, scene)


class TestRestart:
    @pytest.fixture(autouse=True)
    def _restarted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pool_module, "_is_restarted", lambda: True)

    def test_a_pool_that_was_started_again_lends_what_is_free_and_knows_who_trains(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            assert set((await pool.status()).lent) == {"a", "b"}
            assert await pool.acquire("c", "k") is engines[1]
            alone = asyncio.ensure_future(pool.acquire("d", None))
            await pool.release("a")
            await several_looks()
            assert not alone.done()
            await pool.release("b")
            assert await alone is engines[0]
            assert engines[0].stopped == ["a", "b"]

        async def play() -> None:
            engines = [FakeHandle(0), FakeHandle(1)]
            engines[0].trials = ("a", "b")
            pool = EnginePool(engines)
            await pool.ready()
            await asyncio.wait_for(scene(pool, engines), WAIT_S)

        asyncio.run(play())

    def test_a_trial_that_asks_before_the_engines_have_spoken_gets_the_one_that_trains_it(self) -> None:
        async def play() -> None:
            engines = [FakeHandle(0), FakeHandle(1)]
            engines[1].trials = ("a",)
            pool = EnginePool(engines)
            assert await asyncio.wait_for(pool.acquire("a", "k"), WAIT_S) is engines[1]

        asyncio.run(play())

    def test_it_lends_none_before_it_has_been_told_of_any(self) -> None:
        async def play() -> None:
            engines = [FakeHandle(0), FakeHandle(1)]
            engines[1].trials = ("a",)
            pool = EnginePool()
            asking = asyncio.ensure_future(pool.acquire("a", "k"))
            await several_looks()
            assert (await pool.status()).engines == ()
            await pool.keep(engines)
            assert await asyncio.wait_for(asking, WAIT_S) is engines[1]

        asyncio.run(play())

    def test_it_goes_on_without_an_engine_that_is_down(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pool_module, "RECOVERY_S", 0.1)

        async def play() -> None:
            engines = [FakeHandle(0), FakeHandle(1)]
            engines[1].dies()
            pool = EnginePool(engines)
            asking = asyncio.ensure_future(pool.acquire("a", "k"))
            await several_looks()
            assert not asking.done()
            assert await asyncio.wait_for(asking, WAIT_S) is engines[0]

        asyncio.run(play())

    def test_a_cancelled_sweep_stays_cancelled(self) -> None:
        async def play() -> None:
            engines = [FakeHandle(0), FakeHandle(1)]
            engines[1].cancelled = True
            pool = EnginePool(engines)
            await several_looks()
            assert await pool.acquire("a", "k") is None
            assert engines[0].cancelled

        asyncio.run(play())

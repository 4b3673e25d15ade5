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
from orchestrator.scheduling.engine_actor import EngineLostError, Presence
from orchestrator.scheduling.pool import EnginePool, TrialGivenUpError
from orchestrator.scheduling.pooled_engine import ASSUMED_LIMIT

WAIT_S = 10.0


class FakeHandle:
    """What the pool needs of an engine's handle: remote calls of `presence`, `stop` and `cancel_all`.

    `error`: what it answers everything with, while it is set.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.limit: int | None = None
        self.process = "first"
        self.node = "a node"
        self.trials: tuple[str, ...] = ()
        self.stopped: list[str] = []
        self.cancelled = False
        self.error: Exception | None = None
        self.may_stop = asyncio.Event()
        self.may_stop.set()

    def dies(self, error: Exception | None = None) -> None:
        self.error, self.trials = error or ActorUnavailableError("restarting", None), ()

    def returns(self) -> None:
        self.error, self.process = None, f"after {self.process}"

    def __getattr__(self, method: str) -> Any:
        class Remote:
            def remote(_, *arguments: Any) -> Any:
                return asyncio.ensure_future(self._answer(method, *arguments))

        return Remote()

    async def _answer(self, method: str, *arguments: Any) -> Any:
        if self.error:
            raise self.error
        return await getattr(self, f"_{method}")(*arguments)

    async def _presence(self) -> Presence:
        name = f"engine {self.number}"
        return Presence(
            process=self.process,
            node=self.node,
            status=EngineStatus(engine=name, task="t", method="m", num_trials=1, limit=self.limit),
            trials=self.trials,
            is_cancelled=self.cancelled,
        )

    async def _stop(self, trial_id: str) -> None:
        await self.may_stop.wait()
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
    for _ in range(40):
        await asyncio.sleep(0)


async def several_looks() -> None:
    await asyncio.sleep(0.05)


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "WATCH_S", 0.005)
    monkeypatch.setattr(pool_module, "IDLE_WATCH_S", 0.005)


@pytest.fixture
def dead_nodes(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The nodes that Ray says are down."""
    dead: set[str] = set()
    monkeypatch.setattr(pool_module, "is_alive", lambda node: node not in dead)
    return dead


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

    def test_engines_that_were_lost_with_their_nodes_do_not_count(self, dead_nodes: set[str]) -> None:
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

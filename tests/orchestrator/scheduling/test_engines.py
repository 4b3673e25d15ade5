"""Engines and the pool that lends them, without Ray: what they do when trials stop, processes die and sweeps end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from orchestrator.scheduling.engines import EngineActor, EngineLayout, EngineLostError, EnginePool, lay_out
from trainables.config import TrialConfig
from trainables.outcome import EpochReport, OutcomeStatus, TrialOutcome

CONFIG = TrialConfig(task="a", backbone="b", method="layernorm", num_epochs=3)
WAIT_S = 10.0


def epoch(number: int) -> EpochReport:
    return EpochReport(epoch=number, step=number, train_loss=1, validation_score=0.5, validation={}, duration_s=0.1)


class FakeEngine:
    """Trains as many epochs as it is let, one for each `go`."""

    name = "host/fake"

    def __init__(self, num_threads: int) -> None:
        self.go = threading.Semaphore(0)
        self.breaks = False
        self.training = 0

    def run(self, config: TrialConfig, *, report: Callable[..., bool], cancelled: Callable[[], bool]) -> TrialOutcome:
        self.training += 1
        assert self.training == 1  # one trial at a time
        status, number = OutcomeStatus.COMPLETED, 0
        while number < config.num_epochs:
            if cancelled():
                status = OutcomeStatus.CANCELLED
                break
            if self.go.acquire(timeout=0.01):
                if self.breaks:
                    raise SystemExit
                number += 1
                report(epoch(number))
        self.training -= 1
        return TrialOutcome(status=status, started_at="now", duration_s=1, epochs=(epoch(number),))


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> EngineActor:
    """An engine's actor, in this process."""
    for name in ("OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.setenv(name, "")  # which the actor sets, and monkeypatch sets back
    monkeypatch.setattr("trainables.engine.Engine", FakeEngine)
    return EngineActor(1)


def fake(actor: EngineActor) -> FakeEngine:
    engine = actor._engine
    assert isinstance(engine, FakeEngine)
    return engine


class TestEngine:
    def test_it_tells_of_every_epoch_and_of_the_last_with_the_outcome(self, actor: EngineActor) -> None:
        assert actor.start("t", CONFIG) == "host/fake"
        fake(actor).go.release(3)
        assert [actor.next("t"), actor.next("t")] == [epoch(1), epoch(2)]
        outcome = actor.next("t")
        assert isinstance(outcome, TrialOutcome)
        assert outcome.status is OutcomeStatus.COMPLETED

    def test_of_a_trial_that_another_process_trained_it_knows_nothing(self, actor: EngineActor) -> None:
        with pytest.raises(EngineLostError, match="that trained t has died"):
            actor.next("t")

    def test_a_trial_is_stopped_once_and_whoever_still_waits_hears_of_it(self, actor: EngineActor) -> None:
        actor.start("t", CONFIG)
        heard: list[Any] = []
        waiting = threading.Thread(target=lambda: heard.append(actor.next("t")))
        waiting.start()
        while not actor._runs:
            pass
        actor.stop("t")
        actor.stop("t")
        waiting.join(WAIT_S)
        assert [outcome.status for outcome in heard] == [OutcomeStatus.CANCELLED]
        assert fake(actor).training == 0

    def test_a_trial_that_is_started_again_begins_anew(self, actor: EngineActor) -> None:
        actor.start("t", CONFIG)
        fake(actor).go.release(2)
        assert actor.next("t") == epoch(1)
        actor.start("t", CONFIG)
        fake(actor).go.release(3)
        assert actor.next("t") == epoch(1)
        actor.stop("t")

    def test_once_cancelled_it_trains_nothing_more(self, actor: EngineActor) -> None:
        actor.start("t", CONFIG)
        actor.cancel_all()
        outcomes = [actor.next("t")]
        actor.start("u", CONFIG)
        outcomes.append(actor.next("u"))
        assert all(isinstance(end, TrialOutcome) and end.status is OutcomeStatus.CANCELLED for end in outcomes)

    def test_an_engine_that_breaks_says_so_instead_of_keeping_silent(self, actor: EngineActor) -> None:
        fake(actor).breaks = True
        actor.start("t", CONFIG)
        fake(actor).go.release()
        with pytest.raises(EngineLostError, match="broke while it trained t"):
            actor.next("t")


class FakeHandle:
    """What the pool needs of an engine's handle: remote calls of `stop`, `name` and `cancel_all`."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.stopped: list[str] = []
        self.cancelled = False
        self.errors: list[Exception] = []

    def __getattr__(self, method: str) -> Any:
        class Remote:
            def remote(_, *arguments: Any) -> Any:
                return asyncio.ensure_future(getattr(self, f"_{method}")(*arguments))

        return Remote()

    async def _name(self) -> str:
        return f"engine {self.number}"

    async def _stop(self, trial_id: str) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.stopped.append(trial_id)

    async def _cancel_all(self) -> None:
        self.cancelled = True


def with_pool(count: int, scene: Callable[[EnginePool, list[FakeHandle]], Coroutine[Any, Any, None]]) -> None:
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


class TestPool:
    def test_an_engine_is_lent_to_one_trial_at_a_time(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            first, second = await pool.acquire("a"), await pool.acquire("b")
            assert {first, second} == set(engines)
            third = asyncio.ensure_future(pool.acquire("c"))
            await settle()
            assert not third.done()
            await pool.release("b")
            assert await third is second

        with_pool(2, scene)

    def test_an_engine_is_free_of_a_trial_before_it_is_lent_again(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            await pool.acquire("a")
            await pool.release("a")
            await pool.acquire("b")
            assert engines[0].stopped == ["a"]

        with_pool(1, scene)

    def test_a_trial_that_asks_again_gets_the_engine_it_has(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            first = await pool.acquire("a")
            assert await pool.acquire("a") is first
            await pool.release("a")
            await pool.release("a")  # as a trial and the driver both do
            assert {await pool.acquire("b"), await pool.acquire("c")} == set(engines)

        with_pool(2, scene)

    def test_a_trial_whose_process_died_waiting_keeps_no_engine(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            await pool.acquire("a")
            dead = asyncio.ensure_future(pool.acquire("b"))
            await settle()
            again = asyncio.ensure_future(pool.acquire("b"))
            await settle()
            await pool.release("b")
            assert await dead is None
            assert await again is None
            await pool.release("a")
            assert await pool.acquire("c") is engines[0]

        with_pool(1, scene)

    def test_a_cancelled_pool_lends_nothing_and_turns_away_those_who_wait(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            await pool.acquire("a")
            waiting = asyncio.ensure_future(pool.acquire("b"))
            await settle()
            await pool.cancel_all()
            assert await waiting is None
            assert await pool.acquire("c") is None
            await settle()
            assert engines[0].cancelled
            await pool.release("a")

        with_pool(1, scene)

    def test_an_engine_that_comes_back_is_lent_again(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            await pool.acquire("a")
            engines[0].errors = [ActorUnavailableError("restarting", None)]
            await pool.release("a")
            assert await pool.acquire("b") is engines[0]

        with_pool(1, scene)

    def test_when_no_engine_comes_back_everybody_hears_of_it(self) -> None:
        async def scene(pool: EnginePool, engines: list[FakeHandle]) -> None:
            await pool.acquire("a")
            waiting = [asyncio.ensure_future(pool.acquire(trial)) for trial in ("b", "c")]
            await settle()
            engines[0].errors = [ActorDiedError()]
            await pool.release("a")
            for trial in waiting:
                with pytest.raises(EngineLostError):
                    await trial

        with_pool(1, scene)


@pytest.mark.parametrize(
    ("resources", "threads", "layout"),
    [
        ({"CPU": 2.0}, None, EngineLayout(count=2, num_gpus=0, num_threads=1)),
        ({"CPU": 8.0}, 4, EngineLayout(count=2, num_gpus=0, num_threads=4)),
        ({"CPU": 2.0}, 16, EngineLayout(count=1, num_gpus=0, num_threads=2)),
        ({"CPU": 16.0, "GPU": 4.0}, None, EngineLayout(count=4, num_gpus=1, num_threads=4)),
        ({"CPU": 2.0, "GPU": 4.0}, None, EngineLayout(count=4, num_gpus=1, num_threads=1)),
        ({}, None, EngineLayout(count=1, num_gpus=0, num_threads=1)),
    ],
)
def test_engines_are_laid_out_over_what_there_is(
    resources: dict[str, float], threads: int | None, layout: EngineLayout
) -> None:
    assert lay_out(resources, threads_per_engine=threads) == layout

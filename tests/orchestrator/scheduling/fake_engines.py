"""Engines that the pool can be tried on without Ray, and time that passes for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError

from orchestrator.engine_status import EngineStatus
from orchestrator.scheduling import pool as pool_module
from orchestrator.scheduling import pooled_engine
from orchestrator.scheduling.engine_actor import Presence
from orchestrator.scheduling.pool import EnginePool

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
        self.stands_still_s = 0.0
        self.memory_kills: int | None = 7
        self.is_on_cpu = True
        self.gpu_fault: str | None = None
        self.task: str | None = "t"
        self.is_stopped = False  # answers nothing, though Ray knows its process
        self.error: Exception | None = None
        self.has_notice = False
        self.handed_over: list[float] = []  # within how many seconds it was told to
        self.may_stop = asyncio.Event()
        self.may_stop.set()

    def dies(self, error: Exception | None = None) -> None:
        self.error, self.trials = error or ActorUnavailableError("restarting", None), ()

    def returns(self) -> None:
        self.error, self.process = None, f"after {self.process}"

    def is_killed(self) -> None:
        """Its process ends as Ray's `kill` ends it, and is soon started again."""
        self.dies()
        self.is_stopped, self.stands_still_s = False, 0.0
        asyncio.get_running_loop().call_later(0.02, self.returns)

    def __getattr__(self, method: str) -> Any:
        class Remote:
            def remote(_, *arguments: Any) -> Any:
                return asyncio.ensure_future(self._answer(method, *arguments))

        return Remote()

    async def _answer(self, method: str, *arguments: Any) -> Any:
        if self.error:
            raise self.error
        if self.is_stopped:
            await asyncio.Event().wait()
        return await getattr(self, f"_{method}")(*arguments)

    async def _presence(self) -> Presence:
        name = f"engine {self.number}"
        return Presence(
            process=self.process,
            node=self.node,
            status=EngineStatus(engine=name, task=self.task, method="m", num_trials=1, limit=self.limit),
            trials=self.trials,
            is_cancelled=self.cancelled,
            is_on_cpu=self.is_on_cpu,
            gpu_fault=self.gpu_fault,
            stands_still_s=self.stands_still_s,
            has_notice=self.has_notice,
            memory_kills=self.memory_kills,
        )

    async def _stop(self, trial_id: str) -> None:
        await self.may_stop.wait()
        self.stopped.append(trial_id)

    async def _hand_over(self, within_s: float) -> None:
        self.has_notice = True
        self.handed_over.append(within_s)

    async def _cancel_all(self) -> None:
        self.cancelled = True


Scene = Callable[[EnginePool, list[FakeHandle]], Coroutine[Any, Any, None]]


def with_pool(count: int, scene: Scene, *, most_each: int | None = None) -> None:
    """Play a scene with a ready pool."""

    async def play() -> None:
        engines = [FakeHandle(number) for number in range(count)]
        pool = EnginePool(engines, most_each)
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
    monkeypatch.setattr(pool_module, "draining_nodes", dict)


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[FakeHandle]:
    """The engines that the pool killed, in their order."""
    found: list[FakeHandle] = []

    def kill(handle: FakeHandle) -> None:
        found.append(handle)
        handle.is_killed()

    monkeypatch.setattr(pooled_engine, "end_process", kill)
    return found


@pytest.fixture
def draining(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The nodes that Ray says are about to go, and when."""
    nodes: dict[str, float] = {}
    monkeypatch.setattr(pool_module, "draining_nodes", lambda: nodes)
    return nodes


@pytest.fixture
def dead_nodes(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The nodes that Ray says are down."""
    dead: set[str] = set()
    monkeypatch.setattr(pool_module, "is_alive", lambda node: node not in dead)
    return dead

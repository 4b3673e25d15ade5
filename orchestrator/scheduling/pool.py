"""The pool that lends engines to trials: many to one engine, as long as they can train in one pack.

A trial asks the pool for an engine and then speaks to that engine alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.exceptions import ActorUnavailableError, RayError

from orchestrator.engine_status import EngineStatus
from orchestrator.scheduling.engine_actor import EngineLostError

logger = logging.getLogger(__name__)

# Trials lent an engine before it has said how many its pack may hold. Those beyond what it then says wait inside it.
ASSUMED_LIMIT = 4
# A trial that lost so many engines trains alone, so that one that breaks engines fails by itself in the end.
LOSSES_SHARED = 2
# Between two looks at a working engine, while trials wait for one and while none does.
WATCH_S, IDLE_WATCH_S = 0.5, 2.0


@dataclass(frozen=True, kw_only=True)
class PoolStatus:
    """What the pool knows without asking."""

    lent: tuple[str, ...]  # the trials that have an engine
    engines: tuple[EngineStatus, ...]


@dataclass(eq=False)
class _Engine:
    """An engine as the pool knows it. Mutable: it follows the trials that come and go."""

    handle: Any
    name: str = ""
    key: str | None = None  # of the pack its trials share
    trials: set[str] = field(default_factory=set)
    status: EngineStatus | None = None  # since its first trial of this key came
    turn: int = 0  # counts the times it stopped being idle; what it said in an earlier one is of another pack
    is_dead: bool = False

    def takes(self, key: str | None) -> bool:
        """Whether a trial can begin here: alone, or in the pack that trains."""
        if self.is_dead or not self.trials:
            return not self.is_dead
        limit = self.status.limit if self.status else None
        return key is not None and key == self.key and len(self.trials) < (limit or ASSUMED_LIMIT)

    def take(self, trial_id: str, key: str | None) -> None:
        if not self.trials:
            self.key, self.status = key, None
            self.turn += 1
        self.trials.add(trial_id)


@dataclass(eq=False)
class _Loan:
    """A trial that has an engine or waits for one; None ends its waiting without one."""

    key: str | None
    engine: asyncio.Future[_Engine | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class EnginePool:
    """Lends each trial an engine. Everything asked twice of it is done once.

    Trials with equal pack keys share an engine, up to the limit of its pack; a trial without a key has one to itself.
    Of several engines that could take it, a trial gets the one with the fewest trials.
    """

    def __init__(self, engines: Sequence[Any]) -> None:
        self._engines = [_Engine(handle) for handle in engines]
        self._loans: dict[str, _Loan] = {}  # in the order in which they were asked for
        self._leaving: dict[str, asyncio.Event] = {}  # trials whose engine is ending them
        self._losses: Counter[str] = Counter()  # trial_id -> engines that died under it
        self._watchers: list[asyncio.Task[None]] = []
        self._cancelled = False

    async def ready(self) -> list[str]:
        """Wait until every engine has loaded, and name them."""
        names = await asyncio.gather(*(engine.handle.name.remote() for engine in self._engines))
        for engine, name in zip(self._engines, names, strict=True):
            engine.name = name
            self._watchers.append(asyncio.create_task(self._watch(engine)))
        return list(names)

    async def status(self) -> PoolStatus:
        """Which trials have engines, and what each engine was last seen to do."""
        return PoolStatus(
            lent=tuple(trial_id for engine in self._engines for trial_id in engine.trials),
            engines=tuple(
                (engine.status if engine.trials else None)
                or EngineStatus(engine=engine.name, num_waiting=len(engine.trials))
                for engine in self._engines
                if engine.name and not engine.is_dead
            ),
        )

    async def acquire(self, trial_id: str, key: str | None) -> Any | None:
        """Lend an engine to a trial with a pack key, waiting for one; None once the sweep is cancelled.

        A trial that asks again, because its process was started anew, gets the engine it has. Raises
        `EngineLostError` where no engine is left.
        """
        while left := self._leaving.get(trial_id):  # the engine's `stop` must not meet the trial's next start
            await left.wait()
        if self._cancelled:
            return None
        if trial_id not in self._loans:
            self._loans[trial_id] = _Loan(key if self._losses[trial_id] < LOSSES_SHARED else None)
            self._lend()
        engine = await asyncio.shield(self._loans[trial_id].engine)
        if engine is None or self._cancelled:
            await self.release(trial_id)
            return None
        return engine.handle

    async def release(self, trial_id: str, *, lost: bool = False) -> None:
        """Take a trial's engine back, ending the trial where it still trains; nothing where it has none.

        `lost`: the engine can no longer tell of the trial.
        """
        loan = self._loans.pop(trial_id, None)
        if loan is None:
            return
        self._losses[trial_id] += lost
        if not loan.engine.done():
            loan.engine.set_result(None)
            return
        engine = None if loan.engine.exception() else loan.engine.result()
        if engine is None:
            return
        left = self._leaving[trial_id] = asyncio.Event()
        try:
            engine.is_dead = not await self._settle(engine, trial_id) or engine.is_dead
        finally:
            engine.trials.discard(trial_id)
            del self._leaving[trial_id]
            left.set()
        self._lend()

    async def cancel_all(self) -> None:
        """End every running trial at its next step and lend no engine any more."""
        self._cancelled = True
        for loan in self._loans.values():
            if not loan.engine.done():
                loan.engine.set_result(None)
        for engine in self._engines:
            engine.handle.cancel_all.remote()

    def _lend(self) -> None:
        """Give the trials that wait, in their order, what engines can take them."""
        refused: set[str | None] = set()
        is_lost = all(engine.is_dead for engine in self._engines)
        for trial_id, loan in self._loans.items():
            if loan.engine.done() or loan.key in refused:
                continue
            if is_lost:
                loan.engine.set_exception(EngineLostError("every engine has died and cannot be started again"))
            elif able := [engine for engine in self._engines if engine.takes(loan.key)]:
                engine = min(able, key=lambda engine: len(engine.trials))
                engine.take(trial_id, loan.key)
                loan.engine.set_result(engine)
            else:
                refused.add(loan.key)

    async def _settle(self, engine: _Engine, trial_id: str) -> bool:
        """Wait until an engine is free of a trial, or back after its process died; False where it never comes back."""
        while True:
            try:
                await engine.handle.stop.remote(trial_id)
                return True
            except ActorUnavailableError:  # Ray is starting it again
                await asyncio.sleep(0.2)
            except RayError as error:
                logger.warning("engine %s is lost: %s", engine.name, error)
                return False

    async def _watch(self, engine: _Engine) -> None:
        """Look now and then at how large the pack of an engine may be, and how it gets on."""
        while not engine.is_dead:
            waiting = any(not loan.engine.done() for loan in self._loans.values())
            await asyncio.sleep(WATCH_S if waiting else IDLE_WATCH_S)
            if not engine.trials:
                continue
            turn = engine.turn
            try:
                status = await engine.handle.status.remote()
            except RayError:  # it died, and may be back at the next look
                continue
            if turn == engine.turn:
                engine.status = status
                self._lend()

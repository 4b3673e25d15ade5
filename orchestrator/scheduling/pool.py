"""The pool that lends engines to trials: many to one engine, as long as they can train in one pack.

A trial asks the pool for an engine and then speaks to that engine alone. Engines come and go as the cluster does.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError

from orchestrator.engine_status import EngineStatus
from orchestrator.scheduling.cluster_state import draining_nodes
from orchestrator.scheduling.engine_actor import EngineLostError, Presence
from orchestrator.scheduling.engine_demand import Idle
from orchestrator.scheduling.engine_failures import KILLED_FOR_MEMORY, EngineFailures
from orchestrator.scheduling.engine_failures import TrialGivenUpError as TrialGivenUpError
from orchestrator.scheduling.loans import ANYTHING, Waiting, Wants, next_loan
from orchestrator.scheduling.notice import seconds_left
from orchestrator.scheduling.pooled_engine import SET_ASIDE_S, Life, PooledEngine, is_alive

logger = logging.getLogger(__name__)

# Between two looks at an engine, while trials wait for one and while none does.
WATCH_S, IDLE_WATCH_S = 0.5, 2.0
# What a pool that was started again lets engines take to tell whom they train, before it lends any.
RECOVERY_S = 5.0


@dataclass(frozen=True, kw_only=True)
class PoolStatus:
    """What the pool knows without asking."""

    lent: tuple[str, ...]  # the trials that have an engine
    engines: tuple[EngineStatus, ...]  # that are there; none where trials wait for one to come
    told: tuple[
        str, ...
    ] = ()  # what is to be said of engines that were started again or lack their GPU, the oldest first
    gpu_engines: int = 0  # of those that are there, on GPUs


@dataclass(eq=False)
class _Loan:
    """A trial that has an engine or waits for one; None ends its waiting without one."""

    key: str | None
    wants: Wants = ANYTHING
    engine: asyncio.Future[PooledEngine | None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    life: Life | None = None  # of the engine when it was lent

    @property
    def lent(self) -> PooledEngine | None:
        return self.engine.result() if self.engine.done() else None


class EnginePool:
    """Lends each trial an engine. Everything asked twice of it is done once.

    - Trials with equal pack keys share an engine, up to the limit of its pack and, on CPUs, to `most_each`; a trial
      without a key has one to itself. Which waiting trial gets which engine, `orchestrator.scheduling.loans` says.
    - An engine whose node has been given notice is told so and lent to nobody; the trials that cannot end in time come
      back for another one.
    - An engine that does not answer is lent to nobody until it does. Trials wait where no engine is there.
    - An engine that hangs is killed and started again, as a crash under its trials.
    - A pool whose process was started again asks the engines whom they train, and goes on from there.
    """

    def __init__(self, engines: Sequence[Any] = (), most_each: int | None = None) -> None:
        self._most_each = most_each
        self._engines: list[PooledEngine] = []
        self._loans: dict[str, _Loan] = {}  # in the order in which they were asked for
        self._leaving: dict[str, asyncio.Event] = {}  # trials whose engine is ending them
        self._losses = EngineFailures()
        self._told: list[str] = []
        self._watchers: list[asyncio.Task[None]] = []
        self._knows_notices = False
        self._cancelled = False
        self._is_restarted = _is_restarted()
        self._lends_from = math.inf  # until it knows an engine
        self._arrived_at: float | None = None  # when the first engine came
        self._add(engines)

    async def keep(self, engines: Sequence[Any], helpers: Sequence[int] = ()) -> list[int]:
        """Lend these engines too, where they are new. Returns the places in the list of those that are gone for good.

        A pool that was started again knows none, so that all are named each time. `helpers`: the places of those
        without a GPU where others have one, which are lent to trials that need none.
        """
        known = {engine.handle for engine in self._engines}
        self._add([handle for handle in engines if handle not in known])
        helping = {engines[place] for place in helpers}
        for engine in self._engines:
            engine.is_helper = engine.handle in helping
        self._lend()
        gone = {engine.handle for engine in self._engines if engine.is_gone}
        return [place for place, handle in enumerate(engines) if handle in gone]

    async def idle(self, engines: Sequence[Any]) -> list[Idle]:
        """Which of these engines have nothing to do, and since when."""
        known = {engine.handle: engine for engine in self._engines}
        return [
            Idle(place=place, idle_s=idle_s, node=engine.life.node if engine.life else None)
            for place, handle in enumerate(engines)
            if (engine := known.get(handle)) and (idle_s := engine.idle_s()) is not None
        ]

    async def retire(self, engines: Sequence[Any]) -> list[bool]:
        """Lend these engines no more, where they are idle; tells for each whether it was. Their maker ends them."""
        known = {engine.handle: engine for engine in self._engines}
        retired = [(engine := known.get(handle)) is not None and engine.idle_s() is not None for handle in engines]
        for handle in [handle for handle, was_idle in zip(engines, retired, strict=True) if was_idle]:
            known[handle].is_gone, known[handle].is_here = True, False
            self._engines.remove(known[handle])
        return retired

    async def ready(self) -> list[str]:
        """Wait until every engine has loaded or been set aside, and name those that are there.

        Raises `EngineLostError` where all are gone for good.
        """
        while self._expected() or not any(engine.is_here for engine in self._engines):
            if self._engines and all(engine.is_gone for engine in self._engines):
                why = self._engines[-1].why_absent
                raise EngineLostError(f"every engine has died and cannot be started again; of the last Ray says: {why}")
            await asyncio.sleep(0.05)
        return [engine.name for engine in self._engines if engine.is_here]

    async def status(self) -> PoolStatus:
        """Which trials have engines, and what each engine was last seen to do."""
        return PoolStatus(
            lent=tuple(trial_id for engine in self._engines for trial_id in engine.trials),
            engines=tuple(
                (engine.status if engine.trials else None)
                or EngineStatus(engine=engine.name, num_waiting=len(engine.trials))
                for engine in self._engines
                if engine.is_here
            ),
            told=tuple(self._told),
            gpu_engines=sum(engine.is_here and engine.is_on_gpu for engine in self._engines),
        )

    async def acquire(self, trial_id: str, key: str | None, wants: Wants = ANYTHING) -> Any | None:
        """Lend an engine to a trial with a pack key, waiting for one; None once the sweep is cancelled.

        A trial that asks again, because its process was started anew, gets the engine it has, or another where that is
        not there. Raises `TrialGivenUpError` where `MOST_CRASHES` engines crashed under it.
        """
        while left := self._leaving.get(trial_id):  # the engine's `stop` must not meet the trial's next start
            await left.wait()
        if (loan := self._loans.get(trial_id)) and (engine := loan.lent) and not engine.is_here:
            engine.forget(trial_id)
            self._note_loss(trial_id, loan)
            del self._loans[trial_id]
        if trial_id not in self._loans and not self._cancelled:
            await self._losses.refuse(trial_id)
        if self._cancelled:
            return None
        if trial_id not in self._loans:
            self._loans[trial_id] = _Loan(None if self._losses.trains_alone(trial_id) else key, wants)
            self._lend()
        engine = await asyncio.shield(self._loans[trial_id].engine)
        if engine is None or self._cancelled:
            await self.release(trial_id)
            return None
        return engine.handle

    async def release(
        self, trial_id: str, *, lost: bool = False, had_notice: bool = False, wanted_memory: bool = False
    ) -> None:
        """Take a trial's engine back, ending the trial where it still trains; nothing where it has none.

        `lost`: the engine can no longer tell of the trial. Wait for the answer before asking for another one.
        `had_notice`: and that since it was about to go.
        `wanted_memory`: Ray says that it killed the engine, since its node ran out of memory.
        """
        if not lost:
            self._losses.forget(trial_id)
        loan = self._loans.pop(trial_id, None)
        if loan is None:
            return
        if not loan.engine.done():
            loan.engine.set_result(None)
            return
        engine = loan.lent
        if engine is None:
            return
        left = self._leaving[trial_id] = asyncio.Event()
        try:
            if had_notice and loan.life:
                loan.life.has_notice = True
            elif lost:
                await self._look(engine)
                self._note_loss(trial_id, loan, wanted_memory=wanted_memory)
            await self._end(engine, trial_id)
        finally:
            engine.drop(trial_id)
            del self._leaving[trial_id]
            left.set()
        self._lend()

    async def cancel_all(self) -> None:
        """Lend no engine any more, and have every running trial end with the epoch it is in."""
        self._cancelled = True
        for loan in self._loans.values():
            if not loan.engine.done():
                loan.engine.set_result(None)
        for engine in self._engines:
            engine.handle.cancel_all.remote()

    def _add(self, handles: Sequence[Any]) -> None:
        if handles and not self._engines:
            self._lends_from = time.monotonic() + (RECOVERY_S if self._is_restarted else 0)
        for engine in [PooledEngine(handle, most=self._most_each) for handle in handles]:
            self._engines.append(engine)
            self._watchers.append(asyncio.create_task(self._watch(engine)))
        if handles and not self._knows_notices:
            self._knows_notices = True
            self._watchers.append(asyncio.create_task(self._watch_notices()))

    def _expected(self) -> bool:
        """Whether an engine that is not there may still come soon."""
        if self._arrived_at is None:
            return True
        since = time.monotonic() - SET_ASIDE_S
        return any(
            max(engine.absent_since, self._arrived_at) > since
            for engine in self._engines
            if not engine.is_here and not engine.is_gone
        )

    def _lend(self) -> None:
        """Give the trials that wait, in their order, what engines can take them."""
        if time.monotonic() < self._lends_from and any(engine.life is None for engine in self._engines):
            return  # an engine may have them already
        waiting = [(trial_id, loan) for trial_id, loan in self._loans.items() if not loan.engine.done()]
        while found := next_loan([Waiting(key=loan.key, wants=loan.wants) for _, loan in waiting], self._engines):
            place, engine = found
            self._give(engine, *waiting.pop(place))

    def _give(self, engine: PooledEngine, trial_id: str, loan: _Loan) -> None:
        engine.take(trial_id, loan.key, loan.wants)
        loan.life = engine.life
        loan.engine.set_result(engine)

    async def _end(self, engine: PooledEngine, trial_id: str) -> None:
        """Wait until an engine is free of a trial; one that is not there is told when it comes back."""
        try:
            if engine.is_here:
                await engine.stop(trial_id)
                return
        except RayError as error:
            self._absent(engine, error)
        engine.forget(trial_id)

    async def _watch(self, engine: PooledEngine) -> None:
        """Look now and then whether an engine is there, how large its pack may be, and how it gets on."""
        while not engine.is_gone:
            try:
                await self._look(engine)
            except Exception:  # nobody else looks
                logger.exception("looking at engine %s", engine.name)
            waiting = not engine.is_here or any(not loan.engine.done() for loan in self._loans.values())
            await asyncio.sleep(WATCH_S if waiting else IDLE_WATCH_S)

    async def _watch_notices(self) -> None:
        """Tell engines whose nodes are about to go, so that they end what cannot be finished."""
        while True:
            try:
                going = draining_nodes()
            except Exception:  # Ray does not answer just now
                logger.debug("the nodes could not be looked at", exc_info=True)
                going = {}
            for engine in self._engines:
                life = engine.life
                if engine.is_here and life and life.node in going and not life.has_notice:
                    life.has_notice = True
                    engine.handle.hand_over.remote(seconds_left(going[life.node]))
                    logger.info("the node of engine %s goes", engine.name)
            await asyncio.sleep(IDLE_WATCH_S)

    async def _look(self, engine: PooledEngine) -> None:
        turn, forgotten = engine.turn, set(engine.forgotten)
        try:
            seen = await engine.look()
            for trial_id in forgotten & set(seen.trials):
                await engine.handle.stop.remote(trial_id)
        except (RayError, TimeoutError) as error:
            self._absent(engine, error)
            if engine.is_silent:
                self._replace(engine, "does not answer")
            return
        engine.forgotten -= forgotten
        self._follow(engine, seen)
        if self._cancelled and not seen.is_cancelled:
            engine.handle.cancel_all.remote()
        elif seen.is_cancelled and not self._cancelled:  # by this pool, before it was started again
            await self.cancel_all()
        if not engine.is_here:
            engine.came()
            self._arrived_at = self._arrived_at or time.monotonic()
        if turn == engine.turn:
            engine.status = seen.status
        if why := engine.hangs(seen):
            self._replace(engine, why)
            return  # it is lent to nobody: the next look finds it gone
        self._lend()

    def _follow(self, engine: PooledEngine, seen: Presence) -> None:
        """Take in which process answers for an engine, and on a pool's first look, whom it trains."""
        engine.name = seen.status.engine
        engine.is_on_gpu = not seen.is_on_cpu
        if engine.is_on_gpu:  # GPUs may join a cluster that began without any
            engine.most = None
        if seen.gpu_fault and not engine.life:
            self._tell(f"Engine {engine.name} {seen.gpu_fault}.")
        before = engine.life
        if before and before.process == seen.process:
            before.goes_on(seen)
            if engine.is_here:
                return
        engine.life = Life(seen)
        engine.backbone = None
        engine.loaded.clear()
        if before:
            before.end(is_crash=before.process != seen.process and is_alive(before.node), next_seen=seen)
            if before.wanted_memory:
                self._tell_of_replaced(f"Engine {engine.name} {KILLED_FOR_MEMORY}.")
            return
        for trial_id in seen.trials:
            # Who could train with them is no longer known, so nobody joins them.
            loan = self._loans.setdefault(trial_id, _Loan(None))
            if loan.engine.done():
                engine.forget(trial_id)  # another engine has it
            else:
                loan.key = None
                self._give(engine, trial_id, loan)

    def _absent(self, engine: PooledEngine, error: Exception) -> None:
        """An engine did not answer."""
        if engine.is_here:
            logger.warning("engine %s is not there: %s", engine.name, error)
        engine.leave(error)
        if engine.life and (engine.is_gone or time.monotonic() - engine.absent_since > SET_ASIDE_S):
            engine.life.end(is_crash=is_alive(engine.life.node))

    def _replace(self, engine: PooledEngine, why: str) -> None:
        """Kill an engine that hangs; its trials hear of it as of any crash, and begin anew."""
        self._tell_of_replaced(f"Engine {engine.name} {why}.")
        engine.kill()

    def _tell_of_replaced(self, line: str) -> None:
        self._tell(f"{line} It is started again, and its trials begin anew.")

    def _tell(self, line: str) -> None:
        """Have the user hear of an engine."""
        logger.warning("%s", line)
        self._told.append(line)

    def _note_loss(self, trial_id: str, loan: _Loan, *, wanted_memory: bool = False) -> None:
        """An engine can no longer tell of a trial."""
        if (engine := loan.lent) and loan.life and not loan.life.has_notice:
            is_well = engine.is_here and engine.life is loan.life
            self._losses.note(trial_id, None if is_well else loan.life, wanted_memory=wanted_memory)


def _is_restarted() -> bool:
    """Whether this is not the first process of this actor."""
    return ray.is_initialized() and bool(ray.get_runtime_context().was_current_actor_reconstructed)

"""An engine as the pool knows it: which process it is, whom it trains, and whether it is there at all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError

from orchestrator.engine_status import EngineStatus
from orchestrator.scheduling.engine_actor import Presence
from orchestrator.scheduling.loans import Wants

# Trials lent an engine before it has said how many its pack may hold. Those beyond what it then says wait inside it.
ASSUMED_LIMIT = 4
# An engine that says nothing for so long is taken to be gone, until it says something. One that leaves so many
# questions in a row unanswered, while Ray takes its process to be alive, hangs: it is killed and started again.
SILENCE_S = 60.0
SILENCES_BORNE = 3
# An engine that answers, but whose training does not move for so long, hangs too. While it has no pack it loads, and
# may be fetching a large backbone in one long call.
STANDSTILL_S = 600.0
LOADING_STANDSTILL_S = 3600.0
# Ray may call an actor dead that it is about to start again. One that it calls dead so often in a row will not be.
DEATHS_BELIEVED = 3
# An engine that is not back after so long is set aside: nobody waits for it any more.
SET_ASIDE_S = 20.0
LONGEST_REASON = 300  # characters of what Ray says

T = TypeVar("T")


class Life:
    """One process of an engine, from its start to its end.

    `is_crash` tells, once it has ended, whether it ended by itself: not with its node, not in appearance only, and not
    because it was given notice (`has_notice`). `wanted_memory` tells then whether the kernel killed processes of its
    machine for want of memory as it ended.
    """

    def __init__(self, seen: Presence) -> None:
        self.process = seen.process
        self.node = seen.node
        self.has_notice = seen.has_notice
        self.wanted_memory = False
        self.is_crash: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._memory_kills = seen.memory_kills

    def goes_on(self, seen: Presence) -> None:
        """It was seen again."""
        self.has_notice |= seen.has_notice
        self._memory_kills = seen.memory_kills

    def end(self, *, is_crash: bool, next_seen: Presence | None = None) -> None:
        """It is over; `next_seen` is the process in its place."""
        if self.is_crash.done():
            return
        if is_crash and next_seen is not None and next_seen.node == self.node:
            self.wanted_memory = (next_seen.memory_kills or 0) > (self._memory_kills or 0)
        self.is_crash.set_result(is_crash and not self.has_notice)


@dataclass(eq=False)
class PooledEngine:
    """One engine and the trials it is lent to. Mutable: it follows trials and processes that come and go."""

    handle: Any
    most: int | None = None  # trials that it is lent to at a time; None: as many as its packs hold
    is_helper: bool = False  # on CPUs, where others have GPUs
    is_on_gpu: bool = False
    name: str = ""
    life: Life | None = None  # seen last
    key: str | None = None  # of the pack its trials share
    backbone: str | None = None  # that its trials, or those it had last, are of; None of a new process
    trials: set[str] = field(default_factory=set)
    forgotten: set[str] = field(default_factory=set)  # trials to end here should it come back with them
    loaded: set[str] = field(default_factory=set)  # names of what its process has loaded for trials
    idle_since: float = field(default_factory=time.monotonic)  # where it has no trial
    status: EngineStatus | None = None  # since its first trial of this key came
    turn: int = 0  # counts the times it stopped being idle; what it said in an earlier one is of another pack
    is_here: bool = False
    is_gone: bool = False  # for good
    absent_since: float = field(default_factory=time.monotonic)
    why_absent: str = ""  # what Ray said last of one that is not there
    _deaths: int = 0
    _silences: int = 0
    _killed: str | None = None  # the process that was killed for hanging
    _left: asyncio.Event = field(default_factory=asyncio.Event)

    def takes(self, key: str | None) -> bool:
        """Whether a trial can begin here: alone, or in the pack that trains."""
        is_lent = self.is_here and not self.has_notice
        if not is_lent or not self.trials:
            return is_lent
        limit = (self.status.limit if self.status else None) or ASSUMED_LIMIT
        most = limit if self.most is None else min(limit, self.most)
        return key is not None and key == self.key and len(self.trials) < most

    def take(self, trial_id: str, key: str | None, wants: Wants) -> None:
        if not self.trials:
            self.key, self.status = key, None
            self.turn += 1
        if wants.backbone not in (None, self.backbone):
            self.backbone = wants.backbone
            self.loaded.clear()  # an engine holds one backbone, and lets go of what was computed with the one before
        self.trials.add(trial_id)
        self.loaded.update(wants.loads)
        self.forgotten.discard(trial_id)

    def drop(self, trial_id: str) -> None:
        """Have a trial no more."""
        self.trials.discard(trial_id)
        if not self.trials:
            self.idle_since = time.monotonic()

    def forget(self, trial_id: str) -> None:
        """Have a trial no more, though nobody can tell the engine so now."""
        self.drop(trial_id)
        self.forgotten.add(trial_id)

    @property
    def num_trials(self) -> int:
        return len(self.trials)

    @property
    def has_notice(self) -> bool:
        """Whether its process is about to go."""
        return self.life is not None and self.life.has_notice

    def idle_s(self) -> float | None:
        """How long it has had no trial, or has been away without one; None where it has one, or may come soon."""
        if self.trials or self.is_gone:
            return None
        if self.is_here:
            return time.monotonic() - self.idle_since
        away_s = time.monotonic() - self.absent_since
        return away_s if away_s > SET_ASIDE_S else None

    async def look(self) -> Presence:
        """What it does now. Raises `RayError` or `TimeoutError` where it does not say."""
        async with asyncio.timeout(SILENCE_S):
            seen: Presence = await self.handle.presence.remote()
            return seen

    def hangs(self, seen: Presence) -> str | None:
        """What is to be said of an engine that answers where its training hangs; None where it gets on."""
        limit = STANDSTILL_S if seen.status.task else LOADING_STANDSTILL_S
        if seen.stands_still_s < limit or seen.process == self._killed:
            return None
        doing = "training" if seen.status.task else "loading"
        return f"has not moved for {seen.stands_still_s / 60:.0f} min while {doing}"

    def kill(self) -> None:
        """End its process, whatever it does; Ray starts it again."""
        self._killed = self.life.process if self.life else None
        self.leave(ActorUnavailableError("killed, since it hung", None))
        end_process(self.handle)

    async def stop(self, trial_id: str) -> None:
        """Wait until a trial has ended here. Raises `RayError` where the engine is not there or leaves meanwhile."""
        left = asyncio.ensure_future(self._left.wait())
        stopped = asyncio.ensure_future(_answer(self.handle.stop.remote(trial_id)))
        await asyncio.wait({left, stopped}, return_when=asyncio.FIRST_COMPLETED)
        left.cancel()
        if not stopped.done():
            stopped.cancel()
            raise ActorUnavailableError(f"engine {self.name} left while it ended {trial_id}", None)
        stopped.result()

    def came(self) -> None:
        self.is_here = True
        self._deaths = self._silences = 0
        self._left = asyncio.Event()

    def leave(self, error: Exception) -> None:
        """It did not answer, for this reason."""
        self.why_absent = _last_line(error)
        # Only of one that was there: while a process starts it cannot answer, for as long as its imports take.
        is_silence = isinstance(error, TimeoutError) and (self.is_here or self._silences > 0)
        self._silences = self._silences + 1 if is_silence else 0
        if self.is_here:
            self.is_here = False
            self.absent_since = time.monotonic()
            self._left.set()
        self._deaths = self._deaths + 1 if isinstance(error, ActorDiedError) else 0
        self.is_gone = self._deaths >= DEATHS_BELIEVED

    @property
    def is_silent(self) -> bool:
        """Whether it has left so many questions unanswered that it must hang."""
        return self._silences >= SILENCES_BORNE


def end_process(handle: Any) -> None:
    """Kill an actor's process, one that is stopped included, and have Ray start it again."""
    ray.kill(handle, no_restart=False)


def _last_line(error: Exception) -> str:
    """What went wrong: Ray's text ends with it, after the traceback of an actor that could not be made."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:LONGEST_REASON] if lines else type(error).__name__


async def _answer(reference: Awaitable[T]) -> T:
    return await reference


def is_alive(node: str) -> bool:
    """Whether Ray takes a node of its cluster to be up."""
    return any(found["NodeID"] == node and found["Alive"] for found in ray.nodes())

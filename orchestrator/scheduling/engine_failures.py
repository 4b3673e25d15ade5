"""Who is to blame when engines are lost under trials, and which trials get no more of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.scheduling.pooled_engine import Life

# A trial that lost so many engines trains alone, so that one that breaks engines fails by itself in the end.
LOSSES_SHARED = 2
# A trial under which so many engines crashed is not tried again. Those that were lost with their nodes do not count.
MOST_CRASHES = 3
KILLED_FOR_MEMORY = "was killed for want of memory"


class TrialGivenUpError(RuntimeError):
    """So many engines crashed under a trial that it gets no more of them."""


@dataclass(frozen=True, kw_only=True)
class _Loss:
    """An engine that a trial lost."""

    is_crash: asyncio.Future[bool]
    life: Life | None
    is_told_of_memory: bool

    @property
    def wanted_memory(self) -> bool:
        return self.is_told_of_memory or (self.life is not None and self.life.wanted_memory)


class EngineFailures:
    """The engines that each trial lost. Whether one crashed or went down with its node may turn out later."""

    def __init__(self) -> None:
        self._losses: dict[str, list[_Loss]] = {}  # trial_id -> its losses

    def note(self, trial_id: str, life: Life | None, *, wanted_memory: bool = False) -> None:
        """A trial lost its engine with that process; None where the process is well and the training in it broke.

        `wanted_memory`: Ray says that it killed it, since its node ran out of memory.
        """
        if life is None:
            broke: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            broke.set_result(True)
        loss = _Loss(is_crash=broke if life is None else life.is_crash, life=life, is_told_of_memory=wanted_memory)
        self._losses.setdefault(trial_id, []).append(loss)

    def forget(self, trial_id: str) -> None:
        """A trial has ended."""
        self._losses.pop(trial_id, None)

    def trains_alone(self, trial_id: str) -> bool:
        return len(self._suspect(trial_id)) >= LOSSES_SHARED

    async def refuse(self, trial_id: str) -> None:
        """Raise `TrialGivenUpError` where too many engines crashed under a trial, once that is certain."""
        while len(suspect := self._suspect(trial_id)) >= MOST_CRASHES:
            if not (unknown := [loss.is_crash for loss in suspect if not loss.is_crash.done()]):
                raise TrialGivenUpError(
                    f"the engine's process died each of the {len(suspect)} times that it trained this trial, the last "
                    f"times alone; {_why(suspect)}"
                )
            await asyncio.wait(unknown, return_when=asyncio.FIRST_COMPLETED)

    def _suspect(self, trial_id: str) -> list[_Loss]:
        """The losses that were crashes, or may have been."""
        losses = self._losses.get(trial_id, ())
        return [loss for loss in losses if not loss.is_crash.done() or loss.is_crash.result()]


def _why(crashes: Sequence[_Loss]) -> str:
    if not (wanting := sum(loss.wanted_memory for loss in crashes)):
        return (
            "such an end leaves no traceback, and nothing says that it was for want of memory; a crash of native code "
            "ends so, and an engine that was ended because it hung"
        )
    times = "each time" if wanting == len(crashes) else f"{wanting} of these times"
    remedy = "give the node more memory, or the trial a smaller batch_size or max_length"
    return f"{times} it {KILLED_FOR_MEMORY} (SIGKILL, exit status 137): {remedy}"

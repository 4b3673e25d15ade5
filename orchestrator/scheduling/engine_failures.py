"""Who is to blame when engines are lost under trials, and which trials get no more of them."""

from __future__ import annotations

import asyncio

from orchestrator.scheduling.pooled_engine import Life

# A trial that lost so many engines trains alone, so that one that breaks engines fails by itself in the end.
LOSSES_SHARED = 2
# A trial under which so many engines crashed is not tried again. Those that were lost with their nodes do not count.
MOST_CRASHES = 3


class TrialGivenUpError(RuntimeError):
    """So many engines crashed under a trial that it gets no more of them."""


class EngineFailures:
    """The engines that each trial lost. Whether one crashed or went down with its node may turn out later."""

    def __init__(self) -> None:
        self._crashes: dict[str, list[asyncio.Future[bool]]] = {}  # trial_id -> of each loss, whether it was a crash

    def note(self, trial_id: str, life: Life | None) -> None:
        """A trial lost its engine with that process; None where the process is well and the training in it broke."""
        if life is None:
            broke: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            broke.set_result(True)
        self._crashes.setdefault(trial_id, []).append(broke if life is None else life.is_crash)

    def forget(self, trial_id: str) -> None:
        """A trial has ended."""
        self._crashes.pop(trial_id, None)

    def trains_alone(self, trial_id: str) -> bool:
        return len(self._suspect(trial_id)) >= LOSSES_SHARED

    async def refuse(self, trial_id: str) -> None:
        """Raise `TrialGivenUpError` where too many engines crashed under a trial, once that is certain."""
        while len(suspect := self._suspect(trial_id)) >= MOST_CRASHES:
            if not (unknown := [crash for crash in suspect if not crash.done()]):
                raise TrialGivenUpError(
                    f"the engine's process died each of the {len(suspect)} times that it trained this trial, the last "
                    "times alone; such an end leaves no traceback, and too little memory is its usual cause, where the "
                    "engine was not ended because it hung"
                )
            await asyncio.wait(unknown, return_when=asyncio.FIRST_COMPLETED)

    def _suspect(self, trial_id: str) -> list[asyncio.Future[bool]]:
        """The losses that were crashes, or may have been."""
        return [crash for crash in self._crashes.get(trial_id, ()) if not crash.done() or crash.result()]

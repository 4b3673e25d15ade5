"""Has Ray Tune outlive the death of a trial's process, however Ray words it.

Tune starts a trial again whose process died, where Ray tells of it by a `RayActorError`. Ray has other words for the
same: a process that was killed since its node ran out of memory is told of by `OutOfMemoryError`. Tune takes that for
a fault of its own and ends the whole sweep. None of this can be set, so it is mended where Tune hands its controller
out. What a later version of Tune no longer has is left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.exceptions import RayActorError, RayError, RayTaskError


def outlive_deaths(controller: Any, died: Callable[[RayError], None]) -> None:
    """Have Tune's controller hear of every failure that is not a trial's own as of the death of its process.

    `died` is told of those that would have ended the sweep.
    """
    manager: Any = getattr(controller, "_actor_manager", None)
    failed = getattr(manager, "_actor_task_failed", None)
    if failed is None:
        return

    def task_failed(tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
            died(exception)
            exception = RayActorError(error_msg=str(exception))
        failed(tracked_actor_task=tracked_actor_task, exception=exception)

    manager._actor_task_failed = task_failed

"""What the recorder tells of engines that hung."""

from __future__ import annotations

from unittest.mock import MagicMock

from orchestrator.scheduling.pool import PoolStatus
from orchestrator.scheduling.recorder import Recorder


class Watch:
    """Looks at engines that say what a test has them say."""

    def __init__(self) -> None:
        self.replaced: tuple[str, ...] = ()

    def newly_ready(self) -> None:
        return None

    def latest(self) -> PoolStatus:
        return PoolStatus(lent=(), engines=(), replaced=self.replaced)


def test_each_engine_that_hung_is_told_of_once_even_after_the_pool_began_anew() -> None:
    observer, watch = MagicMock(), Watch()
    recorder = Recorder("sweep", MagicMock(), observer, MagicMock(), lambda: None, lambda: None, lambda count: None)
    recorder._watch = watch  # type: ignore[assignment]
    told = []
    # The pool's process dies after the second one, and a third hangs after that.
    for watch.replaced in ((), ("one",), ("one",), ("one", "two"), (), ("three",), ("three",)):
        recorder.on_step_begin(0, [])
        told.append([call.args[0] for call in observer.notice.call_args_list])
    assert told == [
        *([], ["one"], ["one"], ["one", "two"]),
        *(["one", "two"], ["one", "two", "three"], ["one", "two", "three"]),
    ]

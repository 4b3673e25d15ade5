"""Training steps recorded as CUDA graphs: what the host would launch kernel by kernel is launched in one call.

A step is recorded for each shape it may have, after it was taken that way a few times, and then replayed. What is
replayed are the very kernels on the very addresses, so a step that is to be captured
- reads no number back: no `.item()`, `.tolist()`, `.cpu()`, no branch on a tensor's value;
- brings nothing to the device: no `torch.tensor(...)` of Python numbers, no copy from the host;
- has no shape that follows from data: no `nonzero`, no boolean index, no `unique`, no `repeat_interleave` of its own;
- draws from no generator, and lets no Python number differ from step to step: learning rates, dropout's keys and the
  rows that come next follow from steps that the device counts;
- writes only to tensors that stay where they are; whoever replaces them calls `CapturedSteps.forget`.
"""

from __future__ import annotations

import gc
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Protocol

import torch

from trainables.device.memory import is_out_of_memory, let_go_of

logger = logging.getLogger(__name__)

Step = Callable[[], None]
# Steps of a shape that are taken before one is recorded, the last of them to warm up. Recording costs about a step,
# and all graphs go when a trial joins or leaves, so that a shape which is met once shall not pay.
STEPS_BEFORE = 2
MAX_GRAPHS = 24


class Capture(Protocol):
    """Records steps."""

    def warm_up(self, step: Step) -> None:
        """Take a step where it will be recorded, so that whatever is made at a first call is there."""

    def record(self, step: Step) -> Step:
        """Record a step without taking it, and give what takes it."""

    def release(self) -> None:
        """Called when nothing that was recorded is held any more."""


class CapturedSteps:
    """Takes steps, each kind of step as fast as it may by now.

    Args:
        capture: what records.
        steps_before: how often a kind of step is taken before it is recorded, the last time to warm up.
        max_graphs: how many are kept; the one not used for longest goes first.
    """

    def __init__(self, capture: Capture, *, steps_before: int = STEPS_BEFORE, max_graphs: int = MAX_GRAPHS) -> None:
        self.is_broken = False  # whether no step is captured any more
        self._capture = capture
        self._steps_before = steps_before
        self._max_graphs = max_graphs
        self._replays: OrderedDict[Hashable, Step] = OrderedDict()
        self._seen: Counter[Hashable] = Counter()
        self._is_short = False  # of memory: a graph that is there is not dropped for another one
        self._is_recording = False

    def take(self, key: Hashable, step: Step) -> None:
        """Take a step; those of equal keys must do the same with the same tensors.

        Where recording fails the step is taken as it is, and so are all others from then on; but for want of memory, of
        which the error is raised. Raises what the step does.
        """
        if self.is_broken:
            return step()
        if key in self._replays:
            self._replays.move_to_end(key)
            return self._replays[key]()
        if self._is_short and len(self._replays) >= self._max_graphs:
            return step()
        self._seen[key] += 1
        if self._seen[key] < self._steps_before:
            return step()
        if self._seen[key] == self._steps_before:
            return self._capture.warm_up(step)
        replay = self._record(step)
        if replay is None:
            return step()
        self._replays[key] = replay
        if len(self._replays) > self._max_graphs:
            oldest, _ = self._replays.popitem(last=False)
            self._seen[oldest] = self._steps_before - 1  # it is recorded again only after another warm-up
        return replay()

    def _record(self, step: Step) -> Step | None:
        """What takes a step from now on; None, and no other is tried, where the step cannot be captured."""
        self._is_recording = True
        try:
            replay = self._capture.record(step)
        except Exception as error:
            if is_out_of_memory(error):
                raise  # recorded or not: there may be more of it once the graphs are gone
            let_go_of(error)  # the step is taken beside nothing that its recording has made
            logger.warning("steps are launched kernel by kernel, since one could not be captured: %s", error)
            self.is_broken = True
            replay = None
        self._is_recording = False
        if replay is None:
            self.forget()
        return replay

    def make_room(self) -> bool:
        """Drop every graph, since memory did not suffice, and keep at most half as many shapes from now on.

        Returns whether that may help: there was a graph, or one was being recorded.
        """
        held = len(self._replays) + self._is_recording
        self.forget()
        if held:
            self._is_short, self._max_graphs = True, held // 2
            if not self._max_graphs:
                logger.warning("steps are launched kernel by kernel, since graphs leave too little memory for a step")
                self.is_broken = True
        return held > 0

    def forget(self) -> None:
        """Drop every graph: their tensors are no longer those of the steps to come."""
        self._is_recording = False
        if self._replays or self._seen:
            self._replays.clear()
            self._seen.clear()
            self._capture.release()


class CudaCapture:
    """Records steps on a stream of their own, in memory that all graphs share: no two run at once, and none leaves
    anything in it for another.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        self._pool: Any = None

    def warm_up(self, step: Step) -> None:
        """On the stream that records, since libraries make themselves ready for each stream anew."""
        stream, current = self._own_stream(), torch.cuda.current_stream(self._device)
        stream.wait_stream(current)
        try:
            with torch.cuda.stream(stream):
                step()
        finally:  # a step that broke may have asked for much, which must not come after what is put back
            current.wait_stream(stream)

    def record(self, step: Step) -> Step:
        stream, current = self._own_stream(), torch.cuda.current_stream(self._device)
        graph = torch.cuda.CUDAGraph()
        broke: Exception | None = None
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        is_collecting = gc.isenabled()
        gc.disable()  # garbage may hold a graph, which should not be destroyed while another is recorded
        try:
            # Other threads of the process may go on with whatever they do on the device.
            with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
                try:
                    step()
                except Exception as error:
                    broke = error
                    raise
        except BaseException:
            torch.cuda.set_stream(current)  # torch leaves its own where the recording itself cannot be ended
            if broke is not None:
                raise broke  # noqa: B904 - what broke the step, not that its recording could not be ended either
            raise
        finally:
            if is_collecting:
                gc.enable()
        return graph.replay

    def release(self) -> None:
        """The memory goes back to the device with the last graph; others need another pool."""
        self._pool = None

    def _own_stream(self) -> torch.cuda.Stream:
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)
        return self._stream

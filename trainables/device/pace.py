"""How far the host may run ahead of the device."""

from __future__ import annotations

from collections import deque

import torch


class Pace:
    """Keeps the host a few steps ahead of a GPU: it never runs dry, and the time between two steps is a step's.

    Without it the host would hand over steps as fast as it can until the device's queue is full, and neither the
    speed of packs nor that of trials could be told from its clock. On a CPU, which does each step at once, it does
    nothing.
    """

    def __init__(self, device: torch.device, ahead: int = 2) -> None:
        self._is_ahead = device.type == "cuda"
        self._device = device
        self._ahead = ahead
        self._events: deque[torch.cuda.Event] = deque()

    def keep(self) -> None:
        """Called after each step."""
        if not self._is_ahead:
            return
        event = torch.cuda.Event(blocking=True)
        event.record(torch.cuda.current_stream(self._device))
        self._events.append(event)
        if len(self._events) > self._ahead:
            self._events.popleft().synchronize()

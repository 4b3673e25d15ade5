"""GPUs that are not there: which of them a thread works on is noted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch


class FakeGpus:
    """Stands in for torch's current device."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, count: int) -> None:
        self.current: int | None = 0
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", self.set)
        monkeypatch.setattr(torch.cuda, "device", self.context)

    def set(self, device: torch.device) -> None:
        self.current = device.index

    @contextmanager
    def context(self, device: torch.device) -> Iterator[None]:
        before, self.current = self.current, device.index
        try:
            yield
        finally:
            self.current = before

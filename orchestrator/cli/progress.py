"""A running sweep on a terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live

from orchestrator.planning.plan import Varied
from orchestrator.record import TrialRecord
from orchestrator.run.live import LiveProgress

# Where nobody watches live (a log, a pipe), a line at most so often.
LINE_EVERY_S = 10.0


class TerminalProgress(LiveProgress):
    """A live panel on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console, varied: Varied, backbones: Sequence[str] = ()) -> None:
        """`varied`: what to mention of each method's trials, beside task and replicate; `backbones`: the sweep's."""
        super().__init__(varied, backbones)
        self._console = console
        self._last_line = 0.0
        self._live = Live(console=console, refresh_per_second=2, get_renderable=self.panel, transient=True)

    def __enter__(self) -> TerminalProgress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)

    def changed(self) -> None:
        """Nothing to do: the panel is drawn anew twice a second."""

    def trial_ended(self, record: TrialRecord) -> None:
        super().trial_ended(record)
        if not self._console.is_terminal and time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.monotonic()
            self.say(self.line())

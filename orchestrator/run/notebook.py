"""A running sweep in a notebook: one output that is drawn anew while trials train. IPython is not needed elsewhere."""

from __future__ import annotations

import io
import sys
import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console, RenderableType

from orchestrator.planning.plan import Varied
from orchestrator.run.live import LiveProgress

DRAW_EVERY_S = 0.5
_WIDTH = 110  # characters
_LINES = 12  # the last ones that were said
_BLOCK = '<pre style="white-space:pre;overflow-x:auto;line-height:1.35">{code}</pre>'


def is_notebook() -> bool:
    """Whether this code runs in a kernel, whose output a notebook shows."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def to_html(shown: RenderableType) -> str:
    """What rich would write to a terminal, as HTML with its own styles; text is escaped."""
    console = Console(
        file=io.StringIO(), record=True, width=_WIDTH, force_jupyter=False, markup=False, emoji=False, highlight=False
    )
    console.print(shown)
    return console.export_html(code_format=_BLOCK, inline_styles=True)


class NotebookProgress(LiveProgress):
    """Lines as they are said, and below them the panel."""

    def __init__(self, varied: Varied, backbones: Sequence[str] = ()) -> None:
        """`varied`: what to mention of each method's trials, beside task and replicate; `backbones`: the sweep's."""
        super().__init__(varied, backbones)
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._drawn = 0.0
        self._output: Any = None

    def __enter__(self) -> NotebookProgress:
        from IPython.display import display

        self._output = display(self, display_id=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._draw()

    def say(self, line: str) -> None:
        self._lines.append(line)
        self._draw()

    def changed(self) -> None:
        if time.monotonic() - self._drawn >= DRAW_EVERY_S:
            self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        if self._output is not None:
            self._output.update(self)

    def _repr_html_(self) -> str:
        return "".join([*(to_html(line) for line in self._lines), to_html(self.panel())])

    def __repr__(self) -> str:
        return "\n".join([*self._lines, self.line()])

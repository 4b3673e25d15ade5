"""Where the commands print."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from orchestrator.analysis.text.visible import visible
from orchestrator.secrets import masked


class Screen(Console):
    """A console that takes text for text: no markup, no secrets, and no control characters but rich's own."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=masked(visible(segment.text)))


def console(*, stderr: bool = False) -> Screen:
    """A console that does not wrap tables to 80 columns where nobody watches, as in logs and pipes."""
    made = Screen(stderr=stderr, highlight=False, markup=False)
    return made if made.is_terminal else Screen(stderr=stderr, highlight=False, markup=False, width=140)

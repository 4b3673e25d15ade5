"""What a section of the page consists of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.analysis.text import tables


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    """A sentence or several."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Sentences:
    """What is said of each of several things, such as tasks: a name and its sentences."""

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A table; one with a `summary` is folded behind it. In the page it is sorted and searched."""

    table: tables.TextTable
    summary: str | None = None


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One of the answer's figures, by its name, with words for those who do not see it."""

    figure: str
    alt: str
    caption: str | None = None


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What a reader may put on the horizontal axis of a chart: a field of its rows."""

    field: str
    title: str
    is_number: bool = True
    is_log: bool = False


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart to explore, drawn in the reader's browser from its rows.

    Args:
        spec: in Vega-Lite, without data, size or colours: the page adds `rows`, the width it has, and a colour and a
            shape for every value of the field `series`. No name from a store stands in an expression of it.
        rows: flat, of one shape. Those with a `task`, a `backbone` or a `method` go where the reader's filter leaves
            these out.
        series: the series in `rows` by the method that each shows, whose colour it has.
        alt: words for those who do not see it.
        axes: what the reader may choose to be horizontal, the one drawn first in front. The spec refers to that one.
        picture: a figure of the answer's, shown where no script runs. Without one the reader is sent to `file`.
        file: the answer's table that has the numbers.
    """

    spec: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    series: Mapping[str, str]
    alt: str
    file: str
    caption: str | None = None
    axes: Sequence[Axis] = ()
    picture: str | None = None


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The learning curve of one trial: a value per epoch and measure, null where it was not measured."""

    trial: str
    name: str
    task: str
    method: str
    backbone: str | None  # as it is called beside others; None where there is one
    epochs: Sequence[int]
    values: Mapping[str, Sequence[float | None]]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Learning curves of which the reader picks some. `measures` are the keys of their values."""

    curves: Sequence[Curve]
    measures: Sequence[str]
    picked: Sequence[str]  # trials that are drawn at first
    note: str | None = None  # what was left out


Block = Paragraph | Sentences | Shown | Picture | Chart | Curves

"""The page as one HTML file: its sections, what its script draws from, its style and its scripts."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from orchestrator.analysis.page.blocks import Block, Chart, Curves, Paragraph, Picture, Sentences, Shown
from orchestrator.analysis.page.bundle import charting_library
from orchestrator.analysis.page.failures import Failure
from orchestrator.analysis.palette import CURVE_COLOURS, Look, looks, turned
from orchestrator.analysis.text.visible import visible


@dataclass(frozen=True, kw_only=True)
class Section:
    """An answer on the page; `name` is that of its files and of its place in the address."""

    name: str
    heading: str
    blocks: Sequence[Block]


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything that the page says. Its text may hold whatever a store holds: it is escaped here, once."""

    title: str
    status_line: str
    protocol: str
    tasks: Sequence[str]  # what a reader may filter by
    backbones: Sequence[str]  # as they are called beside each other; none where there is one
    methods: Sequence[str]
    sections: Sequence[Section]
    failures: Sequence[Failure]
    failures_left_out: int
    facts: Sequence[tuple[str, str]]
    spec: str | None
    files: Sequence[str]


def render(page: Page, svgs: Mapping[str, bytes]) -> str:
    """The page, with the figures that its blocks name taken from `svgs`. Equal pages give equal text."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_finalize
    )
    environment.filters["kind"] = lambda block: _KINDS[type(block)]
    environment.filters["words"] = lambda text: Markup(html.escape(visible(text), quote=False))
    environment.filters["inline"] = lambda figure: _inline(svgs[f"{figure}.svg"])
    found = looks(page.methods)
    scripts = [charting_library(), _resource("page.js")] if _draws(page) else [_resource("page.js")]
    return environment.from_string(_resource("page.html.jinja")).render(
        page=page,
        css=Markup(_resource("page.css") + _colours(found)),
        policy=_policy(scripts),
        scripts=[Markup(script) for script in scripts],
        data=Markup(_json(_data(page, found))),
    )


def _data(page: Page, found: Mapping[str, Look]) -> dict[str, Any]:
    """What the page's script draws from."""
    charts = [
        {
            "spec": chart.spec,
            "rows": chart.rows,
            "series": _series(chart.series, list(found), found),
            "axes": [asdict(axis) for axis in chart.axes],
            "alt": chart.alt,
        }
        for chart in _charts(page)
    ]
    curves = [
        {
            "measures": block.measures,
            "picked": block.picked,
            "curves": [
                {
                    "id": curve.trial, "name": curve.name, "task": curve.task, "method": curve.method,
                    **({} if curve.backbone is None else {"backbone": curve.backbone}),
                    **({} if list(curve.epochs) == list(range(1, len(curve.epochs) + 1)) else {"epochs": curve.epochs}),
                    "values": [curve.values[measure] for measure in block.measures],
                }
                for curve in block.curves
            ],
        }
        for section in page.sections for block in section.blocks if isinstance(block, Curves)
    ]  # fmt: skip
    return {
        "tasks": page.tasks,
        "backbones": page.backbones,
        "methods": page.methods,
        "charts": charts,
        "curves": curves,
        "palette": list(CURVE_COLOURS),
    }


def _series(series: Mapping[str, str], methods: Sequence[str], found: Mapping[str, Look]) -> list[dict[str, str]]:
    """Each series of a chart with its method, the place of its colour and its shape."""
    listed: list[dict[str, str]] = []
    for name, method in series.items():
        times = sum(entry["method"] == method for entry in listed)
        place = methods.index(method)
        shape = turned(found[method].shape, times)
        color = f"var(--m{place})"
        if times:
            color = f"color-mix(in srgb, {color} {_FADED[times % len(_FADED)]}%, var(--page))"
        listed.append({"name": name, "method": method, "color": color, "shape": shape})
    return listed


# How much of its colour a method keeps on further backbones, the second one first.
_FADED = (80, 55, 35)


def _charts(page: Page) -> list[Chart]:
    return [block for section in page.sections for block in section.blocks if isinstance(block, Chart)]


def _draws(page: Page) -> bool:
    return any(isinstance(block, Chart | Curves) for section in page.sections for block in section.blocks)


def _colours(found: Mapping[str, Look]) -> str:
    """The colours of the methods as variables, in light and in dark."""
    light = "".join(f"--m{place}:{look.light};" for place, look in enumerate(found.values()))
    dark = "".join(f"--m{place}:{look.dark};" for place, look in enumerate(found.values()))
    return (
        f":root{{{light}}}\n@media screen{{:root[data-theme=dark]{{{dark}}}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dark}}}}}\n"
    )


def _json(value: Any) -> str:
    """As JSON that may stand in an element: nothing in it can end a script or begin a comment."""
    text = json.dumps(_seen(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _seen(value: Any) -> Any:
    """What the page's script may be given: a loss that grew beyond all numbers is none, and JSON has no word for it."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _seen(item) for key, item in value.items()}
    return [_seen(item) for item in value] if isinstance(value, list | tuple) else value


def _finalize(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _policy(scripts: Sequence[str]) -> str:
    """Nothing is loaded, and no script runs but the page's own. Vega compiles its expressions, hence unsafe-eval."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    own = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; script-src {own} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:"


def _inline(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


_KINDS: Mapping[type, str] = {
    Paragraph: "paragraph",
    Sentences: "sentences",
    Shown: "shown",
    Picture: "picture",
    Chart: "chart",
    Curves: "curves",
}

"""The page of a sweep with several backbones: a filter for them, and no two series alike."""

from __future__ import annotations

import json
import re
from typing import Any

from orchestrator.analysis.answers import ANSWERS
from orchestrator.analysis.page.render import Page, Section, render


def test_rows_curves_and_tables_can_be_filtered_by_backbone_and_no_two_series_look_alike(synthetic: Any) -> None:
    rows = synthetic.rows(synthetic.tasks[:2], seeds=(0, 1))
    far = "/models/other/minilm"  # whose last part is the other one's name
    ids = ("trial_id", "config_id")
    others = [{**row, "backbone": far, **{name: f"o-{row[name]}" for name in ids}} for row in rows]
    results = synthetic.results([*rows, *others])
    names = sorted(results.backbone_names().values())
    assert names == ["minilm", "other/minilm"]
    sections = [
        Section(name=name, heading=name, blocks=ANSWERS[name].show(results, ANSWERS[name].ask(results)))
        for name in ("recommend", "best", "settings", "epochs", "trials")
    ]
    page = Page(
        title="t", status_line="s", protocol="p", tasks=["a"], backbones=names,
        methods=sorted({row["method"] for row in rows}),
        sections=sections, failures=[], failures_left_out=0, facts=[], spec=None, files=[],
    )  # fmt: skip
    html = render(page, {})
    assert 'data-filter="backbone"' in html
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    data = json.loads(found[1])
    (chart,) = data["charts"]
    assert data["backbones"] == names
    assert {row["backbone"] for row in chart["rows"]} == set(names)
    assert {curve["backbone"] for curve in data["curves"][0]["curves"]} == set(names)
    assert len({(one["color"], one["shape"]) for one in chart["series"]}) == len(chart["series"]) == 8
    cells = re.findall(r"<td>(\w+ on [\w/]+)</td>", html)
    assert {cell.split(" on ")[1] for cell in cells} == set(names)

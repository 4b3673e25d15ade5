"""MLflow's own pages over a sweep, in a headless Chromium: what a user sees who looks for a trial's curve.

`make browser` runs these; the pictures of what was seen are left in `build/browser/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.record import TrialRecord, TrialStatus
from orchestrator.tracking import Tracker
from tests.browser import Page, page

# A busy machine takes minutes to start a server and a browser.
pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

PICTURES = Path("build/browser")
NAME = "pages"
SPEC = '{"name": "pages", "tasks": ["a", "b"], "methods": [{"adapter": {}}, {"layernorm": {}}], "seeds": [0, 1]}'
BEST = {
    "task": "trec",
    "config_id": "c1",
    "method": "adapter",
    "metric": "accuracy",
    **{"validation_mean": 0.25, "validation_sem": 0.05, "test_mean": 0.35, "test_sem": 0.05},
    **{"num_seeds": 2, "num_configs_tried": 2, "trained_params": 1234},
}

# JavaScript for the rows of the table of runs, and the control that opens the row of a run.
LINK = "[...document.querySelectorAll('.ag-row a')].find(a => a.innerText.trim() === {name!r})"
EXPANDER = "(a => a && a.closest('.ag-row').querySelector('button'))(" + LINK + ")"


@pytest.fixture
def swept(server: Any, track: Callable[..., Tracker], record: Callable[..., TrialRecord]) -> str:
    """The address of the experiment of a sweep of two configurations with two seeds each."""
    from mlflow.tracking.client import MlflowClient

    tracker = track(NAME, spec_json=SPEC, varied={"adapter": ("adapter_size",), "layernorm": ()})
    for config_id, others in (("c1", {}), ("c2", {"method": "layernorm", "hyperparameters": {}})):
        for seed in (0, 1):
            scores = {"validation_score": 0.2 + seed / 10, "test_score": 0.3 + seed / 10}
            ended = record(f"{config_id}-{seed}", config_id=config_id, seed=seed, sweep=NAME, **scores, **others)
            tracker.trial_ended(ended)
    tracker.show_best([BEST])
    assert tracker.close(TrialStatus.COMPLETED)
    experiment = MlflowClient(tracking_uri=server.uri).get_experiment_by_name(NAME)
    assert experiment is not None
    return f"{server.uri}/#/experiments/{experiment.experiment_id}?workflowType=machine_learning"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Page]:
    PICTURES.mkdir(parents=True, exist_ok=True)
    with page(tmp_path, width=1600, height=1000) as shown:
        yield shown


def names(browser: Page) -> list[str]:
    """What the table of runs lists, from the top."""
    return list(browser.evaluate("[...document.querySelectorAll('.ag-row a[href*=\"/runs/\"]')].map(a => a.innerText)"))


def test_from_the_experiment_to_a_trial_s_curve(swept: str, browser: Page) -> None:
    browser.open(swept)
    browser.wait(f"!!({LINK.format(name=NAME)})")
    assert "/runs" in browser.evaluate("location.hash")  # of all its pages, it opens on the runs
    assert names(browser) == [NAME]
    browser.screenshot(PICTURES / "1-experiment.png")

    browser.click(EXPANDER.format(name=NAME))
    configuration = "trec adapter adapter_size=64"
    browser.wait(f"!!({LINK.format(name=configuration)})")
    assert sorted(names(browser)) == [NAME, configuration, "trec layernorm"]
    browser.click(EXPANDER.format(name=configuration))
    trial = f"seed 1 {configuration}"
    browser.wait(f"!!({LINK.format(name=trial)})")
    assert sorted(names(browser)) == [NAME, f"seed 0 {configuration}", trial, configuration, "trec layernorm"]
    browser.screenshot(PICTURES / "2-expanded.png")

    browser.click(LINK.format(name=trial))
    browser.wait("location.hash.includes('/runs/') && document.body.innerText.includes('About this run')")
    assert f"\n{trial}\n" in browser.text()
    browser.screenshot(PICTURES / "3-trial.png")
    browser.open(browser.evaluate("location.href.split('?')[0]") + "/model-metrics?workflowType=machine_learning")
    # Two epochs make a line: its path has two ends. Charts of what has one point have none.
    browser.wait("[...document.querySelectorAll('.js-line')].some(e => (e.getAttribute('d') || '').includes('L'))")
    assert "accuracy" in browser.text()
    browser.screenshot(PICTURES / "4-curve.png")


def test_from_the_sweep_s_run_to_the_best_configuration(swept: str, browser: Page) -> None:
    browser.open(swept)
    browser.click(LINK.format(name=NAME))
    link = "[...document.querySelectorAll('table a')].find(a => a.innerText === 'trec adapter adapter_size=64')"
    browser.wait(f"!!({link})")
    assert "0.3500 ± 0.0500" in browser.text()
    browser.screenshot(PICTURES / "5-sweep.png")
    browser.open(browser.evaluate(f"({link}).href"))
    browser.wait("document.body.innerText.includes('2 of 2 seeds completed')")
    assert "mean/test_score" in browser.text()
    browser.screenshot(PICTURES / "6-configuration.png")

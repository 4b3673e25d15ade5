"""Planning on a machine without network, data and weights."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.planning.plan import plan_sweep
from orchestrator.spec.spec import SweepSpecError
from orchestrator.spec.sweep_file import read_sweep
from trainables.data import reachability

Values = dict[str, Any]

pytestmark = pytest.mark.usefixtures("_out_of_reach")


@pytest.fixture
def _out_of_reach(hub_cache: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADAPTUNE_DATA", raising=False)


def faults_of(values: Any, **options: Any) -> tuple[str, ...]:
    with pytest.raises(SweepSpecError) as refusal:
        plan_sweep(values, **options)
    return refusal.value.faults


@pytest.mark.parametrize(("name", "trials"), [("houlsby_glue", 720), ("houlsby_additional", 9180), ("figure4", 828)])
@pytest.mark.thinned(1)
def test_the_papers_sweeps_can_be_planned_and_say_once_what_is_missing(name: str, trials: int) -> None:
    plan = plan_sweep(read_sweep(name), allow_missing=True)
    assert len(plan.trials) == trials
    data, *published, backbone = plan.missing
    assert all(reference in data for reference in plan.spec.tasks), plan.missing
    assert all(": is published as " in sentence for sentence in published)
    assert len(published) == (14 if name == "houlsby_additional" else 0)  # the files that would do, once each
    assert backbone.startswith(f"backbone {plan.spec.backbone!r}: there is no such folder")
    assert all(trial.trained_params for trial in plan.trials)
    assert {trial.num_steps for trial in plan.trials} == {None}
    assert len({trial.trial_id for trial in plan.trials}) == trials


def test_without_leave_what_is_missing_is_a_fault() -> None:
    sweep = read_sweep("houlsby_glue")
    assert faults_of(sweep) == plan_sweep(sweep, allow_missing=True).missing


def test_what_is_missing_does_not_hide_faults(values: Values) -> None:
    (fault,) = faults_of({**values, "tasks": ["glue/cola", "glue/colla"]}, allow_missing=True)
    assert "unknown task of family glue 'colla'; did you mean 'cola'?" in fault


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Session:
        def head(self, url: str, timeout: float) -> None:
            asked.append(timeout)
            time.sleep(60)

    monkeypatch.setattr(reachability, "ANSWER_TIMEOUT_S", 0.2)
    monkeypatch.setattr(reachability.huggingface_hub, "get_session", Session)
    reachability.hub_answers.cache_clear()
    try:
        began = time.perf_counter()
        plan_sweep(read_sweep("houlsby_glue"), allow_missing=True)
        assert time.perf_counter() - began < 10
    finally:
        reachability.hub_answers.cache_clear()
    assert asked == [0.2]


def test_a_backbone_of_sizes_alone_is_counted_exactly(values: Values, tmp_path: Path) -> None:
    shutil.copy(Path(values["backbone"]) / "config.json", tmp_path)
    plan = plan_sweep({**values, "backbone": str(tmp_path)}, allow_missing=True)
    (missing,) = plan.missing
    assert "weights must be a model.safetensors" in missing
    counts = [(trial.trained_params, trial.total_params) for trial in plan.trials]
    assert counts == [(trial.trained_params, trial.total_params) for trial in plan_sweep(values).trials]


def test_of_an_unknown_backbone_nothing_is_counted(values: Values) -> None:
    plan = plan_sweep({**values, "backbone": "someone/unheard-of"}, allow_missing=True)
    assert plan.missing[0].endswith("even its sizes are therefore unknown, and with them what its trials would train")
    assert {trial.trained_params for trial in plan.trials} == {None}


@pytest.mark.thorough
def test_thousands_of_trials_are_planned_in_seconds() -> None:
    sweep = read_sweep("houlsby_additional")
    began = time.process_time()
    assert len(plan_sweep(sweep, allow_missing=True).trials) == 9180
    assert time.process_time() - began < 3


def test_a_misspelt_backbone_is_a_fault_and_not_out_of_reach(values: Values) -> None:
    (fault,) = faults_of({**values, "backbone": "minlm"}, allow_missing=True)
    assert fault.endswith("; did you mean 'minilm'? Packaged: minilm")

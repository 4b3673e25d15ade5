"""Plans of several backbones: every trial on each, what is wrong with any, and what another one adds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.planning.plan import plan_sweep, plan_table, planned_from_table, remaining
from orchestrator.spec.spec import SweepSpecError
from tests.orchestrator.conftest import write_backbone

Values = dict[str, Any]


@pytest.fixture
def two(values: Values, tmp_path: Path) -> Values:
    """The small sweep on two backbones."""
    return {**values, "backbone": [values["backbone"], str(write_backbone(tmp_path / "other", seed=1))]}


def faults_of(values: Any) -> tuple[str, ...]:
    with pytest.raises(SweepSpecError) as refusal:
        plan_sweep(values)
    return refusal.value.faults


def test_everything_is_planned_on_each_backbone_one_after_the_other(two: Values, values: Values) -> None:
    alone, plan = plan_sweep(values), plan_sweep(two)
    assert [trial.config.backbone for trial in plan.trials] == [name for name in two["backbone"] for _ in range(6)]
    assert plan.trials[:6] == alone.trials
    assert len({trial.trial_id for trial in plan.trials}) == 12
    keys = [{trial.pack_key for trial in plan.trials if trial.config.backbone == name} for name in two["backbone"]]
    assert not keys[0] & keys[1]
    assert [trial.provenance for trial in planned_from_table(plan_table(plan))] == [t.provenance for t in plan.trials]


def test_another_backbone_adds_its_trials_and_leaves_the_others_as_they_are(two: Values, values: Values) -> None:
    for search in ({"algorithm": "grid"}, {"algorithm": "random", "num_samples": 4}):
        finished = {trial.trial_id for trial in plan_sweep({**values, "search": search}).trials}
        reversed_order = {**two, "backbone": two["backbone"][::-1], "search": search}
        left = remaining(plan_sweep(reversed_order), finished)
        assert {trial.config.backbone for trial in left} == {two["backbone"][1]}
        assert len(left) == len(finished)


def test_chance_draws_the_same_for_each_backbone(two: Values) -> None:
    two["methods"] = [{"adapter": {"adapter_size": {"randint": [1, 8]}, "learning_rate": {"loguniform": [1e-4, 1]}}}]
    plan = plan_sweep({**two, "search": {"algorithm": "random", "num_samples": 5}})
    drawn = [[t.hyperparameters for t in plan.trials if t.config.backbone == name] for name in two["backbone"]]
    assert drawn[0] == drawn[1]
    adaptive = plan_sweep({**two, "search": {"algorithm": "tpe", "num_samples": 5}})
    assert [(each.name, each.backbone_reference) for each in adaptive.task_methods] == [
        ("opinion:adapter", name) for name in two["backbone"]
    ]
    assert (adaptive.most_trials, len(adaptive.sample_trials())) == (20, 20)


def test_a_method_that_reads_no_backbone_is_trained_once(two: Values) -> None:
    plan = plan_sweep({**two, "methods": ["no_bert", "layernorm"]})
    backbones = {name: [t.config.backbone for t in plan.trials if t.config.method == name] for name in ("no_bert",)}
    assert backbones == {"no_bert": [two["backbone"][0]] * 2}
    assert len(plan.trials) == 2 + 4


def test_the_faults_of_all_backbones_come_at_once(two: Values, tmp_path: Path) -> None:
    copy = shutil.copytree(two["backbone"][0], tmp_path / "copy")
    two["backbone"] += [str(copy), "/no/such/folder", "minlm"]
    same, *unknown = sorted(faults_of(two), key=lambda fault: "the same" not in fault)
    assert same.startswith("backbone: every backbone must be another one, but ")
    assert two["backbone"][0] in same
    assert str(copy) in same
    assert len(unknown) == 2
    assert "'/no/such/folder'" in unknown[0]
    assert "did you mean 'minilm'?" in unknown[1]


def test_what_is_wrong_with_some_backbones_only_names_them(two: Values, checkpoint: Callable[[str], Path]) -> None:
    wider = str(checkpoint("bert"))  # of width 16, and positions for more than 16 word pieces
    two["backbone"].append(wider)
    two |= {"methods": [{"adapter": {"adapter_size": {"grid": [4, 12, 99]}}}], "space": {"max_length": 17}}
    smaller = " and ".join(two["backbone"][:2])
    assert faults_of(two) == (
        f"space.max_length: must be at most 16, the backbone's positions, but got 17 (backbone {smaller})",
        f"adapter.adapter_size: must be in [1, 8], the backbone's hidden size, but got 12 (backbone {smaller})",
        f"adapter.adapter_size: must be in [1, 8], the backbone's hidden size, but got 99 (backbone {smaller})",
        f"adapter.adapter_size: must be in [1, 16], the backbone's hidden size, but got 99 (backbone {wider})",
    )


def test_weights_out_of_reach_are_told_of_each_backbone(values: Values) -> None:
    names = ["bert-base-uncased", "bert-large-uncased"]
    plan = plan_sweep({**values, "backbone": [values["backbone"], *names]}, allow_missing=True)
    assert [next(name for name in names if repr(name) in reason) for reason in plan.missing] == names
    assert len({trial.total_params for trial in plan.trials if trial.config.method == "layernorm"}) == 3

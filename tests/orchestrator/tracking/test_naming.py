"""Names of runs say what varies in the sweep, and no more."""

from __future__ import annotations

import dataclasses
import json

from orchestrator.spec.spec import MethodSpec, SweepSpec
from orchestrator.tracking.naming import Naming
from orchestrator.tracking.run_fields import TrialFacts

VARIED = {"adapter": ("adapter_size", "learning_rate")}


def names(planned, naming: Naming) -> tuple[str, str]:
    facts = TrialFacts.of_plan(planned())
    return naming.configuration(facts), naming.trial(facts)


def naming_of(
    *, tasks=("a", "b"), methods=("adapter", "layernorm"), seeds=(0, 1), varied=VARIED, backbone="minilm"
) -> Naming:
    entries = tuple(MethodSpec(method=name) for name in methods)
    spec = SweepSpec(name="s", tasks=tasks, backbone=backbone, methods=entries, seeds=seeds)
    return Naming.of(json.loads(spec.to_json()), varied)


def test_what_varies_is_mentioned_and_a_seed_comes_first_below_its_configuration(planned):
    configuration = "trec adapter adapter_size=64 learning_rate=0.001"
    assert names(planned, naming_of()) == (configuration, f"seed 0 {configuration}")


def test_what_a_sweep_has_one_of_is_not_mentioned(planned):
    assert names(planned, naming_of(tasks=["a"]))[0] == "adapter adapter_size=64 learning_rate=0.001"
    assert names(planned, naming_of(methods=["adapter", "adapter"]))[0] == "trec adapter_size=64 learning_rate=0.001"
    assert names(planned, naming_of(seeds=[7]))[1] == "trec adapter adapter_size=64 learning_rate=0.001"
    assert names(planned, naming_of(varied={"layernorm": ("learning_rate",)}))[1] == "seed 0 trec adapter"


def test_of_several_backbones_each_is_mentioned_with_its_method(planned):
    own = planned().config.backbone
    naming = naming_of(tasks=["a"], methods=["adapter"], varied={}, backbone=[own, "/models/other"])
    assert names(planned, naming)[0] == f"adapter on {own}"
    facts = dataclasses.replace(TrialFacts.of_plan(planned()), backbone="/models/other")
    assert naming.configuration(facts) == "adapter on other"
    assert facts.params()["backbone"] == "/models/other"


def test_a_sweep_that_varies_nothing_but_seeds_still_has_names(planned):
    assert names(planned, naming_of(tasks=["a"], methods=["adapter"], varied={})) == ("trec adapter", "seed 0")
    assert names(planned, naming_of(tasks=["a"], methods=["adapter"], seeds=[0], varied={}))[1] == "trec adapter"


def test_what_is_not_known_of_a_spec_is_mentioned_and_configurations_have_no_runs(planned):
    naming = Naming.of({"name": "quickstart"})
    assert not naming.is_nested
    assert names(planned, naming)[1] == "trec adapter seed 0"


def test_only_several_seeds_make_a_level_of_configurations():
    assert [naming_of(seeds=seeds).is_nested for seeds in ([0], [0, 1], [0, 1, 2])] == [False, True, True]


def test_a_fold_is_named_where_there_are_folds_and_makes_a_level_of_configurations(planned):
    naming = dataclasses.replace(naming_of(seeds=[0], tasks=["a"]), has_folds=True)
    facts = dataclasses.replace(TrialFacts.of_plan(planned()), fold=2, folds=3)
    assert naming.is_nested
    assert naming.trial(facts) == "fold 2 adapter adapter_size=64 learning_rate=0.001"
    assert (facts.params()["fold"], "fold" in TrialFacts.of_plan(planned()).params()) == ("2", False)
    several = dataclasses.replace(naming_of(tasks=["a"]), has_folds=True)
    assert several.trial(facts) == "seed 0 fold 2 adapter adapter_size=64 learning_rate=0.001"
    assert Naming.of({"name": "s", "seeds": [0], "folds": 5}).is_nested


def test_an_option_that_a_trial_does_not_have_is_left_out(planned):
    facts = TrialFacts.of_plan(planned())
    without = dataclasses.replace(facts, hyperparameters={"learning_rate": 3e-4})
    assert naming_of().configuration(without) == "trec adapter learning_rate=0.0003"

"""The declared sweeps are sound, and their docstrings say how many trials they imply."""

import importlib
import json
import pkgutil
import re

import pytest

import search_spaces
from orchestrator.planning.search_algorithms import enumerate_configurations, search_faults
from orchestrator.spec.spec import SweepSpec, parse_spec

NAMES = [module.name for module in pkgutil.iter_modules(search_spaces.__path__)]

# Multiplied out by hand from the paper's text: tasks x (configurations of each method) x seeds.
PAPER_TRIALS = {
    "houlsby_glue": 8 * (3 * 3 * 2) * 5,
    "houlsby_additional": 17 * (6 + 8 + 1) * (4 * 3) * 3,
    "figure4": 2 * (10 + 12 + 1) * (3 * 2) * 3,
    "figure6": 2 * 8 * (3 * 2) * 3,
}


def sweep_of(name: str) -> SweepSpec:
    return importlib.import_module(f"search_spaces.{name}").SWEEP


def trials_of(sweep: SweepSpec) -> int:
    pairs = [(task, method) for task in sweep.tasks for method in sweep.methods]
    return sum(len(list(enumerate_configurations(sweep, method, task))) for task, method in pairs) * len(sweep.seeds)


@pytest.mark.parametrize("name", NAMES)
def test_a_packaged_sweep_bears_the_name_of_its_module_and_can_be_searched(name):
    sweep = sweep_of(name)
    assert sweep.name == name
    assert search_faults(sweep) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_packaged_sweep_survives_the_road_through_json(name):
    assert parse_spec(json.loads(sweep_of(name).to_json())) == sweep_of(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_states_the_number_of_trials_that_the_sweep_implies(name):
    stated = re.search(r"^([\d,]+) trials: ", importlib.import_module(f"search_spaces.{name}").__doc__, re.MULTILINE)
    assert stated is not None
    assert int(stated[1].replace(",", "")) == trials_of(sweep_of(name))


@pytest.mark.parametrize("name", PAPER_TRIALS)
def test_the_papers_sweeps_have_the_papers_number_of_trials(name):
    assert trials_of(sweep_of(name)) == PAPER_TRIALS[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_packaged_sweep_declares_its_sweep_and_nothing_else(name):
    module = importlib.import_module(f"search_spaces.{name}")
    own = {key for key in vars(module) if not key.startswith("_")}
    assert own <= {
        "SWEEP",
        "Grid",
        "Choice",
        "Uniform",
        "LogUniform",
        "RandInt",
        "MethodSpec",
        "SearchSpec",
        "SweepSpec",
    }

"""`adaptune plan --json` of the paper's models, whose weights need not be at hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main
from tests.orchestrator.conftest import write_backbone

Plan = Callable[..., dict[str, Any]]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Plan:
    """Plans a sweep of methods over one toy task and gives what was printed."""
    monkeypatch.chdir(tmp_path)

    def run(backbone: Any, *methods: Any) -> dict[str, Any]:
        sweep = {
            "name": "counts", "backbone": backbone, "tasks": ["toy/sentiment"], "seeds": [0], "methods": list(methods)
        }  # fmt: skip
        (tmp_path / "counts.yaml").write_text(json.dumps(sweep))
        assert main(["plan", "counts.yaml", "--json"]) == 0
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    return run


def test_the_papers_percentages_are_of_the_layers(plan: Plan) -> None:
    answer = plan("google-bert/bert-large-uncased", {"adapter": {"adapter_size": {"grid": [8, 64, 256]}}})
    assert answer["backbone_params"] == {"total": 335_141_888, "layers": 302_309_376}
    counts = [trial["trained_params_without_head"] for trial in answer["trials"]]
    assert counts == [936_320, 6_444_032, 25_327_616]
    shares = [trial["percent_of_layers"] for trial in answer["trials"]]
    assert round(shares[1], 1) == 2.1  # Table 1, "Adapters (64)"
    assert round(sum(shares) / 3, 1) == 3.6  # Table 1, "Adapters (8-256)", each size on as many tasks
    assert round(answer["trials"][1]["percent_of_backbone"], 3) == 1.923


def test_a_configuration_without_weights_is_enough(plan: Plan, tmp_path: Path) -> None:
    from trainables.backbones.loading import PUBLISHED_CONFIGS

    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text(json.dumps(PUBLISHED_CONFIGS["bert-base-uncased"]))
    answer = plan(str(tmp_path / "base"), "layernorm", {"top_layers": {"num_layers": 2}}, "pals", "feature_based")
    trained = {trial["method"]: trial["trained_params"] for trial in answer["trials"]}
    assert trained == {
        "layernorm": 39_938, "top_layers": 14_767_874, "pals": 1_819_836 + 1_538, "feature_based": 1_538
    }  # fmt: skip
    assert answer["missing"]


def test_one_configuration_is_one(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    plan("minilm", "layernorm")
    assert main(["plan", "counts.yaml"]) == 0
    assert "1 trial: 1 configuration, 1 seed each" in capsys.readouterr().out


def test_several_backbones_are_a_column_and_each_says_what_it_takes(
    plan: Plan, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folders = [str(write_backbone(tmp_path / name / "mine", seed=seed)) for seed, name in enumerate(("a", "b"))]
    answer = plan(folders, {"layernorm": {"max_length": 16, "num_epochs": 1}})
    assert (answer["backbone"], answer["backbone_params"]) == (None, None)
    assert [each["backbone"] for each in answer["backbones"]] == folders
    assert all(each["device_seconds"] > 0 and each["memory_bytes"] > 0 for each in answer["backbones"])
    assert [each["backbone"] for each in answer["methods"]] == folders
    assert all(trial["percent_of_layers"] > 0 for trial in answer["trials"])
    assert main(["plan", "counts.yaml", "--price", "1"]) == 0
    shown = capsys.readouterr().out
    assert "Sweep counts on 2 backbones" in shown
    assert [line.split()[:3] for line in shown.splitlines() if line.split()[:1] == ["toy/sentiment"]] == [
        ["toy/sentiment", "a/mine", "layernorm"],
        ["toy/sentiment", "b/mine", "layernorm"],
    ]
    assert "Of this a/mine: about " in shown
    assert "Of this b/mine: about " in shown

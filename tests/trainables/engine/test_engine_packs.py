"""Which trials an engine packs, how many, and what it tells of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainables.config import TrialConfig
from trainables.engine.engine import Engine, pack_key
from trainables.engine.inbox import Inbox
from trainables.engine.pack_run import PackStatus
from trainables.engine.pack_size import PackSizer
from trainables.faults import FaultsError
from trainables.outcome import OutcomeStatus
from trainables.training.running_trial import Job

MakeConfig = Callable[..., TrialConfig]


def test_outcomes_come_in_the_order_of_their_trials_however_they_were_packed(
    engine: Engine, config: MakeConfig
) -> None:
    configs = [
        config(seed=1),
        config(method="layernorm", method_options={}),
        config(seed=2, num_epochs=1),
        config("regression"),
        config(method="adaptor"),
        config(seed=3),
    ]
    outcomes = engine.run_all(configs)
    assert [outcome.pack_size for outcome in outcomes] == [pytest.approx(3 - 1 / 2), 1, 3, 1, None, 2.5]
    assert [outcome.status is OutcomeStatus.COMPLETED for outcome in outcomes] == [True] * 4 + [False, True]
    assert [len(outcome.epochs) for outcome in outcomes] == [2, 2, 1, 2, 0, 2]
    assert outcomes[3].metric == "pearson"
    assert engine.run_all([]) == []


def test_what_is_each_trial_s_own_does_not_keep_it_from_a_pack(config: MakeConfig) -> None:
    own = {
        "seed": 7,
        "learning_rate": 0.5,
        "num_epochs": 9,
        "warmup_ratio": 0.4,
        "weight_decay": 0.3,
        "max_grad_norm": 7.0,
        "dropout": 0.4,
        "class_weights": "balanced",
    }
    for name, value in own.items():
        assert pack_key(config(**{name: value})) == pack_key(config()), name
    assert pack_key(config(method_options={"adapter_size": 4, "init_std": 0.5})) == pack_key(config())
    named = {field.name for field in dataclasses.fields(TrialConfig)}
    assert named - own.keys() == {  # and these do
        "task", "backbone", "method", "method_options", "batch_size", "max_length", "precision", "folds", "fold"
    }  # fmt: skip


@pytest.mark.parametrize(
    "values",
    [
        {"task": "/another/task"},
        {"backbone": "/another/backbone"},
        {"method": "layernorm", "method_options": {}},
        {"method_options": {"adapter_size": 8}},
        {"batch_size": 8},
        {"max_length": 8},
        {"precision": "bf16"},
        {"folds": 5, "fold": 0},
    ],
)
def test_what_the_step_shares_must_be_equal(values: dict[str, Any], config: MakeConfig) -> None:
    assert pack_key(config(**values)) != pack_key(config())


def test_a_trial_with_weights_of_its_own_trains_alone(config: MakeConfig) -> None:
    assert pack_key(config(method="full_finetuning", method_options={})) is None
    assert pack_key(config(method="top_layers", method_options={"num_layers": 1})) is None
    with pytest.raises(FaultsError, match="did you mean"):
        pack_key(config(method="adaptor"))


@pytest.mark.parametrize("method", ["top_layers", "full_finetuning"])
def test_trials_that_train_alone_train_one_after_the_other(method: str, engine: Engine, config: MakeConfig) -> None:
    outcomes = engine.run_all([config(method=method, method_options={}, seed=seed) for seed in range(2)])
    assert [(outcome.status, outcome.pack_size) for outcome in outcomes] == [(OutcomeStatus.COMPLETED, 1)] * 2


def test_memory_bounds_the_size_of_packs(config: MakeConfig, cache_dir: Path) -> None:
    small = Engine(device="cpu", cache_dir=cache_dir, memory_bytes=1)
    outcomes = small.run_all([config(seed=seed) for seed in range(3)])
    assert [(outcome.status, outcome.pack_size) for outcome in outcomes] == [(OutcomeStatus.COMPLETED, 1)] * 3


def test_a_status_can_be_asked_for_while_a_pack_trains(engine: Engine, config: MakeConfig) -> None:
    seen: list[PackStatus | None] = []
    inbox = Inbox()
    report = lambda epoch: seen.append(engine.status) is None  # noqa: E731
    for seed in range(2):
        inbox.put(Job(config=config(seed=seed, num_epochs=1), done=lambda outcome: None, report=report))
    assert engine.status is None
    engine.work(inbox)
    assert engine.status is None
    assert [status.num_trials for status in seen if status is not None] == [2, 1]
    assert {status.method for status in seen if status is not None} == {"adapter"}


def test_the_size_found_for_one_pack_is_the_next_one_s(
    engine: Engine, config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[PackSizer] = []

    def plan(*given: Any, **options: Any) -> PackSizer:
        planned.append(PackSizer(*given, **options))
        return planned[-1]

    monkeypatch.setattr("trainables.engine.pack_run.PackSizer", plan)
    for seed in range(3):
        engine.run(config(seed=seed, num_epochs=1))
    assert len(planned) == 1
    engine.run(config(batch_size=8, num_epochs=1))
    assert len(planned) == 2

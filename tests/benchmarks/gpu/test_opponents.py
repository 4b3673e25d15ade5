"""The opponents on a CPU: the same trained model, and a race in one phase."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import NotMeasuredError
from benchmarks.gpu import opponents
from benchmarks.gpu.clock import Deadline
from benchmarks.gpu.opponent_models import adapted_bert, lora_bert
from benchmarks.gpu.packs import encoder, lora_config, trial_config
from benchmarks.gpu.sizes import REHEARSAL, REHEARSED
from trainables.training.model import build_model, count_parameters

CONFIGURATION = REHEARSED["tiny"] | {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 24}


@pytest.mark.parametrize("method", ["adapter", "lora"])
def test_both_sides_train_the_same_tensors(method):
    sizes = replace(REHEARSAL, adapter_size=4, lora_rank=2)
    if method == "lora":
        theirs, config = lora_bert(CONFIGURATION, rank=2, alpha=4, num_labels=3), lora_config(sizes, 0)
    else:
        theirs, config = adapted_bert(CONFIGURATION, adapter_size=4, num_labels=3), trial_config(sizes, 0)
    ours = build_model(encoder(CONFIGURATION, torch.device("cpu")), [config], 3)
    trained = [parameter.numel() for parameter in theirs.parameters() if parameter.requires_grad]
    assert sum(trained) == count_parameters(ours).trained
    assert sum(parameter.numel() for parameter in theirs.parameters()) == count_parameters(ours).total


def test_their_adapters_begin_near_the_identity_and_get_gradients():
    model = adapted_bert(CONFIGURATION, adapter_size=4, num_labels=2)
    hidden = torch.randn(3, 5, 16)
    adapter = model.bert.encoder.layer[0].output.dropout[1]
    assert torch.allclose(adapter(hidden), hidden, atol=0.02)
    ids = torch.randint(1, 64, (2, 6))
    model(input_ids=ids, labels=torch.tensor([0, 1])).loss.backward()
    without = [
        name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None
    ]
    assert without == []


def test_a_batch_is_padded_to_a_multiple_of_eight_and_the_padding_is_masked():
    from benchmarks.gpu.opponent_process import collate

    batch = collate([{"input_ids": [5, 6, 7], "labels": 1}, {"input_ids": [8], "labels": 0}])
    assert batch["input_ids"].shape == (2, 8)
    assert batch["attention_mask"].sum(dim=1).tolist() == [3, 1]
    assert batch["input_ids"][0, :4].tolist() == [5, 6, 7, 0]
    assert batch["labels"].tolist() == [1, 0]


@pytest.mark.thorough
def test_an_opponent_that_breaks_is_not_measured_and_says_why(make_run, tmp_path, monkeypatch):
    monkeypatch.setattr(opponents.sys, "executable", str(tmp_path / "broken"))
    (tmp_path / "broken").write_text("#!/bin/sh\necho no such library >&2\nexit 3\n", encoding="utf-8")
    (tmp_path / "broken").chmod(0o755)
    run = make_run("opponents")
    with pytest.raises(NotMeasuredError, match="an opponent ended with 3: no such library"):
        opponents.measure(run)
    points = run.record.content["parts"]["opponents"]["points"]
    assert [point["where"]["trained_by"] for point in points] == ["adaptune"] * 4


def test_without_time_the_opponents_are_stopped_and_left_out(make_run):
    run = make_run("opponents", ticks=0)
    opponents.measure(run)
    points = run.record.content["parts"]["opponents"]["points"]
    assert [point["where"]["trained_by"] for point in points] == ["adaptune"] * 4 + ["Trainer"] * 4
    assert all(point["measured"]["examples_per_second"]["value"] is None for point in points)


@pytest.mark.timeout(300)  # a fresh interpreter loads torch, transformers and accelerate
@pytest.mark.thorough
def test_a_trainer_trains_in_its_own_process_without_ray_mlflow_and_datasets(make_run, tmp_path, monkeypatch):
    strangers = ("ray", "mlflow", "datasets", "optuna", "orchestrator")
    blocked = f"import sys\nfor name in {strangers}:\n    sys.modules[name] = None\n"
    (tmp_path / "sitecustomize.py").write_text(blocked, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run = make_run("opponents")
    run.sizes = replace(run.sizes, processes=1, window_s=0.01)
    run.deadline = Deadline(time.monotonic() + 250, time.monotonic)
    opponents.measure(run)
    points = run.record.content["parts"]["opponents"]["points"]
    rates = [point["measured"]["examples_per_second"]["value"] for point in points]
    assert len(rates) == 8  # each side and method once alone and once with as many as there are: one
    assert np.all(np.array(rates) > 0)

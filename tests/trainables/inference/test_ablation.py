"""Adapters taken out after training: each span scores what a model without them does, and nothing is left changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables import metrics
from trainables.config import TrialConfig
from trainables.engine.engine import Engine
from trainables.faults import FaultsError
from trainables.inference import ablation
from trainables.inference.ablation import Ablation, ablate, ablate_saved, check_ablation
from trainables.nn.layers import SublayerOutput
from trainables.nn.pieces import Pieces
from trainables.outcome import OutcomeStatus
from trainables.training.evaluation import evaluate, predict
from trainables.training.model import AdaptedModel

VARIANTS: dict[str, dict[str, Any]] = {
    "houlsby": {},
    "pfeiffer": {"placement": "pfeiffer"},
    "parallel": {"placement": "parallel"},
    "multiply": {"interaction": "multiply"},
    "deep, batch norm": {"depth": 2, "norm": "batch"},
    "upper layer": {"layers": "1"},
}
MakeConfig = Callable[..., TrialConfig]


@pytest.fixture
def trained(config: MakeConfig, splits: Any, fit: Any) -> Callable[..., tuple[AdaptedModel, Any]]:
    """Trains a trial with adapters large enough to matter; gives the model and the rows."""

    def train(*, metric: str = "accuracy", **options: Any) -> tuple[AdaptedModel, Any]:
        rows = splits(kind="regression" if metric == "pearson" else "classification")
        trial = config(method_options={"adapter_size": 4, "init_std": 1.0, **options})
        return fit(rows, trial, metric=metric)[1], rows

    return train


@contextmanager
def without(model: AdaptedModel, first: int, last: int) -> Iterator[None]:
    """The model with no adapters at all in some layers."""
    ends = [
        end
        for layer in model.encoder.layers[first : last + 1]
        for end in layer.modules()
        if isinstance(end, SublayerOutput)
    ]
    adapters = [end.adapter for end in ends]
    for end in ends:
        end.adapter = None
    yield
    for end, adapter in zip(ends, adapters, strict=True):
        end.adapter = adapter


def scores(found: Ablation) -> dict[tuple[int, int], dict[str, float]]:
    return {(span.first_layer, span.last_layer): dict(span.scores) for span in found.spans}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_span_scores_what_the_model_without_its_adapters_scores(variant: str, trained: Any) -> None:
    model, rows = trained(**VARIANTS[variant])
    metric = metrics.get("accuracy")
    whole = evaluate(model, rows["validation"], metric)
    found = ablate(model, rows["validation"], metric)
    assert found.whole == pytest.approx(whole, abs=1e-5)
    assert scores(found).keys() == {(0, 0), (0, 1), (1, 1)}
    for (first, last), measured in scores(found).items():
        with without(model, first, last):
            assert measured == pytest.approx(evaluate(model, rows["validation"], metric), abs=1e-5)
    assert found.spans[-1].scores["loss"] != pytest.approx(whole["loss"], abs=1e-4)


def test_the_model_is_as_it_was_afterwards(trained: Any) -> None:
    model, rows = trained()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    outputs, _ = predict(model, rows["test"])
    ablate(model, rows["test"], metrics.get("accuracy"))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]), name
        assert parameter.shape == before[name].shape
    assert (predict(model, rows["test"])[0] == outputs).all()


def test_spans_of_layers_without_adapters_score_what_the_whole_model_does(trained: Any) -> None:
    model, rows = trained(layers="1")
    found = ablate(model, rows["validation"], metrics.get("accuracy"))
    assert scores(found)[0, 0] == found.whole
    assert scores(found)[0, 1] == scores(found)[1, 1] != found.whole


def test_how_many_pass_together_and_in_how_many_parts_changes_no_score(
    trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = trained()
    together = ablate(model, rows["validation"], metrics.get("accuracy"))
    monkeypatch.setitem(ablation.STACKED, "cpu", 3)
    forward = AdaptedModel.forward

    def short_of_memory(self: AdaptedModel, pieces: Pieces, *inputs: Any) -> Any:
        if pieces.num_sequences > 12:
            raise torch.OutOfMemoryError("no")
        return forward(self, pieces, *inputs)

    monkeypatch.setattr(AdaptedModel, "forward", short_of_memory)
    in_parts = ablate(model, rows["validation"], metrics.get("accuracy"))
    assert in_parts.whole == pytest.approx(together.whole, abs=1e-5)
    for span, measured in scores(in_parts).items():
        assert measured == pytest.approx(scores(together)[span], abs=1e-5)


def test_accuracy_stands_beside_the_tasks_own_metric_where_classes_are_predicted(trained: Any) -> None:
    model, rows = trained()
    found = ablate(model, rows["validation"], metrics.get("matthews_correlation"))
    assert found.metric == "matthews_correlation"
    assert found.whole.keys() == {"matthews_correlation", "accuracy", "loss"}
    assert all(span.scores.keys() == found.whole.keys() for span in found.spans)


def test_a_regression_has_its_metric_alone(trained: Any) -> None:
    model, rows = trained(metric="pearson")
    found = ablate(model, rows["validation"], metrics.get("pearson"))
    assert found.whole.keys() == {"pearson", "loss"}


def test_a_saved_adapter_is_ablated_on_the_rows_of_its_task(
    engine: Engine, config: MakeConfig, tmp_path: Path, cache_dir: Path
) -> None:
    trial = config(method_options={"adapter_size": 4, "init_std": 0.3})
    outcome = engine.run(trial, save_to=tmp_path / "saved")
    assert outcome.status is OutcomeStatus.COMPLETED, outcome.error
    for split, recorded in (("validation", outcome.validation), ("test", outcome.test)):
        found = ablate_saved(tmp_path / "saved", split, device="cpu", precision="fp32", cache_dir=cache_dir)
        assert found.whole == pytest.approx(recorded, abs=1e-5)
        assert len(found.spans) == 3
    with pytest.raises(FaultsError, match=r"unknown split of .* 'tests'; did you mean 'test'"):
        ablate_saved(tmp_path / "saved", "tests", device="cpu", cache_dir=cache_dir)


def test_what_has_no_adapters_is_refused(config: MakeConfig, splits: Any, fit: Any) -> None:
    trial = config(method="layernorm", method_options={})
    with pytest.raises(FaultsError, match=r"must train bottleneck adapters .* but got 'layernorm'"):
        check_ablation(trial)
    rows = splits()
    with pytest.raises(FaultsError, match="must train bottleneck adapters"):
        ablate(fit(rows, trial)[1], rows["validation"], metrics.get("accuracy"))
    check_ablation(config())

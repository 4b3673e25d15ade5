"""What LoRA changes, and what its options mean."""

from __future__ import annotations

import pytest
import torch

from tests.factories import trial_config
from trainables.backbones.loading import Backbone
from trainables.config import Scalar
from trainables.faults import FaultsError
from trainables.methods import identity_of, parse_options
from trainables.nn.dropout import DropoutStream, DropoutStreams, connect
from trainables.training.model import AdaptedModel, build_model


def build(backbone: Backbone, dropout: float | None = None, **options: Scalar) -> AdaptedModel:
    trial = trial_config("lora", method_options=options, dropout=dropout)
    return build_model(backbone.encoder, [trial], 2)


@pytest.mark.parametrize("spelling", ["value,query", " query , value", "query,value,query"])
def test_targets_are_one_configuration_however_they_are_written(spelling: str) -> None:
    assert parse_options("lora", {"targets": spelling}).targets == "query,value"
    assert identity_of("lora", {"targets": spelling}) == identity_of("lora", {})


def test_unknown_targets_are_named_each(backbone: Backbone) -> None:
    with pytest.raises(FaultsError) as refusal:
        parse_options("lora", {"targets": "qery,value,pooler", "rank": 0}, backbone.info.shape)
    text = str(refusal.value)
    assert len(refusal.value.faults) == 3
    assert "did you mean 'query'" in text
    assert "'pooler'" in text


def test_its_dropout_is_its_own_whatever_the_trial_s(backbone: Backbone) -> None:
    """A trial's dropout replaces the backbone's rates, not the one that is an option of the method."""
    ids = torch.randint(4, 64, (4, 8), generator=torch.Generator().manual_seed(1))
    outputs = []
    for lora_dropout in (0.0, 0.5):
        model = build(backbone, dropout=0.0, rank=2, lora_dropout=lora_dropout)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("lora_b"):
                    parameter.fill_(0.5)
        streams = DropoutStreams([DropoutStream(3, 0.0, torch.device("cpu"))])
        streams.expect(4, None)
        connect(model, streams)
        with torch.no_grad():
            outputs.append(model.train()(ids, torch.zeros_like(ids)))
            outputs.append(model.eval()(ids, torch.zeros_like(ids)))
    torch.testing.assert_close(outputs[0], outputs[1])
    torch.testing.assert_close(outputs[1], outputs[3])
    assert not torch.allclose(outputs[2], outputs[3])

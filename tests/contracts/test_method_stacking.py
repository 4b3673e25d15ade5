"""What a method's stack key promises: trials of a pack compute what each computes alone. New files are tested too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.contracts.conftest import REFUSED
from tests.pieces import drop_out
from trainables.methods import ALONE, get_method, method_names, parse_options
from trainables.nn.dropout import Dropout
from trainables.training.model import AdaptedModel, build_model
from trainables.training.weights import TrainedWeights


def trained(model: AdaptedModel) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_a_stack_key_can_be_compared(case: Any) -> None:
    options = parse_options(case.method, case.options)
    assert hash(get_method(case.method).stack_key(options)) == hash(get_method(case.method).stack_key(options))


def of_other_layers() -> list[Any]:
    """Each method on encoders whose layers are not BERT's, where it can work on them."""
    pairs = [(family, method) for family in ("modernbert", "albert") for method in method_names()]
    return [pair for pair in pairs if pair not in REFUSED]


@pytest.fixture
def family() -> str:
    return "bert"


class Stacking:
    """Methods with a stack key: trials of a pack compute what each computes alone. The others train in packs of one."""

    def models(
        self, case: Any, small: Any, family: str, rates: tuple[float, ...]
    ) -> tuple[AdaptedModel, list[AdaptedModel]]:
        """A pack and its trials alone, every trained tensor moved away from where it starts, alike in both."""
        options = parse_options(case.method, case.options)
        num_trials = 1 if get_method(case.method).stack_key(options) is ALONE else len(rates)
        encoder = small.encoder(small.shapes[family])
        configs = [case.config(seed=seed, dropout=rates[seed]) for seed in range(num_trials)]
        alone = [build_model(encoder, [each], small.num_outputs) for each in configs]
        pack = build_model(encoder, configs, small.num_outputs)
        weights = TrainedWeights(pack)
        assert torch.equal(weights.rows, torch.cat([weights.read(model) for model in alone]))  # they start alike
        generator = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for name, parameter in trained(pack).items():
                noise = torch.randn(parameter.shape, generator=generator) * 0.1
                parameter += noise
                if num_trials == 1:
                    alone[0].get_parameter(name).add_(noise)
                    continue
                assert parameter.shape[0] == num_trials, f"{name} has no trial axis"
                for trial, model in enumerate(alone):
                    model.get_parameter(name)[0] += noise[trial]
        self.drop_out(small, pack, alone, rates, step=0)
        return pack, alone

    def drop_out(
        self, small: Any, pack: AdaptedModel, alone: list[AdaptedModel], rates: tuple[float, ...], step: int
    ) -> None:
        num_trials = len(alone)
        drop_out(pack, small.stacked(num_trials), range(num_trials), rates[:num_trials], step)
        for k, pieces in enumerate(small.alone(num_trials)):
            drop_out(alone[k], pieces, [k], [rates[k]], step)

    @torch.no_grad()
    def test_trials_of_a_pack_compute_what_each_computes_alone(
        self, case: Any, small: Any, family: str, rates: tuple[float, ...]
    ) -> None:
        pack, alone = self.models(case, small, family, rates)
        for training in (False, True):
            self.drop_out(small, pack, alone, rates, step=0)
            self.check_computation(small, pack, alone, rates, training=training)

    def check_computation(
        self, small: Any, pack: AdaptedModel, alone: list[AdaptedModel], rates: tuple[float, ...], *, training: bool
    ) -> None:
        inputs, stacked = small.alone(len(alone)), small.stacked(len(alone))
        together = pack.train(training)(stacked)
        apart = torch.cat([model.train(training)(one) for model, one in zip(alone, inputs, strict=True)])
        torch.testing.assert_close(together, apart, rtol=0, atol=2e-5)
        has_own_rates = any(isinstance(each, Dropout) and each.is_fixed and each.rate for each in pack.modules())
        self.drop_out(small, pack, alone, rates, step=1)
        later = pack(stacked)
        self.drop_out(small, pack, alone, rates, step=0)
        again = pack(stacked)
        for k, rate in enumerate(rates[: len(alone)]):  # where there is a rate, another step has other masks
            mine = slice(2 * k, 2 * k + 2)
            assert torch.allclose(later[mine], together[mine]) == (not training or (rate == 0 and not has_own_rates))
            assert torch.allclose(again[mine], together[mine])

    def test_gradients_of_different_trials_never_mix(
        self, case: Any, small: Any, family: str, rates: tuple[float, ...]
    ) -> None:
        pack, alone = self.models(case, small, family, rates)
        num_trials = len(alone)
        labels = torch.tensor([0, 2])
        losses = F.cross_entropy(pack.train()(small.stacked(num_trials)), labels.repeat(num_trials), reduction="none")
        losses.view(num_trials, -1)[0].mean().backward()
        F.cross_entropy(alone[0].train()(small.alone(1)[0]), labels).backward()
        for name, parameter in trained(pack).items():
            expected = alone[0].get_parameter(name).grad
            assert parameter.grad is not None
            assert expected is not None
            mine = parameter.grad[:1] if num_trials > 1 else parameter.grad
            torch.testing.assert_close(mine, expected, rtol=1e-4, atol=2e-5)
            if num_trials > 1:
                assert not parameter.grad[1:].any(), name


@pytest.mark.parametrize("rates", [pytest.param((0.0, 0.0, 0.0), marks=pytest.mark.thorough), (0.3, 0.0, 0.6)])
class TestStacking(Stacking):
    """On a small BERT."""


@pytest.mark.thinned(8)
@pytest.mark.parametrize("rates", [(0.3, 0.0, 0.6)])
@pytest.mark.parametrize(("family", "case"), of_other_layers(), indirect=["case"])
class TestStackingOnOtherLayers(Stacking):
    """On encoders with LayerNorms before their sub-layers and windows, and with shared layers."""

"""Rows of trained numbers and the model's tensors as views of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.pieces import laid_out
from trainables.backbones.loading import Backbone, load_backbone
from trainables.config import TrialConfig
from trainables.training.model import AdaptedModel, build_model, count_parameters
from trainables.training.weights import TrainedWeights

IDS = torch.randint(4, 64, (2, 6), generator=torch.Generator().manual_seed(0))


def config(seed: int = 0, method: str = "adapter", **options: float) -> TrialConfig:
    small = {"adapter_size": 4, "init_std": 0.1} if method == "adapter" else {}
    return TrialConfig(task="any", backbone="any", method=method, method_options=small | options, seed=seed)


def build(backbone: Backbone, *seeds: int, method: str = "adapter") -> AdaptedModel:
    return build_model(backbone.encoder, [config(seed, method) for seed in seeds], 3)


def logits(model: AdaptedModel) -> Tensor:
    """Of the same two sequences for every trial before the model: (2K, C)."""
    num_trials = model.num_trials
    return model.eval()(laid_out(IDS.repeat(num_trials, 1), num_trials=num_trials))


def trained(model: AdaptedModel) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.fixture(scope="module")
def rounded(tiny_bert: Path) -> Backbone:
    """The random BERT, computing in bf16."""
    return load_backbone(str(tiny_bert), device=torch.device("cpu"), compute_dtype=torch.bfloat16)


class TestRows:
    @pytest.mark.parametrize("method", ["adapter", "layernorm", "top_layers", "full_finetuning"])
    def test_a_row_is_all_a_trial_trains_and_what_decays_comes_first(self, method: str, backbone: Backbone) -> None:
        model = build(backbone, 0, method=method)
        before = {name: tensor.detach().clone() for name, tensor in trained(model).items()}
        weights = TrainedWeights(model)
        assert weights.rows.shape == (1, count_parameters(model).trained)
        weights.rows[:, : weights.layout.num_decayed] += 1
        weights.show(model, 0, 1)
        assert trained(model).keys() == before.keys()
        for name, tensor in trained(model).items():
            assert tensor.shape == before[name].shape
            is_decayed = not name.endswith("bias") and "layernorm" not in name
            assert torch.equal(tensor, before[name] + is_decayed), name

    def test_rows_are_those_of_each_trial_alone(self, backbone: Backbone) -> None:
        weights = TrainedWeights(build(backbone, 0, 1, 2))
        assert weights.num_trials == 3
        assert weights.rows.dtype == torch.float32
        for seed in range(3):
            assert torch.equal(weights.read(build(backbone, seed)), weights.rows[seed : seed + 1])

    def test_other_rows_may_take_their_place(self, backbone: Backbone) -> None:
        model = build(backbone, 0, 1)
        weights = TrainedWeights(model)
        expected = logits(build(backbone, 1, 2))
        weights.replace_rows(torch.cat([weights.rows[1:], weights.read(build(backbone, 2))]))
        weights.show(model, 0, 2)
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-6)

    @pytest.mark.parametrize(("dtype", "bytes_per_number"), [(torch.float32, 16), (torch.bfloat16, 18)])
    def test_the_memory_of_a_trial_is_that_of_its_row(
        self, dtype: torch.dtype, bytes_per_number: int, backbone: Backbone, rounded: Backbone
    ) -> None:
        model = build(backbone if dtype is torch.float32 else rounded, 0, 1, 2)
        expected = count_parameters(model, 3).trained * bytes_per_number
        assert TrainedWeights(model).bytes_per_trial == expected


class TestShow:
    def test_the_model_computes_with_the_trials_before_it(self, backbone: Backbone) -> None:
        model = build(backbone, 0, 1, 2)
        weights = TrainedWeights(model)
        together = logits(model).view(3, 2, 3)
        for first, last in ((0, 1), (1, 3), (2, 3), (0, 3), (0, 1)):
            weights.show(model, first, last)
            torch.testing.assert_close(logits(model), together[first:last].flatten(0, 1), rtol=0, atol=1e-6)

    def test_its_tensors_are_views_so_what_the_optimizer_writes_is_seen(self, backbone: Backbone) -> None:
        model = build(backbone, 0, 1)
        weights = TrainedWeights(model)
        weights.show(model, 0, 2)
        before = logits(model)
        weights.rows[1] *= 1.1
        weights.refresh(0, 2)
        after = logits(model)
        assert torch.equal(after[:2], before[:2])
        assert not torch.allclose(after[2:], before[2:])

    def test_under_bf16_the_encoder_s_are_seen_rounded_and_the_head_s_as_they_are(self, rounded: Backbone) -> None:
        model = build(rounded, 0, 1)
        exact = trained(build(rounded, 0, 1))
        weights = TrainedWeights(model)
        weights.show(model, 0, 2)
        for name, tensor in trained(model).items():
            dtype = torch.float32 if name.startswith("head.") else torch.bfloat16
            assert tensor.dtype == dtype, name
            assert torch.equal(tensor, exact[name].to(dtype)), name
        assert weights.rows.dtype == torch.float32
        weights.show(model, 1, 2, masters=True)
        assert all(torch.equal(tensor, exact[name][1:]) for name, tensor in trained(model).items())

    def test_under_bf16_a_step_is_seen_once_it_is_told(self, rounded: Backbone) -> None:
        model = build(rounded, 0, 1)
        weights = TrainedWeights(model)
        weights.show(model, 0, 2)
        seen = model.encoder.get_parameter("layers.0.attention_output.adapter.down_proj")
        before = seen.detach().clone()
        weights.trained += 1
        assert torch.equal(seen, before)
        weights.refresh(1, 2)
        assert torch.equal(seen[0], before[0])  # the other trial's step has not come
        assert (seen[1] > before[1]).all()


class TestGradients:
    def loss(self, model: AdaptedModel) -> Tensor:
        return logits(model).square().sum()

    @pytest.mark.parametrize("method", ["adapter", "layernorm", "top_layers", "full_finetuning"])
    def test_they_lie_where_the_row_has_what_they_belong_to(self, method: str, backbone: Backbone) -> None:
        model, reference = build(backbone, 0, method=method), build(backbone, 0, method=method)
        weights = TrainedWeights(model)
        weights.show(model, 0, 1)
        self.loss(model).backward()
        grads = weights.take_gradients(0, 1).clone()
        self.loss(reference).backward()
        moved = TrainedWeights(model)  # rows laid out as before, moved by the gradients
        moved.replace_rows(weights.rows + grads)
        moved.show(model, 0, 1)
        for name, tensor in trained(model).items():
            parameter = reference.get_parameter(name)
            assert parameter.grad is not None
            torch.testing.assert_close(tensor, parameter + parameter.grad, rtol=1e-5, atol=1e-6)

    def test_each_trial_has_its_own_and_they_are_taken_once(self, backbone: Backbone) -> None:
        model = build(backbone, 0, 1, 2)
        weights = TrainedWeights(model)
        weights.show(model, 0, 3)
        self.loss(model).backward()
        together = weights.take_gradients(0, 3).clone()
        assert not weights.take_gradients(0, 3).any()
        for trial in range(3):
            weights.show(model, trial, trial + 1)
            self.loss(model).backward()
            alone = weights.take_gradients(trial, trial + 1)
            torch.testing.assert_close(alone[0], together[trial], rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(("method", "seeds"), [("adapter", (0, 1, 2)), ("full_finetuning", (0,))])
    def test_they_are_the_same_where_they_are_gathered_first(
        self, method: str, seeds: tuple[int, ...], rounded: Backbone
    ) -> None:
        model = build(rounded, *seeds, method=method)
        weights = TrainedWeights(model)
        taken = []
        for gathered_at_once in (0, 10**6):
            weights.gathered_at_once = gathered_at_once
            weights.show(model, 0, len(seeds))
            self.loss(model).backward()
            next(iter(trained(model).values())).grad = None  # as of a tensor that had no part in the loss
            taken.append(weights.take_gradients(0, len(seeds)).clone())
        assert taken[0].any()
        assert torch.equal(*taken)
        assert not weights.take_gradients(0, len(seeds)).any()

    def test_what_a_broken_step_gathered_is_forgotten(self, backbone: Backbone) -> None:
        model = build(backbone, 0, 1)
        weights = TrainedWeights(model)
        weights.show(model, 0, 2)
        self.loss(model).backward()
        weights.forget_gradients(0, 2)
        assert not weights.take_gradients(0, 2).any()

    @pytest.mark.parametrize("method", ["adapter", "full_finetuning"])
    def test_under_bf16_they_are_near_those_of_float32(
        self, method: str, backbone: Backbone, rounded: Backbone
    ) -> None:
        found: list[Tensor] = []
        for each in (backbone, rounded):
            model = build(each, 0, method=method)
            weights = TrainedWeights(model)
            weights.show(model, 0, 1)
            logits(model)[0, 0].backward()
            found.append(weights.take_gradients(0, 1)[0].clone())
        exact, near = found
        assert near.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(exact, near, dim=0) > 0.99

    def test_under_bf16_a_word_piece_s_gradient_is_summed_in_float32(
        self, backbone: Backbone, rounded: Backbone
    ) -> None:
        """Every token of a batch has the same token type, so its gradient is a sum that bf16 would lose."""
        found: list[Tensor] = []
        ids = torch.randint(4, 64, (128, 16), generator=torch.Generator().manual_seed(1))
        for each in (backbone, rounded):
            model = build(each, 0, method="full_finetuning")
            weights = TrainedWeights(model)
            weights.show(model, 0, 1)
            model.eval()(laid_out(ids)).tanh().sum().backward()
            grad = model.encoder.embeddings.token_type.weight.grad
            assert grad is not None
            found.append(grad[0].float())
        exact, near = found
        assert (exact - near).norm() < 0.05 * exact.norm()

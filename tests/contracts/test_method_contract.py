"""What a transfer method must do, whichever it is. Every file of trainables/methods is tested the moment it exists."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainables import metrics, tasks
from trainables.backbone import Backbone
from trainables.config import Scalar, TrialConfig
from trainables.data import TokenizedSplit
from trainables.dropout import DropoutStream, DropoutStreams, connect
from trainables.encoder import Encoder
from trainables.evaluation import predict
from trainables.faults import FaultsError
from trainables.methods import get_method, method_names, option_names, parse_options, tokenized_by_method
from trainables.model import AdaptedModel, build_model, count_parameters, statistics_of
from trainables.running import Job, RunningTrial
from trainables.saved import load, save
from trainables.shape import EncoderShape
from trainables.train import Pack
from trainables.weights import TrainedWeights

SHAPE = EncoderShape(
    model_type="bert",
    vocab_size=40,
    hidden_size=16,
    num_layers=3,
    num_heads=2,
    intermediate_size=24,
    max_positions=20,
    type_vocab_size=2,
    embedding_size=16,
)
# What differs in the arithmetic of trained parameters: no pooler, no token types, embeddings that are projected.
SHAPES = {
    "bert": SHAPE,
    "distilbert": dataclasses.replace(SHAPE, model_type="distilbert", type_vocab_size=0, has_pooler=False),
    "electra-small": dataclasses.replace(SHAPE, model_type="electra", embedding_size=8, has_pooler=False),
}
_ADAPTER: dict[str, Scalar] = {"adapter_size": 4, "init_std": 0.1}
# Designs that compute something else, by the method's name and what is special.
VARIANTS: dict[str, tuple[str, dict[str, Scalar]]] = {
    **{
        f"adapter-{placement}": ("adapter", {**_ADAPTER, "placement": placement})
        for placement in ("pfeiffer", "parallel", "attention_only", "feedforward_only")
    },
    "adapter-multiply": ("adapter", {**_ADAPTER, "interaction": "multiply"}),
    "adapter-deep": ("adapter", {**_ADAPTER, "depth": 3, "norm": "layer", "activation": "tanh"}),
    "adapter-batch-norm": ("adapter", {**_ADAPTER, "depth": 2, "norm": "batch"}),
    "adapter-some-layers": ("adapter", {**_ADAPTER, "layers": "0,2", "train_layernorms": False, "pooling": "first"}),
    "adapter-mean": ("adapter", {**_ADAPTER, "pooling": "mean"}),
    "feature_based-hidden": ("feature_based", {"pooling": "first", "head_hidden_size": 5}),
    "lora-everywhere": ("lora", {"rank": 2, "targets": "query,key,value,output,up,down"}),
    "pals-layernorms": ("pals", {"size": 4, "num_heads": 2, "init_std": 0.1, "train_layernorms": True}),
}
NUM_OUTPUTS = 3


class Case(NamedTuple):
    """A method with options that suit the small encoder."""

    method: str
    options: dict[str, Scalar]

    def config(self, seed: int = 0, **values: Any) -> TrialConfig:
        return TrialConfig(
            task="any", backbone="any", method=self.method, method_options=self.options, seed=seed, **values
        )


@pytest.fixture(params=[*method_names(), *VARIANTS])
def case(request: pytest.FixtureRequest, small_options: Callable[[str, Encoder], dict[str, Scalar]]) -> Case:
    method, options = VARIANTS.get(request.param, (request.param, None))
    return Case(method, small_options(method, ENCODER) if options is None else options)


@pytest.fixture(params=method_names())
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_encoder(shape: EncoderShape = SHAPE, dtype: torch.dtype = torch.float32) -> Encoder:
    """An encoder as a checkpoint gives it, with random values."""
    generator = torch.Generator().manual_seed(0)
    masters = {
        name: torch.randn(parameter.shape, generator=generator) * 0.3 + (1.0 if name.endswith("norm.weight") else 0.0)
        for name, parameter in Encoder(shape).named_parameters()
    }
    return Encoder(shape, masters).load(torch.device("cpu"), dtype)


ENCODER = random_encoder()  # for what only has to fit the shape


def split(rows: int) -> TokenizedSplit:
    """Rows whose label is their second word piece, modulo the classes."""
    rng = np.random.default_rng(rows)
    lengths = rng.integers(3, 10, size=rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(4, SHAPE.vocab_size, size=offsets[-1]).astype(np.int32)
    return TokenizedSplit(
        offsets=offsets,
        input_ids=ids,
        token_type_ids=np.zeros(offsets[-1], np.int8),
        labels=ids[offsets[:-1] + 1].astype(np.int64) % NUM_OUTPUTS,
        pad_token_id=0,
    )


def batches(num_trials: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """One batch (2, 7) a trial, ragged, all of one length."""
    generator = torch.Generator().manual_seed(3)
    found = []
    for _ in range(num_trials):
        lengths = torch.tensor([7, 4])
        ids = torch.randint(4, SHAPE.vocab_size, (2, 7), generator=generator)
        found.append((ids.masked_fill(torch.arange(7) >= lengths[:, None], 0), torch.zeros_like(ids), lengths))
    return found


def stacked(num_trials: int) -> tuple[Tensor, Tensor, Tensor]:
    ids, types, lengths = (torch.cat(parts) for parts in zip(*batches(num_trials), strict=True))
    return ids, types, lengths


def trained(model: AdaptedModel) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


class TestTraining:
    def test_what_is_frozen_stays_to_the_bit_and_something_is_learned(self, case: Case) -> None:
        encoder = random_encoder()
        shared = {name: parameter.clone() for name, parameter in encoder.named_parameters()}
        masters = {name: master.clone() for name, master in encoder.masters.items()}
        trial = case.config(learning_rate=1e-2, num_epochs=2, batch_size=8)
        before = dict(build_model(encoder, [trial], NUM_OUTPUTS).named_parameters())
        data = {"train": split(48), "validation": split(16)}
        pack = Pack(encoder, data, NUM_OUTPUTS)
        running = RunningTrial(Job(config=trial, done=lambda outcome: None), data["train"].lengths, encoder.device)
        pack.join([running])
        for _ in running.batches:
            pack.step()
            if running.has_ended_epoch:
                pack.end_epoch(running, metrics.get("accuracy"))

        model = pack.show(running)
        assert len(running.epochs) == 2
        assert all(torch.equal(parameter, shared[name]) for name, parameter in encoder.named_parameters())
        assert all(torch.equal(master, masters[name]) for name, master in encoder.masters.items())
        for name, parameter in model.named_parameters():
            # A word that no row holds gets no gradient, so of the embeddings only some rows change.
            assert torch.equal(parameter, before[name]) == (not parameter.requires_grad), name

    def test_what_is_trained_gets_gradients_and_is_float32(self, case: Case) -> None:
        model = build_model(random_encoder(dtype=torch.bfloat16), [case.config()], NUM_OUTPUTS)
        model(*stacked(1)).sum().backward()
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name
            assert parameter.dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16), name
        assert trained(model).keys() >= {"head.weight", "head.bias"}


class TestParameters:
    @pytest.mark.parametrize("family", SHAPES)
    def test_the_closed_formula_counts_the_tensors(self, case: Case, family: str) -> None:
        shape = SHAPES[family]
        model = build_model(random_encoder(shape), [case.config()], NUM_OUTPUTS)
        counts = count_parameters(model)
        formula = get_method(case.method).trained_params(shape, parse_options(case.method, case.options, shape))
        assert counts.trained_without_head == formula
        width, hidden = model.encoder.width, model.encoder.head_hidden_size
        head = hidden * (width + 1) + NUM_OUTPUTS * ((hidden or width) + 1)
        assert counts.trained == formula + head
        assert counts.total >= counts.trained

    def test_they_are_the_row_of_a_trial_matrices_first(self, case: Case) -> None:
        model = build_model(random_encoder(), [case.config()], NUM_OUTPUTS)
        weights = TrainedWeights(model)
        statistics = sum(getattr(owner, name).numel() for owner, name in statistics_of(model))
        assert weights.trained.shape == (1, count_parameters(model).trained)
        assert weights.rows.shape == (1, count_parameters(model).trained + statistics)
        # Of one trial, without its axis: matrices decay; biases and LayerNorms do not.
        stacked = {name for name in trained(model) if model.has_trial_axes or "layernorm" in name or "head" in name}
        decayed = {name: t.numel() for name, t in trained(model).items() if t.dim() - (name in stacked) > 1}
        assert weights.num_decayed == sum(decayed.values())
        assert not [name for name in decayed if name.endswith("bias") or "norm" in name]


class TestOptions:
    def test_they_are_plain_values_with_defaults_that_survive_json(self, method: str) -> None:
        defaults = parse_options(method, {})
        values = json.loads(json.dumps(dataclasses.asdict(defaults)))
        assert list(values) == option_names(method)
        assert parse_options(method, values) == defaults
        assert hash(parse_options(method, values)) == hash(defaults)
        trial = TrialConfig(task="any", backbone="any", method=method, method_options=values)
        assert TrialConfig.from_dict(json.loads(json.dumps(trial.to_dict()))) == trial

    def test_they_are_frozen(self, method: str) -> None:
        options = parse_options(method, {})
        with pytest.raises(dataclasses.FrozenInstanceError):
            options.anything = 1

    def test_the_defaults_suit_a_common_encoder(self, method: str) -> None:
        common = dataclasses.replace(
            SHAPE, hidden_size=384, embedding_size=384, intermediate_size=1536, num_layers=6, num_heads=12
        )
        if method == "adapter_fusion":  # what it fuses has no default
            assert "must name the store" in parse_options(method, {}).faults(common)[0]
        else:
            assert parse_options(method, {}, common).faults(common) == []

    def test_an_unknown_option_is_refused_with_the_valid_ones(self, method: str) -> None:
        with pytest.raises(FaultsError) as refusal:
            parse_options(method, {"no_such_option": 1, "nor_this": 2})
        assert len(refusal.value.faults) == 2
        for fault, name in zip(refusal.value.faults, ("no_such_option", "nor_this"), strict=True):
            assert f"option of method {method}" in fault
            assert name in fault
            assert all(known in fault for known in option_names(method) or ["none"])

    def test_every_value_of_a_wrong_type_is_refused_at_once(self, method: str) -> None:
        wrong: dict[str, Any] = {name: ["a", "list"] for name in option_names(method)}
        with pytest.raises(FaultsError) as refusal:
            parse_options(method, {**wrong, "no_such_option": 1})
        assert len(refusal.value.faults) == len(wrong) + 1
        for name in wrong:
            assert any(fault.startswith(f"{method}.{name}: must be") for fault in refusal.value.faults)


@pytest.mark.parametrize("rates", [(0.0, 0.0, 0.0), (0.3, 0.0, 0.6)])
class TestStacking:
    """Methods with a stack key: trials of a pack compute what each computes alone. The others train in packs of one."""

    def models(self, case: Case, rates: tuple[float, ...]) -> tuple[AdaptedModel, list[AdaptedModel]]:
        """A pack and its trials alone, every trained tensor moved away from where it starts, alike in both."""
        options = parse_options(case.method, case.options)
        num_trials = 1 if get_method(case.method).stack_key(options) is None else len(rates)
        encoder = random_encoder()
        configs = [case.config(seed=seed, dropout=rates[seed]) for seed in range(num_trials)]
        alone = [build_model(encoder, [each], NUM_OUTPUTS) for each in configs]
        pack = build_model(encoder, configs, NUM_OUTPUTS)
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
        for model, here in [(pack, configs), *((alone[k], [configs[k]]) for k in range(num_trials))]:
            streams = DropoutStreams([DropoutStream(each.seed, each.dropout, encoder.device) for each in here])
            streams.expect(2 * len(here), None)
            connect(model, streams)
        return pack, alone

    def test_a_stack_key_can_be_compared(self, case: Case, rates: tuple[float, ...]) -> None:
        options = parse_options(case.method, case.options)
        assert hash(get_method(case.method).stack_key(options)) == hash(get_method(case.method).stack_key(options))

    @pytest.mark.parametrize("training", [False, True])
    @torch.no_grad()
    def test_trials_of_a_pack_compute_what_each_computes_alone(
        self, case: Case, rates: tuple[float, ...], training: bool
    ) -> None:
        pack, alone = self.models(case, rates)
        inputs = batches(len(alone))
        together = pack.train(training)(*stacked(len(alone)))
        apart = torch.cat([model.train(training)(*one) for model, one in zip(alone, inputs, strict=True)])
        torch.testing.assert_close(together, apart, rtol=0, atol=2e-5)
        again = pack(*stacked(len(alone)))
        for k, rate in enumerate(rates[: len(alone)]):  # masks were drawn, and others follow, where there is a rate
            mine = slice(2 * k, 2 * k + 2)
            assert torch.allclose(again[mine], together[mine]) == (not training or rate == 0)

    def test_gradients_of_different_trials_never_mix(self, case: Case, rates: tuple[float, ...]) -> None:
        pack, alone = self.models(case, rates)
        num_trials = len(alone)
        labels = torch.tensor([0, 2])
        losses = F.cross_entropy(pack.train()(*stacked(num_trials)), labels.repeat(num_trials), reduction="none")
        losses.view(num_trials, -1)[0].mean().backward()
        F.cross_entropy(alone[0].train()(*batches(1)[0]), labels).backward()
        for name, parameter in trained(pack).items():
            expected = alone[0].get_parameter(name).grad
            assert parameter.grad is not None
            assert expected is not None
            mine = parameter.grad[:1] if num_trials > 1 else parameter.grad
            torch.testing.assert_close(mine, expected, rtol=1e-4, atol=2e-5)
            if num_trials > 1:
                assert not parameter.grad[1:].any(), name


class TestStart:
    """Methods that claim to leave the backbone's output as it is until they have learned something."""

    def test_the_output_is_unchanged_where_the_method_claims_so(self, case: Case) -> None:
        claims = getattr(get_method(case.method), "starts_unchanged", None)
        encoder = random_encoder()
        view = build_model(encoder, [case.config()], NUM_OUTPUTS).eval().encoder
        inputs = stacked(1)
        with torch.no_grad():
            adapted = view(*inputs)
            if view.body is None:
                plain = encoder.view()
                plain.pooling = view.pooling
                difference = (plain.eval()(*inputs) - adapted).abs().max()
        if view.body is None:
            is_claimed = claims is not None and claims(parse_options(case.method, case.options))
            assert (difference <= 1e-6) == is_claimed
        else:
            assert claims is None


class TestSaving:
    def test_a_saved_trial_gives_the_same_logits(
        self, case: Case, fit: Any, splits: Any, backbone: Backbone, small_options: Any, tmp_path: Path
    ) -> None:
        """Trained for an epoch, saved, loaded into a fresh copy of the backbone."""
        options = dict(case.options)
        if case.method == "adapter_fusion":  # over adapters of the backbone that is trained here, gone once it is saved
            (source,) = (Path(str(path)) for path in small_options(case.method, backbone.encoder).values())
            options["adapters"] = str(shutil.copytree(source, tmp_path / "stage-one"))
        trial = TrialConfig(
            task=str(tmp_path),
            backbone=str(backbone.info.folder),
            method=case.method,
            method_options={**options, **({"layers": "1"} if "layers" in options else {})},
            num_epochs=1,
            batch_size=8,
            max_length=16,
            learning_rate=1e-2,
        )
        data = splits(rows=32)
        data = tokenized_by_method(tasks.load(str(tmp_path / "opinion")), trial) or data
        _, model = fit(data, trial)
        outputs, _ = predict(model, data["test"])
        info = tasks.load(str(tmp_path / "opinion")).info
        fingerprint = str(backbone.info.fingerprint)
        save(tmp_path / "saved", model, trial, info, backbone_fingerprint=fingerprint, scores={})
        shutil.rmtree(tmp_path / "stage-one", ignore_errors=True)
        texts = [json.loads(line)["text_a"] for line in (tmp_path / "opinion" / "test.jsonl").read_text().splitlines()]
        np.testing.assert_allclose(load(tmp_path / "saved").logits(texts), outputs, rtol=0, atol=1e-6)

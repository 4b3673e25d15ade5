"""What a transfer method must do, whichever it is. Every file of trainables/methods is tested the moment it exists."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.contracts.conftest import REFUSED, SHAPES
from trainables import metrics, tasks
from trainables.backbones.loading import Backbone
from trainables.config import TrialConfig
from trainables.data.tokenized import TokenizedSplit
from trainables.faults import FaultsError
from trainables.inference.saved_adapter import load, save
from trainables.methods import get_method, option_names, parse_options, reference_names, tokenized_by_method
from trainables.training.evaluation import predict
from trainables.training.model import AdaptedModel, build_model, count_parameters, statistics_of
from trainables.training.pack import Pack
from trainables.training.running_trial import Job, RunningTrial
from trainables.training.weights import TrainedWeights

NUM_OUTPUTS = 3


def split(rows: int) -> TokenizedSplit:
    """Rows whose label is their second word piece, modulo the classes."""
    rng = np.random.default_rng(rows)
    lengths = rng.integers(3, 10, size=rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(4, 40, size=offsets[-1]).astype(np.int32)
    return TokenizedSplit(
        offsets=offsets,
        input_ids=ids,
        token_type_ids=np.zeros(offsets[-1], np.int8),
        labels=ids[offsets[:-1] + 1].astype(np.int64) % NUM_OUTPUTS,
    )


def trained(model: AdaptedModel) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


class TestTraining:
    def test_what_is_frozen_stays_to_the_bit_and_something_is_learned(self, case: Any, small: Any) -> None:
        encoder = small.encoder()
        shared = {name: parameter.clone() for name, parameter in encoder.named_parameters()}
        masters = {name: master.clone() for name, master in encoder.masters.items()}
        trial = case.config(learning_rate=1e-2, num_epochs=2, batch_size=8)
        before = dict(build_model(encoder, [trial], small.num_outputs).named_parameters())
        data = {"train": split(24), "validation": split(8)}
        pack = Pack(encoder, data, small.num_outputs)
        running = RunningTrial(Job(config=trial, done=lambda outcome: None), len(data["train"]))
        pack.join([running])
        for _ in running.batches:
            pack.step()
            if running.has_ended_epoch:
                pack.end_epochs([running], metrics.get("accuracy"))

        model = pack.show(running)
        assert len(running.epochs) == 2
        assert all(torch.equal(parameter, shared[name]) for name, parameter in encoder.named_parameters())
        assert all(torch.equal(master, masters[name]) for name, master in encoder.masters.items())
        for name, parameter in model.named_parameters():
            # A word that no row holds gets no gradient, so of the embeddings only some rows change.
            assert torch.equal(parameter, before[name]) == (not parameter.requires_grad), name

    def test_what_is_trained_gets_gradients_and_is_float32(self, case: Any, small: Any) -> None:
        model = build_model(small.encoder(dtype=torch.bfloat16), [case.config()], small.num_outputs)
        model(small.stacked(1)).sum().backward()
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name
            assert parameter.dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16), name
        assert trained(model).keys() >= {"head.weight", "head.bias"}


class TestParameters:
    @pytest.mark.parametrize("family", SHAPES)
    @pytest.mark.thinned
    def test_the_closed_formula_counts_the_tensors(self, case: Any, small: Any, family: str) -> None:
        shape = small.shapes[family]
        if remedy := REFUSED.get((family, case.method)):
            with pytest.raises(FaultsError, match=remedy):
                build_model(small.encoder(shape), [case.config()], small.num_outputs)
            return
        model = build_model(small.encoder(shape), [case.config()], small.num_outputs)
        counts = count_parameters(model)
        formula = get_method(case.method).trained_params(shape, parse_options(case.method, case.options, shape))
        assert counts.trained_without_head == formula
        width, hidden = model.encoder.width, model.encoder.head_hidden_size
        head = hidden * (width + 1) + small.num_outputs * ((hidden or width) + 1)
        assert counts.trained == formula + head
        assert counts.total >= counts.trained

    def test_they_are_the_row_of_a_trial_matrices_first(self, case: Any, small: Any) -> None:
        model = build_model(small.encoder(), [case.config()], small.num_outputs)
        weights = TrainedWeights(model)
        statistics = sum(getattr(owner, name).numel() for owner, name in statistics_of(model))
        assert weights.trained.shape == (1, count_parameters(model).trained)
        assert weights.rows.shape == (1, count_parameters(model).trained + statistics)
        # Of one trial, without its axis: matrices decay; biases and LayerNorms do not.
        stacked = {name for name in trained(model) if model.has_trial_axes or "layernorm" in name or "head" in name}
        decayed = {name: t.numel() for name, t in trained(model).items() if t.dim() - (name in stacked) > 1}
        assert weights.layout.num_decayed == sum(decayed.values())
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

    def test_the_defaults_suit_a_common_encoder(self, method: str, small: Any) -> None:
        common = dataclasses.replace(
            small.shapes["bert"],
            hidden_size=384,
            embedding_size=384,
            intermediate_size=1536,
            num_layers=6,
            num_heads=12,
        )
        # What names files that must be there has no default.
        assert all(
            fault.partition(":")[0] in reference_names(method) for fault in parse_options(method, {}).faults(common)
        )

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


class TestStart:
    """Methods that claim to leave the backbone's output as it is until they have learned something."""

    def test_the_output_is_unchanged_where_the_method_claims_so(self, case: Any, small: Any) -> None:
        claims = getattr(get_method(case.method), "starts_unchanged", None)
        encoder = small.encoder()
        view = build_model(encoder, [case.config()], small.num_outputs).eval().encoder
        inputs = small.stacked(1)
        with torch.no_grad():
            adapted = view(inputs)
            if view.body is None:
                plain = encoder.view()
                plain.pooling = view.pooling
                difference = (plain.eval()(inputs) - adapted).abs().max()
        if view.body is None:
            is_claimed = claims is not None and claims(parse_options(case.method, case.options))
            assert (difference <= 1e-6) == is_claimed
        else:
            assert claims is None


class TestSaving:
    def test_a_saved_trial_gives_the_same_logits(
        self, case: Any, small: Any, fit: Any, splits: Any, backbone: Backbone, small_options: Any, tmp_path: Path
    ) -> None:
        """Trained for an epoch, saved, loaded into a fresh copy of the backbone."""
        options = dict(case.options)
        files = (
            tmp_path / "files"
        )  # that the options name, made for the backbone that is trained here; gone once it is saved
        for name in set(reference_names(case.method)) & set(options):
            options[name] = str(shutil.copytree(str(small_options(case.method, backbone.encoder)[name]), files / name))
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
        shutil.rmtree(files, ignore_errors=True)
        texts = [json.loads(line)["text_a"] for line in (tmp_path / "opinion" / "test.jsonl").read_text().splitlines()]
        np.testing.assert_allclose(load(tmp_path / "saved").logits(texts), outputs, rtol=0, atol=1e-6)

"""Tuners of huggingface/peft: which train on which encoders, how many parameters they have, what is refused."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.pieces import laid_out
from trainables.config import TrialConfig
from trainables.estimate.preview import preview_parameters
from trainables.faults import FaultsError
from trainables.inference.saved_adapter import own_tensors
from trainables.methods import parse_options, peft
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape
from trainables.training.model import AdaptedModel, build_model, count_parameters

BERT = EncoderShape(
    model_type="bert",
    vocab_size=40,
    hidden_size=16,
    num_layers=2,
    num_heads=2,
    intermediate_size=24,
    max_positions=24,
    type_vocab_size=2,
    embedding_size=16,
)
SHAPES = {
    "bert": BERT,
    "roberta": dataclasses.replace(BERT, model_type="roberta", type_vocab_size=1, position_offset=2),
    "electra": dataclasses.replace(BERT, model_type="electra", embedding_size=8, has_pooler=False),
    "distilbert": dataclasses.replace(BERT, model_type="distilbert", type_vocab_size=0, has_pooler=False),
}
BERT_BASE = EncoderShape(
    model_type="bert",
    vocab_size=30522,
    hidden_size=768,
    num_layers=12,
    num_heads=12,
    intermediate_size=3072,
    max_positions=512,
    type_vocab_size=2,
    embedding_size=768,
)
# Every type that trains -> what of its configuration a small encoder needs.
TYPES: dict[str, dict[str, Any]] = {
    "ADALORA": {},
    "BEFT": {},
    "BOFT": {},
    "C3A": {"block_size": 4},
    "CARTRIDGE": {"num_virtual_tokens": 3},
    "DEFT": {},
    "DELORA": {},
    "DORA": {},
    "FOURIERFT": {"n_frequency": 10},
    "GLORA": {},
    "GRALORA": {},
    "HIRA": {},
    "HRA": {},
    "IA3": {},
    "LILY": {"r": 2},
    "LN_TUNING": {},
    "LOHA": {},
    "LOKR": {},
    "LORA": {},
    "MISS": {"r": 4},
    "OFT": {"oft_block_size": 4},
    "PEANUT": {},
    "PREFIX_TUNING": {"num_virtual_tokens": 3},
    "PROMPT_TUNING": {"num_virtual_tokens": 3},
    "PSOFT": {"r": 4},
    "PVERA": {},
    "P_TUNING": {"num_virtual_tokens": 3},
    "RANDLORA": {"r": 2},
    "ROAD": {"group_size": 4},
    "SHIRA": {"r": 2},
    "SUPERTUNING": {},
    "TINYLORA": {},
    "TRAINABLE_TOKENS": {"token_indices": [5, 6]},
    "UNILORA": {"theta_d_length": 16},
    "VBLORA": {"vector_length": 8},
    "VERA": {},
    "WAVEFT": {"n_frequency": 16},
}
PROMPTS = ("CARTRIDGE", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING")
# Those that begin with values other than the backbone's, by their own design.
OTHER_FROM_THE_START = (*PROMPTS, "C3A", "FOURIERFT", "UNILORA", "VBLORA")
IDS = torch.tensor([[2, 5, 6, 7, 8, 9, 3], [2, 5, 10, 3, 0, 0, 0]])
TOKEN_TYPES = torch.tensor([[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0]])
LENGTHS = torch.tensor([7, 4])


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # for tensors this small, several take longer
    yield
    torch.set_num_threads(before)


@functools.cache  # frozen: no test may change it
def encoder(shape: EncoderShape = BERT, dtype: torch.dtype = torch.float32) -> Encoder:
    generator = torch.Generator().manual_seed(0)
    masters = {
        name: torch.randn(parameter.shape, generator=generator) * 0.3 + (1.0 if name.endswith("norm.weight") else 0.0)
        for name, parameter in Encoder(shape).named_parameters()
    }
    return Encoder(shape, masters).load(torch.device("cpu"), dtype)


def config(peft_type: str, seed: int = 0, dropout: float | None = None, **fields: Any) -> TrialConfig:
    options = {"peft_type": peft_type, "settings": json.dumps(fields)}
    return TrialConfig(task="t", backbone="b", method="peft", method_options=options, seed=seed, dropout=dropout)


def build(peft_type: str, backbone: Encoder | None = None, **values: Any) -> AdaptedModel:
    return build_model(backbone or encoder(), [config(peft_type, **values)], 3)


def trained(model: AdaptedModel) -> dict[str, Tensor]:
    return {name: p for name, p in model.encoder.named_parameters() if p.requires_grad}


def refused(shape: EncoderShape = BERT, **options: Any) -> str:
    with pytest.raises(FaultsError) as refusal:
        parse_options("peft", options, shape)
    return "\n".join(refusal.value.faults)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")  # of SHIRA, in forward
@pytest.mark.parametrize(
    ("family", "dtype"),
    [("bert", torch.float32), ("roberta", torch.bfloat16), ("electra", torch.float32), ("distilbert", torch.float32)],
    ids=lambda value: str(value).removeprefix("torch."),
)
@pytest.mark.parametrize("peft_type", TYPES)
@pytest.mark.thinned
def test_every_tuner_trains_on_every_family(peft_type: str, family: str, dtype: torch.dtype) -> None:
    shape = SHAPES[family]
    if family == "distilbert" and peft_type in ("CARTRIDGE", "PREFIX_TUNING"):
        assert "DistilBERT" in refused(shape, peft_type=peft_type)
        return
    backbone = encoder(shape, dtype)
    masters = {name: master.clone() for name, master in backbone.masters.items()}
    model = build(peft_type, backbone, **TYPES[peft_type])
    pieces = laid_out(IDS, TOKEN_TYPES, LENGTHS)
    states = model.encoder(pieces)
    assert states.dtype == dtype
    alone = model.encoder(laid_out(IDS[1:, :4], TOKEN_TYPES[1:, :4]))
    torch.testing.assert_close(states[1:], alone, rtol=0, atol=1e-5 if dtype is torch.float32 else 0.05)
    if peft_type not in OTHER_FROM_THE_START:
        pooled = backbone(pieces)
        torch.testing.assert_close(states, pooled, rtol=0, atol=1e-5 if dtype is torch.float32 else 0.1)
    states.float().square().sum().backward()
    tensors = trained(model)
    assert all(tensor.grad is not None and tensor.dtype == torch.float32 for tensor in tensors.values())
    assert any(tensor.grad.any() for tensor in tensors.values() if tensor.grad is not None)
    options = parse_options("peft", model_options(peft_type), shape)
    assert sum(tensor.numel() for tensor in tensors.values()) == peft.trained_params(shape, options)
    assert all(torch.equal(masters[name], master) for name, master in backbone.masters.items())


def model_options(peft_type: str) -> dict[str, Any]:
    return {"peft_type": peft_type, "settings": json.dumps(TYPES[peft_type])}


def test_every_type_of_the_library_is_measured_or_refused_with_a_reason() -> None:
    from peft import PeftType

    assert {kind.value for kind in PeftType} == (TYPES.keys() | peft.REFUSED.keys()) - {"DORA"}
    for kind, reason in peft.REFUSED.items():
        assert reason in refused(peft_type=kind)


class TestCounts:
    """By formulas derived by hand: D = 768, I = 3072, L = 12; queries and values are 2L projections D x D."""

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"peft_type": "LORA"}, 24 * 2 * 768 * 8),
            ({"peft_type": "LORA", "rank": 3, "target_modules": "intermediate.dense"}, 12 * 3 * (768 + 3072)),
            ({"peft_type": "ADALORA"}, 24 * (2 * 768 * 12 + 12)),  # before it prunes
            ({"peft_type": "ADALORA", "rank": 4}, 24 * (2 * 768 * 6 + 6)),
            ({"peft_type": "DORA"}, 24 * (2 * 768 * 8 + 768)),  # and a magnitude for each output
            ({"peft_type": "IA3"}, 12 * (768 + 768 + 768 + 3072)),  # key, value, and what both ends of a layer read
            ({"peft_type": "IA3", "target_modules": "key,value"}, 12 * 2 * 768),
            ({"peft_type": "VERA"}, 24 * (256 + 768)),
            ({"peft_type": "LOHA"}, 24 * 4 * 768 * 8),
            ({"peft_type": "LOKR"}, 24 * (24 * 24 + 2 * 32 * 8)),  # 768 = 24 * 32, and 24 is too small for rank 8
            ({"peft_type": "BOFT"}, 24 * (192 * 4 * 4 + 768)),
            ({"peft_type": "OFT"}, 24 * (24 * 32 * 31 // 2)),
            ({"peft_type": "HRA", "rank": 4}, 24 * 4 * 768),
            ({"peft_type": "MISS", "rank": 16}, 24 * 16 * 768),
            ({"peft_type": "FOURIERFT"}, 24 * 1000),
            ({"peft_type": "VBLORA"}, 256 * 256 + 24 * 4 * (3 + 3) * 256),
            ({"peft_type": "LN_TUNING"}, (2 * 12 + 1) * 2 * 768),
            ({"peft_type": "PROMPT_TUNING"}, 20 * 768),
            ({"peft_type": "P_TUNING", "num_virtual_tokens": 10}, 10 * 768 + 3 * (768**2 + 768)),
            ({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 10}, 10 * 2 * 12 * 768),
        ],
        ids=lambda value: str(value) if isinstance(value, int) else "-".join(str(each) for each in value.values()),
    )
    @pytest.mark.thinned(2)
    def test_a_plan_counts_what_the_formula_says(self, options: dict[str, Any], expected: int) -> None:
        trial = TrialConfig(task="t", backbone="b", method="peft", method_options=options)
        assert preview_parameters(trial, BERT_BASE, 2).trained_without_head == expected
        assert peft.trained_params(BERT_BASE, parse_options("peft", options, BERT_BASE)) == expected

    def test_prompts_are_as_wide_as_the_embeddings(self) -> None:
        shape = dataclasses.replace(SHAPES["electra"], embedding_size=8)
        assert peft.trained_params(shape, peft.Options(peft_type="PROMPT_TUNING", num_virtual_tokens=5)) == 5 * 8


class TestFaults:
    def test_an_unknown_type_is_refused_with_the_known_ones(self) -> None:
        fault = refused(peft_type="LORRA")
        assert "did you mean 'LORA'" in fault
        assert "VERA" in fault
        assert "XLORA" not in fault

    def test_every_unknown_field_is_refused_with_the_types_own(self) -> None:
        fault = refused(peft_type="VERA", settings='{"vera_droppout": 0.1, "rang": 3}')
        assert fault.count("field of VERA") == 2
        assert "did you mean 'vera_dropout'" in fault

    @pytest.mark.parametrize("text", ["{", "[1]", '"r"'])
    def test_settings_that_are_no_object_is_refused(self, text: str) -> None:
        assert "settings: must be the text of a JSON object" in refused(settings=text)

    def test_an_option_that_a_type_has_not_is_refused_with_its_settings(self) -> None:
        fault = refused(peft_type="IA3", rank=8, num_virtual_tokens=2)
        assert "rank: IA3 has none; its settings are exclude_modules, fan_in_fan_out, feedforward_modules" in fault
        assert "num_virtual_tokens: IA3 has none" in fault

    def test_what_the_library_refuses_is_refused_before_training(self) -> None:
        assert "less than or equal to in_features (16)" in refused(peft_type="MISS", rank=64)
        assert "no_such_module" in refused(peft_type="LORA", target_modules="no_such_module")

    def test_what_needs_data_or_a_tokenizer_first_is_refused(self) -> None:
        assert "needs training data" in refused(peft_type="LORA", settings='{"init_lora_weights": "eva"}')
        assert "RANDOM or SAMPLE_VOCAB" in refused(
            peft_type="PROMPT_TUNING", settings='{"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "a"}'
        )

    def test_more_virtual_tokens_than_positions_are_refused(self) -> None:
        assert "must be in [1, 23]" in refused(peft_type="PROMPT_TUNING", num_virtual_tokens=24)

    def test_without_the_library_the_fault_says_how_to_install_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "peft", None)
        peft._faults.cache_clear()
        peft._types.cache_clear()
        assert "pip install 'adaptune[peft]'" in refused(peft_type="IA3")
        peft._faults.cache_clear()

    def test_no_option_needs_the_library_until_there_is_a_backbone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "peft", None)
        assert parse_options("peft", {"peft_type": "LORA"}).peft_type == "LORA"


@pytest.mark.parametrize("peft_type", ["VERA", "RANDLORA"])
def test_matrices_that_layers_share_are_saved_and_counted_once(peft_type: str) -> None:
    model = build(peft_type)
    own = own_tensors(model)
    assert len({tensor.data_ptr() for tensor in own.values()}) == len(own)
    frozen = sum(tensor.numel() for name, tensor in own.items() if not tensor.requires_grad)
    backbone = sum(parameter.numel() for parameter in encoder().parameters())
    counts = count_parameters(model)
    assert counts.total == backbone + counts.trained + frozen

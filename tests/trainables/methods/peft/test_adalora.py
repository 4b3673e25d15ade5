"""AdaLoRA in the training loop, against the loop its library documents."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.factories import brief_config
from trainables.data.tokenized import TokenizedSplit
from trainables.nn.encoder import Encoder
from trainables.nn.encoder_shape import EncoderShape
from trainables.training.evaluation import to_device
from trainables.training.model import build_model
from trainables.training.optimizer import schedule
from trainables.training.pack import Pack
from trainables.training.running_trial import Job, RunningTrial

SHAPE = EncoderShape(
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
CONFIG = brief_config(
    "peft",
    method_options={"peft_type": "ADALORA", "rank": 2, "settings": '{"tinit": 3, "tfinal": 4, "deltaT": 2}'},
    batch_size=8,
    dropout=0.0,
)


def encoder(dtype: torch.dtype) -> Encoder:
    generator = torch.Generator().manual_seed(0)
    masters = {
        name: torch.randn(parameter.shape, generator=generator) * 0.3 + (1.0 if name.endswith("norm.weight") else 0.0)
        for name, parameter in Encoder(SHAPE).named_parameters()
    }
    return Encoder(SHAPE, masters).load(torch.device("cpu"), dtype)


def split(rows: int) -> TokenizedSplit:
    rng = np.random.default_rng(rows)
    lengths = rng.integers(3, 10, size=rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(4, SHAPE.vocab_size, size=offsets[-1]).astype(np.int32)
    return TokenizedSplit(
        offsets=offsets,
        input_ids=ids,
        token_type_ids=np.zeros(offsets[-1], np.int8),
        labels=ids[offsets[:-1] + 1].astype(np.int64) % 3,
    )


def train(backbone: Encoder, data: TokenizedSplit) -> tuple[RunningTrial, dict[str, torch.Tensor]]:
    """A trial and its masters after its last step."""
    pack = Pack(backbone, {"train": data, "validation": data}, 3)
    trial = RunningTrial(Job(config=CONFIG, done=lambda outcome: None), len(data))
    pack.join([trial])
    for _ in trial.batches:
        pack.step()
    model = pack.show(trial, masters=True)
    return trial, {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def test_a_trial_trains_as_the_librarys_own_loop_does() -> None:
    backbone, data = encoder(torch.float32), split(64)
    trial, found = train(backbone, data)
    model = build_model(backbone, [CONFIG], 3)
    tuned: Any = model.encoder.body
    tuner, config = tuned.model.base_model, tuned.model.active_peft_config
    config.total_step = len(trial.batches)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    decayed = [p for name, p in trained.items() if "lora" in name or name == "head.weight"]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": [model.head.bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, eps=1e-6)
    for step, rows in enumerate(trial.batches):
        _, pieces, labels = to_device(data, rows, 1, backbone.device)
        factors = [
            p if "lora_A" in name else p.T for name, p in trained.items() if "lora_A" in name or "lora_B" in name
        ]
        distances = [torch.norm(p @ p.T - torch.eye(len(p)), p="fro") for p in factors]
        loss = F.cross_entropy(model(pieces), labels) + config.orth_reg_weight * sum(distances) / len(distances)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * schedule(step, len(trial.batches), 0.1)
        optimizer.step()
        tuner.update_and_allocate(step + 1)
        optimizer.zero_grad()
    for name, tensor in trained.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_ends_with_the_ranks_it_was_to_end_with(dtype: torch.dtype) -> None:
    _, found = train(encoder(dtype), split(64))
    values = torch.cat([tensor for name, tensor in found.items() if "lora_E" in name])
    assert len(values) == 2 * 2 * 3
    assert int((values != 0).sum()) == 2 * 2 * 2


def test_a_schedule_that_leaves_no_step_to_prune_in_is_an_error() -> None:
    model: Any = build_model(encoder(torch.float32), [CONFIG], 3).encoder.body
    with pytest.raises(ValueError, match="leave none of 7 steps"):
        model.after_step(1, 7)

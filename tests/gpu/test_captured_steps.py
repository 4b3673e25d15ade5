"""On a GPU: steps of a pack are captured, do what they did before, and never wait for the device."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch

from tests.trainables.training.packable import (
    ENCODER,
    NUM_OUTPUTS,
    ROWS,
    SHAPE,
    SmallOptions,
    make_config,
    make_running,
)
from trainables.nn.encoder import Encoder
from trainables.training.pack import Pack

pytestmark = pytest.mark.gpu

METHODS = ["adapter", "adapterdrop", "bitfit", "layernorm", "lora", "pals", "full_finetuning", "top_layers"]
ALONE = ("full_finetuning", "top_layers")


def make_pack(method: str, small_options: SmallOptions, dtype: torch.dtype, *, captures: bool = True) -> Pack:
    encoder = Encoder(SHAPE, ENCODER.masters).load(torch.device("cuda"), dtype)
    pack = Pack(encoder, {"train": ROWS}, NUM_OUTPUTS)
    if not captures:
        pack.captured = None
    options = small_options(method, ENCODER)
    seeds = range(1 if method in ALONE else 3)
    pack.join([make_running(make_config(method, options, seed=seed, dropout=0.2, num_epochs=4)) for seed in seeds])
    return pack


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """Lets a test make an error of whatever waits for the device, and ends that with it."""
    before = torch.cuda.get_sync_debug_mode()
    yield
    torch.cuda.set_sync_debug_mode(before)


@pytest.mark.parametrize("method", METHODS)
def test_steps_are_captured_and_train_as_those_launched_one_by_one(
    method: str, small_options: SmallOptions, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        ours, theirs = (
            make_pack(method, small_options, torch.float32, captures=captures) for captures in (True, False)
        )
        for _ in range(30):
            ours.step()
            theirs.step()
    assert ours.captured is not None
    assert not ours.captured.is_broken, caplog.text
    assert ours.captured._replays
    torch.testing.assert_close(ours.weights.loss_sums, theirs.weights.loss_sums, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("captures", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_a_step_waits_for_nothing(method: str, captures: bool, small_options: SmallOptions, no_waiting: None) -> None:
    pack = make_pack(method, small_options, torch.bfloat16, captures=captures)
    for _ in range(20):  # kernels are compiled, and every shape is captured
        pack.step()
    course = pack._current_course()
    torch.cuda.synchronize()
    known = {(0, len(pack.trials), *course.shape())}
    if captures:
        assert pack.captured is not None
        assert known <= pack.captured._replays.keys(), pack.captured._seen
    torch.cuda.set_sync_debug_mode("error")
    pack._train_there(0, len(pack.trials), *course.shape())

"""Devices: their names, and what products are computed in."""

from __future__ import annotations

import contextlib
import os

import pytest
import torch

from tests.trainables.device.fake_gpus import FakeGpus
from trainables.device.dtype import compute_dtype
from trainables.device.hardware import count_devices, describe_devices, device_name, num_cores
from trainables.faults import FaultsError


class TestPrecision:
    def test_what_is_asked_for_is_what_is_used(self) -> None:
        for device in ("cpu", "cuda"):
            assert compute_dtype("fp32", torch.device(device)) is torch.float32
            assert compute_dtype("bf16", torch.device(device)) is torch.bfloat16

    @pytest.mark.parametrize(
        ("capabilities", "dtype"),
        [
            ({"avx512_bf16": True}, torch.bfloat16),
            ({"amx_bf16": True}, torch.bfloat16),
            ({"bf16": True}, torch.bfloat16),
            ({"avx512_bf16": False, "avx2": True}, torch.float32),
        ],
    )
    def test_a_cpu_computes_in_bf16_only_where_its_hardware_does(
        self, capabilities: dict[str, bool], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
        assert compute_dtype("auto", torch.device("cpu")) is dtype

    def test_a_cpu_without_the_library_that_uses_it_computes_in_float32(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
        assert compute_dtype("auto", torch.device("cpu")) is torch.float32

    @pytest.mark.parametrize("has_bf16", [True, False])
    def test_a_gpu_computes_in_bf16_where_it_has_it(self, has_bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
        assert compute_dtype("auto", torch.device("cuda")) is (torch.bfloat16 if has_bf16 else torch.float32)

    def test_each_gpu_is_asked_for_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gpus = FakeGpus(monkeypatch, count=2)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpus.current == 1)
        assert compute_dtype("auto", torch.device("cuda", 1)) is torch.bfloat16
        assert compute_dtype("auto", torch.device("cuda", 0)) is torch.float32
        assert gpus.current == 0

    def test_another_precision_is_refused_with_those_there_are(self) -> None:
        with pytest.raises(FaultsError, match=r"unknown precision 'fp16'.* Known: auto, bf16, fp32"):
            compute_dtype("fp16", torch.device("cpu"))


class TestDescription:
    def test_a_cpu_is_named_with_its_cores(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "Some Processor"})
        assert device_name(torch.device("cpu")) == f"Some Processor x{os.cpu_count()}"

    def test_a_machine_without_gpus_has_its_cpu_and_an_engine_a_core(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "Some Processor"})
        assert describe_devices() == [f"cpu: Some Processor x{os.cpu_count()}, float32"]
        assert count_devices() == num_cores()

    def test_each_gpu_is_described_and_has_an_engine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Accelerator {device.index}")
        assert describe_devices() == ["cuda:0: Accelerator 0, bfloat16", "cuda:1: Accelerator 1, bfloat16"]
        assert count_devices() == 2

"""The engine: one an accelerator. It loads each backbone and each tokenised task once and trains trials over them.

An engine knows no Ray and no store: it is handed a TrialConfig and answers with a TrialOutcome, whatever happened.
"""

from __future__ import annotations

import logging
import os
import platform
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import torch

from trainables import metrics, tasks
from trainables.backbone import Backbone, load_backbone
from trainables.config import TrialConfig
from trainables.data import TokenizedSplit, tokenize
from trainables.memory import PeakMemory, release_unused
from trainables.model import build_model, count_parameters
from trainables.outcome import EpochReport, OutcomeStatus, Report, TrialOutcome
from trainables.provenance import device_name, provenance
from trainables.saved import save
from trainables.train import train

logger = logging.getLogger(__name__)


class Engine:
    """Trains one trial after another on one device.

    Args:
        device: "cpu", "cuda", "cuda:1"; None takes the first GPU, else the CPU.
        num_threads: CPU threads of this engine's products; None leaves torch's choice.
        cache_dir: where tokenised tasks are kept; None is `$ADAPTUNE_CACHE` or `~/.cache/adaptune`.
    """

    def __init__(
        self, *, device: str | None = None, num_threads: int | None = None, cache_dir: Path | None = None
    ) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.cache_dir = cache_dir
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        self._backbones: dict[tuple[str, torch.dtype], Backbone] = {}
        self._data: dict[tuple[str, str, int], Mapping[str, TokenizedSplit]] = {}

    @property
    def name(self) -> str:
        """Host and device, as recorded with each trial."""
        return f"{platform.node()}/{self.device}"

    def run(
        self,
        config: TrialConfig,
        *,
        report: Report = lambda epoch: True,
        cancelled: Callable[[], bool] = lambda: False,
        save_to: Path | None = None,
    ) -> TrialOutcome:
        """Train one trial, and save its trained weights where a folder is given and it completed.

        Never raises for a fault of the trial: a failed one is an outcome with its traceback.
        """
        started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        clock = time.perf_counter()
        reported: list[EpochReport] = []

        def keep_and_report(epoch: EpochReport) -> bool:
            reported.append(epoch)
            return report(epoch)

        try:
            return self._train(config, started_at, clock, keep_and_report, cancelled, save_to)
        except Exception:  # a crash is data: it becomes the trial's outcome, and the engine goes on
            logger.warning("trial failed: %s", config, exc_info=True)
            return TrialOutcome(
                status=OutcomeStatus.FAILED,
                started_at=started_at,
                duration_s=time.perf_counter() - clock,
                epochs=tuple(reported),
                error=traceback.format_exc(),
                provenance=self._provenance(config),
            )
        finally:
            release_unused()

    def _train(
        self,
        config: TrialConfig,
        started_at: str,
        clock: float,
        report: Report,
        cancelled: Callable[[], bool],
        save_to: Path | None,
    ) -> TrialOutcome:
        task = tasks.load(config.task)
        metric = metrics.get(task.info.metric)
        backbone = self._backbone(config)
        data = self._tokenized(task, backbone, config.max_length)
        model = build_model(backbone.encoder, [config], task.info.num_labels)
        counts = count_parameters(model)
        with PeakMemory(self.device) as memory:
            training = train(model, data, config, metric, report=report, cancelled=cancelled)
        last = training.epochs[-1] if training.epochs else None
        if save_to is not None and last is not None and training.status is OutcomeStatus.COMPLETED:
            scores = {f"validation/{name}": value for name, value in last.validation.items()}
            scores |= {f"test/{name}": value for name, value in training.test.items()}
            fingerprint = str(backbone.info.fingerprint)
            save(save_to, model, config, task.info, backbone_fingerprint=fingerprint, scores=scores)
        sign = 1 if metric.mode == "max" else -1
        # The first of equal peaks: training longer did not help.
        best = max(training.epochs, key=lambda epoch: (sign * epoch.validation_score, -epoch.epoch), default=None)
        return TrialOutcome(
            status=training.status,
            started_at=started_at,
            duration_s=time.perf_counter() - clock,
            epochs=training.epochs,
            metric=metric.name,
            validation_score=last.validation_score if last else None,
            validation=last.validation if last else {},
            test_score=training.test_score,
            test=training.test,
            best_epoch=best.epoch if best else None,
            trained_params=counts.trained,
            trained_params_without_head=counts.trained_without_head,
            total_params=counts.total,
            examples_per_second=training.examples_per_second,
            peak_memory_bytes=memory.peak_bytes,
            provenance=self._provenance(config),
        )

    def _backbone(self, config: TrialConfig) -> Backbone:
        key = (config.backbone, compute_dtype(config.precision, self.device))
        if key not in self._backbones:
            self._backbones[key] = load_backbone(config.backbone, device=self.device, compute_dtype=key[1])
        return self._backbones[key]

    def _tokenized(self, task: tasks.Task, backbone: Backbone, max_length: int) -> Mapping[str, TokenizedSplit]:
        fingerprint = backbone.info.fingerprint
        assert fingerprint is not None  # a loaded backbone has weights
        key = (task.fingerprint, fingerprint, max_length)
        if key not in self._data:
            self._data[key] = tokenize(task, backbone.tokenizer, fingerprint, max_length, self.cache_dir)
        return self._data[key]

    def _provenance(self, config: TrialConfig) -> dict[str, str]:
        return provenance(self.device, compute_dtype(config.precision, self.device))


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of products: "auto" is bf16 where the device computes in it, float32 elsewhere."""
    if precision == "auto":
        precision = "bf16" if _has_bf16(device) else "fp32"
    return {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.backends.mkldnn.is_available() and _cpu_has_bf16())


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 in hardware; emulated, it is slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


def describe_devices() -> list[str]:
    """The devices an engine could use, each with what its products are computed in under precision "auto"."""
    devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())] or [torch.device("cpu")]
    return [
        f"{device}: {device_name(device)}, {str(compute_dtype('auto', device)).removeprefix('torch.')}"
        for device in devices
    ]


def count_devices() -> int:
    """How many engines this machine would run: one a GPU, or one a CPU core."""
    return torch.cuda.device_count() or os.cpu_count() or 1

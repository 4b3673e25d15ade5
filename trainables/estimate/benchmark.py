"""An engine that measures: some real steps and evaluations of a trial, on rows drawn from its task."""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from trainables.config import TrialConfig
from trainables.data.tokenized import TokenizedSplit
from trainables.device.current import work_on
from trainables.device.hardware import device_name
from trainables.device.memory import PeakMemory, release_unused
from trainables.engine.engine import Engine
from trainables.engine.pack_run import PackContext
from trainables.estimate.throughput import Throughput, TrialWork, WorkloadKey, fit_pack
from trainables.faults import FaultsError
from trainables.training.evaluation import predict
from trainables.training.pack import Pack
from trainables.training.running_trial import Job, RunningTrial, rows_a_step

logger = logging.getLogger(__name__)

# Rows that are drawn: for training so many batches.
BATCHES, EVALUATION_ROWS = 32, 512
# Batches of different sizes that are trained on in turn: at most and at least. Their first turn does not count, since
# a library of products prepares itself for every new size.
MOST_IN_TURN, LEAST_IN_TURN = 8, 2
MANY_TURNS = 10_000  # more than there is time for
# What the process of an engine holds on a cluster beside what one has that measures.
ACTOR_BYTES = {"cpu": 256 * 2**20, "cuda": 0}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One trial to measure, alone and in packs of `pack_size`."""

    config: TrialConfig
    kind: WorkloadKey
    work: TrialWork
    pack_size: int


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What one process found: a throughput a sample, None where it could not be measured."""

    host: str
    device: str
    start_s: float  # of work, until its engine stood
    task_s: dict[str, float]
    core_share: float
    throughputs: tuple[Throughput | None, ...]
    faults: tuple[str, ...]


class BenchmarkEngine(Engine):
    """An engine that measures what its packs would take."""

    def measure_all(self, samples: Sequence[Sample], *, seconds: float, wait: Callable[[], Any]) -> Findings:
        """Every sample, each for its share of the seconds; `wait` is called before each."""
        work_on(self.device)
        self._clock = _Clock(self.device)
        if samples:
            self._backbone(samples[0].config)
        start_s = time.process_time()  # of the process: imports, device and backbone
        throughputs: list[Throughput | None] = []
        faults: list[str] = []
        task_s: dict[str, float] = {}
        for sample in samples:
            throughput = None
            wait()
            try:
                context = self._take_up(sample, task_s)
                wait()
                throughput = self.measure(sample, context, seconds / len(samples))
            except FaultsError as error:
                faults += error.faults
            except Exception as error:
                logger.info("cannot measure %s", sample.config, exc_info=True)
                faults.append(f"{sample.config.method} on {sample.config.task}: {error}")
            throughputs.append(throughput)
            release_unused()
        return Findings(
            host=self.name.partition("/")[0],
            device=device_name(self.device),
            start_s=start_s,
            task_s=task_s,
            core_share=self._clock.share,
            throughputs=tuple(throughputs),
            faults=tuple(faults),
        )

    def _take_up(self, sample: Sample, task_s: dict[str, float]) -> PackContext:
        """Load task and backbone as an engine would, and note how long that takes once the task is tokenised."""
        context = self._prepare(sample.config)
        if sample.kind.task not in task_s:
            self._data.clear()  # what was tokenised just now is in the cache, where a sweep will find it
            began = self._clock.read()
            context = self._prepare(sample.config)
            task_s[sample.kind.task] = self._clock.read() - began
        return context

    def measure(self, sample: Sample, context: PackContext, seconds: float) -> Throughput:
        """Train and evaluate for about so many seconds. A pack of one gets a third of them."""
        drawn = {name: _draw(split, sample.config, name) for name, split in context.data.items()}
        packs = [(1, seconds / 3), (sample.pack_size, 2 * seconds / 3)] if sample.pack_size > 1 else [(1, seconds)]
        step_s: dict[float, float] = {}
        evaluation_s = once_s = 0.0
        train = context.data["train"]
        mean_tokens = float(train.lengths.mean()) * rows_a_step(sample.config, len(train))
        peak = PeakMemory(self.device)
        self._clock.start()
        for size, share_s in packs:
            pack, first_s = self._join(sample.config, context, drawn, size)
            step_s[size] = self._time_steps(pack, drawn["train"], share_s, mean_tokens)
            if size == 1:
                once_s, evaluation_s = self._time_evaluation(pack, sample, context, drawn)
                if sample.work.once_flops and first_s > 2 * step_s[1]:  # what a head reads was computed at the first
                    once_s += (first_s - step_s[1]) * len(context.data["train"]) / len(drawn["train"])
        self._clock.stop()
        fixed_s, trial_s = fit_pack(step_s)
        return Throughput(
            source="calibration",
            kind=sample.kind,
            step_flops=sample.work.step_flops,
            evaluation_flops=sample.work.evaluation_flops,
            once_flops=sample.work.once_flops,
            fixed_s=fixed_s,
            trial_s=trial_s,
            evaluation_s=evaluation_s,
            once_s=once_s,
            mean_length=float(context.data["train"].lengths.mean()),
            memory_bytes=None if (highest := peak.read()) is None else highest + ACTOR_BYTES[self.device.type],
        )

    def _join(
        self, config: TrialConfig, context: PackContext, drawn: dict[str, TokenizedSplit], size: int
    ) -> tuple[Pack, float]:
        """A pack of so many trials after its first step, and the seconds of that."""
        epochs = math.ceil(MOST_IN_TURN * config.batch_size / len(drawn["train"]))
        values = {**dict(config.items()), "num_epochs": epochs}
        configs = [TrialConfig(**{**values, "seed": seed}) for seed in range(size)]
        pack = Pack(context.backbone.encoder, drawn, context.task.num_labels, context.prefixes, context.task.kind)
        jobs = [Job(config=each, done=lambda outcome: None) for each in configs]
        pack.join([RunningTrial(job, len(drawn["train"])) for job in jobs])
        began = self._clock.read()
        pack.step()
        return pack, self._clock.read() - began

    def _time_steps(self, pack: Pack, split: TokenizedSplit, seconds: float, mean_tokens: float) -> float:
        """Seconds of a step, had its batches the mean number of word pieces that those of the whole task have."""
        began = time.perf_counter()
        pack.step()
        self._clock.read()
        count = int(seconds / 2 / (time.perf_counter() - began))
        tokens = _take_turns(pack, split, max(LEAST_IN_TURN, min(MOST_IN_TURN, count)))
        for _ in tokens:
            pack.step()
        started, steps = self._clock.read(), 0
        while not steps or time.perf_counter() - began < seconds:
            for _ in tokens:
                pack.step()
            steps += len(tokens)
        return (self._clock.read() - started) / steps * mean_tokens / statistics.fmean(tokens)

    def _time_evaluation(
        self, pack: Pack, sample: Sample, context: PackContext, drawn: dict[str, TokenizedSplit]
    ) -> tuple[float, float]:
        """Seconds of what is kept of all rows that are evaluated on, and of one evaluation on all of validation."""
        trial, split, whole = pack.trials[0], drawn["validation"], context.data["validation"]
        times: list[float] = []
        while len(times) < 2 or (len(times) < 5 and sum(times) < 0.5):
            began = self._clock.read()
            if context.task.kind == "extractive_qa":  # rows that are drawn are no whole questions to score
                predict(pack.show(trial), split)
            else:
                pack.evaluate([trial], "validation", context.metric)
            times.append(self._clock.read() - began)
        warm_s = statistics.median(times[1:])
        further = sum(len(context.data[name]) for name in context.data if name != "train")
        once_s = max(0.0, times[0] - warm_s) * further / len(split) if sample.work.once_flops else 0.0
        return once_s, warm_s * float(whole.lengths.sum()) / float(split.lengths.sum())


class _Clock:
    """Seconds of a device's work. On a CPU with one thread, those that this process had the core.

    What others make it wait is then left out, and `share` tells of it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._counts_cpu = device.type == "cpu" and torch.get_num_threads() == 1
        self._wall_s = self._cpu_s = 0.0

    def read(self) -> float:
        """After the device has done what it was told."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.process_time() if self._counts_cpu else time.perf_counter()

    def start(self) -> None:
        """Count for the share from now on."""
        self._wall_s -= time.perf_counter()
        self._cpu_s -= time.process_time()

    def stop(self) -> None:
        self._wall_s += time.perf_counter()
        self._cpu_s += time.process_time()

    @property
    def share(self) -> float:
        """Of the time that was counted, what this process had the core; 1 where that cannot be told."""
        return min(1.0, self._cpu_s / self._wall_s) if self._counts_cpu and self._wall_s > 0 else 1.0


def _take_turns(pack: Pack, split: TokenizedSplit, count: int) -> list[float]:
    """Have a pack train on so many batches of each trial in turn; returns the mean word pieces of each turn's."""
    for trial in pack.trials:
        trial.batches = trial.batches[:count] * MANY_TURNS
        trial.step = 0
    return [
        statistics.fmean(int(split.lengths[trial.batches[turn]].sum()) for trial in pack.trials)
        for turn in range(min(count, len(pack.trials[0].batches) // MANY_TURNS))
    ]


def _draw(split: TokenizedSplit, config: TrialConfig, name: str) -> TokenizedSplit:
    """Rows drawn at random: enough to measure with, few enough that what is kept of them is soon computed."""
    count = BATCHES * config.batch_size if name == "train" else EVALUATION_ROWS
    if len(split) <= count:
        return split
    rows = np.sort(np.random.default_rng(0).choice(len(split), count, replace=False))
    places = np.concatenate([np.arange(split.offsets[row], split.offsets[row + 1]) for row in rows])
    return TokenizedSplit(
        offsets=np.concatenate([[0], np.cumsum(split.lengths[rows])]).astype(np.int64),
        input_ids=split.input_ids[places],
        token_type_ids=split.token_type_ids[places],
        labels=split.labels[rows],
    )

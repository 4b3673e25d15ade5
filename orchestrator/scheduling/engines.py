"""The pool of engines: one a GPU, or one a group of CPU cores, each a Ray actor around `trainables.engine.Engine`.

A trial asks the pool for an engine and then speaks to that engine alone. An engine trains in a thread of its own, so
that it can answer and be told to stop while it trains.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray

from trainables.config import TrialConfig
from trainables.outcome import EpochReport, TrialOutcome

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EngineLayout:
    """How many engines, and what each is given of its node."""

    count: int
    num_gpus: int  # a whole GPU, or none
    num_threads: int  # CPU threads of one engine's products


def lay_out(resources: dict[str, float], *, threads_per_engine: int | None = None) -> EngineLayout:
    """Engines for what a cluster has: one a GPU where there is any, else one a group of CPU cores.

    `resources` are Ray's totals. One thread an engine is the default on CPUs: two engines of one thread train more
    than one engine of two, and threads that wait for each other collapse when another process wants their core.
    """
    gpus, cpus = int(resources.get("GPU", 0)), max(1, int(resources.get("CPU", 1)))
    if gpus:
        return EngineLayout(count=gpus, num_gpus=1, num_threads=threads_per_engine or max(1, cpus // gpus))
    threads = min(threads_per_engine or 1, cpus)
    return EngineLayout(count=max(1, cpus // threads), num_gpus=0, num_threads=threads)


class EngineActor:
    """One engine in a process of its own. Its methods answer at once, but `next`, which waits for news of a trial."""

    def __init__(self, num_threads: int) -> None:
        from trainables.engine import Engine  # here: only an engine's process pays for torch

        self._engine = Engine(num_threads=num_threads)
        self._news: dict[str, queue.SimpleQueue[EpochReport | TrialOutcome]] = {}
        self._stops: dict[str, threading.Event] = {}
        self._all_cancelled = False

    def name(self) -> str:
        """Host and device of this engine."""
        return self._engine.name

    def start(self, trial_id: str, config: TrialConfig) -> None:
        """Begin a trial; the news of it come from `next`."""
        news: queue.SimpleQueue[EpochReport | TrialOutcome] = queue.SimpleQueue()
        stop = threading.Event()
        if self._all_cancelled:
            stop.set()
        self._news[trial_id], self._stops[trial_id] = news, stop

        def report(epoch: EpochReport) -> bool:
            if epoch.epoch < config.num_epochs:  # the last epoch comes with the outcome
                news.put(epoch)
            return True

        def train() -> None:
            news.put(self._engine.run(config, report=report, cancelled=stop.is_set))

        threading.Thread(target=train, name=f"trial-{trial_id}", daemon=True).start()

    def next(self, trial_id: str) -> EpochReport | TrialOutcome:
        """Wait for the trial's next epoch, or its outcome."""
        news = self._news[trial_id].get()
        if isinstance(news, TrialOutcome):
            del self._news[trial_id], self._stops[trial_id]
        return news

    def stop(self, trial_id: str) -> None:
        """Have a trial end at its next step and wait until it has; nothing where it has ended."""
        if trial_id in self._stops:
            self._stops[trial_id].set()
            while not isinstance(self.next(trial_id), TrialOutcome):
                pass

    def cancel_all(self) -> None:
        """Have every trial end at its next step, those that are yet to start included."""
        self._all_cancelled = True
        for stop in list(self._stops.values()):
            stop.set()


class EnginePool:
    """Owns the engines and lends them to trials, one trial an engine."""

    def __init__(self, layout: EngineLayout) -> None:
        options: dict[str, Any] = {
            # A little less than its cores, so that the trials' light actors find room beside it.
            "num_cpus": 0 if layout.num_gpus else layout.num_threads * 0.9,
            "num_gpus": layout.num_gpus,
            "max_restarts": -1,
            # start, stop, name and cancel_all are answered while `next` waits
            "max_concurrency": 8,
            # Ray sets OMP_NUM_THREADS to 1 where an actor asks for no whole core.
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(layout.num_threads), **_QUIET}},
        }
        remote = ray.remote(EngineActor).options(**options)
        self._engines = [remote.remote(layout.num_threads) for _ in range(layout.count)]
        self._idle: asyncio.Queue[int] = asyncio.Queue()
        self._lent: dict[str, int] = {}
        self._cancelled = False

    async def ready(self) -> list[str]:
        """Wait until every engine has loaded, and name them."""
        names = list(await asyncio.gather(*(engine.name.remote() for engine in self._engines)))
        for index in range(len(self._engines)):
            self._idle.put_nowait(index)
        return names

    async def acquire(self, trial_id: str) -> Any | None:
        """Lend an engine to a trial, waiting for an idle one; None once the sweep is cancelled."""
        if self._cancelled:
            return None
        self._lent[trial_id] = await self._idle.get()
        return self._engines[self._lent[trial_id]]

    async def release(self, trial_id: str) -> None:
        """Take a trial's engine back; nothing where it has none."""
        if trial_id in self._lent:
            self._idle.put_nowait(self._lent.pop(trial_id))

    async def cancel_all(self) -> None:
        """End every running trial at its next step and lend no engine any more."""
        self._cancelled = True
        for engine in self._engines:
            engine.cancel_all.remote()


# Tokenising happens once per task, so threads of the tokenizer's own would only fight with the products'.
_QUIET = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


def start_pool(layout: EngineLayout) -> Any:
    """Start a pool actor; it needs no core of its own."""
    return ray.remote(EnginePool).options(num_cpus=0, max_concurrency=1000).remote(layout)


def engine_names(pool: Any, timeout_s: float) -> Sequence[str]:
    """The names of the pool's engines once all have loaded. Raises `ray.exceptions.GetTimeoutError` on time-out."""
    return list(ray.get(pool.ready.remote(), timeout=timeout_s))

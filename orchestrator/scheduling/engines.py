"""The pool of engines: one a GPU, or one a group of CPU cores, each a Ray actor around `trainables.engine.Engine`.

A trial asks the pool for an engine and then speaks to that engine alone. An engine trains in a thread of its own, so
that it can answer and be told to stop while it trains.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayError

from trainables.config import TrialConfig
from trainables.outcome import EpochReport, TrialOutcome

if TYPE_CHECKING:
    from trainables.engine import Engine  # imports torch, for which only an engine's own process pays

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


class EngineLostError(RuntimeError):
    """An engine can no longer tell of a trial, because its process died; the trial may be started again."""


# What an engine has to tell of a trial; an exception only where the engine itself broke.
News = EpochReport | TrialOutcome | BaseException


class _Run:
    """One trial in training: what it has to tell, and how it is told to end."""

    def __init__(self) -> None:
        self.news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self.stop = threading.Event()
        self.ended = threading.Event()

    def train(self, engine: Engine, config: TrialConfig) -> None:
        def report(epoch: EpochReport) -> bool:
            if epoch.epoch < config.num_epochs:  # the last epoch comes with the outcome
                self.news.put(epoch)
            return True

        try:
            self.news.put(engine.run(config, report=report, cancelled=self.stop.is_set))
        except BaseException as error:  # whoever waits for news must hear of every end
            self.news.put(error)
        finally:
            self.ended.set()


class EngineActor:
    """One engine in a process of its own. Its methods answer at once, but `next`, which waits for news of a trial."""

    def __init__(self, num_threads: int) -> None:
        # Before the first import of torch and tokenizers, which read them. Ray sets one thread where an actor asks for
        # less than a core; tokenising happens once a task, and threads of its own would only fight with the products'.
        os.environ["OMP_NUM_THREADS"] = str(num_threads)
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
        from trainables.engine import Engine  # here: only an engine's process pays for torch

        self._engine = Engine(num_threads=num_threads)
        # One thread for all trials: torch keeps buffers and compiled products per thread, and a thread a trial would
        # leave each one's behind, gigabytes after a few dozen trials.
        self._trainer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="trainer")
        self._runs: dict[str, _Run] = {}
        self._all_cancelled = False

    def name(self) -> str:
        """Host and device of this engine."""
        return self._engine.name

    def process_id(self) -> int:
        """The process of this engine on its host."""
        return os.getpid()

    def start(self, trial_id: str, config: TrialConfig) -> str:
        """Begin a trial, anew where it is training already, and name this engine; news of it come from `next`."""
        self.stop(trial_id)
        run = _Run()
        if self._all_cancelled:
            run.stop.set()
        self._runs[trial_id] = run
        self._trainer.submit(run.train, self._engine, config)
        return self._engine.name

    def next(self, trial_id: str) -> EpochReport | TrialOutcome:
        """Wait for the trial's next epoch, or its outcome. Raises `EngineLostError` where it has no such trial."""
        run = self._runs.get(trial_id)
        if run is None:
            raise EngineLostError(f"the process of engine {self._engine.name} that trained {trial_id} has died")
        news = run.news.get()
        if isinstance(news, EpochReport):
            return news
        self._runs.pop(trial_id, None)
        if isinstance(news, BaseException):
            raise EngineLostError(f"engine {self._engine.name} broke while it trained {trial_id}") from news
        return news

    def stop(self, trial_id: str) -> None:
        """Have a trial end at its next step and wait until it has; nothing where it has ended.

        A `next` that still waits for it gets its outcome.
        """
        run = self._runs.pop(trial_id, None)
        if run is not None:
            run.stop.set()
            run.ended.wait()

    def cancel_all(self) -> None:
        """Have every trial end at its next step, those that are yet to start included."""
        self._all_cancelled = True
        for run in list(self._runs.values()):
            run.stop.set()


class EnginePool:
    """Lends engines to trials, one trial an engine. Everything asked twice of it is done once."""

    def __init__(self, engines: Sequence[Any]) -> None:
        self._engines = engines
        self._alive = len(engines)
        self._idle: asyncio.Queue[int | None] = asyncio.Queue()  # None: there is no engine any more
        self._loans: dict[str, asyncio.Future[int | None]] = {}
        self._cancelled = False

    async def ready(self) -> list[str]:
        """Wait until every engine has loaded, and name them."""
        names = list(await asyncio.gather(*(engine.name.remote() for engine in self._engines)))
        for index in range(len(self._engines)):
            self._idle.put_nowait(index)
        return names

    async def acquire(self, trial_id: str) -> Any | None:
        """Lend an engine to a trial, waiting for an idle one; None once the sweep is cancelled.

        A trial that asks again, because its process was started anew, gets the engine it has. Raises
        `EngineLostError` where no engine is left.
        """
        if self._cancelled:
            return None
        if trial_id not in self._loans:
            self._loans[trial_id] = asyncio.ensure_future(self._idle.get())
        loan = self._loans[trial_id]
        await asyncio.wait([loan])
        if loan.cancelled() or self._cancelled:
            await self.release(trial_id)
            return None
        index = loan.result()
        if index is None:
            self._idle.put_nowait(None)  # for whoever asks next
            raise EngineLostError("every engine has died and cannot be started again")
        return self._engines[index]

    async def release(self, trial_id: str) -> None:
        """Take a trial's engine back, ending the trial where it still trains; nothing where it has none."""
        loan = self._loans.pop(trial_id, None)
        if loan is None or loan.cancelled() or loan.cancel():  # it has none, or was still waiting for one
            return
        index = loan.result()
        if index is not None and await self._settle(index, trial_id):
            self._idle.put_nowait(index)
        elif index is not None:
            self._alive -= 1
            if not self._alive:
                self._idle.put_nowait(None)

    async def _settle(self, index: int, trial_id: str) -> bool:
        """Wait until an engine is free of a trial, or back after its process died; False where it never comes back."""
        while True:
            try:
                await self._engines[index].stop.remote(trial_id)
                return True
            except ActorUnavailableError:  # Ray is starting it again
                await asyncio.sleep(0.2)
            except RayError as error:
                logger.warning("engine %d is lost: %s", index, error)
                return False

    async def cancel_all(self) -> None:
        """End every running trial at its next step and lend no engine any more."""
        self._cancelled = True
        for loan in self._loans.values():
            loan.cancel()
        for engine in self._engines:
            engine.cancel_all.remote()


@contextmanager
def engine_pool(layout: EngineLayout) -> Iterator[tuple[Any, list[Any]]]:
    """A pool and its engines, as Ray actors that end with the context."""
    engine = ray.remote(EngineActor).options(
        # A little less than its cores, so that the trials' light actors find room beside it.
        num_cpus=0 if layout.num_gpus else layout.num_threads * 0.9,
        num_gpus=layout.num_gpus,
        max_restarts=-1,
        max_concurrency=8,  # start, stop, name and cancel_all are answered while `next` waits
    )
    engines = [engine.remote(layout.num_threads) for _ in range(layout.count)]
    pool = ray.remote(EnginePool).options(num_cpus=0, max_concurrency=1000).remote(engines)
    try:
        yield pool, engines
    finally:
        actors: list[Any] = [pool, *engines]
        for actor in actors:
            ray.kill(actor)  # in a Ray of the caller's own they would go on and keep their cores


def engine_names(pool: Any, timeout_s: float) -> Sequence[str]:
    """The names of the pool's engines once all have loaded. Raises `TimeoutError` where they take longer."""
    try:
        return list(ray.get(pool.ready.remote(), timeout=timeout_s))
    except GetTimeoutError:
        free = {name: amount for name, amount in ray.available_resources().items() if name in ("CPU", "GPU")}
        raise TimeoutError(f"the engines did not start within {timeout_s:.0f} s; Ray has free: {free}") from None

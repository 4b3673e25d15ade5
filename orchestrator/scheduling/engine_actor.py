"""One engine in a process of its own: a Ray actor around `trainables.engine.engine.Engine`, which itself knows no Ray.

The engine trains in one lasting thread, pack after pack, so that it can answer, take up trials and be told to stop
them while it trains.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import queue
import signal
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.engine_status import EngineStatus
from orchestrator.scheduling.memory_kills import memory_kills
from orchestrator.scheduling.notice import NOTICE_S, on_sigterm, will_end
from orchestrator.scheduling.standstill import Standstill
from trainables.config import TrialConfig
from trainables.outcome import EpochReport, OutcomeStatus, TrialOutcome, WeightFiles

logger = logging.getLogger(__name__)

# What an engine that ends by itself leaves its last answers to reach whoever asked.
LAST_ANSWERS_S = 0.5


class EngineLostError(RuntimeError):
    """An engine can no longer tell of a trial, because its process died; the trial may be started again."""


class EngineLeavesError(EngineLostError):
    """An engine gives a trial back, since its node or its process is about to go."""


class JudgedEpoch(NamedTuple):
    """An epoch of a trial that may be pruned by it, and what will have come of the trial if it is."""

    report: EpochReport
    if_pruned: TrialOutcome


# What an engine has to tell of a trial. None: it was withdrawn before it began. An exception: the engine itself broke.
News = EpochReport | JudgedEpoch | TrialOutcome | BaseException | None


@dataclass(frozen=True, kw_only=True)
class Presence:
    """One look at an engine that is there: which process it is, and what it was handed."""

    process: str  # differs from that of every other engine, and of this one before it was started again
    node: str  # Ray's id of the machine it is on
    status: EngineStatus
    trials: tuple[str, ...]  # handed to it and not ended
    is_cancelled: bool  # whether it begins nothing more
    is_on_cpu: bool
    gpu_fault: str | None = None  # what is to be said where Ray and torch see different GPUs
    stands_still_s: float = 0.0  # how long its training has not moved, while it had something to do
    has_notice: bool = False  # whether it is about to go
    memory_kills: int | None = None  # processes of its machine that the kernel has killed for want of memory


class WeightsInRay:
    """What a trial has trained, in Ray's object store: whoever wants it takes it from there, and nobody has to.

    So what nobody keeps passes through no other process, and goes with the last that knows of it.
    """

    def __init__(self, weights: WeightFiles) -> None:
        import ray

        self._files = ray.put(weights())

    def __call__(self) -> Mapping[str, bytes]:
        """Raises Ray's errors where the engine that held them has died meanwhile."""
        import ray

        files: Mapping[str, bytes] = ray.get(self._files)
        return files


class _Run:
    """One trial handed to an engine: what it has to tell, and how it is told to end.

    `waits` says at the end of an epoch of a trial that may be pruned whether it waits for the verdict on the epoch
    before; None is of one that may not.
    """

    def __init__(
        self, config: TrialConfig, waits: Callable[[], bool] | None, *, keep_predictions: bool, keep_weights: bool
    ) -> None:
        from trainables.training.running_trial import Job  # here: only an engine's process pays for torch

        self.news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self.stop = threading.Event()
        self.ended = threading.Event()
        self.job = Job(
            config=config,
            done=self.end,
            report=self._report,
            if_pruned=None if waits is None else self._note_if_pruned,
            cancelled=self.stop.is_set,
            keep_predictions=keep_predictions,
            keep_weights=keep_weights,
        )
        self.awaits_verdict = False
        self._waits = waits
        self._if_pruned: TrialOutcome | None = None
        self._last: EpochReport | None = None
        self._last_at = time.monotonic()
        self._is_given_back = False
        self._ends_with_epoch = threading.Event()
        self._heard = threading.Condition()  # of what follows, and of both wishes for the end
        self._num_asked = self._num_reported = 0  # news asked for, and epochs reported

    def ask(self) -> None:
        """Say that the next news is waited for, which whoever judges the trial does once it may go on."""
        with self._heard:
            self._num_asked += 1
            self._heard.notify()

    def ask_to_end(self) -> None:
        with self._heard:
            self.stop.set()
            self._heard.notify()

    def ask_to_end_with_epoch(self) -> None:
        """Have the trial end once the epoch it is in has been reported: at once where it waits for a verdict on it."""
        with self._heard:
            self._ends_with_epoch.set()
            self._heard.notify()

    def will_end_within(self, seconds: float) -> bool:
        since_s = time.monotonic() - self._last_at
        return will_end(self._last, self.job.config.num_epochs, since_s=since_s, left_s=seconds)

    def give_back(self) -> None:
        """Have the trial end at its next step, for another engine to begin anew."""
        self._is_given_back = True
        self.ask_to_end()

    def end(self, last: News) -> None:
        """Tell the last there is to tell."""
        was_cut_short = last is None or (isinstance(last, TrialOutcome) and last.status is OutcomeStatus.CANCELLED)
        if self._is_given_back and was_cut_short:
            last = EngineLeavesError(f"{self.job.config.method} on {self.job.config.task} was given back")
        elif isinstance(last, TrialOutcome) and last.weights is not None:
            last = dataclasses.replace(last, weights=_in_ray(last.weights))
        self.news.put(last)
        self.ended.set()

    def _note_if_pruned(self, outcome: TrialOutcome) -> None:
        self._if_pruned = outcome

    def _report(self, epoch: EpochReport) -> bool:
        self._last, self._last_at = epoch, time.monotonic()
        self._num_reported += 1
        if epoch.epoch < self.job.config.num_epochs:  # the last epoch comes with the outcome
            self.news.put(epoch if self._if_pruned is None else JudgedEpoch(epoch, self._if_pruned))
        if self._waits is not None and self._waits():
            # So that a trial of short epochs is never more than one ahead of the verdict on it. An end wakes it too.
            self.awaits_verdict = True
            with self._heard:
                self._heard.wait_for(self._may_go_on)
            self.awaits_verdict = False
        if self._ends_with_epoch.is_set():
            self.stop.set()
        return True

    def _may_go_on(self) -> bool:
        return self._num_asked >= self._num_reported or self.stop.is_set() or self._ends_with_epoch.is_set()


class EngineActor:
    """An engine and the trials handed to it. Its methods answer at once, but `next` and `stop`, which wait.

    Args:
        num_threads: CPU threads of its products.
        share: of its GPU's memory, where several engines have one card.
        device: where it trains; None takes the first GPU that it sees, else the CPU.
        heeds_sigterm: whether SIGTERM is a notice to it, after which it gives its trials back before it ends.
    """

    def __init__(
        self, num_threads: int, share: float = 1.0, device: str | None = None, heeds_sigterm: bool = False
    ) -> None:
        # Before the first import of torch and tokenizers, which read them. Ray sets one thread where an actor asks for
        # less than a core; tokenising happens once a task, and threads of its own would only fight with the products'.
        os.environ["OMP_NUM_THREADS"] = str(num_threads)
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
        from trainables.engine.engine import Engine  # here: only an engine's process pays for torch
        from trainables.engine.inbox import Inbox

        self._engine = Engine(device=device, num_threads=num_threads, share=share)
        self._gpu_fault = _gpu_fault(device) if self._engine.device.type == "cpu" else None
        self._inbox = Inbox()
        self._lock = threading.Lock()  # guards what follows
        self._runs: dict[str, _Run] = {}  # the latest of each trial, until its last news is read
        self._unended: list[_Run] = []
        self._all_cancelled = False
        self._goes_at: float | None = None  # by the monotonic clock, once it has been given notice
        self._process = uuid.uuid4().hex
        self._standstill = Standstill()
        # One thread for all trials: torch keeps buffers and compiled products per thread, and a thread a trial would
        # leave each one's behind, gigabytes after a few dozen trials.
        self._trainer = threading.Thread(target=self._train, name="trainer", daemon=True)
        self._trainer.start()
        if heeds_sigterm:
            on_sigterm(self._leave)

    def process_id(self) -> int:
        """The process of this engine on its host."""
        return os.getpid()

    def status(self) -> EngineStatus:
        """The pack in training, and how many trials wait for it to end or for room in it."""
        pack = self._engine.status
        with self._lock:
            handed = sum(not run.ended.is_set() for run in self._unended)
        if pack is None:
            return EngineStatus(engine=self._engine.name, num_waiting=handed)
        return EngineStatus(
            engine=self._engine.name,
            task=pack.task,
            method=pack.method,
            num_trials=pack.num_trials,
            num_waiting=max(0, handed - pack.num_trials),
            limit=pack.limit,
            examples_per_second=pack.examples_per_second,
        )

    def presence(self) -> Presence:
        """Which process this is, and what it does."""
        status = self.status()
        with self._lock:
            trials = tuple(trial_id for trial_id, run in self._runs.items() if not run.ended.is_set())
            return Presence(
                process=self._process,
                node=_node(),
                status=status,
                trials=trials,
                is_cancelled=self._all_cancelled,
                is_on_cpu=self._engine.device.type == "cpu",
                gpu_fault=self._gpu_fault,
                stands_still_s=self._stands_still_s(),
                has_notice=self._goes_at is not None,
                memory_kills=memory_kills(),
            )

    def start(
        self,
        trial_id: str,
        config: TrialConfig,
        may_be_pruned: bool = False,
        keep_predictions: bool = False,
        keep_weights: bool = False,
    ) -> str:
        """Hand a trial to the engine, anew where it has it already, and name the engine; `next` brings news of it.

        It trains with the others if it can share their pack, and after them if it cannot. One that may be pruned waits
        after an epoch until the news of it has been asked for, unless others train with it. With `keep_predictions` the
        outcome of a completed one brings what it predicts, with `keep_weights` what it has trained.
        """
        run = _Run(
            config,
            waits=self._is_alone if may_be_pruned else None,
            keep_predictions=keep_predictions,
            keep_weights=keep_weights,
        )
        with self._lock:
            earlier = self._runs.get(trial_id)
            self._runs[trial_id] = run
            self._unended = [run, *(other for other in self._unended if not other.ended.is_set())]
            if self._goes_at is not None:
                run.give_back()
            if self._all_cancelled or self._goes_at is not None:
                run.end(None)
            else:
                self._inbox.put(run.job)
        if earlier is not None:
            self._ask_to_end(earlier)
        return self._engine.name

    def next(self, trial_id: str) -> EpochReport | JudgedEpoch | TrialOutcome | None:
        """Wait for the trial's next epoch, or its outcome; None where it was withdrawn before it began.

        Raises `EngineLostError` where this engine has no such trial or broke while it trained it.
        """
        run = self._runs.get(trial_id)
        if run is None:
            raise EngineLostError(f"the process of engine {self._engine.name} that trained {trial_id} has died")
        run.ask()
        news = run.news.get()
        if isinstance(news, EpochReport | JudgedEpoch):
            return news
        with self._lock:
            if self._runs.get(trial_id) is run:
                del self._runs[trial_id]
        if isinstance(news, EngineLeavesError):
            raise news
        if isinstance(news, BaseException):
            raise EngineLostError(f"engine {self._engine.name} broke while it trained {trial_id}") from news
        return news

    def stop(self, trial_id: str) -> None:
        """Withdraw a trial, or have it end at its next step and wait until it has; nothing where it has ended.

        A `next` that still waits for it gets its outcome.
        """
        with self._lock:
            run = self._runs.pop(trial_id, None)
        if run is not None:
            self._ask_to_end(run)
            run.ended.wait()

    def cancel_all(self) -> None:
        """Withdraw every trial that waits, now and later, and have the others end with the epoch they are in."""
        with self._lock:
            self._all_cancelled = True
            for run in self._unended:
                if self._inbox.withdraw(run.job):
                    run.end(None)
                else:
                    run.ask_to_end_with_epoch()

    def hand_over(self, within_s: float) -> None:
        """Take no more trials, and give back those that will not have ended when this engine goes."""
        with self._lock:
            self._goes_at = time.monotonic() + within_s
            for run in [run for run in self._unended if not run.ended.is_set()]:
                if self._inbox.withdraw(run.job):
                    run.give_back()
                    run.end(None)
                elif not run.will_end_within(within_s):
                    run.give_back()

    def _leave(self) -> None:
        """End this process, once its trials have been given back and whoever waits for them has heard of it."""
        self.hand_over(NOTICE_S)
        ends = time.monotonic() + NOTICE_S
        while time.monotonic() < ends:
            with self._lock:
                if not self._runs:
                    break
            time.sleep(0.05)
        time.sleep(LAST_ANSWERS_S)
        os._exit(128 + signal.SIGTERM)

    def _ask_to_end(self, run: _Run) -> None:
        if self._inbox.withdraw(run.job):
            run.end(None)
        else:
            run.ask_to_end()

    def _stands_still_s(self) -> float:
        under_way = [run for run in self._unended if not run.ended.is_set()]
        if not under_way or any(run.awaits_verdict for run in under_way):
            return self._standstill.rests()
        # Its rate is new with every step.
        return self._standstill.seconds(self._trainer.ident or 0, self._engine.status)

    def _is_alone(self) -> bool:
        pack = self._engine.status
        return pack is None or pack.num_trials == 1

    def _train(self) -> None:
        from trainables.device.hardware import DeviceLostError

        while self._inbox.wait():
            try:
                self._engine.work(self._inbox)
            except BaseException as error:  # whoever waits for news must hear of every end
                with self._lock:
                    for run in self._unended:
                        if not run.ended.is_set() and run.job not in self._inbox:
                            run.end(error)
                if isinstance(error, DeviceLostError):  # every trial to come would fail; Ray starts the process again
                    logger.error("this engine ends: %s", error)
                    time.sleep(LAST_ANSWERS_S)
                    os._exit(1)


def _in_ray(weights: WeightFiles) -> WeightFiles | None:
    """None where Ray has no room for them: a trial is trained whether its weights are kept or not."""
    import ray

    if not ray.is_initialized():
        return weights
    try:
        return WeightsInRay(weights)
    except Exception:  # whatever Ray says of a full object store
        logger.warning("the weights of a trial could not be handed on", exc_info=True)
        return None


def _gpu_fault(device: str | None) -> str | None:
    """What is to be said of an engine on a CPU where Ray gave it a GPU, or where torch sees one that Ray does not."""
    import ray

    from trainables.device.hardware import gpus_seen, is_built_for_gpus  # here: only an engine's process pays for torch

    if device is None and ray.is_initialized() and ray.get_gpu_ids():
        why = "torch cannot use it: its driver may be too old" if is_built_for_gpus() else "torch has no CUDA"
        return f"was given a GPU by Ray, but {why}; it trains on the CPU, many times slower"
    if device == "cpu" and (count := gpus_seen()):
        seen = f"{count} GPUs" if count > 1 else "a GPU"
        return f"trains on the CPU, though torch sees {seen} there: start Ray with --num-gpus={count} on that node"
    return None


def _node() -> str:
    """Ray's id of this machine; nothing where an engine is used without Ray."""
    import ray

    return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else ""

"""The engine: one an accelerator. It holds a backbone and its tokenised tasks, and trains packs of trials.

An engine knows no Ray and no store: it is handed jobs and answers each with a TrialOutcome, whatever happened.
"""

from __future__ import annotations

import functools
import gc
import logging
import platform
import sys
import traceback
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

import torch

from trainables import metrics, tasks
from trainables.backbones.loading import Backbone, load_backbone, stand_in
from trainables.config import TrialConfig
from trainables.data.tokenized import TokenizedSplit, tokenize
from trainables.device.current import work_on
from trainables.device.dtype import compute_dtype
from trainables.device.hardware import DeviceLostError, device_named, num_cores, raise_if_lost
from trainables.device.memory import free_bytes, keep_freed_memory, release_unused
from trainables.device.provenance import provenance
from trainables.engine.inbox import Inbox
from trainables.engine.pack_run import PackContext, PackRun, PackStatus, tell
from trainables.engine.pack_size import SAFETY, PackSizer
from trainables.faults import FaultsError, unknown_name
from trainables.inference.saved_adapter import load
from trainables.inference.saved_scores import SavedScores, load_with_head, score_saved
from trainables.methods import kind_faults, tokenized_by_method, uses_backbone
from trainables.nn.encoder import Encoder
from trainables.outcome import OutcomeStatus, Report, TrialOutcome, unstarted
from trainables.predictions import SplitRows, rows_of
from trainables.training.device_data import let_go_of_splits
from trainables.training.model import stack_key
from trainables.training.prefix_cache import DEFAULT_BYTES, PrefixCache
from trainables.training.running_trial import Job

logger = logging.getLogger(__name__)


class Engine:
    """Trains packs of trials on one device.

    It holds one backbone at a time, and keeps to it while there are trials for it. A change costs loading the next one.

    Args:
        device: "cpu", "cuda", "cuda:1"; None takes the first GPU, else the CPU.
        num_threads: CPU threads of this engine's products; None leaves torch's choice.
        cache_dir: where tokenised tasks are kept; None is `$ADAPTUNE_CACHE` or `~/.cache/adaptune`.
        memory_bytes: what its packs may use beside the backbone, and on a CPU what is kept of frozen layers; None takes
            a GPU's free memory when a pack begins, or the threads' share of the machine's.
        share: of what is free on a GPU when a pack begins, where several engines have one card.
        load_task: how a trial's task is read; it must keep what it has read.

    Raises `FaultsError` where the device is none that can be trained on.
    """

    def __init__(
        self,
        *,
        device: str | None = None,
        num_threads: int | None = None,
        cache_dir: Path | None = None,
        memory_bytes: int | None = None,
        share: float = 1.0,
        load_task: Callable[[TrialConfig], tasks.Task] = tasks.load_trial,
    ) -> None:
        self.device = device_named(device)
        self.cache_dir = cache_dir
        keep_freed_memory()
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        self._memory_bytes = memory_bytes
        self._share = share
        self._load_task = load_task
        if memory_bytes is None and self.device.type == "cpu" and (free := free_bytes(self.device)) is not None:
            # Its threads' share: an engine a core would else plan with the memory of all the others.
            self._memory_bytes = free * torch.get_num_threads() // num_cores()
        self._kept_bytes = DEFAULT_BYTES
        if self._memory_bytes is not None and self.device.type == "cpu":
            self._kept_bytes = min(self._kept_bytes, int(self._memory_bytes * (1 - SAFETY)))  # what packs leave of it
        self._backbones: dict[tuple[str, torch.dtype], Backbone] = {}
        self._prefixes: dict[Encoder, PrefixCache] = {}
        self._data: dict[tuple[str, str, int], Mapping[str, TokenizedSplit]] = {}
        self._rows: dict[tuple[str, str], SplitRows] = {}
        self._sizers: dict[Hashable, PackSizer] = {}
        self._pack: PackRun | None = None

    @property
    def name(self) -> str:
        """Host and device, as recorded with each trial."""
        return f"{platform.node()}/{self.device}"

    @property
    def status(self) -> PackStatus | None:
        """The pack in training; None between packs. May be asked from any thread."""
        pack = self._pack
        return pack.status if pack is not None else None

    def run(
        self,
        config: TrialConfig,
        *,
        report: Report = lambda epoch: True,
        cancelled: Callable[[], bool] = lambda: False,
        save_to: Path | None = None,
        keep_predictions: bool = False,
        keep_weights: bool = False,
    ) -> TrialOutcome:
        """Train one trial, and save its trained weights where a folder is given and it completed.

        With `keep_predictions` the outcome of a completed one holds what it predicts of every row of every split, with
        `keep_weights` the files that `save_to` would be given.
        Never raises for a fault of the trial: a failed one is an outcome with its traceback.
        """
        outcomes: list[TrialOutcome] = []
        inbox = Inbox()
        inbox.put(
            Job(
                config=config,
                done=outcomes.append,
                report=report,
                cancelled=cancelled,
                save_to=save_to,
                keep_predictions=keep_predictions,
                keep_weights=keep_weights,
            )
        )
        try:
            self.work(inbox)
        except DeviceLostError:  # which may be the trial's doing
            return unstarted(OutcomeStatus.FAILED, traceback.format_exc(), {})
        return outcomes[0]

    def run_all(self, configs: Sequence[TrialConfig]) -> list[TrialOutcome]:
        """Train several trials, packed as they fit; the outcomes in the order of the configurations.

        Raises as `work` does.
        """
        outcomes: dict[int, TrialOutcome] = {}
        inbox = Inbox()
        for index, config in enumerate(configs):
            inbox.put(Job(config=config, done=functools.partial(outcomes.__setitem__, index)))
        self.work(inbox)
        return [outcomes[index] for index in range(len(configs))]

    def work(self, inbox: Inbox) -> None:
        """Train what is in an inbox, pack after pack, until it is empty. More may be put in all the while.

        The oldest come first, but those of the backbone that is loaded before all others. The thread that asks works on
        the engine's device from then on.

        Raises `DeviceLostError` where a GPU does nothing more for this process: trials that were taken up and not told
        of should be trained by another one.
        """
        while jobs := inbox.take(1, self._holds) or inbox.take(1, lambda job: True):
            try:
                self._train_pack(jobs[0], inbox)
            finally:
                self._pack = None
            let_go_of_splits()
            release_unused()

    def evaluate(self, config: TrialConfig, split: str, folder: Path, *, head: Path | None = None) -> SavedScores:
        """What a saved adapter scores on a split of the task of its configuration, over the backbone held here.

        The backbone is the very object that the engine's trials train on. With `head`, a file of `write_head`, only the
        encoder is the folder's, which may be another task's. Raises `FaultsError` where the folder is faulty or the
        task has no such split, `TrainingDivergedError` where the loss is not finite.
        """
        work_on(self.device)
        context = self._prepare(config)
        if split not in context.data:
            raise FaultsError("evaluation", [unknown_name(f"split of {context.task.name}", split, context.data)])
        if head is None:
            model = load(folder, backbone=context.backbone).model
        else:
            model = load_with_head(folder, head, config, context.task, context.backbone)
        return score_saved(model, context.data[split], context.metric)

    def _train_pack(self, lead: Job, inbox: Inbox) -> None:
        """Train the pack that a trial opens; a fault of the trial's is its outcome."""
        try:
            work_on(self.device)
            context = self._prepare(lead.config)
            key = pack_key(lead.config)
            sizer = None if key is None else self._sizers.get(key)
            run = PackRun(context, lead, inbox, _joins(key), memory_bytes=self._planned_memory(), sizer=sizer)
        except Exception:  # a crash is data: it becomes the trial's outcome, and the engine goes on
            raise_if_lost(self.device, sys.exception())
            logger.info("trial failed: %s", lead.config, exc_info=True)  # its record says so too
            tell(lead, unstarted(OutcomeStatus.FAILED, traceback.format_exc(), self._provenance(lead.config)))
            return
        self._pack = run
        run.run()
        if run.sizer is not None and key is not None:
            self._sizers[key] = run.sizer

    def _planned_memory(self) -> int | None:
        """What a pack that begins now may use beside the backbone; None where the system cannot tell."""
        if self._memory_bytes is not None or self.device.type == "cpu":
            return self._memory_bytes
        free = free_bytes(self.device)
        return None if free is None else int(free * self._share)

    def _prepare(self, config: TrialConfig) -> PackContext:
        task = self._load_task(config)
        if faults := kind_faults(config.method, task.info):
            raise FaultsError("trial", faults)
        backbone = self._backbone(config)
        return PackContext(
            backbone=backbone,
            task=task.info,
            metric=metrics.get(task.info.metric),
            data=self._tokenized(task, backbone, config),
            prefixes=self._prefixes.setdefault(backbone.encoder, PrefixCache(backbone.encoder, self._kept_bytes)),
            provenance=self._provenance(config),
            rows_of=functools.partial(self._rows_of, task),
        )

    def _backbone(self, config: TrialConfig) -> Backbone:
        name = config.backbone if uses_backbone(config.method) else ""
        key = (name, compute_dtype(config.precision, self.device))
        if key not in self._backbones:
            if name:
                self._let_go_of_others(name)
            self._backbones[key] = (
                load_backbone(name, device=self.device, compute_dtype=key[1]) if name else stand_in(self.device)
            )
        return self._backbones[key]

    def _holds(self, job: Job) -> bool:
        return any(name == job.config.backbone for name, _ in self._backbones)

    def _let_go_of_others(self, backbone: str) -> None:
        """Free the memory of other backbones, and of what was computed with them, before this one is loaded."""
        others = [key for key in self._backbones if key[0] not in ("", backbone)]
        for key in others:
            self._prefixes.pop(self._backbones.pop(key).encoder, None)
        if others:
            self._data.clear()
            gc.collect()  # modules and hooks refer to each other
            release_unused()

    def _tokenized(self, task: tasks.Task, backbone: Backbone, config: TrialConfig) -> Mapping[str, TokenizedSplit]:
        if (splits := tokenized_by_method(task, config)) is not None:
            return splits
        fingerprint = backbone.info.fingerprint
        assert fingerprint is not None  # a loaded backbone has weights
        assert backbone.tokenizer is not None  # and a tokenizer
        key = (task.fingerprint, fingerprint, config.max_length)
        if key not in self._data:
            self._data[key] = tokenize(
                task,
                backbone.tokenizer,
                fingerprint,
                config.max_length,
                self.cache_dir,
                prompt=backbone.info.prompt,
            )
        return self._data[key]

    def _rows_of(self, task: tasks.Task, split: str) -> SplitRows:
        key = (task.fingerprint, split)
        if key not in self._rows:
            self._rows[key] = rows_of(task.splits[split], task.info.kind)
        return self._rows[key]

    def _provenance(self, config: TrialConfig) -> dict[str, str]:
        return provenance(self.device, compute_dtype(config.precision, self.device))


def pack_key(config: TrialConfig) -> Hashable | None:
    """Equal for trials that may train in one pack; None for a trial that trains alone.

    Learning rate, schedule, epochs, seed, decay, clipping, dropout and initialisation are each trial's own.
    Raises `FaultsError` where the method does not know the options.
    """
    key = stack_key(config)
    if key is None:
        return None
    shared = (config.task, config.backbone, key, config.batch_size, config.max_length, config.precision)
    return shared if config.fold is None else (*shared, config.folds, config.fold)  # each fold has rows of its own


def _joins(key: Hashable | None) -> Callable[[Job], bool]:
    def accept(job: Job) -> bool:
        try:
            return key is not None and pack_key(job.config) == key
        except Exception:  # it opens a pack of its own, and fails there with its fault
            return False

    return accept

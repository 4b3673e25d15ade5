"""A real sweep: adapter trials over learning rates and seeds, from a task folder, through the engine as it is.

Some of its trials are then trained again, each alone. Packing may change a score only by rounding.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.gpu.clock import Deadline
from benchmarks.gpu.materials import backbone, write_task
from benchmarks.gpu.record import maybe, measured
from benchmarks.gpu.run import Run
from trainables.config import TrialConfig
from trainables.engine.engine import Engine
from trainables.engine.inbox import Inbox
from trainables.outcome import OutcomeStatus, TrialOutcome, unstarted
from trainables.training.running_trial import Job

LOWEST_RATE, HIGHEST_RATE = 1e-4, 3e-3
# Of the time of this part, for the sweep; the rest is for the trials that are trained again.
SWEEP_SHARE = 0.75
COMPLETED = OutcomeStatus.COMPLETED
UNITS = {"validation_in_pack": "", "validation_alone": "", "difference": ""}


def measure(run: Run) -> None:
    sizes = run.sizes
    task = write_task(run.scratch / "sweep-task", run.task, rows=sizes.sweep_rows)
    configuration = next(iter(sizes.backbones.values()))
    rehearsed = run.device.type == "cpu"
    reference, kind = backbone(run.scratch / "backbone", configuration, task, rehearsed=rehearsed)
    run.note(f"task: {run.task or 'generated'}, {task.splits['train'].num_rows} training rows; backbone: {kind}")
    configs = _grid(run, reference)
    engine = Engine(device=str(run.device), cache_dir=run.scratch / "cache")
    began = time.perf_counter()
    outcomes = train(engine, configs, run.deadline.within(SWEEP_SHARE))
    seconds = time.perf_counter() - began
    done = {config: outcome for config, outcome in zip(configs, outcomes, strict=True) if outcome.status is COMPLETED}
    failed = [outcome for outcome in outcomes if outcome.status is OutcomeStatus.FAILED]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(configs)} trials failed; the first:\n{failed[0].error}")
    if len(done) < len(configs):
        run.left_out.append(f"{len(configs) - len(done)} of {len(configs)} trials of the sweep")
    _add_sweep(run, len(configs), list(done.values()), seconds)
    _add_alone(run, engine, done)


def train(engine: Engine, configs: Sequence[TrialConfig], deadline: Deadline) -> list[TrialOutcome]:
    """The outcomes in the order of the configurations; trials that would not end in time are cancelled."""
    outcomes: dict[int, TrialOutcome] = {}
    inbox = Inbox()

    def cancelled() -> bool:
        """Asked before every step. When time is up, those that still wait shall not be begun either."""
        if not deadline.has_passed():
            return False
        for job in inbox.take(len(configs), lambda job: True):
            job.done(unstarted(OutcomeStatus.CANCELLED, None, {}))
        return True

    for index, config in enumerate(configs):
        done = functools.partial(outcomes.__setitem__, index)
        inbox.put(Job(config=config, done=done, cancelled=cancelled))
    engine.work(inbox)
    return [outcomes[index] for index in range(len(configs))]


def _grid(run: Run, reference: str) -> list[TrialConfig]:
    sizes = run.sizes
    rates = np.geomspace(LOWEST_RATE, HIGHEST_RATE, sizes.sweep_rates)
    return [
        TrialConfig(
            task=str(run.scratch / "sweep-task"),
            backbone=reference,
            method="adapter",
            method_options={"adapter_size": sizes.adapter_size, "pooling": "mean"},
            learning_rate=float(rate),
            num_epochs=sizes.sweep_epochs,
            batch_size=sizes.batch_size,
            seed=seed,
        )
        for seed in range(sizes.sweep_seeds)
        for rate in rates
    ]


def _add_sweep(run: Run, num_trials: int, outcomes: Sequence[TrialOutcome], seconds: float) -> None:
    scores = [outcome.validation_score for outcome in outcomes if outcome.validation_score is not None]
    packs = [outcome.pack_size for outcome in outcomes if outcome.pack_size is not None]
    none = "no trial was completed"
    run.add(
        {"what": "the sweep"},
        {
            "trials": measured(num_trials, ""),
            "completed": measured(len(outcomes), ""),
            "time": measured(seconds, "s"),
            "trials_per_second": measured(len(outcomes) / seconds, "trials/s"),
            "mean_pack_size": maybe(statistics.fmean(packs) if packs else None, "trials", none),
            "best_validation": maybe(max(scores, default=None), "", none),
            "mean_validation": maybe(statistics.fmean(scores) if scores else None, "", none),
        },
    )


def _add_alone(run: Run, engine: Engine, packed: dict[TrialConfig, TrialOutcome]) -> None:
    """Trials from all over the grid, each in a pack of one."""
    if not packed:
        run.leave_out({"what": "alone"}, UNITS)
        return
    chosen = list(packed)[:: max(1, len(packed) // run.sizes.alone)][: run.sizes.alone]
    for config in chosen:
        where = {"what": "alone", "learning_rate": f"{config.learning_rate:.2g}", "seed": config.seed}
        if run.deadline.has_passed():
            run.leave_out(where, UNITS)
            continue
        (alone,) = train(engine, [config], run.deadline)
        together, by_itself = packed[config].validation_score, alone.validation_score
        if alone.status is not COMPLETED or together is None or by_itself is None:
            run.leave_out(where, UNITS)
            continue
        run.add(
            where,
            {
                "validation_in_pack": measured(together, ""),
                "validation_alone": measured(by_itself, ""),
                "difference": measured(together - by_itself, ""),
            },
        )

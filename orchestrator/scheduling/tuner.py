"""Planned trials -> Ray Tune -> records, on the engines of a cluster or of this machine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import Any

from ray import tune
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial

from orchestrator.record import TrialRecord
from orchestrator.scheduling.cluster_state import has_autoscaler, home_resource, nodes, total
from orchestrator.scheduling.early_end import Budget, EarlyEnd, Interrupt, Spending, Watch
from orchestrator.scheduling.early_stopping import trial_scheduler
from orchestrator.scheduling.engine_layout import (
    MOST_ON_FIRST_GPUS,
    devices_paid,
    engines_per_gpu,
    filling_trials,
    lay_out,
)
from orchestrator.scheduling.engines import engine_pool
from orchestrator.scheduling.proposals import Proposals
from orchestrator.scheduling.ray_session import ray_session
from orchestrator.scheduling.recorder import Observer, Recorder, Stopper
from orchestrator.scheduling.remaining import Remaining
from orchestrator.scheduling.trial import EngineTrial
from orchestrator.scheduling.tune_memory import ForgetEnded, NoProgress
from orchestrator.spec.early_stopping import NONE, Rule
from orchestrator.trial_source import TrialSource

# Variables that only the driver needs, which alone writes to a bucket.
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")

# Of what Ray counts as one of the driver's node: the least that it tells from nothing.
HOME_SHARE = 1e-4

# A trial whose own light process died, which is not its doing, is started again so often. How often after its engine
# died, the pool decides; a trial that failed by itself is not started again.
MAX_RESTARTS = 10


def run_trials(
    sweep: str,
    source: TrialSource,
    observer: Observer,
    *,
    address: str | None = None,
    max_concurrent_trials: int | None = None,
    threads_per_engine: int | None = None,
    early_stopping: Rule | str = NONE,
    earlier: Sequence[TrialRecord] = (),
    keep_predictions: bool = False,
    keep_weights: bool = False,
    budget: Budget | None = None,
) -> EarlyEnd | None:
    """Train every trial of a source and tell the observer of each; returns why it ended before them all, if it did.

    Each trial is reported with exactly one record, unless the end came before it began. Joins the Ray at `address`, or
    starts one on this machine. Ctrl-C, SIGTERM, SIGHUP or a `budget` that is used up ends running trials at the end of
    their epoch (they are recorded as cancelled); a second signal raises `Interrupted` at once. What the observer raises
    ends the sweep and is raised here. `earlier`: records of trials that those of the source are judged beside, where
    some are pruned. `keep_predictions` and `keep_weights`: whether the observer is told what completed trials predict,
    and what they have trained.
    Raises `FaultsError` where Ray cannot be reached or started; nothing has begun then.
    """
    sharing, spending = engines_per_gpu(), Spending(budget or Budget())
    with (
        ray_session(address, observer.notice),
        tempfile.TemporaryDirectory(prefix="adaptune-tune-") as scratch,
        Interrupt() as interrupt,
    ):
        watch = Watch(interrupt, spending)
        layout = lay_out(total(nodes()), threads_per_engine=threads_per_engine, engines_per_gpu=sharing)
        grows = address is not None and has_autoscaler()
        planned, most = Remaining(source), source.most
        most_each = layout.most_each(layout.concurrent_trials(most, max_concurrent_trials))
        with engine_pool(layout, planned, grows=grows, most_each=most_each) as (pool, _):

            def paid(gpu_engines: int, cpu_engines: int) -> None:
                spending.devices_there(devices_paid(gpu_engines, cpu_engines, engines_per_gpu=sharing))

            recorder = Recorder(
                sweep,
                source,
                observer,
                pool,
                watch.look,
                spending.trial_failed,
                paid,
                waits_for_nodes=address is not None,
            )
            planned.under_way = recorder.under_way
            # A machine is paid while its engines load.
            paid(*((layout.count, 0) if layout.num_gpus else (0, layout.count)))
            observer.is_interrupted = watch.waits_no_more
            observer.engines_starting(layout.count)

            def concurrent() -> int:
                there = filling_trials(recorder.gpu_engines, recorder.cpu_engines)
                at_first = layout.concurrent_trials(most, max_concurrent_trials)
                return at_first if max_concurrent_trials else max(at_first, min(most, there))

            judge = trial_scheduler(early_stopping, source.longest)
            if judge is not None:
                judge.feed(earlier)
            proposals = Proposals(
                source,
                concurrent,
                may_be_pruned=judge is not None,
                has_ended=lambda: watch.look() is not None,
                handed_out=recorder.handed_out,
                keep_predictions=keep_predictions,
                keep_weights=keep_weights,
            )
            scheduler = ForgetEnded(judge, recorder.process_died)
            try:
                _tuner(sweep, proposals, scheduler, recorder, pool, concurrent(), scratch, stays=grows).fit()
            except tune.TuneError:
                if recorder.error is not None:
                    raise recorder.error from None
                raise
            finally:
                recorder.finish()
        return watch.came_early(has_trials_left=recorder.has_trials_left or not source.is_exhausted())


def _tuner(
    sweep: str,
    proposals: Proposals,
    scheduler: ForgetEnded,
    recorder: Recorder,
    pool: Any,
    concurrent: int,
    scratch: str,
    *,
    stays: bool,
) -> tune.Tuner:
    """`stays`: whether the trials' own processes are kept on the driver's node, so that any other one can go."""
    # Where the cluster grows there will be more under way than at first.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max(concurrent, MOST_ON_FIRST_GPUS) if stays else concurrent)
    # With these Tune would hand the driver's keys to each trial, by way of Ray's tables, logs and dashboard.
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(KEYS)
    # A hundredth of a core each: they wait for engines, and each engine leaves a tenth of a core free.
    resources = {home_resource(): HOME_SHARE} if stays else {"cpu": 0.01}
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(EngineTrial, pool=pool), resources),
        tune_config=tune.TuneConfig(
            search_alg=proposals,
            num_samples=-1,  # as many as it proposes
            scheduler=scheduler,
            reuse_actors=True,
            trial_name_creator=_trial_id,
            trial_dirname_creator=_trial_id,
        ),
        run_config=tune.RunConfig(
            name=sweep,
            storage_path=scratch,
            callbacks=[recorder, NoProgress()],
            stop=Stopper(recorder),
            failure_config=tune.FailureConfig(max_failures=MAX_RESTARTS),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # a trial keeps nothing of its own
            verbose=0,
        ),
    )


def _trial_id(trial: Trial) -> str:
    return str(trial.config["trial_id"])

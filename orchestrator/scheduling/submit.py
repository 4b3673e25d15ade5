"""Send a sweep to a Ray cluster as a job: this code, the resolved spec and small task folders travel with it."""

from __future__ import annotations

import json
import secrets
import shlex
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import trainables
from orchestrator.planning.plan import SweepPlan
from orchestrator.scheduling.early_end import NO_LIMIT, Budget
from orchestrator.scheduling.jobs import STORE_KEY, SWEEP_KEY, JobServer
from orchestrator.secrets import store_faults, tracking_faults, without_settings
from trainables.faults import FaultsError

# Ray refuses uploads beyond a hundred MiB or so; data of that size belongs on storage the cluster can read.
MAX_UPLOAD_BYTES = 90 * 2**20
# A job that is stopped gets a signal, upon which running trials end with their epoch, and is killed after so long. An
# epoch of a large model on a large task takes this long at the most; Ray alone would kill after three seconds.
STOP_WAIT_S = 3600


def submit_job(
    plan: SweepPlan,
    server: JobServer,
    *,
    store: str | None,
    tracking_uri: str | None,
    budget: Budget = NO_LIMIT,
    take_over: bool = False,
    only_driver: bool = False,
) -> str:
    """Submit a planned sweep and return the job's id, by which it is found again.

    The cluster needs adaptune's dependencies and the backbone; adaptune's own code is sent along, so that the cluster
    runs the version it was submitted from. Without a store, records go to `~/sweeps/<name>` of the head node.
    Credentials for store and tracking server are those of the head's own environment: a job's command line, and what
    else is sent with it, is shown to everybody who looks at the cluster. The budget's
    hours count from when the job begins to run.

    Raises `FaultsError` where the job server does not take it, a URI holds secrets, the task folders are too large to
    send, or the store would lie in the job's working folder, which goes with the job.
    """
    check_places(plan.spec.name, store, tracking_uri)
    packages = Path(trainables.__path__[0]).parent
    with tempfile.TemporaryDirectory(prefix="adaptune-job-") as folder:
        pack_job(plan, Path(folder))
        return server.submit(
            job_id=f"{plan.spec.name}-{secrets.token_hex(3)}",
            entrypoint=entrypoint(
                plan.spec.name, store, tracking_uri, budget=budget, take_over=take_over, only_driver=only_driver
            ),
            runtime_env={
                "working_dir": folder,
                "py_modules": [
                    str(packages / name) for name in ("adaptune", "orchestrator", "search_spaces", "trainables")
                ],
                # Read by Ray's process that starts and ends the job, on the head.
                "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)},
            },
            metadata={SWEEP_KEY: plan.spec.name, STORE_KEY: shown_store(plan.spec.name, store)},
        )


def check_places(name: str, store: str | None, tracking_uri: str | None) -> None:
    """Raises `FaultsError` where a job cannot keep its records at these places, or where one of them holds secrets."""
    faults = [*store_faults("--store", store or ""), *tracking_faults("--tracking-uri", tracking_uri or "")]
    if store is not None and "://" not in store and not Path(store).is_absolute():
        faults.append(
            f"--store must be a URI or an absolute path of the cluster's head, where the job runs, but is {store!r}; "
            f"without --store, records go to ~/sweeps/{name} there"
        )
    if faults:
        raise FaultsError("submit", faults)


def shown_store(name: str, store: str | None) -> str:
    """The store as whoever sees the job may see it: without keys and settings."""
    return f"~/sweeps/{name}" if store is None else without_settings(store)


def pack_job(plan: SweepPlan, folder: Path) -> None:
    """Write the spec, and every task that is a local folder, into the job's working folder."""
    values: dict[str, Any] = json.loads(plan.spec.to_json())
    local = {task: Path(task).resolve() for task in values["tasks"] if Path(task).is_dir()}
    size = sum(file.stat().st_size for path in local.values() for file in path.rglob("*") if file.is_file())
    if size > MAX_UPLOAD_BYTES:
        fault = (
            f"task folders sent with a job must be at most {MAX_UPLOAD_BYTES >> 20} MiB together, "
            f"but these are {size >> 20} MiB; put them on storage that every node can read, at the same path"
        )
        raise FaultsError("submit", [fault])
    # A task's name may be any text; the folder's own is kept, since it is the task's where task.json says none.
    sent = {task: f"tasks/{number}/{path.name}" for number, (task, path) in enumerate(local.items())}
    for task, path in local.items():
        shutil.copytree(path, folder / sent[task])
    values["tasks"] = [sent.get(task, task) for task in values["tasks"]]
    (folder / "sweep.json").write_text(json.dumps(values), encoding="utf-8")


def entrypoint(
    name: str,
    store: str | None,
    tracking_uri: str | None,
    *,
    budget: Budget = NO_LIMIT,
    take_over: bool = False,
    only_driver: bool = False,
) -> str:
    """The job's command line; without explicit places, records outlive the job in the head's home folder."""
    place = shlex.quote(store) if store else f'"$HOME/sweeps/{name}"'
    run = f"python -m adaptune run sweep.json --address auto --store {place}"
    limits = [f"--{name.replace('_', '-')} {limit}" for name, limit in asdict(budget).items() if limit is not None]
    words = {"--take-over": take_over, "--only-driver": only_driver}
    run = " ".join([run, *limits, *(word for word, is_said in words.items() if is_said)])
    if tracking_uri:
        return f"{run} --tracking-uri {shlex.quote(tracking_uri)}"
    # As a variable: what it holds on the head may be secret, and arguments are not.
    return f'MLFLOW_TRACKING_URI="${{MLFLOW_TRACKING_URI:-sqlite:///$HOME/sweeps/mlflow.db}}" {run}'

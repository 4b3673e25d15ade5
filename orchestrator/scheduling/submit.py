"""Send a sweep to a Ray cluster as a job: this code, the resolved spec and small task folders travel with it."""

from __future__ import annotations

import asyncio
import json
import logging
import shlex
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trainables
from orchestrator.planning.plan import SweepPlan
from trainables.faults import FaultsError

# Ray refuses uploads beyond a hundred MiB or so; data of that size belongs on storage the cluster can read.
MAX_UPLOAD_BYTES = 90 * 2**20


def submit_job(
    plan: SweepPlan, address: str, *, store: str | None, tracking_uri: str | None, show: Callable[[str], None]
) -> int:
    """Submit a planned sweep, hand its log to `show` as it comes, and return the job's exit status.

    The cluster needs adaptune's dependencies and the backbone; adaptune's own code is sent along, so that the cluster
    runs the version it was submitted from. Without a store, records go to `~/sweeps/<name>` of the head node.
    Raises `FaultsError` where the job server cannot be reached or the task folders are too large to send.
    """
    from ray.job_submission import JobStatus, JobSubmissionClient

    logging.getLogger("ray").setLevel(logging.WARNING)  # it tells of every package it uploads
    try:
        client = JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        fault = f"--address must be a cluster's job server such as http://HEAD:8265, but {error}"
        raise FaultsError("submit", [" ".join(fault.split())]) from None
    packages = Path(trainables.__path__[0]).parent
    with tempfile.TemporaryDirectory(prefix="adaptune-job-") as folder:
        pack_job(plan, Path(folder))
        job = client.submit_job(
            entrypoint=entrypoint(plan.spec.name, store, tracking_uri),
            runtime_env={
                "working_dir": folder,
                "py_modules": [
                    str(packages / name) for name in ("adaptune", "orchestrator", "search_spaces", "trainables")
                ],
            },
            metadata={"adaptune.sweep": plan.spec.name},
        )
        show(f"job {job} submitted to {address}\n")
        try:
            asyncio.run(_follow(client, job, show))
        except KeyboardInterrupt:
            show(f"\nno longer following; the job goes on. Stop it with: ray job stop --address {address} {job}\n")
            return 130
    status = client.get_job_status(job)
    if status is JobStatus.SUCCEEDED:
        return 0
    details = client.get_job_info(job)
    show(f"job {job} ended as {status}: {(details.message or '').strip()}\n")
    return details.driver_exit_code or 1


def pack_job(plan: SweepPlan, folder: Path) -> None:
    """Write the spec, and every task that is a local folder, into the job's working folder."""
    values: dict[str, Any] = json.loads(plan.spec.to_json())
    local = {task: Path(task) for task in values["tasks"] if Path(task).is_dir()}
    size = sum(file.stat().st_size for path in local.values() for file in path.iterdir() if file.is_file())
    if size > MAX_UPLOAD_BYTES:
        fault = (
            f"task folders sent with a job must be at most {MAX_UPLOAD_BYTES >> 20} MiB together, "
            f"but these are {size >> 20} MiB; put them on storage that every node can read, at the same path"
        )
        raise FaultsError("submit", [fault])
    names = {trial.config.task: trial.task for trial in plan.trials}
    for reference, path in local.items():
        shutil.copytree(path, folder / "tasks" / names[reference])
    values["tasks"] = [f"tasks/{names[task]}" if task in local else task for task in values["tasks"]]
    (folder / "sweep.json").write_text(json.dumps(values), encoding="utf-8")


def entrypoint(name: str, store: str | None, tracking_uri: str | None) -> str:
    """The job's command line; without explicit places, records outlive the job in the head's home folder."""
    place = shlex.quote(store) if store else f'"$HOME/sweeps/{name}"'
    tracking = (
        shlex.quote(tracking_uri) if tracking_uri else '"${MLFLOW_TRACKING_URI:-sqlite:///$HOME/sweeps/mlflow.db}"'
    )
    return f"python -m adaptune run sweep.json --address auto --store {place} --tracking-uri {tracking}"


async def _follow(client: Any, job: str, show: Callable[[str], None]) -> None:
    async for text in client.tail_job_logs(job):
        show(text)

"""Ray's job client, of a cluster that is a list in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from ray.dashboard.modules.job.pydantic_models import JobDetails, JobType
from ray.job_submission import JobStatus

FIRST_START_MS = 1_790_000_000_000


def job_details(submission_id: str | None, status: JobStatus = JobStatus.RUNNING, **changes: Any) -> JobDetails:
    """A job as Ray tells of it; `changes` are fields of `JobDetails`."""
    kind = JobType.SUBMISSION if submission_id else JobType.DRIVER
    fields = {"start_time": FIRST_START_MS, "metadata": {}, "entrypoint": "python secret.py"}
    return JobDetails(type=kind, submission_id=submission_id, status=status, **{**fields, **changes})


@dataclass
class FakeJobClient:
    """What tests put into `jobs` and `logs` is what it tells; what it is asked to do stands in its other lists."""

    jobs: list[JobDetails] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)
    submitted: list[dict[str, Any]] = field(default_factory=list)
    # Of each connection that follows a log: after how many characters it breaks; None where it does not.
    breaks_after: list[int | None] = field(default_factory=list)
    # How often it does not answer a question about a job, and what it raises then.
    silences: int = 0
    ends_as: JobStatus | None = None  # a followed job, once its log has been read to its end

    def submit_job(self, **job: Any) -> str:
        self.submitted.append(job)
        self.jobs.append(job_details(job["submission_id"], metadata=job["metadata"]))
        return str(job["submission_id"])

    def list_jobs(self) -> list[JobDetails]:
        return self.jobs

    def get_job_info(self, job_id: str) -> JobDetails:
        if self.silences:
            self.silences -= 1
            raise ConnectionError("nobody there")
        return next(job for job in self.jobs if job.submission_id == job_id)

    def get_job_logs(self, job_id: str) -> str:
        return self.logs.get(job_id, "")

    def stop_job(self, job_id: str) -> bool:
        self.stopped.append(job_id)
        return True

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        breaks = self.breaks_after.pop(0) if self.breaks_after else None
        log = self.logs.get(job_id, "")
        for start in range(0, len(log if breaks is None else log[:breaks]), 7):
            yield log[start : start + 7] if breaks is None else log[:breaks][start : start + 7]
        if breaks is not None:
            raise RuntimeError("WebSocket connection closed unexpectedly")
        if self.ends_as is not None:
            job = self.get_job_info(job_id)
            job.status = self.ends_as

"""Whether a bucket lets us in, asked by a process of its own.

Without credentials Arrow's client for Azure ends the process that asks, and the one for Google Cloud Storage tries for
a quarter of an hour.
"""

from __future__ import annotations

import subprocess
import sys

from orchestrator.secrets import masked

ANSWER_WITHIN_S = 30.0
_PROBE = """
import sys
from pyarrow.fs import FileSystem
filesystem, path = FileSystem.from_uri(sys.argv[1])
filesystem.get_file_info(path)
"""
_CREDENTIALS = {
    "abfs": "AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET, `az login`, or the machine's identity",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth application-default login`, or the machine's service account",
}
_SERVICES = {"abfs": "abfs", "abfss": "abfs", "gs": "gs", "gcs": "gs"}


def reach_faults(uri: str) -> list[str]:
    """Why nothing can be stored at a URI of Azure or Google Cloud Storage. Of other places nothing is asked."""
    service = _SERVICES.get(uri.partition("://")[0].lower())
    if service is None or (reason := _why_not(uri)) is None:
        return []
    remedy = f"credentials come from {_CREDENTIALS[service]}"
    return [f"{uri} must be a place that lets us in, but {reason}; {remedy}"]


# Places that have let this process in. Others are asked each time: who asks again may have got credentials meanwhile.
_open: set[str] = set()


def _why_not(uri: str) -> str | None:
    """The last thing that Arrow says of why it cannot look there; None where it can."""
    if uri in _open:
        return None
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _PROBE, uri], capture_output=True, text=True, timeout=ANSWER_WITHIN_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it has not answered within {ANSWER_WITHIN_S:.0f} seconds"
    if asked.returncode == 0:
        _open.add(uri)
        return None
    lines = [line.strip() for line in masked(asked.stderr).splitlines() if line.strip()]
    telling = [line for line in lines if "troubleshooting" not in line and not line.startswith("terminate called")]
    reason = (telling or lines or [f"the client ended with status {asked.returncode}"])[-1]
    return reason.removeprefix("what():").strip().rstrip(".")[:300]

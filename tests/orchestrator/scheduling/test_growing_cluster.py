"""A sweep on a cluster that grows by itself: nodes are asked for, got, used and given back."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fake_cloud import FakeCloud
from tests.sources import ROOT

pytestmark = [
    pytest.mark.ray,
    pytest.mark.minutes,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
IDLE_S = 3.0

# Trains a sweep, and prints the most engines that were at work at once and the trials that have a record.
DRIVER = """
import json, sys
from orchestrator.run.recording import Silent
from orchestrator.run.sweep import run_sweep

class Watch(Silent):
    most = 0

    def engines_working(self, engines):
        self.most = max(self.most, sum(engine.num_trials > 0 for engine in engines))

watch = Watch()
values, store, address = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
results = run_sweep(values, store, address=address, tracking_uri=sys.argv[4], progress=watch)
print(json.dumps({"most": watch.most, "trials": results.trials()["trial_id"].to_pylist()}))
"""


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def version(request: pytest.FixtureRequest) -> int:
    """Which of Ray's autoscalers."""
    return int(request.param)


@contextmanager
def cloud_of(version: int, **nodes: int) -> Iterator[FakeCloud]:
    folder = Path(tempfile.mkdtemp(prefix="adaptune-cloud-", dir="/tmp"))
    started = FakeCloud(folder, most=2, idle_s=IDLE_S, version=version, **nodes)
    try:
        yield started
    finally:
        started.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cloud(version: int) -> Iterator[FakeCloud]:
    with cloud_of(version) as started:
        yield started


def train(cloud: FakeCloud, values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run a sweep there; what `DRIVER` prints."""
    arguments = [json.dumps(values), str(folder / "store"), cloud.address, f"sqlite:///{folder}/mlflow.db"]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *arguments],
        env={**cloud.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_where_the_head_has_no_cores_a_sweep_waits_for_a_node_with_a_gpu(
    version: int, small_backbone: Path, write_task: Callable[..., Path], tmp_path: Path
) -> None:
    values = {
        "name": "none-at-first",
        "backbone": str(small_backbone),
        "tasks": [str(write_task())],
        "seeds": [0],
        "space": {"num_epochs": 2, "learning_rate": {"grid": [1e-4, 1e-3, 1e-2]}},
        "methods": [{"adapter": {"adapter_size": 2}}],
    }
    with cloud_of(version, head_cpus=0, gpus=1) as cloud:
        answer = train(cloud, values, tmp_path)
        assert len(set(answer["trials"])) == 3
        # For the one engine that three trials can use, and none for engines on CPUs beside it.
        assert sum(event.startswith("Adding") for event in cloud.events()) == 1, cloud.events()


def test_forty_trials_get_the_nodes_that_they_can_use_and_give_them_back(
    cloud: FakeCloud, small_backbone: Path, write_task: Callable[..., Path], tmp_path: Path
) -> None:
    values = {
        "name": "forty",
        "backbone": str(small_backbone),
        "tasks": [str(write_task())],
        "seeds": [0, 1, 2, 3, 4],
        "space": {"num_epochs": 150, "batch_size": 16},  # longer than a node takes to come
        "methods": [
            {"adapter": {"adapter_size": {"grid": [1, 2]}, "learning_rate": {"grid": [1e-4, 1e-3, 3e-3, 1e-2]}}}
        ],
    }
    answer = train(cloud, values, tmp_path)
    assert len(answer["trials"]) == len(set(answer["trials"])) == 40
    assert answer["most"] >= 2  # more than the head alone has
    ends = time.monotonic() + 120
    while not any("Removing" in event for event in cloud.events()):
        assert time.monotonic() < ends, cloud.events()
        time.sleep(0.5)
    assert any(event.startswith("Adding") for event in cloud.events())

"""A Ray cluster that grows and shrinks by itself, all of it on this machine: Ray's autoscaler over its fake provider.

`ray.cluster_utils.AutoscalingCluster` does the same, but ends every other Ray of the machine first, and needs a file
that Ray's wheel does not have.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import ray

PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
HEAD = "f" * 51 + "00000"  # the fake provider knows the head by it
STORE_BYTES = 80 * 2**20  # the least that Ray takes is 75 MiB
START_S = 120.0


class FakeCloud:
    """A head, and up to so many nodes with one CPU each, which end after so many idle seconds.

    The head has one CPU or none; the nodes may have a GPU each besides, as far as Ray knows.

    `environment` has the token that it demands. In a folder with a short path, as Ray's sockets lie in it. Ray has two
    autoscalers: version 1 reads what is idle by itself, version 2 (KubeRay's) drains a node before it ends it.
    """

    def __init__(
        self, folder: Path, *, most: int, idle_s: float, version: int = 1, head_cpus: int = 1, gpus: int = 0
    ) -> None:
        with socket.create_server(("", 0)) as free:
            port = free.getsockname()[1]
        self.address = f"{ray.util.get_node_ip_address()}:{port}"
        self.folder = folder
        self._head_cpus, self._gpus = head_cpus, gpus
        plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.environment = {
            **plain,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",  # by itself Ray's processes give way to everything else that runs
        }
        config = folder / "autoscaling.json"
        config.write_text(json.dumps(self._config(most, idle_s)))
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={port}"]
        command += [f"--num-cpus={head_cpus}", f"--object-store-memory={STORE_BYTES}", f"--temp-dir={folder}/ray"]
        command += [f"--autoscaling-config={config}", "--include-dashboard=false", "--disable-usage-stats"]
        fake = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
        if version == 2:
            fake |= {"RAY_enable_autoscaler_v2": "1"}
            fake |= {"RAY_CLOUD_INSTANCE_ID": HEAD, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD}
            fake |= {"RAY_NODE_TYPE_NAME": "ray.head.default"}  # as operators of clusters tell every node
        with (folder / "head.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, env={**self.environment, **fake}, stdout=log, stderr=log, start_new_session=True
            )
        self._wait()

    def events(self) -> list[str]:
        """What the autoscaler says that it did."""
        logs = self.folder.glob("ray/session_2*/logs/monitor.log")
        lines = [line for log in logs for line in log.read_text().splitlines()]
        # The first version begins its lines with the first of these marks, the second one with the name of a file.
        marked = [re.split(r":event_summary:|event_logger\.py:\d+ -- ", line, maxsplit=1) for line in lines]
        return [parts[1] for parts in marked if len(parts) == 2]

    def close(self) -> None:
        """End every process of it at once."""
        head = psutil.Process(self._process.pid)
        for process in [head, *head.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()

    def _wait(self) -> None:
        host, _, port = self.address.rpartition(":")
        ends = time.monotonic() + START_S
        while "Ray runtime started" not in (self.folder / "head.log").read_text():
            if self._process.poll() is not None or time.monotonic() > ends:
                raise TimeoutError((self.folder / "head.log").read_text())
            time.sleep(0.2)
        socket.create_connection((host, int(port)), timeout=5).close()

    def _config(self, most: int, idle_s: float) -> dict[str, Any]:
        # By name the provider would be completed from a file that Ray's wheel does not have.
        provider = {"type": "external", "module": PROVIDER, "gcs_address": self.address, "head_node_id": HEAD}
        gpu = {"GPU": self._gpus} if self._gpus else {}
        types = {
            "worker": {"resources": {"CPU": 1, **gpu, "object_store_memory": STORE_BYTES}, "max_workers": most},
            "ray.head.default": {"resources": {"CPU": self._head_cpus}, "max_workers": 0},
        }
        commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
        nothing = [*(f"{name}_commands" for name in commands), "cluster_synced_files", "rsync_exclude", "rsync_filter"]
        return {
            "cluster_name": "fake",
            "max_workers": most,
            "idle_timeout_minutes": idle_s / 60,
            "upscaling_speed": 100,
            "provider": {
                **provider,
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
                "use_node_id_as_ip": True,
                "launch_multiple": True,
            },
            "available_node_types": {
                name: {"node_config": {}, "min_workers": 0, **kind} for name, kind in types.items()
            },
            "head_node_type": "ray.head.default",
            **{name: list[str]() for name in nothing},
            **{name: dict[str, str]() for name in ("auth", "docker", "file_mounts")},
            "file_mounts_sync_continuously": False,
        }

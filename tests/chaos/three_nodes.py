"""Three Ray nodes with tokens on hosts of their own, and a sweep that is sent to them from a fourth.

`python -m tests.chaos.three_nodes`, as root on Linux: submits a sweep and leaves it, finds it again, kills a node, adds
another half-way, and looks at the records, at what each node trained, and at what every port tells who has no token.
Prints what it saw; its exit status is 1 where anything is not as it should be.
"""

# ruff: noqa: T201  a command line

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from orchestrator.store import Store
from tests.chaos import ports
from tests.chaos.hosts import Host, Network, can_be_had
from tests.chaos.sweep import Ground

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 900.0
# How often a node's start is tried.
STARTS = 5
NAME = "three"


class Cluster:
    """The hosts, and what runs on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ground = Ground(folder / "ground", rows=512, num_epochs=40)
        self.ground.home.mkdir()
        self.ground.write()
        (token := folder / "token").touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        plain = {name: value for name, value in self.ground.environment().items() if not name.startswith("RAY_AUTH")}
        plain |= {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        # What the cluster files set too: metrics are shown to whoever asks.
        plain |= {"RAY_enable_metrics_collection": "0", "AUTOSCALER_METRIC_PORT": "-1", "DASHBOARD_METRIC_PORT": "-1"}
        self.plain = plain
        self.environment = plain | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        self.network = Network(os.getpid() % 256)
        self.head = self.network.host("head")
        self.nodes = {"head": self.head}
        self.client = self.network.host("client")
        try:
            self._ray(self.head, "--head", "--port=6379", "--dashboard-host=0.0.0.0", "--dashboard-port=8265")
        except BaseException:
            self.network.close()
            raise
        self.jobs = f"http://{self.head.address}:8265"

    def add(self, name: str) -> None:
        """Have a node join."""
        self.nodes[name] = self.network.host(name)
        self._ray(self.nodes[name], f"--address={self.head.address}:6379")

    def adaptune(self, *arguments: str) -> tuple[int, str]:
        """A command on the host that is no node."""
        return self.client.run(
            [sys.executable, "-m", "adaptune", *arguments], self.environment, cwd=self.folder, timeout=PATIENCE_S
        )

    def answers_without_token(self) -> dict[str, dict[str, dict[str, str]]]:
        """By node and port that others can reach, what somebody on the fourth host hears who has no token."""
        found = {}
        for name, host in self.nodes.items():
            _, listed = host.run(["ss", "-Hltn"], self.plain)
            open_ports = {
                place.rpartition(":")[2] for line in listed.splitlines() if not _is_loopback(place := line.split()[3])
            }
            script = [sys.executable, str(Path(ports.__file__)), host.address, *sorted(open_ports, key=int)]
            status, said = self.client.run(script, self.plain, timeout=PATIENCE_S)
            assert status == 0, said
            found[name] = json.loads(said.splitlines()[-1])
        return found

    def _ray(self, host: Host, *options: str) -> None:
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats"]
        command += [f"--node-ip-address={host.address}", "--num-cpus=1", "--object-store-memory=80000000"]
        command += options
        for number in range(STARTS):
            log = self.folder / f"{host.name}-{number}.log"
            process = host.start([*command, f"--temp-dir={self.folder}/{host.name}{number}"], log, self.environment)
            while process.poll() is None:
                if "Ray runtime started" in log.read_text():
                    return
                time.sleep(0.2)
            host.kill()  # Ray gives up after half a minute, which is too soon on a busy machine
        raise TimeoutError(log.read_text())


def _is_loopback(place: str) -> bool:
    return place.startswith(("127.", "[::1]", "[::ffff:127."))


def wait_until(condition: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError(f"{what} did not come about within {PATIENCE_S:.0f} s")
        time.sleep(0.5)


def main() -> int:
    if not can_be_had():
        print("this takes root on Linux, `ip` and `unshare`")
        return 2
    folder = Path(tempfile.mkdtemp(prefix="a3n-", dir="/tmp"))  # short: Ray's sockets lie in it
    cluster = None
    try:
        cluster = Cluster(folder)
        faults = play(cluster)
    finally:
        if cluster is not None:
            cluster.network.close()
    print(*(f"VIOLATED: {fault}" for fault in faults), sep="\n")
    if not faults:
        shutil.rmtree(folder, ignore_errors=True)
        print("as it should be")
    return 1 if faults else 0


def play(cluster: Cluster) -> list[str]:
    """What is seen is printed; what is not as it should be comes back."""
    began, faults = time.monotonic(), []

    def tell(line: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {line}", flush=True)

    def run(*arguments: str, status: int = 0) -> str:
        ended, said = cluster.adaptune(*arguments)
        tell(f"adaptune {arguments[0]}: {ended}")
        print(*(f"            {line}" for line in said.strip().splitlines()), sep="\n", flush=True)
        if ended != status:
            faults.append(f"adaptune {' '.join(arguments)} ended with {ended}, not {status}")
        return said

    for name in ("second", "third"):
        cluster.add(name)
    wait_until(lambda: cluster.adaptune("jobs", "--address", cluster.jobs)[0] == 0, "the head")
    tell("three nodes were started")
    sweep, store = cluster.ground.sweep_file(cluster.folder, NAME), cluster.folder / "store"
    run("submit", str(sweep), "--address", cluster.jobs, "--store", str(store), "--detach")
    opened = Store(store)

    def finished() -> int:
        return sum(status.is_finished() for status in opened.statuses().values()) if opened.exists() else 0

    wait_until(lambda: finished() >= 2, "the second record")
    run("jobs", "--address", cluster.jobs)
    run("status", "--address", cluster.jobs)
    told = cluster.answers_without_token()
    for name, by_port in told.items():
        heard = Counter(answer for answers in by_port.values() for answer in answers.values())
        tell(f"without the token, {len(by_port)} ports of {name} say: {dict(heard)}")
        for port, answers in by_port.items():
            said = set(answers.values())
            if not said & ports.REFUSED or not said <= ports.REFUSED | ports.NOTHING_THERE:
                faults.append(f"port {port} of {name} did not turn somebody without a token away: {answers}")
    cluster.nodes.pop("second").kill()
    tell(f"the second node was killed, after {finished()} records")
    wait_until(lambda: finished() >= 4, "half of the records")
    cluster.add("fourth")
    tell(f"a fourth node was started, after {finished()} records")
    # Some trials of this sweep diverge, as they should.
    log = run("logs", NAME, "--address", cluster.jobs, "--follow", status=1)
    planned = int(next(re.finditer(r"(\d+) trials planned", log))[1])
    rows = opened.trials().to_pylist()
    if len(rows) != planned or len({row["trial_id"] for row in rows}) != planned:
        faults.append(f"{planned} trials were planned, and {len(rows)} records are there")
    shown = subprocess.run(
        [sys.executable, "-m", "adaptune", "status", str(store)],
        env=cluster.plain,
        capture_output=True,
        text=True,
        check=False,
    )
    print(shown.stdout)
    share = Counter(row["engine"].rpartition("/")[0] for row in rows if row["engine"])
    tell(f"trials by node: {dict(share)}")
    if len(share) < 2:
        faults.append("one node trained everything")
    return faults


if __name__ == "__main__":
    sys.exit(main())

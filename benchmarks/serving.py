"""What a server of ten adapters stands: 50 clients, each with one request after the other, for a minute.

The adapters are those of `bank.py`. Each request has 1 to 4 texts of any of the tasks, and each answer is held against
what its adapter says alone. `ADAPTUNE_BENCH_SECONDS` sets how long, `ADAPTUNE_BENCH_CLIENTS` how many clients.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import bank
from trainables.backbones.loading import Backbone
from trainables.inference.saved_adapter import load

BACKBONE = "minilm"
TEXTS = 40  # that are asked for, of each task
TOLERANCE = 1e-4


def measure() -> Mapping[str, float]:
    """Requests and what came of them, by the clock of the clients."""
    seconds = float(os.environ.get("ADAPTUNE_BENCH_SECONDS", "60"))
    clients = int(os.environ.get("ADAPTUNE_BENCH_CLIENTS", "50"))
    with tempfile.TemporaryDirectory() as folder:
        bank.write_adapters(BACKBONE, Path(folder))
        texts = bank.texts_of(TEXTS, 0)
        backbone: Backbone | None = None
        expected = {}
        for number in range(len(bank.TASKS)):
            predictor = load(Path(folder) / f"task{number}", backbone=backbone)
            backbone = predictor.backbone
            expected[f"task{number}"] = predictor.logits(texts)
        command = [sys.executable, "-m", "adaptune", "serve", "--adapters", folder, "--port", "0", "--device", "cpu"]
        began = time.perf_counter()
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        line = process.stderr.readline()
        start_s = time.perf_counter() - began
        port = int(line.partition("127.0.0.1:")[2].partition(".")[0])
        crowd = Crowd(port, texts, expected)
        found = crowd.run(clients, seconds)
        process.send_signal(signal.SIGTERM)
        status = process.wait()
    return {"start_s": start_s, "clients": float(clients), **found, "exit_status": float(status)}


class Crowd:
    """Clients of a server, and what they met."""

    def __init__(self, port: int, texts: list[str], expected: Mapping[str, np.ndarray]) -> None:
        self._port, self._texts, self._expected = port, texts, expected
        self._until = 0.0
        self._lock = threading.Lock()
        self._times: list[float] = []
        self._answered = self._errors = self._wrong = 0

    def run(self, clients: int, seconds: float) -> dict[str, float]:
        began = time.perf_counter()
        self._until = began + seconds
        threads = [threading.Thread(target=self._client, args=[seed]) for seed in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - began
        p50, p95, most = np.quantile(self._times, [0.5, 0.95, 1.0])
        return {
            "requests": float(len(self._times)),
            "errors": float(self._errors),
            "wrong_answers": float(self._wrong),
            "texts_per_second": self._answered / took,
            "p50_s": float(p50),
            "p95_s": float(p95),
            "slowest_s": float(most),
        }

    def _client(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        names = list(self._expected)
        while time.perf_counter() < self._until:
            rows = [(str(rng.choice(names)), int(rng.integers(TEXTS))) for _ in range(rng.integers(1, 5))]
            began = time.perf_counter()
            try:
                answer = self._ask(connection, rows)
            except (OSError, http.client.HTTPException, ValueError):
                answer = None
                connection.close()
            took = time.perf_counter() - began
            wrong = 0
            if answer is not None:
                for (name, row), output in zip(rows, answer, strict=True):
                    wrong += not np.allclose(output["logits"], self._expected[name][row], atol=TOLERANCE)
            with self._lock:
                self._times.append(took)
                self._errors += answer is None
                self._wrong += wrong
                self._answered += 0 if answer is None else len(rows)
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, rows: list[tuple[str, int]]) -> Any:
        inputs = [{"adapter": name, "text": self._texts[row]} for name, row in rows]
        body = json.dumps({"inputs": inputs, "logits": True})
        connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = json.loads(answer.read())
        if answer.status != 200:
            raise ValueError(content["error"])
        return content["outputs"]

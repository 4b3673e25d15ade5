"""Many rounds on one cluster, one disk and one MLflow, beside the table of the sweep that nothing happened to."""

from __future__ import annotations

import contextlib
import logging
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from orchestrator.record import TrialStatus
from tests.chaos import tracking
from tests.chaos.bucket import Bucket
from tests.chaos.checks import Row, compare_mlflow, table
from tests.chaos.disk import Disk
from tests.chaos.nodes import Nodes
from tests.chaos.rounds import Result, Round, Strike, clear, draw
from tests.chaos.scene import Scene
from tests.chaos.sweep import DIVERGING, Ground

WORKERS = 1
# Rounds tell what they do to a store and a cluster; what those say to us of it is no news.
_QUIET = ("orchestrator.store", "ray")


class Session:
    """What rounds have in common. A context that ends every process it started."""

    def __init__(self, folder: Path, seed: int, ground: Ground | None = None) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.folder = folder
        self._seed = seed
        self._ground = ground or Ground(folder / "ground")
        self._expected: Sequence[Row] = ()

    def __enter__(self) -> Session:
        self._levels = {name: logging.getLogger(name).level for name in _QUIET}
        for name in _QUIET:
            logging.getLogger(name).setLevel(logging.ERROR)
        self.folder.mkdir(parents=True)
        self._ground.write()
        with contextlib.ExitStack() as opened:  # ends what it has begun where the next cannot begin
            self._disk = Disk(self.folder / "disk")
            opened.callback(self._disk.close)
            self._database = tracking.Database(self.folder)
            opened.callback(self._database.close)
            self._server = tracking.Server(self.folder)
            opened.callback(self._server.close)
            self._bucket = Bucket()
            opened.callback(self._bucket.close)
            self._nodes = Nodes(WORKERS)
            opened.callback(self._nodes.close)
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)
        self._opened.close()

    def undisturbed(self) -> Result:
        """Run the sweep with nothing done to it, which is what all rounds are compared with."""
        scene = self._scene("undisturbed", with_server=False)
        played = Round(scene, [], [], number=-1)
        result = played.play(checks=False)
        if not result.violations:
            self._expected = table(scene.store)
            result.violations = [
                f"{row['trial_id']} {row['status']}: {row['error']}"
                for row in self._expected
                if (row["status"] == TrialStatus.COMPLETED) is (row["learning_rate"] == DIVERGING)
            ]
            result.violations += compare_mlflow(scene.store, *tracking.runs(scene.mlflow.uri, scene.name))
        clear(scene, keep=True)
        return result

    def play(self, number: int, strikes: Sequence[Strike] | None = None) -> Result:
        """Play a round: its own strikes, or those given."""
        strikes = draw(self._seed, number, len(self._expected)) if strikes is None else strikes
        with_bucket = any(strike.fault.needs_bucket for strike in strikes)
        if with_bucket:
            strikes = [strike for strike in strikes if not strike.fault.needs_disk]
        with_server = any(strike.fault.needs_server for strike in strikes)
        scene = self._scene(f"round-{number}", with_server=with_server, with_bucket=with_bucket)
        while len(self._nodes) < 1 + WORKERS:  # of an earlier round that ended before its node was replaced
            self._nodes.join()
        result = Round(scene, strikes, self._expected, number).play()
        clear(scene, keep=bool(result.violations))
        return result

    def _scene(self, name: str, *, with_server: bool, with_bucket: bool = False) -> Scene:
        folder = self.folder / name
        folder.mkdir()
        if with_server:
            self._server.start()
            self._server.wait()
        scene = Scene(
            ground=self._ground,
            nodes=self._nodes,
            disk=self._disk,
            mlflow=self._server if with_server else self._database,
            folder=folder,
            name=f"chaos-{name}",
            random=random.Random(f"{self._seed}/{name}"),
            bucket=self._bucket if with_bucket else None,
        )
        self._ground.sweep_file(folder, scene.name)
        return scene

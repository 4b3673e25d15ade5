"""Everything that is broken on purpose, and how it is mended where it does not mend itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.nodes import ENGINE, POOL, TRIAL
from tests.chaos.scene import Scene
from tests.chaos.tracking import Database, Server

TORN = "0badc0de"  # in the name of every segment that was torn on purpose


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that can go wrong. `strike` tells whether there was something to break; if not, it is tried again."""

    name: str
    strike: Callable[[Scene], bool]
    mend: Callable[[Scene], None] | None = None
    lasts_s: tuple[float, float] = (0.0, 0.0)  # until it is mended, at least and at most
    needs_server: bool = False
    most: int = 3  # times in one round


def _kill(title: str) -> Callable[[Scene], bool]:
    def strike(scene: Scene) -> bool:
        found = scene.nodes.processes(title)
        if found:
            scene.nodes.kill(scene.random.choice(sorted(found, key=lambda process: process.pid)))
        return bool(found)

    return strike


def _kill_node(scene: Scene) -> bool:
    """Only one that has something to do, or that is about to."""
    return scene.nodes.kill_worker()


def _kill_driver(scene: Scene) -> bool:
    scene.driver.allowed |= {-9}
    scene.driver.kill()
    return True


def _interrupt(scene: Scene) -> bool:
    if "planned" not in scene.driver.messages():  # before that it is Python that is interrupted while it loads
        return False
    scene.driver.allowed |= {130}
    scene.driver.interrupt()
    return True


def _interrupt_again(scene: Scene) -> None:
    scene.driver.interrupt()


def _lock_mlflow(scene: Scene) -> bool:
    return isinstance(scene.mlflow, Database) and scene.mlflow.lock()


def _unlock_mlflow(scene: Scene) -> None:
    if isinstance(scene.mlflow, Database):
        scene.mlflow.unlock()


def _kill_mlflow(scene: Scene) -> bool:
    return isinstance(scene.mlflow, Server) and scene.mlflow.kill()


def _restart_mlflow(scene: Scene) -> None:
    if isinstance(scene.mlflow, Server):
        scene.mlflow.start()


def _fill_disk(scene: Scene) -> bool:
    if not scene.store.exists():
        return False
    scene.disk.fill(scene.driver.pid)
    if "engines ready" not in scene.driver.messages():
        scene.may_be_refused()
    return True


def _tear_segment(scene: Scene) -> bool:
    """Leave half a segment in the store, and half of one that was never finished."""
    segments = sorted((scene.store / "trials").glob("part-*.parquet"))
    if not segments:
        return False
    content = segments[-1].read_bytes()
    half, number = content[: len(content) // 2], int(segments[-1].name.split("-")[1])
    folder = scene.store / "trials"
    (folder / f"part-{number + 1:08d}-{TORN}.parquet").write_bytes(half)
    (folder / f".part-{number + 2:08d}-{TORN}.parquet.00000000.tmp").write_bytes(half)
    return True


FAULTS = (
    Fault(name="trial killed", strike=_kill(TRIAL)),
    Fault(name="engine killed", strike=_kill(ENGINE), most=2),  # of more, one trial may be to blame
    Fault(name="pool killed", strike=_kill(POOL)),
    Fault(name="node killed", strike=_kill_node, mend=lambda scene: scene.nodes.join(), lasts_s=(0.0, 10.0)),
    Fault(name="driver killed", strike=_kill_driver, most=1),
    Fault(name="interrupted once", strike=_interrupt, most=1),
    Fault(name="interrupted twice", strike=_interrupt, mend=_interrupt_again, lasts_s=(0.1, 2.0), most=1),
    Fault(name="MLflow locked", strike=_lock_mlflow, mend=_unlock_mlflow, lasts_s=(2.0, 12.0)),
    Fault(name="MLflow killed", strike=_kill_mlflow, mend=_restart_mlflow, lasts_s=(1.0, 10.0), needs_server=True),
    Fault(name="disk full", strike=_fill_disk, mend=lambda scene: scene.disk.free(), lasts_s=(1.0, 8.0)),
    Fault(name="segment torn", strike=_tear_segment),
)
BY_NAME = {fault.name: fault for fault in FAULTS}

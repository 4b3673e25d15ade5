"""Everything that is broken on purpose, and how it is mended where it does not mend itself."""

from __future__ import annotations

import contextlib
import errno
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.chaos.machine import has_memory_limits, has_namespaces
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
    needs_bucket: bool = False
    needs_disk: bool = False  # what it breaks is a file
    loses_engine: bool = False  # by a crash, of which a trial bears two
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
    scene.interrupted = scene.driver
    return True


def _interrupt_again(scene: Scene) -> None:
    """The same driver, which may have ended."""
    if scene.interrupted is not None:
        # One that ends at once already, since it was hung up besides, catches no signal any more as Python leaves. A
        # shell says 130 of that too.
        scene.interrupted.allowed |= {-signal.SIGINT}
        scene.interrupted.interrupt()


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


def _hang_up(scene: Scene) -> bool:
    if "planned" not in scene.driver.messages():
        return False
    scene.driver.allowed |= {129}
    scene.driver.hang_up()
    return True


def _stop_engine(scene: Scene) -> bool:
    """As an engine that waits for a lock or a device for ever, or for as long as the fault lasts."""
    found = scene.nodes.processes(ENGINE)
    if found:
        engine = scene.random.choice(sorted(found, key=lambda process: process.pid))
        with contextlib.suppress(psutil.Error):
            engine.suspend()
            scene.stopped.append(engine)
    return bool(found)


def _wake_engines(scene: Scene) -> None:
    while scene.stopped:
        with contextlib.suppress(psutil.Error):  # killed meanwhile
            scene.stopped.pop().resume()


def _want_memory(scene: Scene) -> bool:
    found = scene.nodes.processes(ENGINE)
    return bool(found) and scene.memory_limit.put(scene.random.choice(found).pid)


def _intrude(scene: Scene) -> bool:
    """Only on a driver that has its store for sure."""
    if "planned" not in scene.driver.messages() or scene.driver.poll() is not None:
        return False
    scene.intrude()
    return True


def _jump_clock(scene: Scene) -> bool:
    scene.clock.jump(scene.random.choice((-1, 1)) * scene.random.uniform(60, 5 * 3600))
    return True


def _leave_bucket(scene: Scene) -> bool:
    if scene.bucket is None or not scene.has_store() or not scene.bucket.leave():
        return False
    if "engines ready" not in scene.driver.messages():
        scene.may_be_refused()
    return True


def _return_bucket(scene: Scene) -> None:
    if scene.bucket is not None:
        scene.bucket.come_back()


def _fill_disk(scene: Scene) -> bool:
    if not scene.has_store():
        return False
    scene.disk.fill(scene.driver.pid)
    if "engines ready" not in scene.driver.messages():
        scene.may_be_refused()
    return True


def _tear_segment(scene: Scene) -> bool:
    """Leave half a segment in the store, and half of one that was never finished; not while the disk is full."""
    assert isinstance(scene.store, Path)
    segments = sorted((scene.store / "trials").glob("part-*.parquet"))
    if not segments:
        return False
    content = segments[-1].read_bytes()
    half, number = content[: len(content) // 2], int(segments[-1].name.split("-")[1])
    folder = scene.store / "trials"
    torn = folder / f"part-{number + 1:08d}-{TORN}.parquet"
    unfinished = folder / f".part-{number + 2:08d}-{TORN}.parquet.00000000.tmp"
    try:
        torn.write_bytes(half)
        unfinished.write_bytes(half)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        for file in (torn, unfinished):
            file.unlink(missing_ok=True)
        return False
    return True


ALL = (
    Fault(name="trial killed", strike=_kill(TRIAL)),
    Fault(name="engine killed", strike=_kill(ENGINE), most=2, loses_engine=True),
    Fault(name="pool killed", strike=_kill(POOL)),
    Fault(name="node killed", strike=_kill_node, mend=lambda scene: scene.nodes.join(), lasts_s=(0.0, 10.0)),
    Fault(name="driver killed", strike=_kill_driver, most=1),
    Fault(name="interrupted once", strike=_interrupt, most=1),
    Fault(name="interrupted twice", strike=_interrupt, mend=_interrupt_again, lasts_s=(0.1, 2.0), most=1),
    Fault(name="MLflow locked", strike=_lock_mlflow, mend=_unlock_mlflow, lasts_s=(2.0, 12.0)),
    Fault(name="MLflow killed", strike=_kill_mlflow, mend=_restart_mlflow, lasts_s=(1.0, 10.0), needs_server=True),
    Fault(
        name="disk full", strike=_fill_disk, mend=lambda scene: scene.disk.free(), lasts_s=(1.0, 8.0), needs_disk=True
    ),
    Fault(name="segment torn", strike=_tear_segment, needs_disk=True),
    # Of three minutes and more it is killed and started again.
    Fault(name="engine hung", strike=_stop_engine, mend=_wake_engines, lasts_s=(5.0, 230.0), most=1, loses_engine=True),
    Fault(name="hung up", strike=_hang_up, most=1),
    Fault(name="second driver", strike=_intrude, most=2),
    Fault(name="clock jumped", strike=_jump_clock, most=3),
    Fault(
        name="engine out of memory",
        strike=_want_memory,
        mend=lambda scene: scene.memory_limit.take_back(),
        lasts_s=(3.0, 10.0),
        most=1,
        loses_engine=True,
    ),
    Fault(
        name="bucket away", strike=_leave_bucket, mend=_return_bucket, lasts_s=(2.0, 60.0), needs_bucket=True, most=2
    ),
)
# What this machine lets nobody do is left out.
FAULTS = tuple(
    fault
    for fault in ALL
    if (fault.name != "second driver" or has_namespaces())
    and (fault.name != "engine out of memory" or has_memory_limits())
)
BY_NAME = {fault.name: fault for fault in FAULTS}

"""One round: a sweep that meets its faults and is resumed until it has come to its end, and what must hold then."""

from __future__ import annotations

import random
import shutil
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos import tracking
from tests.chaos.checks import Row, compare, compare_mlflow
from tests.chaos.faults import FAULTS, TORN, Fault
from tests.chaos.scene import Scene

# A driver hangs of which nothing is seen for so long: no record, no word. How long a round takes says little: on a
# machine that many others use one took ten times as long as on a quiet one. No round lasts longer than the second.
STILL_S, ROUND_S = 480.0, 3600.0
MOST_DRIVERS = 8
# Of more that crash in a round, one trial may be to blame, and be given up.
ENGINES_LOST = 2
_LOOK_AT_PROGRESS_EVERY_S = 5.0
_LOOK_EVERY_S = 0.1
# Exit statuses: of a sweep that came to its end (one kind of trial diverges), of one that could not begin, of SIGKILL.
SOME_FAILED, REFUSED, KILLED = 1, 2, -9


@dataclass(frozen=True, kw_only=True)
class Strike:
    """A fault and its moment: so long after so many trials have finished records."""

    fault: Fault
    after_trials: int
    delay_s: float
    lasts_s: float


@dataclass(kw_only=True)
class Result:
    """What came of a round."""

    number: int
    faults: list[str]
    met: list[str] = field(default_factory=list)  # those for which the sweep was not over too soon
    violations: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    drivers: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def draw(seed: int, number: int, num_trials: int, faults: Sequence[Fault] = FAULTS) -> list[Strike]:
    """The faults of a round. Each comes first in every so many rounds; up to three others come with it."""
    chance = random.Random(f"{seed}/{number}")
    first = random.Random(f"{seed}/{number // len(faults)}").sample(faults, len(faults))[number % len(faults)]
    strikes: list[Strike] = []
    for fault in [first, *chance.choices(faults, k=chance.choice((0, 1, 2, 3)))]:
        if sum(strike.fault is fault for strike in strikes) == fault.most:
            continue
        if fault.loses_engine and sum(strike.fault.loses_engine for strike in strikes) == ENGINES_LOST:
            continue
        strikes.append(
            Strike(
                fault=fault,
                after_trials=chance.randint(0, num_trials * 2 // 3),
                delay_s=chance.uniform(0, 1.5),
                lasts_s=chance.uniform(*fault.lasts_s),
            )
        )
    return sorted(strikes, key=lambda strike: strike.after_trials)


class Round:
    """Plays strikes on a scene."""

    def __init__(self, scene: Scene, strikes: Sequence[Strike], expected: Sequence[Row], number: int) -> None:
        self._scene = scene
        self._strikes = list(strikes)
        self._expected = expected
        self._mends: list[tuple[float, Fault]] = []
        self._due: float | None = None  # when the next strike is, once its number of trials has been reached
        self.result = Result(number=number, faults=[_words(strike) for strike in strikes])

    def play(self, *, checks: bool = True) -> Result:
        """Run the sweep to its end through all of its faults, and check what it left."""
        scene, result = self._scene, self.result
        try:
            self._run_to_the_end()
            if checks and not result.violations:
                self._check()
        except Exception:  # of the harness, or of a store that cannot be read: the other rounds go on
            self._violated(traceback.format_exc())
        finally:
            self._mend(everything=True)
            for driver in [*scene.drivers, *scene.intruders]:
                driver.kill()
                driver.wait(30)
            result.log, result.drivers = scene.log, len(scene.drivers)
            result.seconds = round(time.monotonic() - scene.began, 1)
        return result

    def _run_to_the_end(self) -> None:
        scene = self._scene
        while not self.result.violations and len(scene.drivers) < MOST_DRIVERS:
            scene.start()
            status = self._watch()
            if status is None:
                self._violated(f"the driver hung: {scene.driver.messages()[-2000:]}")
                return
            scene.note(f"driver ended: {status}")
            for fault in scene.end_intruders():
                self._violated(fault)
            answer = scene.driver.answer() if status != KILLED else None
            if status == REFUSED:
                self._mend(everything=True)
            if status == SOME_FAILED and answer and not answer["interrupted"]:
                if "lacks part of this sweep" not in scene.driver.messages():
                    return
                self._mend(everything=True)  # resuming fills the gap
                if isinstance(scene.mlflow, tracking.Server):
                    scene.mlflow.wait()
            elif status not in scene.driver.allowed:
                self._violated(f"the driver ended with {status}: {scene.driver.messages()[-3000:]}")
        if len(scene.drivers) >= MOST_DRIVERS:
            self._violated(f"not at its end after {MOST_DRIVERS} drivers")

    def _watch(self) -> int | None:
        """Break and mend what is due until the driver has ended; None where it does not end in time."""
        scene = self._scene
        seen, seen_at, next_look = (0, 0), time.monotonic(), 0.0
        while time.monotonic() - scene.began < ROUND_S:
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + _LOOK_AT_PROGRESS_EVERY_S
                now_seen = (scene.finished(), len(scene.driver.messages()))
                if now_seen != seen:
                    seen, seen_at = now_seen, time.monotonic()
                elif time.monotonic() - seen_at > STILL_S:
                    return None
            if (status := scene.driver.poll()) is not None:
                return status
            self._mend()
            self._strike()
            time.sleep(_LOOK_EVERY_S)
        return None

    def _strike(self) -> None:
        if not self._strikes:
            return
        strike = self._strikes[0]
        now = time.monotonic()
        if self._due is None and self._scene.finished() >= strike.after_trials:
            self._due = now + strike.delay_s
        if self._due is None or now < self._due or not strike.fault.strike(self._scene):
            return
        self._scene.note(strike.fault.name)
        self.result.met.append(strike.fault.name)
        self._due = None
        del self._strikes[0]
        if strike.fault.mend is not None:
            self._mends.append((now + strike.lasts_s, strike.fault))

    def _mend(self, *, everything: bool = False) -> None:
        for when, fault in list(self._mends):
            if fault.mend is not None and (everything or time.monotonic() >= when):
                fault.mend(self._scene)
                self._mends.remove((when, fault))
                self._scene.note(f"mended: {fault.name}")

    def _check(self) -> None:
        scene = self._scene
        self._mend(everything=True)
        for fault in compare(scene.store, self._expected):
            self._violated(fault)
        if isinstance(scene.mlflow, tracking.Server):
            scene.mlflow.wait()
        for fault in compare_mlflow(scene.store, *tracking.runs(scene.mlflow.uri, scene.name)):
            self._violated(fault)
        said = "".join(driver.messages() for driver in scene.drivers)
        is_torn = isinstance(scene.store, Path) and any((scene.store / "trials").glob(f"part-*{TORN}*"))
        if is_torn and TORN not in said:
            self._violated("nobody was told of the torn segment")
        if "Traceback" in said:
            self._violated(f"a user saw a traceback: {said[said.index('Traceback') :][:3000]}")

    def _violated(self, what: str) -> None:
        self.result.violations.append(what)


def clear(scene: Scene, *, keep: bool) -> None:
    """Make room on the disk of the stores, keeping a round's store beside what its drivers said where it is needed."""
    if not isinstance(scene.store, Path):
        return
    if keep and scene.store.exists():
        shutil.copytree(scene.store, scene.folder / "store", dirs_exist_ok=True)
    shutil.rmtree(scene.store, ignore_errors=True)


def _words(strike: Strike) -> str:
    lasting = f" for {strike.lasts_s:.1f} s" if strike.lasts_s else ""
    return f"{strike.fault.name}{lasting}, {strike.delay_s:.1f} s after {strike.after_trials} trials"

"""What is shown of a running sweep: trials done, running and failed, the engines, the best per task, time left.

Where it is shown is told elsewhere: on a terminal by `orchestrator.cli.progress`, in a notebook by
`orchestrator.run.notebook`.
"""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.analysis.text import wording
from orchestrator.engine_status import EngineStatus
from orchestrator.planning.plan import PlannedTrial, Varied
from orchestrator.record import TrialRecord, TrialStatus, describe_trial
from orchestrator.spec.backbones import apart
from trainables import metrics
from trainables.config import Scalar
from trainables.outcome import EpochReport

# Without any engine for so long, the user is told: engines that are started again are back within moments.
NO_ENGINE_S = 5.0

_PLANNED = re.compile(r"^(?P<planned>\d+) trials planned(?:, (?P<done>\d+) of them finished earlier)?", re.MULTILINE)
_LINE = re.compile(r"^(?P<done>\d+)/(?P<planned>\d+) trials done, ", re.MULTILINE)
_STATUS_LINE = re.compile(r"^(?P<planned>[\d,]+) trials?: (?P<counts>(?:[\d,]+ [a-z ]+(?:, )?)+)\.$", re.MULTILINE)


def progress_in(log: str) -> tuple[int, int] | None:
    """How many trials have ended for good and how many are planned, as the log of a sweep said last; None before that.

    Read from what `LiveProgress` says, and from the status line that a sweep ends with.
    """
    found = [list(pattern.finditer(log))[-1:] for pattern in (_PLANNED, _LINE, _STATUS_LINE)]
    if not any(found):
        return None
    last = max((match for matches in found for match in matches), key=lambda match: match.start())
    planned = _number(last["planned"])
    if last.re is not _STATUS_LINE:
        return _number(last["done"] or "0"), planned
    counts = {word: _number(number) for number, word in re.findall(r"([\d,]+) ([a-z ]+)", last["counts"])}
    for_good = (TrialStatus.COMPLETED, TrialStatus.PRUNED, TrialStatus.FAILED)
    return sum(counts.get(status.value, 0) for status in for_good), planned


def _number(text: str) -> int:
    return int(text.replace(",", ""))


class LiveProgress(ABC):
    """Keeps what is shown of a sweep while it runs; a `Progress`."""

    def __init__(self, varied: Varied, backbones: Sequence[str] = ()) -> None:
        """`varied`: what to mention of each method's trials, beside task and replicate; `backbones`: the sweep's."""
        self._varied = varied
        self._backbones = apart(backbones)
        self._total = self._done_before = self._loading = 0
        self._engines: Sequence[EngineStatus] = ()
        self._engines_seen = time.monotonic()
        self._lacks_engines = self._lacks_storage = False
        self._ended: dict[TrialStatus, int] = {}
        self._running: dict[str, tuple[PlannedTrial, EpochReport | None]] = {}
        self._best: dict[str, TrialRecord] = {}
        self._first_start: float | None = None

    @abstractmethod
    def say(self, line: str) -> None:
        """Show a line that stays."""

    @abstractmethod
    def changed(self) -> None:
        """What `panel` shows has changed."""

    def planned(self, trials: int, done: int) -> None:
        self._total, self._done_before = trials, done
        if done:
            self.say(f"{trials} trials planned, {done} of them finished earlier, {trials - done} to train")
        else:
            self.say(f"{trials} trials planned")

    def notice(self, line: str) -> None:
        self.say(line)

    def engines_starting(self, count: int) -> None:
        self._loading = max(1, count)
        if not count:
            self.say("The cluster has nothing to train on yet: waiting for a node")

    def engines_ready(self, names: Sequence[str]) -> None:
        self._loading = 0
        self._engines_seen = time.monotonic()  # a status that was asked for before, and names none, may come after this
        shown = ", ".join(sorted(set(names)))
        self.say(f"{len(names)} engine{'' if len(names) == 1 else 's'} ready on {shown}")

    def engines_working(self, engines: Sequence[EngineStatus]) -> None:
        self._engines = engines
        self.changed()
        if engines or self._loading:
            self._engines_seen = time.monotonic()
        lacks = time.monotonic() - self._engines_seen >= NO_ENGINE_S
        if lacks is not self._lacks_engines:
            self._lacks_engines = lacks
            self.say("No engine is left: trials wait until one is back." if lacks else "An engine is back.")

    def trial_started(self, trial: PlannedTrial) -> None:
        self._first_start = self._first_start or time.monotonic()
        self._running[trial.trial_id] = (trial, None)
        self.changed()

    def epoch_ended(self, trial: PlannedTrial, epoch: EpochReport) -> None:
        self._running[trial.trial_id] = (trial, epoch)
        self.changed()

    def trial_ended(self, record: TrialRecord) -> None:
        self._running.pop(record.trial_id, None)
        self._ended[record.status] = self._ended.get(record.status, 0) + 1
        if record.status is TrialStatus.COMPLETED and _beats(record, self._best.get(record.task)):
            self._best[record.task] = record
        if record.status is TrialStatus.FAILED:
            last_line = (record.error or "unknown error").strip().splitlines()[-1]
            self.say(f"failed: {record.task} {self._record_words(record)}: {last_line}")
        self.changed()

    def storage_failing(self, reason: str, waiting: int) -> None:
        if not self._lacks_storage:
            self._lacks_storage = True
            used = "written" if waiting else "used"
            held = f", holding {wording.plural(waiting, 'trained trial')} to record," if waiting else ""
            self.say(f"The store cannot be {used}: {reason}. The sweep waits{held} and continues when it can.")

    def storage_back(self) -> None:
        if self._lacks_storage:
            self._lacks_storage = False
            self.say("The store can be used again: nothing was lost, and the sweep goes on.")

    def _done(self) -> int:
        """Trials that have ended for good; a cancelled one will be tried again."""
        return self._done_before + sum(n for status, n in self._ended.items() if status is not TrialStatus.CANCELLED)

    def line(self) -> str:
        """How far it is, in a line."""
        done = self._done()
        failed = self._ended.get(TrialStatus.FAILED, 0)
        parts = [f"{done}/{self._total} trials done", f"{len(self._running)} running", f"{failed} failed"]
        if self._loading:
            parts.append(f"{wording.plural(self._loading, 'engine')} loading")
        elif self._lacks_engines:
            parts.append("waiting for engines")
        if self._lacks_storage:
            parts.append("waiting for the store")
        if speed := sum(engine.examples_per_second or 0 for engine in self._engines):
            parts.append(f"{wording.rate(speed)} examples/s")
        return ", ".join([*parts, *([f"about {left} left"] if (left := self._time_left()) else [])])

    def _time_left(self) -> str | None:
        ended = sum(self._ended.values())
        left = self._total - self._done_before - ended
        if not ended or not left or self._first_start is None:
            return None
        # Rate of this run so far: trials differ in cost, so it settles as the sweep goes on.
        seconds = (time.monotonic() - self._first_start) / ended * left
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"

    def panel(self) -> RenderableType:
        """How far it is: a bar, the engines, the best trial of each task and those that run."""
        done = self._done()
        bar = ProgressBar(total=max(1, self._total), completed=done, width=40)
        head = Table.grid(padding=(0, 2))
        head.add_row(bar, Text(self.line()))
        engines = [Text(wording.engine(engine), "dim") for engine in self._engines]
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=bool(self._best or self._running))
        table.add_column("task")
        table.add_column("best on validation so far", justify="right")
        table.add_column("by")
        for task, record in sorted(self._best.items()):
            table.add_row(task, f"{record.validation_score:.3f}", self._record_words(record))
        for trial, epoch in self._running.values():
            where = f"epoch {epoch.epoch}/{trial.config.num_epochs}" if epoch else "running"
            score = f"{epoch.validation_score:.3f}" if epoch else ""
            config = trial.config
            words = self._words(config.method, config.backbone, trial.hyperparameters, config.seed, config.fold)
            table.add_row(Text(trial.task, "dim"), Text(score, "dim"), Text(f"{words}, {where}", "dim"))
        return Group(head, *engines, table)

    def _record_words(self, record: TrialRecord) -> str:
        return self._words(record.method, record.backbone, record.hyperparameters, record.seed, record.fold)

    def _words(
        self, method: str, backbone: str, hyperparameters: Mapping[str, Scalar], seed: int, fold: int | None
    ) -> str:
        called = f"{method} on {self._backbones.get(backbone, backbone)}" if self._backbones else method
        return describe_trial(called, hyperparameters, seed, self._varied.get(method, ()), fold=fold)


def _beats(record: TrialRecord, best: TrialRecord | None) -> bool:
    if record.validation_score is None or record.metric is None:
        return False
    if best is None or best.validation_score is None:
        return True
    return metrics.get(record.metric).better(record.validation_score, best.validation_score)

"""The driver keeps every record, though the storage fails, and stops for nothing that the records do not need."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.planning.plan import SweepPlan, plan_sweep, plan_table, trials_table
from orchestrator.record import TrialRecord
from orchestrator.run import recording as recording_module
from orchestrator.run.recording import Recording, Silent
from orchestrator.store import Store, StoreLockedError
from orchestrator.store.segments import Segments
from tests.factories import STARTED_AT, records_of
from tests.predicted import of_trial
from trainables.faults import FaultsError


class Watched(Silent):
    """Progress that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.notices: list[str] = []

    def notice(self, line: str) -> None:
        self.notices.append(line)

    def trial_ended(self, record: TrialRecord) -> None:
        self.told.append(record.trial_id)

    def storage_failing(self, reason: str, waiting: int) -> None:
        self.told.append((reason, waiting))

    def storage_back(self) -> None:
        self.told.append("back")


class NoTracker:
    """MLflow that hears of ended trials."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    def trial_ended(self, record: TrialRecord) -> None:
        self.ended.append(record.trial_id)

    def engines_working(self, engines: Any) -> None: ...


@dataclasses.dataclass
class Sweep:
    """A store in which a sweep has begun, its driver, and who watches."""

    plan: SweepPlan
    store: Store
    driver: Recording
    progress: Watched
    tracker: NoTracker

    def records(self, *numbers: int) -> list[TrialRecord]:
        return records_of(self.plan, numbers)

    def stored(self) -> list[str]:
        return list(Store(self.store.path).statuses())


@pytest.fixture
def start(values: dict[str, Any]) -> Iterator[Callable[..., Sweep]]:
    """`start(path, filesystem=None)`: begin a sweep of six trials there, held by its driver until the test ends."""
    plan, locks = plan_sweep(values), []

    def make(path: Path, filesystem: Any = None, waits_s: tuple[float, float] = (0.01, 0.05)) -> Sweep:
        store = Store(str(path), filesystem=filesystem)
        lock = store.lock(only_driver=True)  # as a file system of a test must be
        lock.__enter__()
        locks.append(lock)
        store.create(plan.spec.to_json(), plan_table(plan))
        progress, tracker = Watched(), NoTracker()
        made: Any = lambda: tracker  # noqa: E731
        driver = Recording(store, made, progress, known=store.records, planned=None, waits_s=waits_s)
        return Sweep(plan, store, driver, progress, tracker)

    yield make
    for lock in locks:
        lock.__exit__(None, None, None)


@dataclasses.dataclass
class SmallDisk:
    """A disk with little room; `fill` and `free` take what is left of it and give it back."""

    place: Path
    filesystem: Any
    fill: Callable[[], None]
    free: Callable[[], None]


@pytest.fixture
def small_disk(tmp_path: Path, failing: Any) -> Iterator[SmallDisk]:
    """A real one of a megabyte; where this user may not mount one, a file system that says it has no room."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        handler, filesystem = failing
        yield SmallDisk(
            place, filesystem, lambda: setattr(handler, "after", 0), lambda: setattr(handler, "after", None)
        )
        return

    def fill() -> None:
        with contextlib.suppress(OSError), (place / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(b"0" * 512)

    yield SmallDisk(place, None, fill, (place / "filler").unlink)
    subprocess.run(["umount", str(place)], check=True)


def test_records_go_to_the_store_first_and_several_into_one_segment(
    start: Callable[..., Sweep], tmp_path: Path
) -> None:
    sweep = start(tmp_path)
    sweep.driver.trials_ended(sweep.records(0, 1))
    sweep.driver.trials_ended([])
    sweep.driver.trials_ended(sweep.records(2))
    ids = [trial.trial_id for trial in sweep.plan.trials[:3]]
    assert sweep.stored() == sweep.tracker.ended == sweep.progress.told == ids
    assert sweep.driver.ended == 3
    assert len(list((tmp_path / "trials").iterdir())) == 2


def test_a_storage_that_fails_now_and_then_loses_and_doubles_nothing(
    start: Callable[..., Sweep], tmp_path: Path, failing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, filesystem = failing
    sweep, draw = start(tmp_path, filesystem, (0.0, 0.0)), random.Random(0)
    change = type(handler).change

    def moody(self: Any) -> None:
        if draw.random() < 0.4:
            raise OSError("No space left on device")
        change(self)

    monkeypatch.setattr(type(handler), "change", moody)
    for number in range(6):
        sweep.driver.trials_ended(sweep.records(number))
    monkeypatch.setattr(type(handler), "change", change)
    ids = [trial.trial_id for trial in sweep.plan.trials]
    assert sweep.stored() == sweep.tracker.ended == ids
    assert [each for each in sweep.progress.told if each in ids] == ids
    assert sum(isinstance(each, tuple) for each in sweep.progress.told) == sweep.progress.told.count("back") > 0
    sweep.store.compact()
    assert sweep.store.trials()["trial_id"].to_pylist() == ids


def test_a_full_disk_makes_the_sweep_wait_until_there_is_room(
    start: Callable[..., Sweep], small_disk: SmallDisk
) -> None:
    sweep = start(small_disk.place / "store", small_disk.filesystem)
    sweep.driver.trials_ended(sweep.records(0))
    small_disk.fill()
    ended = threading.Thread(target=sweep.driver.trials_ended, args=[sweep.records(1, 2)])
    ended.start()
    _wait_for(lambda: bool(sweep.progress.told[1:]))
    reason, waiting = sweep.progress.told[1]
    assert "No space left" in reason
    assert waiting == 2
    ended.join(0.2)
    assert ended.is_alive()
    assert len(sweep.stored()) == len(sweep.tracker.ended) == 1
    sweep.driver.engines_working([])  # its note does not fit either
    small_disk.free()
    ended.join(20)
    assert not ended.is_alive()
    ids = [trial.trial_id for trial in sweep.plan.trials[:3]]
    assert sweep.stored() == ids
    assert sweep.progress.told[2:] == ["back", *ids[1:]]
    assert all(file.stat().st_size for file in (small_disk.place / "store" / "trials").glob("part-*"))


class Reads:
    """Whose first answers are errors."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)

    def __call__(self) -> str:
        if self._errors:
            error = self._errors.pop(0)
            raise error from getattr(error, "came_of", None)
        return "read"


def unreadable() -> FaultsError:
    error = FaultsError("store", ["the store must be readable"])
    error.came_of = OSError("no route to the bucket")  # type: ignore[attr-defined]
    return error


class TestReadingWhatCameOfASweep:
    def test_waits_while_the_storage_is_away(self, start: Callable[..., Sweep], tmp_path: Path) -> None:
        sweep = start(tmp_path)
        assert sweep.driver.wait_for(Reads(unreadable(), OSError("still away"))) == "read"
        assert sweep.progress.told == [("no route to the bucket", 0), "back"]

    @pytest.mark.parametrize(
        "error", [FaultsError("store", ["it is damaged"]), StoreLockedError("store", ["another driver has it"])]
    )
    def test_does_not_wait_for_what_no_waiting_mends(
        self, start: Callable[..., Sweep], tmp_path: Path, error: FaultsError
    ) -> None:
        sweep = start(tmp_path)
        with pytest.raises(type(error)) as raised:
            sweep.driver.wait_for(Reads(error))
        assert raised.value is error
        assert sweep.progress.told == []

    def test_ends_with_what_the_storage_said_where_the_user_asked_for_the_end(
        self, start: Callable[..., Sweep], tmp_path: Path
    ) -> None:
        sweep = start(tmp_path)
        sweep.driver.is_interrupted = lambda: True
        with pytest.raises(FaultsError, match="must be readable"):
            sweep.driver.wait_for(Reads(unreadable(), unreadable()))
        assert sweep.progress.told == [("no route to the bucket", 0)]


class TestAnInterruptWhileTheStorageFails:
    def test_ends_the_wait_and_what_could_not_be_recorded_is_counted(
        self, start: Callable[..., Sweep], tmp_path: Path, failing: Any
    ) -> None:
        handler, filesystem = failing
        sweep = start(tmp_path, filesystem)
        came = threading.Event()
        sweep.driver.is_interrupted = came.is_set
        handler.after = 0
        waiting = threading.Thread(target=sweep.driver.trials_ended, args=[sweep.records(0)])
        waiting.start()
        _wait_for(lambda: bool(sweep.progress.told))
        came.set()
        waiting.join(20)
        assert not waiting.is_alive()
        sweep.driver.trials_ended(sweep.records(1))  # of a trial that ended meanwhile: tried once
        assert sweep.driver.unrecorded == 2
        assert (sweep.driver.ended, sweep.tracker.ended, sweep.stored()) == (0, [], [])
        assert sweep.progress.told == [("No space left on device", 1)]

    def test_a_last_attempt_records_what_waited_if_there_is_room_by_then(
        self, start: Callable[..., Sweep], tmp_path: Path, failing: Any
    ) -> None:
        handler, filesystem = failing
        sweep = start(tmp_path, filesystem)
        sweep.driver.is_interrupted = lambda: True
        handler.after = 0
        sweep.driver.trials_ended(sweep.records(0, 1))
        handler.after = None
        sweep.driver.record_waiting()
        assert sweep.driver.unrecorded == 0
        assert len(sweep.stored()) == sweep.driver.ended == 2
        assert sweep.progress.told[1] == "back"

    def test_a_second_one_passes_through_and_what_waits_is_still_counted(
        self, start: Callable[..., Sweep], tmp_path: Path, failing: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        handler, filesystem = failing
        sweep = start(tmp_path, filesystem)
        handler.after = 0

        def stop(seconds: float) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(recording_module.time, "sleep", stop)
        with pytest.raises(KeyboardInterrupt):
            sweep.driver.trials_ended(sweep.records(0))
        assert sweep.driver.unrecorded == 1


def test_a_driver_whose_store_was_taken_over_stops(start: Callable[..., Sweep], tmp_path: Path) -> None:
    sweep = start(tmp_path)
    (tmp_path / "lock.json").unlink()
    with Store(tmp_path).lock(), pytest.raises(StoreLockedError, match="taken this store over"):
        sweep.driver.trials_ended(sweep.records(0))


def test_what_a_search_thinks_of_is_planned_though_the_storage_fails_for_a_while(
    start: Callable[..., Sweep], tmp_path: Path, failing: Any
) -> None:
    handler, filesystem = failing
    sweep = start(tmp_path, filesystem)
    proposed = trials_table("small", [dataclasses.replace(sweep.plan.trials[0], trial_id="new")])
    handler.after = 0
    waiting = threading.Thread(target=sweep.driver.planned_more, args=[proposed])
    waiting.start()
    _wait_for(lambda: bool(sweep.progress.told))
    assert "new" not in sweep.store.plan_table()["trial_id"].to_pylist()
    handler.after = None
    waiting.join(20)
    assert sweep.store.plan_table()["trial_id"].to_pylist()[-1] == "new"
    assert sweep.progress.told == [("No space left on device", 0), "back"]


def test_what_a_search_thinks_of_is_planned_though_the_storage_cannot_be_read_for_a_while(
    start: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, read, tries = start(tmp_path), Segments.statuses, []

    def moody(segments: Segments) -> Any:
        tries.append(segments)
        if len(tries) < 3:
            raise OSError("the network is down")
        return read(segments)

    monkeypatch.setattr(Segments, "statuses", moody)
    sweep.driver.planned_more(trials_table("small", [dataclasses.replace(sweep.plan.trials[0], trial_id="new")]))
    assert sweep.store.plan_table()["trial_id"].to_pylist()[-1] == "new"
    assert sweep.progress.told == [("the network is down", 0), "back"]


def _wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class TestPredictions:
    def tell(self, sweep: Sweep, *numbers: int) -> list[TrialRecord]:
        """The driver hears what trials predict, and then has their records."""
        records = [dataclasses.replace(record, started_at=STARTED_AT) for record in sweep.records(*numbers)]
        for number, record in zip(numbers, records, strict=True):
            sweep.driver.trial_predicted(record, of_trial(number).splits)
        return records

    def kept(self, sweep: Sweep) -> set[str]:
        return set(Store(sweep.store.path).predictions({t.trial_id: STARTED_AT for t in sweep.plan.trials}))

    def test_of_trials_that_end_together_go_into_one_file_before_their_records(
        self, start: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sweep = start(tmp_path)
        seen: list[set[str]] = []
        append = Store.append

        def looking(store: Store, records: Sequence[TrialRecord]) -> None:
            seen.append(self.kept(sweep))
            append(store, records)

        monkeypatch.setattr(Store, "append", looking)
        sweep.driver.trials_ended(self.tell(sweep, 0, 1, 2))
        assert seen == [{trial.trial_id for trial in sweep.plan.trials[:3]}]
        assert len(list((tmp_path / "predictions").glob("*.parquet"))) == 1
        sweep.driver.trials_ended(sweep.records(3))  # of one that brought none
        assert len(sweep.stored()) == 4
        sweep.driver.settle_predictions()
        assert len(list((tmp_path / "predictions").glob("*.parquet"))) == 1

    def test_records_are_kept_though_the_storage_refuses_predictions_which_come_later(
        self, start: Callable[..., Sweep], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        sweep = start(tmp_path)
        (tmp_path / "predictions").write_text("in the way")
        sweep.driver.trials_ended(self.tell(sweep, 0))
        assert len(sweep.stored()) == 1
        assert "predictions could not be written, and are tried again" in caplog.text
        (tmp_path / "predictions").unlink()
        sweep.driver.trials_ended(self.tell(sweep, 1))
        assert self.kept(sweep) == {trial.trial_id for trial in sweep.plan.trials[:2]}

    def test_no_more_are_held_than_fit_and_it_is_said_how_many_are_lost(
        self, start: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(recording_module, "MOST_HELD", 2)
        sweep = start(tmp_path)
        (tmp_path / "predictions").write_text("in the way")
        for number in range(5):
            sweep.driver.trials_ended(self.tell(sweep, number))
        sweep.driver.settle_predictions()
        assert len(sweep.stored()) == 5
        (notice,) = sweep.progress.notices
        assert notice.startswith("The predictions of 5 trials are not kept: ")

    def test_those_that_were_held_to_the_end_are_written_then(
        self, start: Callable[..., Sweep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(recording_module, "MOST_HELD", 2)
        sweep = start(tmp_path)
        (tmp_path / "predictions").write_text("in the way")
        for number in range(3):
            sweep.driver.trials_ended(self.tell(sweep, number))
        (tmp_path / "predictions").unlink()
        sweep.driver.settle_predictions()
        assert self.kept(sweep) == {trial.trial_id for trial in sweep.plan.trials[1:3]}
        assert sweep.progress.notices[0].startswith("The predictions of 1 trial are not kept: ")

    def test_a_storage_that_refuses_all_loses_neither(
        self, start: Callable[..., Sweep], tmp_path: Path, failing: Any
    ) -> None:
        handler, filesystem = failing
        sweep = start(tmp_path, filesystem)
        records = self.tell(sweep, 0, 1)
        handler.after = 0
        waiting = threading.Thread(target=sweep.driver.trials_ended, args=[records])
        waiting.start()
        _wait_for(lambda: bool(sweep.progress.told))
        handler.after = None
        waiting.join(20)
        assert set(sweep.stored()) == self.kept(sweep) == {record.trial_id for record in records}

    def test_a_driver_whose_store_was_taken_over_stops_before_it_writes_any(
        self, start: Callable[..., Sweep], tmp_path: Path
    ) -> None:
        sweep = start(tmp_path)
        records = self.tell(sweep, 0)
        (tmp_path / "lock.json").unlink()
        with Store(tmp_path).lock(), pytest.raises(StoreLockedError, match="taken this store over"):
            sweep.driver.trials_ended(records)
        assert not (tmp_path / "predictions").exists()

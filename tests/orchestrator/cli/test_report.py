"""`adaptune report`: opening the page, and writing it again while a sweep runs."""

from __future__ import annotations

import contextlib
import json
import webbrowser
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main, report
from orchestrator.planning.plan import PlannedTrial, plan_sweep, plan_table
from orchestrator.record import TrialStatus
from orchestrator.store import Store
from tests.factories import trial_record


@pytest.fixture
def planned(values: dict[str, Any]) -> Any:
    return plan_sweep(values)


@pytest.fixture
def store(home: Path, planned: Any) -> Store:
    """Of six trials one has ended."""
    made = Store(home / "store")
    made.create(planned.spec.to_json(), plan_table(planned))
    made.append([completed(planned, planned.trials[0])])
    return made


def completed(planned: Any, trial: PlannedTrial) -> Any:
    return trial_record(
        trial, TrialStatus.COMPLETED, sweep=planned.spec.name, metric="accuracy", validation_score=0.6, test_score=0.5
    )


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the browser was asked to show."""
    addresses: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: bool(addresses.append(address)) or True)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    return addresses


def test_the_browser_opens_the_page(
    store: Store, home: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    assert main(["report", store.uri, "--open"]) == 0
    assert asked == [(home / "store" / "report" / "report.html").as_uri()]


def test_without_a_display_no_browser_is_asked_and_the_place_is_said(
    store: Store, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", store.uri, "--open"]) == 0
    assert asked == []
    assert "No browser can be opened here. The page is " in capsys.readouterr().out


def test_watching_a_store_that_nobody_works_on_writes_one_report(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "sleep", lambda seconds: pytest.fail("nothing to wait for"))
    assert main(["report", store.uri, "--watch", "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_the_report_is_written_again_whenever_trials_have_ended_until_the_driver_has(
    store: Store, planned: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trials, waits = iter(planned.trials[1:4]), []
    with contextlib.ExitStack() as driver:
        driver.enter_context(store.lock())

        def sleep(seconds: float) -> None:
            """Ends a trial in the first and third wait, and in the fourth one more and the driver."""
            waits.append(seconds)
            if len(waits) in (1, 3, 4):
                store.append([completed(planned, next(trials))])
            if len(waits) == 4:
                driver.close()

        monkeypatch.setattr(report, "sleep", sleep)
        assert main(["report", store.uri, "--watch", "--json"]) == 0
    written = [json.loads(line)["counts"]["completed"] for line in capsys.readouterr().out.splitlines()]
    assert written == [1, 2, 3, 4]
    assert len(waits) == 4
    assert all(seconds >= 15 for seconds in waits)


def test_writing_takes_a_twentieth_of_the_time_at_most(
    store: Store, planned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, waits = iter([0.0, 10.0]), []
    with contextlib.ExitStack() as driver:
        driver.enter_context(store.lock())
        monkeypatch.setattr(report, "monotonic", lambda: next(clock))
        monkeypatch.setattr(report, "sleep", lambda seconds: (waits.append(seconds), driver.close()))
        assert main(["report", store.uri, "--watch", "--json"]) == 0
    assert waits == [pytest.approx(190.0)]
    assert 10.0 / (10.0 + waits[0]) == pytest.approx(0.05)

from __future__ import annotations

import pytest

from orchestrator.analysis.text import wording
from orchestrator.engine_status import EngineStatus
from orchestrator.record import TrialStatus


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "\N{EN DASH}"),
        (0, "0"),
        (849, "849"),
        (999.7, "1.00k"),
        (11_520, "11.5k"),
        (999_700, "1.00M"),
        (2_379_264, "2.38M"),
        (109_482_240, "109M"),
        (1_500_000_000, "1.50B"),
    ],
)
def test_counts_have_three_significant_digits(number: float | None, text: str) -> None:
    assert wording.count(number) == text


@pytest.mark.parametrize(("number", "text"), [(500, "500"), (1e4, "10k"), (2e6, "2M"), (5e9, "5B")])
def test_ticks_are_round(number: float, text: str) -> None:
    assert wording.count_tick(number) == text


def test_a_score_carries_its_spread_and_its_seeds() -> None:
    assert wording.score(0.9456, 0.0031, 3) == "0.946 ± 0.003 (n=3)"
    assert wording.score(0.9456, None, 1) == "0.946 (n=1)"
    assert wording.score(None, None, 3) == wording.UNKNOWN


def test_a_score_without_test_says_that_it_is_on_validation() -> None:
    row = {"validation_mean": 0.8, "validation_sem": 0.01, "test_mean": None, "test_sem": None, "num_seeds": 2}
    assert wording.reported(row) == "0.800 ± 0.010 (n=2) on validation"
    assert wording.reported({**row, "test_mean": 0.7}) == "0.700 (n=2)"


def test_signed_numbers_show_their_sign_unless_they_round_to_nothing() -> None:
    assert wording.signed(0.0123) == "+0.012"
    assert wording.signed(-0.0123) == "\N{MINUS SIGN}0.012"
    assert wording.signed(-0.0004) == "0.000"
    assert wording.signed(None) == wording.UNKNOWN


def test_durations_have_two_units() -> None:
    assert [wording.duration(s) for s in (None, 41.7, 185, 7_830)] == [
        wording.UNKNOWN,
        "42 s",
        "3 min 05 s",
        "2 h 10 min",
    ]


def test_shares_are_percentages() -> None:
    assert wording.share(2_379_264, 109_482_240) == "2.17 %"
    assert wording.share(None, 5) == wording.share(5, None) == wording.UNKNOWN


def test_cells_show_any_value() -> None:
    assert [wording.cell(v) for v in (None, True, 1_000, 3e-4, 1e-5, "gelu")] == [
        wording.UNKNOWN,
        "yes",
        "1,000",
        "0.0003",
        "1e-05",
        "gelu",
    ]


def test_the_status_line_counts_every_trial() -> None:
    counts = {TrialStatus.PLANNED: 2, TrialStatus.FAILED: 1, TrialStatus.COMPLETED: 80, TrialStatus.PRUNED: 4}
    assert wording.status_line(counts) == "87 trials: 80 completed, 4 pruned, 1 failed, 2 not yet run."
    assert wording.status_line({TrialStatus.COMPLETED: 1}) == "1 trial: 1 completed."
    assert wording.status_line({}) == "No trials yet."


@pytest.mark.parametrize(("rate", "text"), [(None, "\N{EN DASH}"), (3.44, "3.4"), (9.96, "10"), (1240.2, "1,240")])
def test_rates_are_rounded_to_what_is_steady(rate: float | None, text: str) -> None:
    assert wording.rate(rate) == text


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (EngineStatus(engine="h/cpu"), "engine h/cpu: idle"),
        (EngineStatus(engine="h/cpu", num_waiting=2), "engine h/cpu: preparing, 2 waiting"),
        (
            EngineStatus(engine="h/cpu", task="trec", method="adapter", num_trials=4, examples_per_second=812.3),
            "engine h/cpu: adapter on trec, 4 trials, 812 examples/s",
        ),
        (
            EngineStatus(engine="h/cpu", task="trec", method="adapter", num_trials=1, num_waiting=1, limit=1),
            "engine h/cpu: adapter on trec, 1 trial, 1 waiting",
        ),
    ],
)
def test_an_engine_is_a_line(status: EngineStatus, text: str) -> None:
    assert wording.engine(status) == text


def test_no_number_is_shown_as_one() -> None:
    for value in (float("nan"), float("inf")):
        for word in (wording.score, wording.signed, wording.percent, wording.p_value, wording.points, wording.count):
            assert word(value) == wording.UNKNOWN
        for word in (wording.rate, wording.duration):
            assert word(value) == wording.UNKNOWN
        assert wording.score(0.5, value) == "0.500"
    assert wording.cell(float("nan")) == wording.UNKNOWN
    assert wording.cell(float("inf")) == "inf"  # a limit may be

from __future__ import annotations

import dataclasses

from orchestrator.tracking.run_fields import (
    Point,
    TrialFacts,
    end_ms,
    epoch_points,
    epoch_times,
    record_points,
    record_tags,
    start_ms,
)

BEGAN = 1735787045000  # 2025-01-02T03:04:05 UTC


def test_a_planned_trial_and_its_record_say_the_same_of_it(planned, record):
    assert TrialFacts.of_plan(planned("a")) == TrialFacts.of_record(record("a"))


def test_parameters_are_those_searched_and_leave_out_what_has_no_value(planned):
    params = TrialFacts.of_plan(planned()).params()
    assert params["adapter_size"] == "64"
    assert params["learning_rate"] == "0.001"
    assert (params["task"], params["method"], params["backbone"], params["seed"]) == ("trec", "adapter", "minilm", "0")
    assert "dropout" not in params


def test_an_epoch_s_points_have_the_epoch_as_their_step(epoch):
    assert epoch_points(epoch(2), 7) == [
        Point("validation_score", 0.2, 7, 2),
        Point("train/loss", 0.5, 7, 2),
        Point("validation/accuracy", 0.2, 7, 2),
        Point("validation/loss", 1.0, 7, 2),
    ]


def test_a_record_s_points_do_not_repeat_its_last_epoch_s(record):
    keys = {point.key for point in record_points(record())}
    assert keys == {"trained_params", "best_epoch", "duration_s", "test_score", "test/accuracy"}
    bare = record_points(dataclasses.replace(record(), epochs=()))
    assert {point.key for point in bare} - keys == {"validation_score", "validation/accuracy", "validation/loss"}


def test_what_only_the_final_model_was_evaluated_on_is_a_point_of_the_last_epoch(record):
    whole = record()
    further = dataclasses.replace(whole, validation={**whole.validation, "mismatched_accuracy": 0.5})
    (point,) = set(record_points(further)) - set(record_points(whole))
    assert (point.key, point.value, point.step) == ("validation/mismatched_accuracy", 0.5, whole.epochs[-1].epoch)


def test_times_are_the_trial_s_own(record):
    assert (start_ms(record()), end_ms(record())) == (BEGAN, BEGAN + 21_500)
    assert [time for time, _ in epoch_times(record())] == [BEGAN + 10_000, BEGAN + 20_000]
    assert start_ms(record(started_at=None)) is None


def test_of_a_long_error_the_end_is_kept(record):
    error = record_tags(record("a", "failed", error="x" * 9000 + "ValueError: the reason"))["adaptune.error"]
    assert len(error) == 4000
    assert error.endswith("ValueError: the reason")

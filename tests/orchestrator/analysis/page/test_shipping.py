from __future__ import annotations

from typing import Any

import pytest

from orchestrator.analysis.page.shipping import overview, per_task
from orchestrator.analysis.results import Results


def said(results: Results) -> dict[str, str]:
    return dict(per_task(results.recommend(), results.trials(), results.searched()))


def test_every_task_has_its_setting_its_cost_and_its_certainty(finished: Results) -> None:
    found = said(finished)
    assert set(found) == {"trec", "sms_spam", "corporate_messaging", "glue/cola"}
    for row in finished.recommend().to_pylist():
        words = found[row["task"]]
        assert words.startswith(f"Ship {row['method']} (")
        assert "of the model, and takes" in words
        assert "over 3 seeds" in words
    assert "the split it was chosen on, which is optimistic" in found["glue/cola"]
    assert "(95 % interval 0." in found["trec"]


def test_one_seed_says_that_the_scatter_is_not_known(synthetic: Any) -> None:
    rows = synthetic.scored({"method": "adapter", "adapter_size": 2, "learning_rate": 1e-3}, [0.9])
    assert "how far seeds scatter is not known" in said(synthetic.results(rows))["trec"]


def test_what_was_not_measured_is_left_out(synthetic: Any) -> None:
    unknown = {"trained_params": None, "total_params": None, "duration_s": None}
    rows = synthetic.scored({"method": "adapter", "adapter_size": 2, "learning_rate": 1e-3}, [0.9, 0.8], **unknown)
    words = said(synthetic.results(rows))["trec"]
    assert words.startswith("Ship adapter. Test accuracy 0.750")
    assert overview(synthetic.results(rows).recommend()) == "One task, and scoring as the best one tried."


def test_the_reason_of_a_recommendation_is_given_in_its_own_words(finished: Results) -> None:
    found = said(finished)
    for row in finished.recommend().to_pylist():
        assert found[row["task"]].endswith(row["why"])


def test_the_overview_says_what_all_of_them_train(finished: Results) -> None:
    words = overview(finished.recommend())
    assert words.startswith("One setting for each of 4 tasks, training ")
    assert "% of the model, and at the median scoring" in words


@pytest.mark.parametrize(
    ("scores", "end"), [([0.99, 0.97], "to 1.000)"), ([0.5, 0.7], "to 1.000)"), ([30.0, 40.0], "to 98.5")]
)
def test_an_interval_ends_at_the_best_score_there_is(synthetic: Any, scores: list[float], end: str) -> None:
    rows = synthetic.scored({"method": "layernorm", "learning_rate": 1e-3}, scores)
    rows = [{**row, "test_score": score} for row, score in zip(rows, scores, strict=True)]
    results = synthetic.results(rows)
    ((_, said),) = per_task(results.recommend(), results.trials(), [])
    assert end in said

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from rich.console import Console

from orchestrator.analysis.results import Results
from orchestrator.analysis.text import tables


def rendered(thing: Any, width: int = 180) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(thing)
    return capture.get()


def test_the_summary_opens_with_the_status_and_shows_every_task(finished: Results) -> None:
    text = rendered(tables.summary(finished))
    assert text.splitlines()[0] == "144 trials: 142 completed, 2 failed."
    for expected in ("Recommended", "Best configuration", "trec", "glue/cola", "(n=3) on validation", "learning_rate"):
        assert expected in text


def test_a_sweep_without_completed_trials_has_a_status_and_no_table(synthetic: Any) -> None:
    assert rendered(tables.summary(synthetic.results([]))) == "No trials yet.\n"
    failed = synthetic.results([synthetic.fail(synthetic.rows()[0])])
    assert rendered(tables.summary(failed)) == "1 trial: 1 failed.\n"


def test_best_cells_hold_the_winner_and_its_spread(finished: Results) -> None:
    best = finished.best()
    table = tables.best_table(best, finished.searched())
    row = best.to_pylist()[0]
    assert table.rows[0][:3] == ("corporate_messaging", "adapter", "adapter_size 64, learning_rate 0.001")
    assert table.rows[0][5] == f"{row['test_mean']:.3f} ± {row['test_sem']:.3f} (n=3)"
    assert [index for index in range(len(table.rows)) if table.starts_group(index)] == [4, 8, 12]
    assert all(len(cells) == len(table.left) + len(table.right) for cells in table.rows)


def test_budgets_stand_beside_the_best_and_are_said_to_differ(finished: Results, synthetic: Any) -> None:
    best = finished.best()
    table = tables.best_table(best, finished.searched())
    assert table.right[3:5] == ("tried", "engine time")
    assert table.rows[0][6:8] == ("6", "12 min 04 s")
    assert table.note is not None
    assert table.note.startswith("Methods were chosen from 1 to 6 configurations")
    alike = [row for row in synthetic.rows() if row["method"] == "full_finetuning"]
    assert tables.best_table(synthetic.results(alike).best(), []).note is None


def test_a_row_a_pair_says_what_chance_and_budget_do_to_it(finished: Results) -> None:
    pairs = finished.comparisons()
    table = tables.comparison_table(pairs)
    assert table.rows[0][:3] == ("adapter", "full_finetuning", "\N{MINUS SIGN}0.006")
    assert table.rows[0][-2:] == ("4", "24 / 8")
    assert "no p-value can be below 0.125" in str(table.note)
    assert "Budgets differ" in str(table.note)


def test_the_curve_shows_signed_deltas_or_plain_scores(finished: Results) -> None:
    relative = tables.curve_table(finished.curve())
    assert relative.right == ("trained", "p20", "p50", "p80", "tasks", "seeds")
    assert relative.rows[0][2].startswith("\N{MINUS SIGN}0.0")
    plain = tables.curve_table(finished.curve(quantiles=(0.5,), normalize_to=None))
    assert plain.right == ("trained", "p50", "tasks", "seeds")
    assert plain.rows[0][2].startswith("0.")


def test_the_backbone_is_named_only_where_there_are_several(synthetic: Any, finished: Results) -> None:
    rows = synthetic.rows()
    other = [
        {**r, "backbone": "bert", "config_id": r["config_id"] + "b", "trial_id": r["trial_id"] + "b"} for r in rows
    ]
    both = synthetic.results(rows + other)
    assert "adapter on bert" in rendered(tables.to_rich(tables.curve_table(both.curve())))
    assert " on " not in rendered(tables.to_rich(tables.curve_table(finished.curve())))


def test_a_narrow_console_wraps_cells_and_hides_no_column(finished: Results) -> None:
    text = rendered(tables.summary(finished), width=80)
    assert all(heading in text for heading in ("the best", "validation", "tried", "failed"))
    assert max(map(len, text.splitlines())) <= 80


def test_text_from_users_is_not_taken_for_markup(synthetic: Any) -> None:
    rows = [synthetic.trial(dataclasses.replace(synthetic.tasks[0], name="[red]task[/]"), {"method": "adapter",
            "adapter_size": 2, "learning_rate": 1e-3}, 0)]  # fmt: skip
    assert "[red]task[/]" in rendered(tables.summary(synthetic.results(rows)))


@pytest.mark.parametrize("question", ["best", "recommend", "curve"])
def test_an_empty_answer_is_a_table_without_rows(synthetic: Any, question: str) -> None:
    answer = getattr(synthetic.results([]), question)()
    builders = {
        "best": lambda: tables.best_table(answer, []),
        "recommend": lambda: tables.recommendation_table(answer, []),
        "curve": lambda: tables.curve_table(answer),
    }
    table = builders[question]()
    assert table.rows == ()
    assert "trained" in rendered(tables.to_rich(table))

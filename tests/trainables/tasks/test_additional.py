"""The paper's 17 additional tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainables import tasks
from trainables.faults import FaultsError
from trainables.tasks import additional


def test_the_paper_splits_its_rows_80_10_10() -> None:
    """PAPER.md section 2.3: the rule holds on every row of Table 3, so a slip in copying the table breaks it."""
    assert len(additional.PAPER_TASKS) == 17
    for task in additional.PAPER_TASKS.values():
        total = task.train + task.validation + task.test
        assert task.train == total * 8 // 10
        assert task.validation == (total - task.train) // 2


def test_without_the_data_the_paper_describes_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADAPTUNE_DATA", raising=False)
    info = tasks.describe("additional/crowdflower_primary_emotions")
    assert (info.num_labels, info.pair, info.metric) == (18, False, "accuracy")
    with pytest.raises(FaultsError, match="ADAPTUNE_DATA names, but it is not set"):
        tasks.load("additional/crowdflower_primary_emotions")


def test_the_folder_wins_over_the_paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTUNE_DATA", str(tmp_path))
    with pytest.raises(FaultsError, match="there is no"):
        tasks.load("additional/sms_spam")
    (tmp_path / "sms_spam").mkdir()
    for split in ("train", "validation"):
        (tmp_path / "sms_spam" / f"{split}.csv").write_text("text_a,label\na,x\nb,y\nc,z\n")
    info = tasks.describe("additional/sms_spam")
    assert (info.name, info.num_labels, info.label_names) == ("additional/sms_spam", 3, ("x", "y", "z"))
    assert tasks.load("additional/sms_spam").info == info

"""The 17 additional tasks of Houlsby et al. 2019 by name, as task folders `$ADAPTUNE_DATA/<name>`.

The paper publishes no files, so the rows are whatever was gathered in the folder. Where the folder exists it decides
every fact, the number of classes included; where it does not, `describe` answers from the paper's Table 3, which is
enough to plan the paper's sweep.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from trainables.faults import UnavailableError
from trainables.reading.files import load_folder
from trainables.task import Task, TaskInfo


@dataclass(frozen=True, kw_only=True)
class PaperTask:
    """A row of Table 3: rows of each split, and classes."""

    train: int
    validation: int
    test: int
    num_labels: int


def _row(train: int, validation: int, test: int, num_labels: int) -> PaperTask:
    return PaperTask(train=train, validation=validation, test=test, num_labels=num_labels)


# Houlsby et al. 2019, Table 3.
PAPER_TASKS = {
    "crowdflower_airline": _row(11712, 1464, 1464, 3),
    "crowdflower_corporate_messaging": _row(2494, 312, 312, 4),
    "crowdflower_disasters": _row(8688, 1086, 1086, 2),
    "crowdflower_economic_news_relevance": _row(6392, 799, 800, 2),
    "crowdflower_emotion": _row(32000, 4000, 4000, 13),
    "crowdflower_global_warming": _row(3380, 422, 423, 2),
    "crowdflower_political_audience": _row(4000, 500, 500, 2),
    "crowdflower_political_bias": _row(4000, 500, 500, 2),
    "crowdflower_political_message": _row(4000, 500, 500, 9),
    "crowdflower_primary_emotions": _row(2019, 252, 253, 18),
    "crowdflower_progressive_opinion": _row(927, 116, 116, 3),
    "crowdflower_progressive_stance": _row(927, 116, 116, 4),
    "crowdflower_us_economic_performance": _row(3961, 495, 496, 2),
    "customer_complaints": _row(146667, 18333, 18334, 157),
    "news_aggregator": _row(338349, 42294, 42294, 4),
    "sms_spam": _row(4459, 557, 558, 2),
    "twenty_newsgroups": _row(15076, 1885, 1885, 20),
}


def names() -> tuple[str, ...]:
    """The 17 tasks."""
    return tuple(PAPER_TASKS)


def describe(name: str) -> TaskInfo:
    """The facts of the folder where there is one, else of the paper."""
    folder = _folder(name)
    if folder is not None and folder.is_dir():
        return load(name).info
    return TaskInfo(
        name=f"additional/{name}",
        kind="classification",
        pair=False,
        num_labels=PAPER_TASKS[name].num_labels,
        label_names=(),
        metric="accuracy",
        source="Houlsby et al. 2019, Table 3",
    )


def load(name: str) -> Task:
    """Read and check the task's folder.

    Raises `UnavailableError` where there is none, `FaultsError` with everything that is wrong with it.
    """
    folder = _folder(name)
    if folder is None or not folder.is_dir():
        rule = "needs a task folder of its name in the folder that the variable ADAPTUNE_DATA names"
        came = "it is not set" if folder is None else f"there is none in {folder.parent}"
        raise UnavailableError(f"task additional/{name}", [f"{rule}, but {came}"])
    return load_folder(folder, name=f"additional/{name}")


def _folder(name: str) -> Path | None:
    root = os.environ.get("ADAPTUNE_DATA")
    return Path(root).expanduser() / name if root else None

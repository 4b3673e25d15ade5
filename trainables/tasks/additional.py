"""The 17 additional tasks of Houlsby et al. 2019 by name, from folders `$ADAPTUNE_DATA/<name>`.

A folder is a task folder, or holds the data set as its authors publish it (`PUBLISHED`), which is then cut into splits
by the paper's rule. The paper publishes no files, so which rows fall to which split is not the paper's. Where a folder
has rows they decide every fact, the number of classes included; where it has none, `describe` answers from the paper's
Table 3, which is enough to plan the paper's sweep.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.data import published
from trainables.data.files import load_folder
from trainables.data.layout import ENDINGS, split_files
from trainables.data.published import Published, comma_separated, folder_per_label, tab_separated
from trainables.faults import UnavailableError
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


_RELEVANCE = {"yes": "relevant", "no": "not relevant"}  # and "not sure", which does not count
STANCE = (
    "q1_from_reading_the_tweet_which_of_the_options_below_is_most_likely_to_be_true_about_the_stance_or_outlook_of_"
    "the_tweeter_towards_the_target"
)
OPINION = "q2_which_of_the_options_below_is_true_about_the_opinion_in_the_tweet"
_NEWS = ("ID", "TITLE", "URL", "PUBLISHER", "CATEGORY", "STORY", "HOSTNAME", "TIMESTAMP")


def _politics(label: str) -> tuple[Published, ...]:
    files = ("Political-media-DFE.csv", "political_social_media.csv")
    return tuple(comma_separated(file, text="text", label=label) for file in files)


# What each data set is published as. Which column is the label, where there are several, follows from Table 3's number
# of classes, and which labels count from its number of rows. Eight of the files were looked at: airline, corporate
# messaging, disasters, emotion, global warming, primary emotions, SMS spam and newsgroups have Table 3's rows and
# classes exactly, and its mean number of characters to within one. Of the others the columns are known, not the rows.
PUBLISHED: Mapping[str, tuple[Published, ...]] = {
    "crowdflower_airline": tuple(
        comma_separated(file, text="text", label="airline_sentiment")
        for file in ("Tweets.csv", "Airline-Sentiment-2-w-AA.csv")
    ),
    "crowdflower_corporate_messaging": (comma_separated("Corporate-messaging-DFE.csv", text="text", label="category"),),
    "crowdflower_disasters": (
        comma_separated(
            "socialmedia-disaster-tweets-DFE.csv",
            text="text",
            label="choose_one",
            labels={"Relevant": "Relevant", "Not Relevant": "Not Relevant"},  # and "Can't Decide"
        ),
    ),
    "crowdflower_economic_news_relevance": (
        comma_separated("Full-Economic-News-DFE*.csv", text="text", label="relevance", labels=_RELEVANCE),
    ),
    "crowdflower_emotion": (comma_separated("text_emotion.csv", text="content", label="sentiment"),),
    "crowdflower_global_warming": (
        comma_separated(
            "*tweet_global_warming.csv",
            text="tweet",
            label="existence",
            labels={"Yes": "Yes", "Y": "Yes", "No": "No", "N": "No"},  # and "N/A"
        ),
    ),
    "crowdflower_political_audience": _politics("audience"),
    "crowdflower_political_bias": _politics("bias"),
    "crowdflower_political_message": _politics("message"),
    "crowdflower_primary_emotions": (
        comma_separated("primary-plutchik-wheel-DFE.csv", text="sentence", label="emotion"),
    ),
    "crowdflower_progressive_opinion": (
        comma_separated("progressive-tweet-sentiment.csv", text="tweet", label=OPINION),
    ),
    "crowdflower_progressive_stance": (comma_separated("progressive-tweet-sentiment.csv", text="tweet", label=STANCE),),
    "crowdflower_us_economic_performance": (
        comma_separated("us-economic-newspaper.csv", text="text", label="relevance", labels=_RELEVANCE),
    ),
    "customer_complaints": tuple(
        comma_separated(file, text="Consumer complaint narrative", label="Issue")
        for file in ("Consumer_Complaints.csv", "complaints.csv")
    ),
    "news_aggregator": (
        tab_separated("newsCorpora.csv", _NEWS, text="TITLE", label="CATEGORY"),
        comma_separated("uci-news-aggregator.csv", text="TITLE", label="CATEGORY"),
    ),
    "sms_spam": (
        tab_separated(
            "SMSSpamCollection",
            ("label", "text"),
            text="text",
            label="label",
            labels={"ham": "ham", "spam": "spam"},  # copies go round with a header
        ),
    ),
    # Posts are taken whole, headers included: only so have they Table 3's 1,903 characters on average.
    "twenty_newsgroups": tuple(folder_per_label(name) for name in ("20news-bydate-*", "20news-18828", "20_newsgroups")),
}


def names() -> tuple[str, ...]:
    """The 17 tasks."""
    return tuple(PAPER_TASKS)


def describe(name: str) -> TaskInfo:
    """The facts of the folder's rows where it has any, else of the paper."""
    try:
        return load(name).info
    except UnavailableError:
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
    """Read and check the rows of the task's folder: split files, one file `all`, or what is published, in this order.

    Raises `UnavailableError` where there are none, `FaultsError` with everything that is wrong with them.
    """
    root = os.environ.get("ADAPTUNE_DATA")
    folder = Path(os.path.expanduser(root)) / name if root else None
    files = f"files of a task folder (train and validation, or all: {', '.join(ENDINGS)}) or the data set as published"
    rule = f"needs {files} in a folder of its name in the folder that the variable ADAPTUNE_DATA names"
    if folder is None or not folder.is_dir():
        came = "it is not set" if folder is None else f"there is none in {folder.parent}"
        raise UnavailableError(f"task additional/{name}", [f"{rule}, but {came}", _published_as(name)])
    held = sorted(path.name for path in folder.iterdir())
    if split_files(held):
        return load_folder(folder, name=f"additional/{name}")
    if found := published.find(folder, PUBLISHED[name]):
        return _load_published(name, *found, published.stamp(found[1]))
    came = f"{folder} holds {', '.join(held[:10]) or 'nothing'}"
    raise UnavailableError(f"task additional/{name}", [f"needs {files}, but {came}", _published_as(name)])


def _published_as(name: str) -> str:
    return f"is published as {' or '.join(source.name for source in PUBLISHED[name])}"


@functools.lru_cache(maxsize=32)
def _load_published(name: str, source: Published, paths: tuple[Path, ...], stamp: tuple[Any, ...]) -> Task:
    """`stamp` is what the files were; a changed file is another call."""
    paper = PAPER_TASKS[name]
    expected = paper.train + paper.validation + paper.test
    return published.load_published(source, paths, name=f"additional/{name}", expected_rows=expected)

"""The paper's 17 additional tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainables import tasks
from trainables.faults import FaultsError, UnavailableError
from trainables.tasks import additional

POLITICS = "audience,audience:confidence,bias,bias:confidence,message,message:confidence,text"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADAPTUNE_DATA", str(tmp_path))
    return tmp_path


def publish(root: Path, name: str, file: str, lines: list[str], encoding: str = "utf-8") -> None:
    path = root / name / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join([*lines, ""]).encode(encoding))


def header_of(name: str) -> tuple[list[str], dict[str, str]]:
    """The columns of a published file as its authors order them, and a row of it."""
    raw: dict[str, tuple[str, dict[str, str]]] = {
        "crowdflower_airline": ("tweet_id,airline_sentiment,airline,text", {"airline_sentiment": "neutral"}),
        "crowdflower_corporate_messaging": ("_unit_id,category,category:confidence,text", {"category": "Action"}),
        "crowdflower_disasters": ("_unit_id,choose_one,keyword,text", {"choose_one": "Relevant"}),
        "crowdflower_economic_news_relevance": ("positivity,relevance,headline,text", {"relevance": "yes"}),
        "crowdflower_emotion": ("tweet_id,sentiment,author,content", {"sentiment": "worry"}),
        "crowdflower_global_warming": ("tweet,existence,existence.confidence", {"existence": "Y"}),
        "crowdflower_political_audience": (POLITICS, {"audience": "national"}),
        "crowdflower_political_bias": (POLITICS, {"bias": "partisan"}),
        "crowdflower_political_message": (POLITICS, {"message": "attack"}),
        "crowdflower_primary_emotions": ("emotion,emotion:confidence,id,sentence", {"emotion": "Joy"}),
        "crowdflower_us_economic_performance": ("positivity,relevance,text", {"relevance": "yes"}),
        "customer_complaints": ("Product,Issue,Consumer complaint narrative,Company", {"Issue": "Billing"}),
        "news_aggregator": ("ID,TITLE,URL,PUBLISHER,CATEGORY,STORY", {"CATEGORY": "b"}),
    }
    columns, label = raw[name]
    return columns.split(","), label


OTHER = {"yes": "no", "Y": "No", "Relevant": "Not Relevant"}  # another label that counts
TEXTS = ("text", "content", "tweet", "sentence", "Consumer complaint narrative", "TITLE")
COMMA = [
    ("crowdflower_airline", "Tweets.csv"),
    ("crowdflower_airline", "Airline-Sentiment-2-w-AA.csv"),
    ("crowdflower_corporate_messaging", "Corporate-messaging-DFE.csv"),
    ("crowdflower_disasters", "socialmedia-disaster-tweets-DFE.csv"),
    ("crowdflower_economic_news_relevance", "Full-Economic-News-DFE-839861.csv"),
    ("crowdflower_emotion", "text_emotion.csv"),
    ("crowdflower_global_warming", "1377884570_tweet_global_warming.csv"),
    ("crowdflower_political_audience", "Political-media-DFE.csv"),
    ("crowdflower_political_bias", "political_social_media.csv"),
    ("crowdflower_political_message", "Political-media-DFE.csv"),
    ("crowdflower_primary_emotions", "primary-plutchik-wheel-DFE.csv"),
    ("crowdflower_us_economic_performance", "us-economic-newspaper.csv"),
    ("customer_complaints", "Consumer_Complaints.csv"),
    ("news_aggregator", "uci-news-aggregator.csv"),
]


def test_without_the_data_the_paper_describes_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADAPTUNE_DATA", raising=False)
    info = tasks.describe("additional/crowdflower_primary_emotions")
    assert (info.num_labels, info.pair, info.metric) == (18, False, "accuracy")
    with pytest.raises(UnavailableError, match="ADAPTUNE_DATA names, but it is not set"):
        tasks.load("additional/crowdflower_primary_emotions")


@pytest.mark.parametrize("name", additional.names())
def test_what_is_missing_says_which_file_would_do(name: str, root: Path) -> None:
    with pytest.raises(UnavailableError, match="there is none in"):
        tasks.load(f"additional/{name}")
    (root / name).mkdir()
    (root / name / "notes.txt").write_text("soon")
    with pytest.raises(UnavailableError, match=r"holds notes\.txt") as refusal:
        tasks.load(f"additional/{name}")
    assert all(source.name in str(refusal.value) for source in additional.PUBLISHED[name])
    assert tasks.describe(f"additional/{name}").source == "Houlsby et al. 2019, Table 3"


def test_the_folder_wins_over_the_paper_and_over_what_is_published(root: Path) -> None:
    publish(root, "sms_spam", "SMSSpamCollection", [f"ham\t{row}" for row in range(10)])
    for split in ("train", "validation"):
        (root / "sms_spam" / f"{split}.csv").write_text("text_a,label\na,x\nb,y\nc,z\n")
    info = tasks.describe("additional/sms_spam")
    assert (info.name, info.num_labels, info.label_names) == ("additional/sms_spam", 3, ("x", "y", "z"))
    assert tasks.load("additional/sms_spam").info == info


def test_one_file_of_all_rows_is_cut_by_the_paper_s_rule(root: Path) -> None:
    publish(
        root,
        "sms_spam",
        "all.csv",
        ["text_a,label", *(f"text {row},{'ham' if row % 3 else 'spam'}" for row in range(30))],
    )
    task = tasks.load("additional/sms_spam")
    assert [part.num_rows for part in task.splits.values()] == [24, 3, 3]
    assert task.info.label_names == ("ham", "spam")
    assert "cut at random (seed 0)" in task.info.source


@pytest.mark.parametrize(("name", "file"), COMMA)
def test_comma_separated_files_are_read_as_published(name: str, file: str, root: Path) -> None:
    columns, label = header_of(name)
    ((column, first),) = label.items()
    text_column = next(column for column in columns if column in TEXTS)

    def line(**values: Any) -> str:
        return ",".join(f'"{values.get(name, "x")}"' for name in columns)

    lines = [",".join(columns)]
    for row in range(12):
        said = {text_column: f"caf\xe9 no. {row}, then", column: first if row % 2 else OTHER.get(first, "z-other")}
        lines.append(line(**said))
    lines.append(line(**{text_column: "", column: first}))
    publish(root, name, file, lines, "latin-1")
    task = tasks.load(f"additional/{name}")
    texts = {text for part in task.splits.values() for text in part["text_a"].to_pylist()}
    assert texts == {f"caf\xe9 no. {row}, then" for row in range(12)}
    assert task.info.num_labels == 2
    assert task.info == tasks.describe(f"additional/{name}")
    assert f"{file} (12 rows, 1 without text or usable label left out, " in task.info.source
    assert " expected), cut at random (seed 0)" in task.info.source


def test_the_two_questions_about_progressive_tweets_are_two_tasks(root: Path) -> None:
    header = ",".join(["_unit_id", additional.STANCE, additional.OPINION, "target", "tweet"])
    lines = [
        f'{row},{("for", "against", "neutral")[row % 3]},{row % 2} fact,"Atheism","tweet {row}"' for row in range(30)
    ]
    for name in ("crowdflower_progressive_stance", "crowdflower_progressive_opinion"):
        publish(root, name, "progressive-tweet-sentiment.csv", [header, *lines])
    stance, opinion = (tasks.load(f"additional/crowdflower_progressive_{name}") for name in ("stance", "opinion"))
    assert stance.info.label_names == ("against", "for", "neutral")
    assert opinion.info.label_names == ("0 fact", "1 fact")
    assert stance.splits["test"]["text_a"] == opinion.splits["test"]["text_a"]  # the same rows fall to each split
    assert stance.fingerprint != opinion.fingerprint


def test_uci_s_files_have_tabs_and_no_header(root: Path) -> None:
    spam = [f"{'spam' if row % 5 == 0 else 'ham'}\tIt's \"{row}\" o'clock" for row in range(20)]
    publish(root, "sms_spam", "SMSSpamCollection", spam)
    news = [f'{row}\tTitle {row}, "quoted\tu\tReuters\t{"be"[row % 2]}\tstory\thost\t139' for row in range(20)]
    publish(root, "news_aggregator", "newsCorpora.csv", news)
    assert tasks.load("additional/sms_spam").info.label_names == ("ham", "spam")
    loaded = tasks.load("additional/news_aggregator")
    assert loaded.info.label_names == ("b", "e")
    assert 'Title 3, "quoted' in {text for part in loaded.splits.values() for text in part["text_a"].to_pylist()}


def test_newsgroups_are_folders_of_posts(root: Path) -> None:
    for part in ("train", "test"):
        for group in ("sci.space", "rec.autos"):
            for post in range(5):
                text = [f"From: {part}", f"Subject: {group}", "", f"post {post}"]
                publish(root, "twenty_newsgroups", f"20news-bydate-{part}/{group}/{post}", text)
    task = tasks.load("additional/twenty_newsgroups")
    assert task.info.label_names == ("rec.autos", "sci.space")
    assert [part.num_rows for part in task.splits.values()] == [16, 2, 2]
    assert task.splits["train"]["text_a"][0].as_py().startswith("From: ")


def test_what_is_published_is_read_once_until_it_changes(root: Path) -> None:
    publish(root, "sms_spam", "SMSSpamCollection", [f"{'ham' if row % 2 else 'spam'}\t{row}" for row in range(10)])
    first = tasks.load("additional/sms_spam")
    assert tasks.load("additional/sms_spam") is first
    publish(root, "sms_spam", "SMSSpamCollection", [f"{'ham' if row % 2 else 'spam'}\t{row}" for row in range(11)])
    assert tasks.load("additional/sms_spam").fingerprint != first.fingerprint


def test_a_published_file_without_its_columns_is_a_fault_that_names_those_it_has(root: Path) -> None:
    publish(root, "crowdflower_emotion", "text_emotion.csv", ["tweet_id,mood,content", "1,joy,x"])
    with pytest.raises(FaultsError, match="it needs columns sentiment, but has tweet_id, mood, content"):
        tasks.describe("additional/crowdflower_emotion")

"""Tasks of the Hugging Face hub, read from its local caches without a network."""

from __future__ import annotations

import pyarrow as pa
import pytest

from trainables import tasks
from trainables.data import hub as hub_reading
from trainables.faults import FaultsError
from trainables.tasks import glue, hub

COMMIT = "0123456789abcdef" * 2 + "01234567"
OTHER = "f" * 40


@pytest.fixture(autouse=True)
def _forget() -> None:
    hub.load.cache_clear()
    glue.load.cache_clear()


def table(rows: int = 4, label: int | None = None, column: str = "text") -> pa.Table:
    labels = [index % 2 if label is None else label for index in range(rows)]
    return pa.table({column: [f"{column} {index}" for index in range(rows)], "label": labels, "idx": list(range(rows))})


def faults_of(reference: str) -> str:
    with pytest.raises(FaultsError) as refusal:
        tasks.load(reference)
    return str(refusal.value)


class TestReference:
    def test_its_parts_are_taken_apart(self) -> None:
        source, declared = hub.parse(f"owner/set.v2:a-b@{COMMIT}?text_a=q&text_b=s&label=l&validation=dev&metric=f1")
        assert (source.dataset, source.config, source.revision) == ("owner/set.v2", "a-b", COMMIT)
        assert source.columns == {"text_a": "q", "text_b": "s", "label": "l"}
        assert source.splits == {"train": "train", "validation": "dev", "test": "test"}
        assert (declared.pair, declared.metric, declared.kind) == (True, "f1", None)

    @pytest.mark.parametrize("revision", ["", "@main", "@v1.0", f"@{COMMIT[:8]}", f"@{COMMIT.upper()}"])
    def test_a_revision_that_may_move_is_refused_with_the_reason(self, revision: str) -> None:
        assert "must be pinned by @ and a full commit hash" in faults_of(f"hub/owner/set{revision}")

    def test_all_its_faults_come_in_one_message(self) -> None:
        with pytest.raises(FaultsError) as refusal:
            hub.parse("owner/set@main?txt_a=x&label=&test=a&test=b&metric=accurcy&kind=sorting")
        assert len(refusal.value.faults) == 6

    def test_one_that_is_none_is_refused_with_the_rule(self) -> None:
        assert "must read hub/<dataset>" in faults_of("hub/a/b/c/d")


class TestOffline:
    def test_downloaded_files_are_read(self, hub_cache) -> None:
        hub_cache("owner/set", COMMIT, "default", {"train": table(), "dev": table(2)}, ("no", "yes"))
        task = tasks.load(f"hub/owner/set@{COMMIT}?validation=dev")
        assert task.splits["train"].to_pydict() == {"text_a": [f"text {i}" for i in range(4)], "label": [0, 1, 0, 1]}
        assert task.splits["validation"].num_rows == 2
        assert (task.info.label_names, task.info.source) == (("no", "yes"), f"owner/set@{COMMIT}")

    def test_what_an_earlier_load_prepared_is_read_without_asking_the_network(self, hub_cache, monkeypatch) -> None:
        import datasets

        folder = hub_cache("owner/someSet", COMMIT, "words", {"train": table(), "validation": table()}, ())
        datasets.load_dataset(str(folder), "words")
        # A load over the network leaves the same files under the name of the dataset, the configuration and the commit.
        cache = datasets.config.HF_DATASETS_CACHE
        (prepared,) = (cache / COMMIT / "words" / "0.0.0").glob("*/")
        target = cache / "owner___some_set" / "words" / "0.0.0" / COMMIT
        target.parent.mkdir(parents=True)
        prepared.rename(target)
        for file in target.glob("*.arrow"):
            file.rename(target / file.name.replace(COMMIT, "some_set"))
        monkeypatch.setattr(hub_reading, "_from_network", lambda _: pytest.fail("asked the network"))
        monkeypatch.setattr(hub_reading, "_from_snapshot", lambda _: pytest.fail("read the files again"))
        for config in ("", ":words"):
            assert tasks.load(f"hub/owner/someSet{config}@{COMMIT}").splits["train"].num_rows == 4
        with pytest.raises(pytest.fail.Exception, match="asked the network"):
            tasks.load(f"hub/owner/someSet@{OTHER}")

    def test_another_revision_is_never_taken_for_the_one_asked_for(self, hub_cache) -> None:
        hub_cache("owner/set", OTHER, "default", {"train": table(), "validation": table()}, ())
        assert tasks.load(f"hub/owner/set@{OTHER}").splits["train"].num_rows == 4
        message = faults_of(f"hub/owner/set@{COMMIT}")
        assert "cannot read owner/set" in message
        assert f"hf download owner/set --repo-type dataset --revision {COMMIT}" in message

    def test_columns_and_splits_that_are_not_there_are_named_with_those_that_are(self, hub_cache) -> None:
        hub_cache(
            "owner/set", COMMIT, "default", {"train": table(column="sentence"), "dev": table(column="sentence")}, ()
        )
        message = faults_of(f"hub/owner/set@{COMMIT}")
        assert "train: the dataset has no column 'text'. Its columns: sentence, label, idx" in message
        assert "validation: the dataset has no split 'validation'. Its splits: train, dev" in message


class TestGlue:
    def test_the_nine_tasks_are_known_without_their_data(self) -> None:
        infos = {name: tasks.describe(f"glue/{name}") for name in glue.names()}
        assert sorted(infos) == ["cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb", "wnli"]
        special = {name: info.metric for name, info in infos.items() if info.metric != "accuracy"}
        assert special == {
            "cola": "matthews_correlation",
            "mrpc": "f1_and_accuracy",
            "qqp": "f1_and_accuracy",
            "stsb": "pearson_and_spearman",
        }
        assert [name for name, info in infos.items() if not info.pair] == ["cola", "sst2"]
        assert (infos["stsb"].kind, infos["mnli"].num_labels) == ("regression", 3)
        assert "nyu-mll/glue:rte@bcdcba79" in infos["rte"].source

    def test_a_task_is_read_with_hidden_test_labels_left_out(self, hub_cache) -> None:
        def pairs(label: int | None = None) -> pa.Table:
            rows = table(6, label, "premise")
            return rows.append_column("hypothesis", pa.array([*"abcde", ""]))  # GLUE has a few empty texts

        names = ("entailment", "neutral", "contradiction")
        halves = {
            f"{split}_{half}": pairs(-1 if split == "test" else None)
            for split in ("validation", "test")
            for half in ("matched", "mismatched")
        }
        halves["validation_mismatched"] = halves["validation_mismatched"].slice(1)
        hub_cache(glue.DATASET, glue.REVISION, "mnli", {"train": pairs(), **halves}, names)
        task = tasks.load("glue/mnli")
        rows = {split: part.num_rows for split, part in task.splits.items()}
        assert rows == {"train": 6, "validation": 6, "validation_mismatched": 5}
        assert task.info == tasks.describe("glue/mnli")
        assert task.splits["train"]["text_b"].to_pylist() == [*"abcde", ""]

    def test_one_that_cannot_be_reached_says_how_to_get_it(self, hub_cache) -> None:
        message = faults_of("glue/sst2")
        assert "Hugging Face hub" in message
        assert "Without a network, download it" in message

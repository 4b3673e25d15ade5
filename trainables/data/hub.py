"""Rows of a dataset of the Hugging Face hub at one commit, from the local caches or the network.

A commit never changes, so what a cache holds of it is taken without asking the network. `datasets` itself falls back
to "the latest cached version" of a dataset when it cannot reach the hub, whatever revision was asked for; here such
rows are refused, since another revision is other data.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from huggingface_hub.errors import LocalEntryNotFoundError

from trainables.data import reachability
from trainables.data.rows import Declared, make_task
from trainables.faults import FaultsError, UnavailableError
from trainables.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """Where the rows of a task are on the hub: a dataset, a commit, and what its columns and splits are called."""

    dataset: str
    revision: str  # a full commit hash
    config: str | None
    columns: Mapping[str, str]  # text_a, text_b, label -> the dataset's column
    splits: Mapping[str, str]  # train, validation, test and further ones -> the dataset's split

    def __str__(self) -> str:
        return f"{self.dataset}{f':{self.config}' if self.config else ''}@{self.revision}"


def load_from_hub(source: HubSource, declared: Declared) -> Task:
    """Read and check a task of the hub.

    Raises `FaultsError` with all its faults, `UnavailableError` saying why where it cannot be had from here.
    """
    splits = _read(source, declared.name)
    faults: list[str] = []
    tables: dict[str, pa.Table] = {}
    names: tuple[str, ...] | None = declared.label_names
    for split, called in source.splits.items():
        if called not in splits:
            if split in ("train", "validation"):
                faults.append(f"{split}: the dataset has no split {called!r}. Its splits: {', '.join(splits)}")
            continue
        rows = splits[called]
        absent = [column for column in source.columns.values() if column not in rows.column_names]
        faults += [
            f"{split}: the dataset has no column {column!r}. Its columns: {', '.join(rows.column_names)}"
            for column in absent
        ]
        if absent:
            continue
        arrow = rows.with_format("arrow")[:]
        tables[split] = pa.table({ours: arrow.column(theirs) for ours, theirs in source.columns.items()})
        # A ClassLabel column carries the names of its classes.
        feature = rows.features[source.columns["label"]]
        feature = getattr(feature, "feature", feature)  # where a row has a list of labels
        names = names or tuple(map(str, getattr(feature, "names", None) or ())) or None
    if faults:
        raise FaultsError(f"task {declared.name}", faults)
    values = {field: getattr(declared, field) for field in declared.__dataclass_fields__}
    return make_task(Declared(**{**values, "label_names": names}), tables)


def _read(source: HubSource, task: str) -> Mapping[str, Dataset]:
    """All splits of exactly that commit: prepared before, else from the network, else from downloaded files."""
    prepared = _prepared(source)
    if prepared is not None:
        return prepared
    from datasets.exceptions import DatasetsError

    kind: type[FaultsError] = UnavailableError
    reason = "it does not answer"
    # These libraries raise a dozen unrelated errors (of httpx, OSError, ValueError, their own) for "not there".
    if reachability.is_worth_asking():
        try:
            return _from_network(source)
        except Exception as error:
            logger.debug("%s cannot be had from the hub", source, exc_info=True)
            reason = _in_one_line(error)
            if isinstance(error, DatasetsError | ValueError):  # the hub answered, and has no such thing
                kind = FaultsError
    try:
        return _from_snapshot(source)
    except LocalEntryNotFoundError:
        cached = "which has none of it"
    except Exception as error:
        logger.debug("%s cannot be had from the local cache", source, exc_info=True)
        cached = _in_one_line(error)
    # No word of the configuration: planning says once what many tasks of one dataset lack.
    named = f"{source.dataset}@{source.revision[:12]}"
    raise kind(
        f"task {task}",
        [
            f"cannot read {named} from the Hugging Face hub ({reason}), nor from the local cache ({cached}). "
            f"Without a network, download it where there is one (hf download {source.dataset} --repo-type dataset "
            f"--revision {source.revision}), or use a task folder"
        ],
    )


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _prepared(source: HubSource) -> Mapping[str, Dataset] | None:
    """What an earlier load of this commit left in the cache of `datasets`, or None."""
    import datasets
    from datasets.naming import camelcase_to_snakecase
    from datasets.packaged_modules.cache.cache import Cache

    owner, _, name = source.dataset.rpartition("/")
    called = f"{owner}___{camelcase_to_snakecase(name)}" if owner else camelcase_to_snakecase(name)
    root = Path(datasets.config.HF_DATASETS_CACHE).expanduser() / called
    found = [
        path
        for path in root.glob(f"{source.config or '*'}/*/{source.revision}")
        if (path / "dataset_info.json").exists()
    ]
    if len(found) != 1:
        return None
    config, version = found[0].parts[-3:-1]
    builder = Cache(
        dataset_name=name, config_name=config, version=version, hash=source.revision, repo_id=source.dataset
    )
    return builder.as_dataset()


def _from_network(source: HubSource) -> Mapping[str, Dataset]:
    import datasets

    # With the scheme, a folder of that name in the working directory is not mistaken for the dataset.
    path = f"hf://datasets/{source.dataset}"
    splits = datasets.load_dataset(path, source.config, revision=source.revision)
    files = [Path(file["filename"]) for rows in splits.values() for file in rows.cache_files]
    if any(file.parent.name != source.revision for file in files):
        raise ConnectionError(f"it cannot be reached, and another revision is cached: {files[0].parent.name}")
    return splits


def _from_snapshot(source: HubSource) -> Mapping[str, Dataset]:
    """From the files of the hub's own cache, as `hf download` leaves them."""
    import datasets
    import huggingface_hub

    folder = huggingface_hub.snapshot_download(
        source.dataset, repo_type="dataset", revision=source.revision, local_files_only=True
    )
    return datasets.load_dataset(folder, source.config)

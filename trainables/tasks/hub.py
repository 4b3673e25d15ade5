"""Datasets of the Hugging Face hub: `hub/<dataset>[:config]@<commit>[?key=value&...]`.

The commit is the full 40-digit hash: trials are identified by their content, and a branch or tag may move. Keys:

    text_a, text_b, label       the dataset's columns; text and label where not given, text_b only for pairs
    train, validation, test     the dataset's splits; their own names where not given
    kind, metric                where they cannot be told from the labels

For example `hub/stanfordnlp/imdb@<commit>?validation=test`. Code in a dataset's repository is never run.
"""

from __future__ import annotations

import functools
import re
from urllib.parse import parse_qsl

from trainables.data.hub import HubSource, load_from_hub
from trainables.data.rows import NO_ANSWERS, Declared, declaration_faults
from trainables.faults import FaultsError, unknown_name
from trainables.task import SPLITS, Task, TaskInfo

_KEYS = ("text_a", "text_b", "label", *SPLITS, "kind", "metric")
_REFERENCE = re.compile(
    r"(?P<dataset>[\w.-]+(/[\w.-]+)?)(:(?P<config>[^@?]+))?(@(?P<revision>[^?]*))?(\?(?P<query>.*))?"
)


def names() -> tuple[str, ...]:
    """The hub has too many datasets to know them by name."""
    return ()


def describe(reference: str) -> TaskInfo:
    """The facts of a dataset of the hub. Reads it, since only its rows tell."""
    return load(reference).info


@functools.lru_cache(maxsize=64)
def load(reference: str) -> Task:
    """Read and check a dataset of the hub.

    Raises `FaultsError` with all its faults, `UnavailableError` saying why where it cannot be reached.
    """
    source, declared = parse(reference)
    return load_from_hub(source, declared)


def parse(reference: str) -> tuple[HubSource, Declared]:
    """Take a reference (without the leading `hub/`) apart. Raises `FaultsError` with all its faults."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        rule = "hub/<dataset>[:config]@<commit>[?key=value&...]"
        raise FaultsError(f"task hub/{reference}", [f"must read {rule}, but got 'hub/{reference}'"])
    faults = []
    revision = match["revision"] or ""
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        faults.append(
            "revision: must be pinned by @ and a full commit hash (40 hexadecimal digits), because trials are "
            f"identified by their data and a branch or tag may move, but got {revision or 'none'}"
        )
    given: dict[str, str] = {}
    for key, value in parse_qsl(match["query"] or "", keep_blank_values=True):
        if key not in _KEYS:
            faults.append(unknown_name("key of a hub reference", key, _KEYS))
        elif key in given:
            faults.append(f"{key}: must be given once, but is given again as {value!r}")
        elif not value:
            faults.append(f"{key}: must not be empty")
        else:
            given[key] = value
    given = {"text_a": "text", "label": "label"} | given
    source = HubSource(
        dataset=match["dataset"],
        config=match["config"],
        revision=revision,
        columns={key: given[key] for key in ("text_a", "text_b", "label") if key in given},
        splits={split: given.get(split, split) for split in SPLITS},
    )
    declared = Declared(
        name=f"hub/{reference}",
        source=str(source),
        kind=given.get("kind"),  # type: ignore[arg-type]  # any text; checked below
        pair="text_b" in given,
        metric=given.get("metric"),
    )
    faults += declaration_faults(declared)
    if declared.kind == "extractive_qa":
        faults.append(NO_ANSWERS)
    if faults:
        raise FaultsError(f"task hub/{reference}", faults)
    return source, declared

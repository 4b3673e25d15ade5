"""A trained model that answers for texts."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from trainables.backbones.loading import Backbone
from trainables.config import TrialConfig
from trainables.data import squad
from trainables.data.tokenized import TokenizedSplit, encode
from trainables.data.windows import answer_texts
from trainables.faults import FaultsError
from trainables.methods import tokenized_by_method
from trainables.task import Task, TaskInfo
from trainables.training.evaluation import pick, predict, probabilities_of_labels
from trainables.training.model import AdaptedModel


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictor:
    """A trained model that answers for texts."""

    task: TaskInfo
    config: TrialConfig
    scores: Mapping[str, float]
    model: AdaptedModel
    backbone: Backbone

    def logits(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> np.ndarray:
        """Outputs (N, C) in float32: one a class or label, or the one number of a regression.

        Of extractive question answering, (windows, L, 2): start and end of every word piece of a window.
        """
        return predict(self.model, self.encode(texts, pairs))[0]

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Any]:
        """The label of each text (its name, or its number where labels have no names), or its score.

        Where a text may have several labels, a list for each: those whose probability is more than 0.5, as pairs of
        label and probability, the most probable first.

        `pairs` holds the second text of each row where the task is one of pairs; where texts are questions, these are
        their contexts, and answers are pieces of them. Raises `FaultsError` where the texts do not fit the task.
        """
        return self.answer(texts, pairs)[0]

    def answer(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> tuple[list[Any], np.ndarray]:
        """What `predict` and `logits` give, of one pass. Raises as they do."""
        split = self.encode(texts, pairs)
        outputs = predict(self.model, split)[0]
        return self.answers(outputs, split), outputs

    def answers(self, outputs: np.ndarray, split: TokenizedSplit) -> list[Any]:
        """What outputs for encoded texts, shaped as `logits` gives them, say of each text."""
        if split.windows is not None:
            return answer_texts(outputs, split.windows, split.offsets)
        if self.task.kind == "regression":
            return [float(value) for value in outputs[:, 0]]
        names: Sequence[str] | range = self.task.label_names or range(self.task.num_labels)
        if self.task.kind == "multilabel":
            probabilities = probabilities_of_labels(outputs)
            found = [np.flatnonzero(row).tolist() for row in pick(outputs, split, self.task.kind)]
            return [
                [(names[label], float(row[label])) for label in sorted(labels, key=lambda label: -row[label])]
                for row, labels in zip(probabilities, found, strict=True)
            ]
        return [names[int(label)] for label in outputs.argmax(axis=1)]

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> TokenizedSplit:
        """Texts as the task's word pieces. Raises `FaultsError` where they do not fit the task."""
        faults: list[str] = []
        texts = _listed("texts", texts, faults)
        pairs = None if pairs is None else _listed("pairs", pairs, faults)
        if self.task.pair is (pairs is None):
            rule = "needs the second text of each row" if self.task.pair else "takes single texts, no pairs"
            faults.append(f"pairs: the task {self.task.name} {rule}")
        elif pairs is not None and not faults and len(pairs) != len(texts):
            faults.append(f"pairs: must be as many as texts, but got {len(pairs)} for {len(texts)}")
        if faults:
            raise FaultsError("predict", faults)
        columns = {"text_a": pa.array(texts, pa.string())}
        if pairs is not None:
            columns["text_b"] = pa.array(pairs, pa.string())
        if self.task.kind == "extractive_qa":  # a table with answers is cut into windows
            columns["answers"] = pa.array([[]] * len(texts), squad.SCHEMA.field("answers").type)
        else:
            columns["label"] = pa.array([0] * len(texts), pa.int64())
        rows = pa.table(columns)
        asked = Task(info=self.task, splits={"asked": rows}, fingerprint=uuid.uuid4().hex)
        if (splits := tokenized_by_method(asked, self.config)) is not None:
            return splits["asked"]
        assert self.backbone.tokenizer is not None  # only a method that tokenises itself has none
        return encode(rows, self.backbone.tokenizer, self.config.max_length, prompt=self.backbone.info.prompt)


def _listed(name: str, given: Any, faults: list[str]) -> list[str]:
    """Texts that were given in whatever holds some, such as a column of a table, as a list; or why they are none."""
    rule = f"{name}: must be a non-empty list of texts"
    if isinstance(given, str) or not isinstance(given, Iterable):
        faults.append(f"{rule}, but got {given!r}")
        return []
    listed = given.to_pylist() if isinstance(given, pa.Array | pa.ChunkedArray) else list(given)
    wrong = [(place, each) for place, each in enumerate(listed) if not isinstance(each, str)]
    if wrong:
        place, each = wrong[0]
        faults.append(f"{rule}, but {name}[{place}] is {each!r}")
    elif not listed:
        faults.append(f"{rule}, but got {given!r}")
    return listed

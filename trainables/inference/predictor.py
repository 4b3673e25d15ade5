"""A trained model that answers for texts."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
from trainables.training.evaluation import predict
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
        """Outputs (N, C) in float32: one a class, or the one number of a regression.

        Of extractive question answering, (windows, L, 2): start and end of every word piece of a window.
        """
        return predict(self.model, self._encode(texts, pairs))[0]

    def predict(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[str] | list[int] | list[float]:
        """The label of each text (its name, or its number where labels have no names), or its score.

        `pairs` holds the second text of each row where the task is one of pairs; where texts are questions, these are
        their contexts, and answers are pieces of them. Raises `FaultsError` where the texts do not fit the task.
        """
        split = self._encode(texts, pairs)
        outputs = predict(self.model, split)[0]
        if split.windows is not None:
            return answer_texts(outputs, split.windows, split.offsets)
        if self.task.kind == "regression":
            return [float(value) for value in outputs[:, 0]]
        classes = outputs.argmax(axis=1)
        names = self.task.label_names
        return [names[int(label)] for label in classes] if names else [int(label) for label in classes]

    def _encode(self, texts: Sequence[str], pairs: Sequence[str] | None) -> TokenizedSplit:
        faults = []
        if self.task.pair is (pairs is None):
            rule = "needs the second text of each row" if self.task.pair else "takes single texts, no pairs"
            faults.append(f"pairs: the task {self.task.name} {rule}")
        elif pairs is not None and len(pairs) != len(texts):
            faults.append(f"pairs: must be as many as texts, but got {len(pairs)} for {len(texts)}")
        if isinstance(texts, str) or not texts:
            faults.append(f"texts: must be a non-empty list of texts, but got {texts!r}")
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

"""A saved adapter as MLflow's pyfunc opens it: rows of texts in, rows of answers out. Knows no MLflow.

MLflow finds this module by its name and calls `_load_pyfunc` with the folder of a model's data, which holds

- `adapter/`, the files of a saved adapter;
- `backbone/`, the files of its backbone, where no name tells another machine where to find that.

Nothing is pickled: what is read are JSON and safetensors, checked as `adaptune.load` checks them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from trainables.faults import FaultsError
from trainables.metrics import TaskKind
from trainables.packaged import PACKAGED
from trainables.task import TaskInfo

if TYPE_CHECKING:
    from trainables.inference.predictor import Predictor

# The folders of a model's data.
ADAPTER, BACKBONE = "adapter", "backbone"
# What `mlflow.pyfunc.load_model(..., model_config={...})` may say: the device and the precision, as `adaptune.load`
# takes them, and where the backbone is, where its own name does not lead to it.
SETTINGS = {"device": "cpu", "precision": "fp32", "backbone": ""}

TEXT, PAIR = "text", "pair"
PREDICTION, PROBABILITY = "prediction", "probability"
_MOST_TOLD = 10  # faulty rows of a request that are named

ColumnType = Literal["string", "long", "double"]

# The libraries whose versions decide what a model answers, by the names they are installed under.
REQUIRED = (
    "adaptune", "huggingface-hub", "numpy", "pyarrow", "safetensors", "scikit-learn", "scipy", "tokenizers", "torch",
    "transformers",
)  # fmt: skip


def required(method: str, backbone: str) -> tuple[str, ...]:
    """What must be installed to load a model of this method and backbone."""
    packaged = (PACKAGED[backbone][0].replace("_", "-"),) if backbone in PACKAGED else ()
    return (*REQUIRED, *(("peft",) if method == "peft" else ()), *packaged)


def input_columns(task: TaskInfo) -> dict[str, ColumnType]:
    """The columns that a model of this task reads: the text and, of a task of pairs, the text it is paired with.

    Where texts are questions, their pairs are the contexts.
    """
    return {TEXT: "string", **({PAIR: "string"} if task.pair else {})}


def output_columns(task: TaskInfo) -> dict[str, ColumnType | list[ColumnType]]:
    """The columns that it answers with; a type in a list is that of the values of a list.

    `prediction` is as `Predictor.predict` gives it. Beside a class stands its `probability`; where a text may have
    several labels, both are lists, the most probable label first.
    """
    label: ColumnType = "string" if task.label_names else "long"
    columns: dict[TaskKind, dict[str, ColumnType | list[ColumnType]]] = {
        "classification": {PREDICTION: label, PROBABILITY: "double"},
        "multilabel": {PREDICTION: [label], PROBABILITY: ["double"]},
        "regression": {PREDICTION: "double"},
        "extractive_qa": {PREDICTION: "string"},
    }
    return columns[task.kind]


class TextModel:
    """What MLflow wraps: one trained model that answers for a table of texts."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:
        """The answers to a pandas DataFrame with `input_columns`, as one with `output_columns`, row by row.

        `params` has no meaning here; MLflow passes it to every model. Raises `FaultsError` where a column lacks or a
        value is no text.
        """
        task = self._predictor.task
        columns = {name: self._texts(model_input, name) for name in input_columns(task)}
        answers, outputs = self._predictor.answer(columns[TEXT], columns.get(PAIR))
        return pa.table(_answered(task, answers, outputs)).to_pandas()

    def _texts(self, table: Any, name: str) -> list[str]:
        if name not in table:
            known = ", ".join(map(str, table))
            raise FaultsError("predict", [f"{name}: there must be a column of this name, but got {known}"])
        texts = list(table[name])
        wrong = [(place, text) for place, text in enumerate(texts) if not isinstance(text, str)]
        if wrong:
            faults = [f"{name}[{place}]: must be text, but got {value!r}" for place, value in wrong[:_MOST_TOLD]]
            raise FaultsError("predict", faults)
        return texts


def _answered(task: TaskInfo, answers: list[Any], outputs: np.ndarray) -> dict[str, Any]:
    if task.kind == "multilabel":
        labels = [[label for label, _ in row] for row in answers]
        kind = pa.string() if task.label_names else pa.int64()
        likely = [[float(probability) for _, probability in row] for row in answers]
        return {
            PREDICTION: pa.array(labels, pa.list_(kind)),
            PROBABILITY: pa.array(likely, pa.list_(pa.float64())),
        }
    columns: dict[str, Any] = {PREDICTION: answers}
    if task.kind == "classification":
        shifted = np.exp(outputs.astype(np.float64) - outputs.max(axis=1, keepdims=True))
        columns[PROBABILITY] = (shifted / shifted.sum(axis=1, keepdims=True)).max(axis=1)
    return columns


def _load_pyfunc(data_path: str, model_config: Mapping[str, Any] | None = None) -> TextModel:
    """What MLflow calls. Raises `FaultsError` as `adaptune.load` does."""
    # Here: whoever writes a model needs its columns and no torch.
    from trainables.backbones.loading import load_backbone
    from trainables.device.dtype import compute_dtype
    from trainables.device.hardware import device_named
    from trainables.inference.saved_adapter import load

    settings = {**SETTINGS, **(model_config or {})}
    device, precision = str(settings["device"]), str(settings["precision"])
    folder = Path(data_path)
    carried = folder / BACKBONE
    named = settings["backbone"] or (str(carried) if carried.is_dir() else None)
    backbone = None
    if named:
        place = device_named(device)
        backbone = load_backbone(str(named), device=place, compute_dtype=compute_dtype(precision, place))
    return TextModel(load(folder / ADAPTER, device=device, precision=precision, backbone=backbone))

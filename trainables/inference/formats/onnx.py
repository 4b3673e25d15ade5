"""An ONNX graph of backbone, what was trained, and head, which onnxruntime computes without torch.

`model.onnx` takes padded word pieces, as many texts as long as one likes, and gives logits. Beside it are the
tokenizer's files and `config.json`, which names the labels.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from trainables.inference.equal_answers import padded, reads_types, sample
from trainables.inference.formats import Answer
from trainables.inference.model_card import write_card
from trainables.inference.padded_model import PaddedModel
from trainables.inference.predictor import Predictor
from trainables.inference.saved_names import CARD
from trainables.inference.stock_model import library_config
from trainables.methods import uses_backbone

# onnxscript is what torch writes graphs with.
NEEDS = (("onnx", "onnxruntime", "onnxscript"), "onnx")
GRAPH = "model.onnx"
# What a text alone and the same text padded may differ by, of the largest output.
_TOLERANCE = 1e-4


class _Outputs(nn.Module):
    """The model with its outputs as the graph names them."""

    def __init__(self, model: PaddedModel, *, is_span: bool) -> None:
        super().__init__()
        self.model, self.is_span = model, is_span

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        logits: Tensor = self.model(input_ids, attention_mask, token_type_ids)
        return (logits[..., 0], logits[..., 1]) if self.is_span else logits


def write(predictor: Predictor, folder: Path) -> None:
    if not uses_backbone(predictor.config.method):
        raise ValueError("it reads no backbone, so its texts are no word pieces of a tokenizer")
    inputs = padded(predictor, predictor.encode(*sample(predictor)))
    model = _Outputs(PaddedModel(predictor), is_span=_is_span(predictor))
    with torch.no_grad(), _without_log():
        program = torch.onnx.export(
            model,
            kwargs=inputs,
            dynamo=True,
            input_names=list(inputs),
            output_names=_output_names(predictor),
            dynamic_shapes={name: {0: "batch", 1: "length"} for name in inputs},
            verbose=False,
        )
        assert program is not None  # it would be None where a file is named
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()  # where in which file of this machine each product stands
        program.save(folder / GRAPH)
    tokenizer = copy.deepcopy(predictor.backbone.tokenizer)
    assert tokenizer is not None  # the method reads a backbone
    tokenizer.model_max_length, tokenizer.padding_side = predictor.config.max_length, "right"
    tokenizer.save_pretrained(folder)
    library_config(predictor).save_pretrained(folder)
    write_card(folder / CARD, predictor, library="onnxruntime", usage=_usage(predictor), notes=_NOTES)


def open_(predictor: Predictor, folder: Path) -> Answer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    session = onnxruntime.InferenceSession(folder / GRAPH, options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        outputs = session.run(_output_names(predictor), {name: inputs[name] for name in names})
        return np.stack(outputs, axis=-1) if _is_span(predictor) else np.asarray(outputs[0])

    def answer(inputs: Mapping[str, Tensor]) -> Tensor:
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        together = run(arrays)
        for row, length in enumerate(arrays["attention_mask"].sum(axis=1)):
            alone = run({name: array[row : row + 1, :length] for name, array in arrays.items()})[0]
            expected = together[row, :length] if _is_span(predictor) else together[row]
            if not np.allclose(alone, expected, rtol=0, atol=_TOLERANCE * max(1.0, float(np.abs(expected).max()))):
                raise ValueError("opened there, a text answers otherwise alone than padded")
        return torch.from_numpy(together)

    return answer


@contextmanager
def _without_log() -> Iterator[None]:
    """Without what the exporter says of operators that nobody here uses."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _is_span(predictor: Predictor) -> bool:
    return predictor.task.kind == "extractive_qa"


def _output_names(predictor: Predictor) -> list[str]:
    return ["start_logits", "end_logits"] if _is_span(predictor) else ["logits"]


_NOTES = f"""\
`{GRAPH}` takes texts padded on the right, as many and as long as one likes, up to the length above. When it
was written, it answered as the trained model does. The lines need onnxruntime and transformers, and no torch.

"""


def _usage(predictor: Predictor) -> str:
    pair = ', ["and its pair"]' if predictor.task.pair else ""
    pair += ", return_token_type_ids=True" if reads_types(predictor) else ""
    names = ", ".join(_output_names(predictor))
    result = names if _is_span(predictor) else f"({names},)"
    return f"""import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
session = onnxruntime.InferenceSession("path/to/this/folder/{GRAPH}", providers=["CPUExecutionProvider"])
inputs = tokenizer(["a text"]{pair}, truncation=True, padding=True, return_tensors="np")
names = [each.name for each in session.get_inputs()]
{result} = session.run({json.dumps(_output_names(predictor))}, {{name: inputs[name] for name in names}})
"""

"""Whether what was written for another library answers as the trained model does."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from trainables.data.tokenized import TokenizedSplit
from trainables.inference.predictor import Predictor

# Of different lengths, so that padding and its mask are seen.
_TEXTS = (
    "No.",
    "A good day, a bad night, and all of the words in between that nobody had asked for.",
    "It was the best of the three, she said.",
)
_PAIRS = ("The second text stands behind the first.", "Yes.", "He was not so sure that it was", "And that.")
# Of the largest output; float32 through other kernels and in another order differs by a hundredth of that.
_TOLERANCE = 1e-4


def difference(predictor: Predictor, answer: Callable[[Mapping[str, Tensor]], Tensor]) -> str | None:
    """A sentence where the answers to a few texts differ from the predictor's; None where they do not."""
    texts, pairs = sample(predictor)
    split = predictor.encode(texts, pairs)
    expected = predictor.logits(texts, pairs)
    with torch.inference_mode():
        found = answer(padded(predictor, split)).float().cpu().numpy()
    if found.shape != expected.shape:
        return f"opened there, its outputs are {found.shape}, not {expected.shape}"
    if expected.ndim == 3:  # of padding nothing is asked
        of_text = np.arange(expected.shape[1]) < split.lengths[:, None]
        found, expected = found[of_text], expected[of_text]
    largest = float(np.abs(found - expected).max())
    if not largest <= _TOLERANCE * max(1.0, float(np.abs(expected).max())):
        return f"opened there, its outputs differ by {largest:.2g}"
    return None


def sample(predictor: Predictor) -> tuple[list[str], list[str] | None]:
    """Texts, and their pairs where the task has any, of different lengths up to where texts are cut."""
    texts = list(_TEXTS)
    if predictor.task.kind != "extractive_qa":  # there a long text is several windows
        texts.append(" ".join(["good", "or", "bad"] * (predictor.config.max_length // 3 + 1)))
    return texts, (list(_PAIRS[: len(texts)]) if predictor.task.pair else None)


def padded(predictor: Predictor, split: TokenizedSplit) -> dict[str, Tensor]:
    """Encoded texts as a tokenizer of transformers gives them, padded to the longest."""
    tokenizer = predictor.backbone.tokenizer
    assert tokenizer is not None  # only a method that reads no backbone has none
    size, length = len(split), int(split.lengths.max())
    ids = torch.full((size, length), tokenizer.pad_token_id or 0)
    types, mask = torch.zeros(size, length, dtype=torch.long), torch.zeros(size, length, dtype=torch.long)
    for row in range(size):
        start, stop = split.offsets[row], split.offsets[row + 1]
        ids[row, : stop - start] = torch.from_numpy(np.array(split.input_ids[start:stop], np.int64))
        types[row, : stop - start] = torch.from_numpy(np.array(split.token_type_ids[start:stop], np.int64))
        mask[row, : stop - start] = 1
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    if not reads_types(predictor):
        del inputs["token_type_ids"]
    return inputs


def reads_types(predictor: Predictor) -> bool:
    """Whether the backbone tells the texts of a pair apart by types of their word pieces."""
    return predictor.model.encoder.shape.type_vocab_size > 1

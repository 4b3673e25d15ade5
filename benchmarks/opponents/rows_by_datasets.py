"""Rows of a task as the libraries' documentation reads them: by `datasets`, tokenised in one `map`, kept on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backbone import MAX_LENGTH, backbone_folder
from datasets import DatasetDict, load_dataset
from recipe import scorer
from transformers import AutoTokenizer, DataCollatorWithPadding


def tokenized(folder: str) -> tuple[DatasetDict, Any]:
    """The splits of a folder of Parquet files in word pieces, and the tokenizer.

    All rows in one `map` with a fast tokenizer, kept by `datasets` on disk: a second trial finds them there.
    """
    tokenizer = AutoTokenizer.from_pretrained(backbone_folder())
    splits = load_dataset("parquet", data_files={path.stem: str(path) for path in Path(folder).glob("*.parquet")})
    texts = [name for name in ("text_a", "text_b") if name in splits["train"].column_names]

    def cut(rows: Mapping[str, list[str]]) -> Any:
        return tokenizer(*(rows[name] for name in texts), truncation=True, max_length=MAX_LENGTH)

    return splits.map(cut, batched=True, remove_columns=texts), tokenizer


def trainer_inputs(splits: DatasetDict, tokenizer: Any, metric: str) -> dict[str, Any]:
    """What a `Trainer` takes beside the model and its arguments."""
    return {
        "train_dataset": splits["train"],
        "eval_dataset": splits["validation"],
        "processing_class": tokenizer,
        "data_collator": DataCollatorWithPadding(tokenizer),  # pads each batch to its longest row, not to 128
        "compute_metrics": scorer(metric),
    }

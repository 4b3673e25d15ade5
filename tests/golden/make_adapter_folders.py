"""Make adapter_folders/: adapters and LoRA that the adapters library saved, with their heads, and its logits.

It runs in the environment of make_adapters.py, on the random BERT that is kept in adapters.safetensors:

    build/golden/bin/python tests/golden/make_adapter_folders.py

A folder for each case is what the library's `save_adapter` writes, `model_name` emptied; `expected.safetensors` has the
logits of each case for the inputs of adapters.safetensors. With folders that adaptune exported as arguments it runs
their cards instead, in which the texts may be replaced, and prints the outputs:

    build/golden/bin/python tests/golden/make_adapter_folders.py EXPORTED...
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import torch
from adapters import AdapterConfig, BertAdapterModel, BnConfig, DoubleSeqBnConfig, LoRAConfig, ParBnConfig, SeqBnConfig
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import BertConfig

HERE = Path(__file__).parent
LABELS = {0: "no", 1: "perhaps", 2: "yes"}
# Width 16 by reduction factor 4: adapters of size 4.
CASES: dict[str, AdapterConfig] = {
    "houlsby": DoubleSeqBnConfig(reduction_factor=4.0, non_linearity="gelu_new"),
    "pfeiffer": SeqBnConfig(reduction_factor=4.0, non_linearity="relu", leave_out=[1]),
    "parallel": ParBnConfig(reduction_factor=4.0, non_linearity="gelu_new", scaling=2.5),
    "attention_only": BnConfig(
        mh_adapter=True, output_adapter=False, reduction_factor=4.0, non_linearity="swish", original_ln_after=True
    ),
    "lora": LoRAConfig(r=2, alpha=6, intermediate_lora=True, output_lora=True, attn_matrices=["q", "k"]),
}


def main() -> None:
    torch.set_num_threads(1)
    tensors = load_file(HERE / "adapters.safetensors")
    with safe_open(HERE / "adapters.safetensors", framework="pt") as file:
        config = BertConfig(**json.loads(file.metadata()["config"]))
    inputs = {name.removeprefix("inputs/"): each for name, each in tensors.items() if name.startswith("inputs/")}
    backbone = {f"bert.{n.removeprefix('backbone/')}": each for n, each in tensors.items() if n.startswith("backbone/")}
    logits = {}
    for seed, (case, settings) in enumerate(CASES.items(), start=1):
        model = BertAdapterModel(config)
        model.load_state_dict(backbone, strict=False)
        model.add_adapter(case, config=settings)
        own = {"layers": 1, "activation_function": None, "use_pooler": case != "pfeiffer", "id2label": LABELS}
        model.add_classification_head(case, num_labels=len(LABELS), **own)
        model.set_active_adapters(case)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if f".{case}." in name:
                    parameter.normal_(0, 0.3, generator=generator)
            mask = torch.arange(inputs["input_ids"].shape[1]) < inputs["lengths"][:, None]
            found = model.eval()(
                input_ids=inputs["input_ids"], token_type_ids=inputs["token_types"], attention_mask=mask.long()
            )
        logits[case] = found.logits
        folder = HERE / "adapter_folders" / case
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        model.save_adapter(str(folder), case, use_safetensors=True)
    save_file(logits, HERE / "adapter_folders" / "expected.safetensors")


def run_cards(folders: list[str]) -> None:
    for folder in folders:
        (code,) = re.findall(r"```python\n(.*?)```", Path(folder, "README.md").read_text(encoding="utf-8"), re.DOTALL)
        names: dict[str, object] = {}
        with torch.no_grad():
            exec(code.replace("path/to/this/folder", folder), names)
        print(folder, names.get("logits", names["outputs"]))  # noqa: T201 - it is a script


if __name__ == "__main__":
    run_cards(sys.argv[1:]) if sys.argv[1:] else main()

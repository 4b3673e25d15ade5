"""What several rooms' tests need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

AddDataset = Callable[[str, str, str, Mapping[str, pa.Table], Sequence[str]], Path]


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AddDataset:
    """A machine without network whose caches of the Hugging Face hub are empty.

    The returned function (dataset, revision, config, splits, label names) puts a dataset into the hub's cache the way
    `hf download` leaves it there, and gives back its folder.
    """
    import datasets
    import huggingface_hub

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf" / "datasets")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    datasets.disable_progress_bars()

    def add(dataset: str, revision: str, config: str, splits: Mapping[str, pa.Table], names: Sequence[str]) -> Path:
        cached = f"datasets--{dataset.replace('/', '--')}"
        folder = tmp_path / "hf" / "hub" / cached / "snapshots" / revision
        (folder / config).mkdir(parents=True)
        card = ["---", "configs:", f"- config_name: {config}", "  data_files:"]
        for split, table in splits.items():
            pa.parquet.write_table(table, folder / config / f"{split}-00000-of-00001.parquet")
            card += [f"  - split: {split}", f"    path: {config}/{split}-*"]
        card += ["dataset_info:", f"- config_name: {config}", "  features:"]
        for field in next(iter(splits.values())).schema:
            card += [f"  - name: {field.name}"]
            if field.name == "label" and names:
                card += ["    dtype:", "      class_label:", "        names:"]
                card += [f"          '{index}': '{name}'" for index, name in enumerate(names)]
            else:
                card += [f"    dtype: {'float64' if field.type == pa.float64() else field.type}"]
        (folder / "README.md").write_text("\n".join([*card, "---", ""]), encoding="utf-8")
        return folder

    return add

"""What was made of single trials after they ended, in a folder a trial: `artifacts/<trial id>/`."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector, FileType

from orchestrator.store.files import Folder

logger = logging.getLogger(__name__)

ARTIFACTS = "artifacts"
ABLATION = "ablation"  # ablation.parquet, of another split than validation ablation-test.parquet


def write_artifacts(folder: Folder, trial_id: str, files: Mapping[str, bytes]) -> None:
    """Keep files of a trial, each replacing its predecessor in one step, in the order given. Raises `OSError`."""
    place = folder.folder(ARTIFACTS).folder(trial_id)
    for name, content in files.items():
        place.write(name, content)


def read_ablations(folder: Folder) -> pa.Table | None:
    """Every ablation that is kept, one under the other; a column that one lacks is null there. None where none is.

    A file that cannot be read is named in a warning and left out. Raises `OSError` where the file system fails.
    """
    infos = folder.filesystem.get_file_info(FileSelector(folder.at(ARTIFACTS), allow_not_found=True, recursive=True))
    whole: pa.Table | None = None
    for info in sorted(infos, key=lambda info: info.path):
        name = info.base_name
        is_table = name == f"{ABLATION}.parquet" or (name.startswith(f"{ABLATION}-") and name.endswith(".parquet"))
        if info.type != FileType.File or not is_table:
            continue
        with folder.filesystem.open_input_file(info.path) as source:
            content = source.read_buffer()
        try:
            table = pq.ParquetFile(pa.BufferReader(content)).read()
            table.validate(full=True)
            table["trial_id"].cast(pa.string())
            whole = table if whole is None else pa.concat_tables([whole, table], promote_options="permissive")
        except Exception as error:  # whatever Arrow makes of bytes that are anybody's
            logger.warning("%s is not a table of an ablation and is left out: %s", info.path, error)
    return whole

"""What trials have trained, of those whose weights are kept: in `kept/<trial id>/` the files of a saved adapter.

A folder is whole once it has its configuration, which is written last and deleted first. `adaptune.load` opens it as it
lies there.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping

from orchestrator.store.files import Folder
from trainables.inference.saved_names import CONFIG, WEIGHTS

logger = logging.getLogger(__name__)

KEPT = "kept"


class KeptWeights:
    """The kept weights of a store. One process writes and removes at a time, any number may read meanwhile."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def trials(self) -> frozenset[str]:
        """The trials that have a whole folder."""
        paths = [path.split("/") for path in self._folder.tree()]
        return frozenset(parts[0] for parts in paths if parts[1:] == [CONFIG])

    def write(self, trial_id: str, files: Mapping[str, bytes]) -> None:
        """Write the files of a trial, in the place of those of an earlier training. Raises `OSError`.

        Whoever reads meanwhile meets the old ones, the new ones or none.
        """
        folder = self._folder.folder(trial_id)
        folder.discard(CONFIG)
        for name in sorted(files, key=lambda name: name == CONFIG):
            folder.write(name, files[name])

    def remove(self, trial_ids: Iterable[str]) -> None:
        """Delete the folders of trials, where they are there. Raises `OSError`."""
        for trial_id in trial_ids:
            self._folder.discard_folder(trial_id, CONFIG)

    def read(self, trial_id: str, started_at: str | None) -> dict[str, bytes] | None:
        """The files of the training that began at this time, or None where these are not here, or not whole."""
        folder = self._folder.folder(trial_id)
        try:
            about = folder.read(CONFIG).to_pybytes()
            files = {name: folder.read(name).to_pybytes() for name in folder.tree() if name != CONFIG}
        except FileNotFoundError:  # never kept, or overtaken meanwhile
            return None
        found = _of_training(about)
        if found != (started_at, hashlib.sha256(files.get(WEIGHTS, b"")).hexdigest()):
            logger.warning("%s is not what the recorded training left, and is passed over", folder.path)
            return None
        return {**{name: content for name, content in files.items() if not _is_hidden(name)}, CONFIG: about}


def _of_training(about: bytes) -> tuple[str | None, str | None]:
    """When the training began that a configuration is of, and the hash of its weights; None what it does not say."""
    try:
        values = json.loads(about)
        return values.get("started_at"), values.get("weights_sha256")
    except (ValueError, AttributeError, RecursionError):
        return None, None


def _is_hidden(name: str) -> bool:
    """Whether it is a file that was never finished."""
    return name.rpartition("/")[2].startswith(".")

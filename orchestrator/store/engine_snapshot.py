"""The note that a driver leaves in its store of what the engines are doing, for other terminals to read."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, get_type_hints

from orchestrator.engine_status import EngineStatus
from orchestrator.store.files import Folder

logger = logging.getLogger(__name__)

NOTE = "engines.json"


@dataclass(frozen=True, kw_only=True)
class EngineSnapshot:
    """The engines of a sweep as its driver last saw them."""

    host: str
    pid: int
    written_at: str  # UTC, ISO 8601
    engines: tuple[EngineStatus, ...]

    @property
    def age_s(self) -> float:
        written = datetime.fromisoformat(self.written_at).astimezone(UTC)
        return max(0.0, (datetime.now(UTC) - written).total_seconds())


def write_note(folder: Folder, engines: Sequence[EngineStatus]) -> None:
    """Replace the note in one step. Where it cannot be written now, the next one may be: that is nobody's trouble."""
    note = EngineSnapshot(
        host=socket.gethostname(),
        pid=os.getpid(),
        written_at=datetime.now(UTC).isoformat(timespec="seconds"),
        engines=tuple(engines),
    )
    try:
        folder.write(NOTE, json.dumps(dataclasses.asdict(note), indent=2).encode())
    except OSError:
        logger.info("%s could not be written", folder.at(NOTE), exc_info=True)


def read_note(folder: Folder) -> EngineSnapshot | None:
    """The note; None where there is none, or none that this version understands."""
    try:
        values: dict[str, Any] = json.loads(folder.read(NOTE).to_pybytes())
        note = EngineSnapshot(**{**values, "engines": tuple(_engine(engine) for engine in values["engines"])})
        datetime.fromisoformat(note.written_at).astimezone(UTC)
        return note
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        if not isinstance(error, FileNotFoundError):
            logger.warning("%s cannot be read: %s", folder.at(NOTE), error)
        return None


def _engine(values: dict[str, Any]) -> EngineStatus:
    """Raises `TypeError` where a value is not of its field's type; a whole number may stand for a fraction."""
    status = EngineStatus(**values)
    for name, kind in get_type_hints(EngineStatus).items():
        value = getattr(status, name)
        if not isinstance(value, kind) and not (isinstance(value, int) and isinstance(0.0, kind)):
            raise TypeError(f"{name} of an engine must not be {value!r}")
    return status


def remove_note(folder: Folder) -> None:
    """Take the note away, where there is one. Raises as `Folder.discard`."""
    folder.discard(NOTE)

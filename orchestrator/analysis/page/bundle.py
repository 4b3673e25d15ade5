"""The charting library that every page carries: Vega, Vega-Lite and Vega-Embed. The only door to vl-convert."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import tempfile
from importlib.metadata import version
from pathlib import Path

from trainables.cache import cache_folder

logger = logging.getLogger(__name__)

_EXPOSED = "window.vegaEmbed = vegaEmbed;"
_NOTICE = """/*! Vega, Vega-Lite and Vega-Embed. Copyright 2015-2026 University of Washington Interactive Data Lab.
Licensed under the BSD 3-Clause License. */
"""


@functools.cache
def charting_library() -> str:
    """The library as a script that stands between script tags, about 0.9 MB.

    Making it takes a second, so it is kept in the cache, where that can be written, with its own digest.
    """
    try:
        file = cache_folder() / "page" / f"vega-{version('vl-convert-python')}.js"
        if (kept := _read(file)) is not None:
            return kept
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home
        logger.debug("the charting library is made anew: %s", error)
        return _made()
    made = _made()
    try:
        _keep(file, made)
    except OSError as error:
        logger.debug("the charting library is not kept: %s", error)
    return made


def _made() -> str:
    import vl_convert  # here: tables and answers do without it

    script = vl_convert.javascript_bundle(_EXPOSED)
    return _NOTICE + script.replace("</script", r"<\/script").replace("<!--", r"<\!--")


def _read(file: Path) -> str | None:
    """What is kept there; None where nothing is, or not what was written."""
    if not file.is_file():
        return None
    digest, _, script = file.read_text("utf-8", errors="replace").partition("\n")
    return script if digest == _digest(script) else None


def _keep(file: Path, script: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    # In a folder of its own, and then moved: another process may be at the same.
    with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
        partial = Path(scratch) / file.name
        partial.write_text(f"{_digest(script)}\n{script}", encoding="utf-8")
        os.replace(partial, file)


def _digest(script: str) -> str:
    """Of the script and of what makes it, so that another adaptune's is not taken for this one's."""
    return hashlib.sha256(f"{_EXPOSED}\n{_NOTICE}\n{script}".encode()).hexdigest()

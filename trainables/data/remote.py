"""Task folders and files elsewhere, fetched once per machine into the local cache: s3://, gs://, hf:// and http(s)://.

What lies there is listed whenever it is asked for, and fetched where the listing has changed: names, sizes, and the
times or versions that the storage tells. A trial's identity is the content of its rows, as ever.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import pyarrow.fs

from trainables.cache import cache_folder
from trainables.faults import FaultsError

SCHEMES = ("s3", "gs", "hf", "http", "https")
_BUCKETS = ("s3", "gs")
_OTHERS = re.compile(r"[a-z][a-z0-9+.-]*://")
_MOST_FILES = 100_000
_CHUNK = 1 << 20  # bytes
_PATIENCE_S = 10  # for one answer of a server


def is_remote(reference: str) -> bool:
    """Whether a reference is a URI, of whatever scheme."""
    return _OTHERS.match(reference) is not None


def fetch(uri: str) -> Path:
    """The local folder that holds what a URI names: the files of a folder, or the one file.

    Raises `FaultsError` where the URI is none of `SCHEMES`, holds credentials, or its storage does not give it.
    """
    parts = urlsplit(uri)
    if parts.scheme not in SCHEMES:
        rule = f"must be a local folder or begin with {', '.join(f'{scheme}://' for scheme in SCHEMES)}"
        raise FaultsError(f"task {parts.scheme}://...", [f"{rule}, but begins with {parts.scheme}://"])
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if "@" in parts.netloc:
        fault = f"{shown} must not hold credentials: they come from the environment or the machine's identity"
        raise FaultsError(f"task {shown}", [fault])
    try:
        source = _web(uri) if parts.scheme in ("http", "https") else _storage(uri)
        return _fetched(source, _last_part(parts.path))
    except Exception as fault:  # every storage's client has errors of its own
        reason = " ".join(str(fault).split())[:300] or type(fault).__name__
        rule = f"{shown} must be a folder or a file that can be read"
        remedy = ". Credentials come from the environment or the machine's identity" if parts.scheme in _BUCKETS else ""
        raise FaultsError(f"task {shown}", [f"{rule}, but {reason}{remedy}"]) from None


class _Source:
    """Files elsewhere: their names, what tells them from other versions, and their content."""

    def __init__(self, uri: str, files: dict[str, str], openings: Any) -> None:
        self.uri, self.files, self._openings = uri, files, openings

    def copy(self, name: str, target: Path) -> None:
        with self._openings(name) as content, target.open("wb") as file:
            shutil.copyfileobj(content, file, _CHUNK)


def _storage(uri: str) -> _Source:
    """What lies below a URI of a bucket or of the hub."""
    filesystem, path = _filesystem(uri)
    info = filesystem.get_file_info(path)
    if info.type == pyarrow.fs.FileType.File:
        found = [info]
        root = str(PurePosixPath(path).parent)
    else:
        selector = pyarrow.fs.FileSelector(path, recursive=True)
        found = [each for each in filesystem.get_file_info(selector) if each.type == pyarrow.fs.FileType.File]
        root = path.rstrip("/")
    if not found:
        raise FileNotFoundError("there is none")
    if len(found) > _MOST_FILES:
        raise ValueError(f"it holds {len(found):,} files, of which {_MOST_FILES:,} are the most that are fetched")
    files = {each.path.removeprefix(root).lstrip("/"): f"{each.size} {each.mtime_ns}" for each in found}
    return _Source(uri, files, lambda name: filesystem.open_input_stream(f"{root}/{name}", compression=None))


def _filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    if uri.startswith("hf://"):
        from huggingface_hub import HfFileSystem

        return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(HfFileSystem())), uri.removeprefix("hf://")
    if uri.startswith("gs://"):  # whose client tries for a quarter of an hour otherwise
        uri += f"{'&' if '?' in uri else '?'}retry_limit_seconds={_PATIENCE_S}"
    return pyarrow.fs.FileSystem.from_uri(uri.replace(" ", "%20"))


def _web(uri: str) -> _Source:
    """The one file that a URL names."""
    name = _last_part(urlsplit(uri).path)
    if "." not in name:
        raise ValueError(f"a URL must name one file, with an ending such as .csv or .parquet, but ends in {name!r}")
    try:
        with urlopen(Request(uri, method="HEAD"), timeout=_PATIENCE_S) as head:
            version = " ".join(head.headers.get(each, "") for each in ("etag", "last-modified", "content-length"))
    except HTTPError as refusal:
        refusal.close()
        raise ValueError(f"the server answers {refusal.code} {refusal.reason}") from None
    return _Source(uri, {name: version}, lambda name: urlopen(uri, timeout=_PATIENCE_S))


def _fetched(source: _Source, name: str) -> Path:
    """The folder of the cache that holds just these files, filled by whichever process comes first."""
    key = hashlib.sha256(json.dumps([source.uri, sorted(source.files.items())]).encode()).hexdigest()[:32]
    root = cache_folder() / "data"
    folder = root / key / name
    root.mkdir(parents=True, exist_ok=True)
    with _alone(root / f"{key}.lock"):
        if folder.is_dir():
            return folder
        partial = root / f"{key}.{uuid.uuid4().hex}.part" / name
        try:
            for file in source.files:
                target = partial / file
                if not target.resolve().is_relative_to(partial.resolve()):
                    raise ValueError(f"a file is called {file!r}")
                target.parent.mkdir(parents=True, exist_ok=True)
                source.copy(file, target)
            os.replace(partial.parent, root / key)
        finally:
            shutil.rmtree(partial.parent, ignore_errors=True)
    return folder


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process of this machine at a time."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _last_part(path: str) -> str:
    return re.sub(r"[^\w.-]", "_", unquote(PurePosixPath(path).name)) or "data"

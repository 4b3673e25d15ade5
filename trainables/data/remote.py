"""Folders and files elsewhere, fetched once per machine into the local cache: s3://, gs://, hf:// and http(s)://.

These are task folders, files of rows, and backbones. What lies there is listed whenever it is asked for, and fetched
where the listing has changed: names, sizes, and the times or versions that the storage tells. A trial's identity is the
content of its rows and weights, as ever.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterator, Sequence
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
    """The local folder that holds what a task's URI names: the files of a folder, or the one file.

    Raises `FaultsError` where the URI is none of `SCHEMES`, holds credentials, or its storage does not give it.
    """
    return look(uri, what="task", schemes=SCHEMES).fetch()


def look(uri: str, *, what: str, schemes: Sequence[str]) -> Elsewhere:
    """List what a URI names. `what` is what it should be, as messages call it: a task or a backbone.

    Raises `FaultsError` where the URI is none of these schemes, holds credentials, or its storage does not tell.
    """
    parts = urlsplit(uri)
    if parts.scheme not in schemes:
        rule = f"must be a local folder or begin with {', '.join(f'{scheme}://' for scheme in schemes)}"
        raise FaultsError(f"{what} {parts.scheme}://...", [f"{rule}, but begins with {parts.scheme}://"])
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if "@" in parts.netloc:
        fault = f"{shown} must not hold credentials: they come from the environment or the machine's identity"
        raise FaultsError(f"{what} {shown}", [fault])
    with _told(what, shown):
        source = _web(uri) if parts.scheme in ("http", "https") else _storage(uri)
    return Elsewhere(source, what, shown, _last_part(parts.path))


@contextmanager
def _told(what: str, shown: str) -> Iterator[None]:
    """Whatever goes wrong elsewhere is a fault of the URI."""
    try:
        yield
    except Exception as fault:  # every storage's client has errors of its own
        reason = " ".join(str(fault).split())[:300].rstrip(".") or type(fault).__name__
        kind = "folder" if what == "backbone" else "folder or a file"
        is_bucket = shown.startswith(tuple(f"{scheme}://" for scheme in _BUCKETS))
        remedy = ". Credentials come from the environment or the machine's identity" if is_bucket else ""
        rule = f"{shown} must be a {kind} that can be read, but {reason}{remedy}"
        raise FaultsError(f"{what} {shown}", [rule]) from None


class Elsewhere:
    """What lies at a URI, as it was listed: its files, of which some or all are fetched into the local cache."""

    def __init__(self, source: _Source, what: str, shown: str, name: str) -> None:
        self._source, self._what, self._name = source, what, name
        self.shown = shown  # the URI without settings
        self.files = tuple(sorted(source.files))

    def fetch(self, files: Collection[str] | None = None) -> Path:
        """The local folder that holds just these of the files, or all. Raises `FaultsError`."""
        wanted = self.files if files is None else files
        source = _Source(self._source.uri, {each: self._source.files[each] for each in wanted}, self._source.openings)
        with _told(self._what, self.shown):
            folder = _fetched(source, self._name, "data" if self._what == "task" else f"{self._what}s")
        _held[source.uri] = folder
        return folder


_held: dict[str, Path] = {}


def held(uri: str) -> Path | None:
    """What this process last fetched of a URI, without asking whether it has changed; None where it fetched nothing."""
    return _held.get(uri)


class _Source:
    """Files elsewhere: their names, what tells them from other versions, and their content."""

    def __init__(self, uri: str, files: dict[str, str], openings: Any) -> None:
        self.uri, self.files, self.openings = uri, files, openings

    def copy(self, name: str, target: Path) -> None:
        with self.openings(name) as content, target.open("wb") as file:
            shutil.copyfileobj(content, file, _CHUNK)
            file.flush()
            os.fsync(file.fileno())  # a power failure leaves no whole folder of torn files
            copied = file.tell()
        size = self.files[name].partition(" ")[0]
        if size.isdecimal() and copied != int(size):
            raise OSError(f"{name} ended after {copied:,} of its {int(size):,} bytes")


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
    files = {each.path.removeprefix(root).lstrip("/"): _version(filesystem, each) for each in found}
    return _Source(uri, files, lambda name: filesystem.open_input_stream(f"{root}/{name}", compression=None))


def _version(filesystem: pyarrow.fs.FileSystem, file: pyarrow.fs.FileInfo) -> str:
    """A file's bytes, and what tells it from another one as long: when it was written, or on the hub its hash."""
    if isinstance(filesystem, pyarrow.fs.PyFileSystem):
        return f"{file.size} {filesystem.handler.fs.info(file.path).get('blob_id')}"
    return f"{file.size} {file.mtime_ns}"


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


def _fetched(source: _Source, name: str, room: str) -> Path:
    """The folder of the cache that holds just these files, filled by whichever process comes first."""
    key = hashlib.sha256(json.dumps([source.uri, sorted(source.files.items())]).encode()).hexdigest()[:32]
    root = cache_folder() / room
    folder = root / key / name
    root.mkdir(parents=True, exist_ok=True)
    with _alone(root / f"{key}.lock"):
        if folder.is_dir():
            return folder
        for cut_short in root.glob(f"{key}.*.part"):  # by a process that was killed, since we are alone here
            shutil.rmtree(cut_short, ignore_errors=True)
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

"""A folder on a local disk or an object store whose files appear whole or not at all."""

from __future__ import annotations

import logging
import math
import os
import stat
import uuid
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem

from orchestrator.secrets import masked, store_faults
from orchestrator.store.fence import Fence
from orchestrator.store.reach import reach_faults
from trainables.faults import FaultsError

logger = logging.getLogger(__name__)

SCHEMES = ("abfs", "file", "gs", "hdfs", "s3")


@dataclass(frozen=True)
class Folder:
    """A place for files, named relative to it with forward slashes.

    A file is written under a hidden temporary name and then moved, so whoever lists the folder never meets half a
    file. Names that start with a dot are skipped by `pyarrow.dataset`, and no `*.parquet` pattern takes them.

    While this process is the driver of the store that the folder belongs to, writes and deletions go through its
    `fence`, and raise `StoreLockedError` once another driver has taken the store over.
    """

    filesystem: FileSystem
    path: str
    fence: Fence = field(default_factory=Fence, compare=False, repr=False)

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, LocalFileSystem)

    def at(self, name: str) -> str:
        return f"{self.path}/{name}"

    def folder(self, name: str) -> Folder:
        return Folder(self.filesystem, self.at(name), self.fence)

    def names(self) -> list[str]:
        """The files directly in this folder, sorted by name; none where the folder does not exist.

        Raises `FileNotFoundError` where a file was removed while the folder was being listed.
        """
        return list(self.sizes())

    def sizes(self) -> dict[str, int]:
        """The files directly in this folder and their bytes, sorted by name. Raises as `names`."""
        infos = self.filesystem.get_file_info(FileSelector(self.path, allow_not_found=True))
        for info in infos:
            if info.type == FileType.NotFound:
                raise FileNotFoundError(f"{info.path} was removed while its folder was being listed")
        return {i.base_name: i.size for i in sorted(infos, key=lambda i: i.base_name) if i.type == FileType.File}

    def folders(self) -> list[str]:
        """The folders directly in this folder, sorted by name; none where the folder does not exist."""
        infos = self.filesystem.get_file_info(FileSelector(self.path, allow_not_found=True))
        return sorted(info.base_name for info in infos if info.type == FileType.Directory)

    def tree(self) -> dict[str, int]:
        """The files anywhere below this folder and their bytes, by their path in it; none where it does not exist."""
        selector = FileSelector(self.path, allow_not_found=True, recursive=True)
        found = [info for info in self.filesystem.get_file_info(selector) if info.type == FileType.File]
        return {info.path[len(self.path) :].lstrip("/"): info.size for info in sorted(found, key=lambda i: i.path)}

    def exists(self, name: str) -> bool:
        return bool(self.filesystem.get_file_info(self.at(name)).type == FileType.File)

    def changed_at(self, name: str) -> datetime | None:
        """When a file was last written, by the clock of the file system, in UTC; None where there is none."""
        info = self.filesystem.get_file_info(self.at(name))
        return info.mtime if info.type == FileType.File else None

    def read(self, name: str) -> pa.Buffer:
        """All bytes of a file. Raises `FileNotFoundError`, or `OSError` where the file system fails.

        So it does where a pipe or a device lies in its place, which may never end, and where memory does not hold it.
        """
        if self.is_local:
            status = os.stat(self.at(name))
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                raise OSError(f"{self.at(name)} is a pipe, a socket or a device and not a file")
            if status.st_size > _memory_bytes():  # a system may well promise it, and end this process for it
                raise OSError(f"{self.at(name)} has {status.st_size:,} bytes, more than the memory of this machine")
        with self.filesystem.open_input_file(self.at(name)) as source:
            return source.read_buffer()

    def write(self, name: str, content: bytes | pa.Buffer, *, durable: bool = False) -> None:
        """Write or replace a file in one step that readers cannot see the middle of. Raises `OSError`.

        It survives the death of this process, and where it is `durable` a power failure too.
        """
        parent, _, base = self.at(name).rpartition("/")
        is_fenced = self.fence.staging is not None
        temporary = self.fence.aside() if is_fenced else f"{parent}/.{base}.{uuid.uuid4().hex[:8]}.tmp"
        self.fence.check()  # before a folder is made in a store that is another's
        entered = _folders_to_synchronize(parent) if durable and self.is_local else []
        self.filesystem.create_dir(parent, recursive=True)
        try:
            with self.filesystem.open_output_stream(temporary, compression=None) as sink:
                sink.write(content)
            if durable and self.is_local:
                _synchronize(temporary)
            self.filesystem.move(temporary, self.at(name))
            for folder in entered:
                _synchronize_folder(folder)
        except BaseException:
            self._discard(temporary)
            self.fence.check()
            raise

    def write_new(self, name: str, content: bytes) -> bool:
        """Write a file that must not be there, where the fence says how; False where it is. Raises `OSError`."""
        assert self.fence.put_new is not None
        return self.fence.put_new(self.at(name), content)

    def delete(self, name: str) -> None:
        if self.fence.staging is None:
            self.filesystem.delete_file(self.at(name))
            return
        aside = self.fence.aside()
        try:
            os.rename(self.at(name), aside)
        except OSError:
            self.fence.check()
            raise
        self._discard(aside)

    def discard(self, name: str) -> None:
        """Delete a file, where it is there."""
        try:
            self.delete(name)
        except FileNotFoundError:
            logger.debug("%s is gone already", self.at(name))

    def discard_folder(self, name: str, first: str) -> None:
        """Delete a folder with all in it, where it is there: in one step on a local disk, elsewhere `first` before all.

        Raises `OSError`.
        """
        if self.fence.staging is None:
            self.discard(f"{name}/{first}")
            self._discard_folder(self.at(name))
            return
        aside = self.fence.aside()
        try:
            os.rename(self.at(name), aside)
        except FileNotFoundError:
            self.fence.check()
            return
        except OSError:
            self.fence.check()
            raise
        self._discard_folder(aside)

    def _discard_folder(self, path: str) -> None:
        try:
            self.filesystem.delete_dir(path)
        except OSError:
            logger.debug("could not delete the folder %s", path, exc_info=True)

    def _discard(self, path: str) -> None:
        try:
            self.filesystem.delete_file(path)
        except OSError:
            logger.debug("could not delete the temporary file %s", path, exc_info=True)


def _memory_bytes() -> float:
    """Of this machine; infinite where the system does not tell."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf


def _synchronize(path: str) -> None:
    """Have the disk take what was written to a file, before anything that stands on it."""
    file = os.open(path, os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _folders_to_synchronize(parent: str) -> list[str]:
    """The folders that get an entry when a file is put into `parent`: itself, and those above what is made for it."""
    found = [parent]
    while not os.path.isdir(found[-1]) and (above := os.path.dirname(found[-1])) not in ("", found[-1]):
        found.append(above)
    return found


def _synchronize_folder(path: str) -> None:
    """Have the disk take which files a folder has: a file that was moved there could be gone after a power failure."""
    try:
        folder = os.open(path, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(folder)
    except OSError:  # not all network file systems know it
        logger.debug("the folder %s could not be synchronized", path, exc_info=True)
    finally:
        os.close(folder)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of a file's name that are no UTF-8, or half of a surrogate pair
        return False
    return True


def open_folder(uri: str | os.PathLike[str]) -> Folder:
    """The folder a local path or a `file://`, `s3://`, `gs://`, `abfs://` or `hdfs://` URI names. Nothing is created.

    Raises `FaultsError` where the URI cannot be understood, holds keys, or names a place that does not let us in.
    """
    text = os.fspath(uri)
    if faults := store_faults("the store's URI", text):
        raise FaultsError("store", faults)
    if "://" not in text:
        if not text or "\0" in text:
            came = repr(text) if text else "an empty text"
            raise FaultsError("store", [f"the store must be a path or a URI, but got {came}"])
        try:
            path = os.path.abspath(os.path.expanduser(text)).rstrip("/")
        except FileNotFoundError:
            rule = "the store must be a path that can be followed"
            raise FaultsError("store", [f"{rule}, but the working folder is gone, and {text} begins there"]) from None
        if not _is_unicode(path):
            rule = "the store must be a path of Unicode characters, since Arrow opens no other"
            raise FaultsError("store", [f"{rule}, but got {path!a}"])
        return Folder(LocalFileSystem(), path)
    if faults := reach_faults(text):
        raise FaultsError("store", faults)
    try:
        filesystem, path = FileSystem.from_uri(text)
    except (pa.ArrowException, OSError, ValueError) as error:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise FaultsError(
            "store", [f"{text!r} is not a place to store a sweep: {masked(str(error))} Known: {known}"]
        ) from error
    return Folder(filesystem, path.rstrip("/"))

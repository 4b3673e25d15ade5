"""The lock of a store on S3, and of what speaks its language: every change of it is conditional on what was seen."""

from __future__ import annotations

import logging
import uuid
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

from orchestrator.store.files import Folder
from orchestrator.store.identity import Holder
from orchestrator.store.lock_places import LOCK, LockPlace, Seen, parsed

_CONFLICT = 409  # S3's answer to conditional writes at the same moment: try again
_UNKNOWN = 501  # the answer of servers that know S3's language without its conditions
_ATTEMPTS = 5


class UnconditionalError(Exception):
    """A store's place offers no conditional writes, so that two drivers cannot be kept apart there.

    The text says why, and the remedy what would change that.
    """

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(why)
        self.remedy = remedy


def object_place(folder: Folder, uri: str) -> LockPlace:
    """The lock of a store in a bucket with conditional writes.

    Raises `UnconditionalError` for any other place, and `OSError` where the bucket cannot be reached or written.
    """
    if folder.filesystem.type_name != "s3" or "://" not in uri:
        scheme, is_uri, _ = uri.partition("://")
        kind = f"{scheme}://" if is_uri else f"{folder.filesystem.type_name} file systems"
        raise UnconditionalError(f"adaptune knows no conditional writes for {kind}", "keep it on a disk or on s3://")
    try:
        import boto3  # noqa: F401
    except ImportError as error:
        why = f"conditional writes to s3:// need boto3, which cannot be imported ({error})"
        raise UnconditionalError(why, "install it with pip install 'adaptune[s3]'") from None
    bucket = Bucket(uri, folder.filesystem.region)
    if not bucket.is_conditional(f"{folder.path}/.{LOCK}.{uuid.uuid4().hex[:8]}"):
        why = "its object store knows no conditional writes (If-None-Match)"
        raise UnconditionalError(why, "keep it on a disk or on an object store that does")
    return ObjectPlace(folder, bucket)


class _UnknownError(OSError):
    """An object store that does not know what it was asked."""


class Bucket:
    """The few requests with conditions that Arrow's file system does not make. Paths begin with the bucket's name."""

    def __init__(self, uri: str, region: str) -> None:
        """Endpoint and scheme are those of the URI, credentials those of the environment, as for Arrow."""
        import boto3
        from botocore.config import Config

        logging.getLogger("botocore").setLevel(logging.WARNING)  # it would tell how each request is signed
        options = {key: values[-1] for key, values in parse_qs(urlsplit(uri).query).items()}
        endpoint = options.get("endpoint_override")
        scheme = options.get("scheme", "https")
        own = {"endpoint_url": f"{scheme}://{endpoint}", "s3": {"addressing_style": "path"}} if endpoint else {}
        self._client = boto3.session.Session().client(
            "s3",
            region_name=options.get("region") or region,
            endpoint_url=own.get("endpoint_url"),
            config=Config(s3=own.get("s3"), connect_timeout=10, read_timeout=30, retries={"max_attempts": 3}),
        )

    def get(self, path: str) -> tuple[bytes, str] | None:
        """An object and its ETag; None where there is none. Raises `OSError`."""
        from botocore.exceptions import BotoCoreError

        answer = self._ask("get_object", path)
        try:
            return None if answer is None else (answer["Body"].read(), answer["ETag"])
        except BotoCoreError as error:
            raise OSError(f"{path}: {error}") from error

    def put(self, path: str, content: bytes, *, over: str | None) -> str | None:
        """Write an object in the place of the one with the ETag `over`, or where there is none.

        Returns its ETag, or None where the condition does not hold. Raises `OSError`.
        """
        condition = {"IfNoneMatch": "*"} if over is None else {"IfMatch": over}
        answer = self._ask("put_object", path, Body=content, **condition)
        return None if answer is None else str(answer["ETag"])

    def put_new(self, path: str, content: bytes) -> bool:
        """Write an object that must not be there; False where another is. Trying again after a lost answer is True."""
        if self.put(path, content, over=None) is not None:
            return True
        found = self.get(path)
        return found is not None and found[0] == content

    def is_conditional(self, path: str) -> bool:
        """Whether a condition that does not hold keeps an object from being written, tried at a path of no meaning."""
        try:
            return self.put(path, b"1", over=None) is not None and self.put(path, b"2", over=None) is None
        except _UnknownError:
            return False
        finally:
            self._ask("delete_object", path)

    def _ask(self, what: str, path: str, **arguments: Any) -> Any:
        """The answer; None where there is no such object or a condition does not hold. Raises `OSError`."""
        from botocore.exceptions import BotoCoreError, ClientError

        bucket, _, key = path.partition("/")
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return getattr(self._client, what)(Bucket=bucket, Key=key, **arguments)
            except ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
                code = error.response.get("Error", {}).get("Code")
                if status == 412 or code == "NoSuchKey":
                    return None
                if status == _UNKNOWN:
                    raise _UnknownError(f"{bucket}: {error}") from error
                if status != _CONFLICT or attempt == _ATTEMPTS:
                    raise OSError(f"{bucket}: {error}") from error
            except BotoCoreError as error:
                raise OSError(f"{bucket}: {error}") from error
        raise AssertionError("unreachable")


class ObjectPlace:
    """An object that is written with conditions alone, so that of several who take it one wins, whatever happens.

    It is never deleted: given back, it keeps the number of the driver that had it, and says that it is free.
    """

    is_certain = True

    def __init__(self, folder: Folder, bucket: Bucket) -> None:
        self._folder = folder
        self._bucket = bucket
        self.store = folder.path
        self.shown = folder.at(LOCK)

    def look(self) -> Seen | None:
        found = self._bucket.get(self.shown)
        return None if found is None else Seen(parsed(self, found[0]), found[1])

    def take(self, mine: Holder, seen: Seen | None) -> bool:
        took = self._put(mine, None if seen is None else str(seen.mark))
        if took:
            self._folder.fence.put_new = self._bucket.put_new
        return took

    def renew(self, mine: Holder) -> bool:
        return self.take(mine, None)

    def beat(self, mine: Holder) -> None:
        seen = self.look()
        if seen is not None and seen.holder.token == mine.token:  # else the next write meets it
            self._put(replace(mine, beats=seen.holder.beats + 1), str(seen.mark))

    def give_back(self, mine: Holder) -> None:
        seen = self.look()
        if seen is not None and seen.holder.token == mine.token:
            self._put(replace(seen.holder, released=True), str(seen.mark))

    def close(self, mine: Holder) -> None:
        self._folder.fence.open()

    def _put(self, holder: Holder, over: str | None) -> bool:
        """Whether the condition held. After a lost answer it does not, but this very content is there."""
        if self._bucket.put(self.shown, holder.content(), over=over) is not None:
            return True
        found = self._bucket.get(self.shown)
        return found is not None and found[0] == holder.content()

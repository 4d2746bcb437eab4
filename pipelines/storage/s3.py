"""Objects of S3 as files: listed, and read in ranges."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from pipelines.storage.connection import SCHEME, client, code_of, errors, missing, split

_BUFFER = 1 << 20
_BODY_ATTEMPTS = 4


@dataclass(frozen=True)
class S3Files:
    """Files by ``s3://bucket/key``.  A value: it pickles, and each process makes a client of its own.

    ``endpoint``: of the store; left out, ``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL`` or Amazon's.
    """

    endpoint: str | None = None

    def list(self, prefix: str) -> list[str]:
        """Every object below ``prefix``, sorted, without those a part of whose name starts with a dot.

        A ``prefix`` that is an object lists itself.  Errors: ``MissingObject`` for a bucket that is not there.
        """
        return sorted(self.objects(prefix))

    def objects(self, prefix: str) -> dict[str, tuple[int, str]]:
        """``(bytes, ETag)`` of what ``list`` lists: the store's own mark of an object's content."""
        bucket, key = split(prefix)
        below = key.rstrip("/") + "/" if key.strip("/") else ""
        with errors(prefix):
            pages = client(self.endpoint).get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=below)
            found = {each["Key"]: each for page in pages for each in page.get("Contents", [])}
        shown = {k: e for k, e in found.items() if not k.endswith("/") and not _hidden(k.removeprefix(below))}
        if not shown and key and not key.endswith("/") and (head := self._head(prefix)):
            shown = {key: {"Size": head["ContentLength"], "ETag": head["ETag"]}}
        return {f"{SCHEME}{bucket}/{k}": (int(e["Size"]), str(e["ETag"]).strip('"')) for k, e in shown.items()}

    def open(self, path: str) -> BinaryIO:
        """A seekable reader that asks for the bytes it is asked for, in ranges of at least 1 MiB.

        Errors: ``MissingObject``; later, ``Failure`` if the object is replaced meanwhile.
        """
        head = self._head(path)
        if head is None:
            raise missing(path)
        raw = _Object(self.endpoint, path, int(head["ContentLength"]), str(head["ETag"]))
        return io.BufferedReader(raw, buffer_size=_BUFFER)

    def size(self, path: str) -> int:
        """Bytes of the object.  Errors: ``MissingObject``."""
        head = self._head(path)
        if head is None:
            raise missing(path)
        return int(head["ContentLength"])

    def exists(self, path: str) -> bool:
        """Whether there is such an object, or any below it."""
        bucket, key = split(path)
        if key and not key.endswith("/") and self._head(path):
            return True
        below = key.rstrip("/") + "/" if key.strip("/") else ""
        with errors(path):
            return bool(client(self.endpoint).list_objects_v2(Bucket=bucket, Prefix=below, MaxKeys=1).get("Contents"))

    def _head(self, path: str) -> dict[str, Any] | None:
        from botocore.exceptions import ClientError

        bucket, key = split(path)
        store = client(self.endpoint)
        with errors(path):
            try:
                return dict(store.head_object(Bucket=bucket, Key=key))
            except ClientError:
                pass
            # An answer to HEAD has no body, so only its number; the same question by GET says why.
            try:
                store.get_object(Bucket=bucket, Key=key, Range="bytes=0-0")["Body"].close()
            except ClientError as error:
                if code_of(error) == "NoSuchKey":
                    return None
                raise
            return dict(store.head_object(Bucket=bucket, Key=key))


class _Object(io.RawIOBase):
    """One object, read in ranges; ``etag`` holds it to the version that was opened."""

    def __init__(self, endpoint: str | None, path: str, size: int, etag: str) -> None:
        self._endpoint, self._path, self._size, self._etag, self._at = endpoint, path, size, etag, 0

    @property
    def name(self) -> str:
        return self._path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"{self._path}: cannot seek before the start")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._range(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._range(self._size)  # the base class would ask for 8 KiB at a time

    def _range(self, count: int) -> bytes:
        end = min(self._at + count, self._size)
        if self._at >= end:
            return b""
        with errors(self._path):
            data = _persistently(lambda: self._get(self._at, end))
        self._at += len(data)
        return data

    def _get(self, start: int, end: int) -> bytes:
        bucket, key = split(self._path)
        wanted = {"Range": f"bytes={start}-{end - 1}", "IfMatch": self._etag}
        return bytes(client(self._endpoint).get_object(Bucket=bucket, Key=key, **wanted)["Body"].read())


def _persistently(get: Callable[[], bytes]) -> bytes:
    """boto3 retries requests, but not a connection that breaks while the body comes."""
    from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError

    for _ in range(_BODY_ATTEMPTS - 1):
        try:
            return get()
        except (IncompleteReadError, ReadTimeoutError, ResponseStreamingError):
            continue
    return get()


def _hidden(relative: str) -> bool:
    return any(part.startswith(".") for part in relative.split("/"))

"""The only door to S3: any endpoint that speaks it (``AWS_ENDPOINT_URL``), read as files and written as folders."""

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from pipelines.errors import Failure, Misuse
from pipelines.redact import redact_text
from pipelines.storage.connection import SCHEME, MissingObject, client, errors, missing, own_endpoint, split
from pipelines.storage.s3 import S3Files
from trainers.data.files import Files, LocalFiles

__all__ = [
    "Entry",
    "MissingObject",
    "S3Files",
    "download",
    "files",
    "inventory",
    "ray_filesystem",
    "remove",
    "upload",
    "write",
]


def files(uri: str) -> Files:
    """Reads below ``uri``: ``s3://bucket/prefix`` or a folder.  Errors: ``Misuse`` for another scheme."""
    return S3Files() if _is_s3(uri) else LocalFiles()


class Entry(NamedTuple):
    """``stamp``: another one whenever the file was written anew: S3's ETag, or when a local file last changed."""

    size: int
    stamp: str


def inventory(uri: str) -> dict[str, Entry]:
    """Every file below ``uri``, by its path, without hidden ones; none of them is opened."""
    if _is_s3(uri):
        return {path: Entry(*found) for path, found in sorted(S3Files().objects(uri).items())}
    found = {}
    for path in LocalFiles().list(uri):
        state = os.stat(path)
        found[path] = Entry(state.st_size, str(state.st_mtime_ns))
    return found


def upload(directory: Path, uri: str) -> None:
    """Copy every file below ``directory`` to ``uri`` (``s3://bucket/prefix`` or a folder), replacing those there."""
    if not _is_s3(uri):
        shutil.copytree(directory, uri, dirs_exist_ok=True, copy_function=_copy_whole)
        return
    bucket, prefix = split(uri)
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        key = "/".join(part for part in (prefix.rstrip("/"), path.relative_to(directory).as_posix()) if part)
        with errors(f"{SCHEME}{bucket}/{key}"):
            client(None).upload_file(str(path), bucket, key)


def _copy_whole(source: str, target: str) -> None:
    """A reader, or a kill, meets the old file or the new one."""
    shutil.copyfile(source, f"{target}.partial")
    os.replace(f"{target}.partial", target)


def write(uri: str, content: bytes) -> None:
    """``content`` at ``uri``, an object of S3 or a file: whole, or what was there before."""
    if not _is_s3(uri):
        Path(uri).parent.mkdir(parents=True, exist_ok=True)
        partial = Path(f"{uri}.{os.getpid()}.partial")
        partial.write_bytes(content)
        os.replace(partial, uri)
        return
    bucket, key = split(uri)
    with errors(uri):
        client(None).put_object(Bucket=bucket, Key=key, Body=content)


def remove(uri: str) -> None:
    """Take away the object or file at ``uri``, if it is there."""
    if not _is_s3(uri):
        Path(uri).unlink(missing_ok=True)
        return
    bucket, key = split(uri)
    with errors(uri):
        client(None).delete_object(Bucket=bucket, Key=key)


def download(uri: str, directory: Path) -> None:
    """Copy every file below ``uri`` into ``directory``; each appears whole or not at all.

    Errors: ``MissingObject`` if there is nothing.
    """
    if not _is_s3(uri):
        shutil.copytree(uri, directory, dirs_exist_ok=True)
        return
    found = S3Files().list(uri)
    if not found:
        raise missing(uri)
    for source in found:
        bucket, key = split(source)
        name = source.removeprefix(uri.rstrip("/") + "/") if source != uri else key.rsplit("/", 1)[-1]
        target = directory / name
        if not target.resolve().is_relative_to(directory.resolve()):
            raise Failure(f"{source}: its name leads out of {directory}; rename the object")
        target.parent.mkdir(parents=True, exist_ok=True)
        with errors(source):  # boto3 writes to a temporary name and renames
            client(None).download_file(bucket, key, str(target))


def ray_filesystem(uri: str) -> tuple[Any | None, str]:
    """``(storage_filesystem, storage_path)`` for Ray Train's ``RunConfig``.

    A folder becomes absolute, since workers run elsewhere.  For S3 at an endpoint of its own the file system is
    pyarrow's, which is not given credentials: every worker finds its own, and none travel with the pickled object.
    """
    if not _is_s3(uri):
        return None, str(Path(uri).expanduser().absolute())
    endpoint = own_endpoint()
    if endpoint is None:
        return None, uri.rstrip("/")
    from pyarrow.fs import S3FileSystem

    scheme, _, host = endpoint.rpartition("://")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    system = S3FileSystem(endpoint_override=host.rstrip("/"), scheme=scheme or "https", region=region)
    return system, uri.removeprefix(SCHEME).rstrip("/")


def _is_s3(uri: str) -> bool:
    if "://" in uri and not uri.startswith(SCHEME):
        raise Misuse(f"{redact_text(uri)}: only folders and s3://bucket/prefix can be read and written")
    return uri.startswith(SCHEME)

"""One boto3 client a process, and its errors as messages with the remedy."""

import functools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipelines.errors import Failure, Misuse
from pipelines.redact import redact_text

SCHEME = "s3://"
_lock = threading.Lock()

_REMEDIES = {
    "NoSuchBucket": "the bucket does not exist; create it or correct the name",
    "NoSuchKey": "there is no such object; correct the path",
    "AccessDenied": "access is denied; give these credentials s3:ListBucket, s3:GetObject and s3:PutObject here",
    "AllAccessDisabled": "access to the bucket is disabled; ask its owner",
    "ExpiredToken": "the credentials have expired; renew them (`aws sso login`, AWS_SESSION_TOKEN) and run again",
    "InvalidAccessKeyId": "this access key is not known here; correct AWS_ACCESS_KEY_ID or AWS_ENDPOINT_URL",
    "SignatureDoesNotMatch": "the secret key is wrong; correct AWS_SECRET_ACCESS_KEY",
    "PreconditionFailed": "the object was replaced while it was being read; run again, on data that stands still",
    "SlowDown": "the store refuses so many requests; try again later or with fewer workers",
}
_SAME = {
    "403": "AccessDenied",
    "Forbidden": "AccessDenied",
    "404": "NoSuchKey",
    "NotFound": "NoSuchKey",
    "412": "PreconditionFailed",
    "RequestExpired": "ExpiredToken",
    "ExpiredTokenException": "ExpiredToken",
    "TokenRefreshRequired": "ExpiredToken",
    "InvalidToken": "ExpiredToken",
}


class MissingObject(Failure, FileNotFoundError):
    """No such object, or no such bucket."""


def missing(path: str) -> MissingObject:
    return MissingObject(f"{path}: {_REMEDIES['NoSuchKey']}")


def split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix(SCHEME).partition("/")
    if not bucket:
        raise Misuse(f"{uri} names no bucket: write s3://bucket/prefix")
    return bucket, key


def client(endpoint: str | None) -> Any:
    with _lock:
        return _client_of(endpoint or own_endpoint(), os.getpid())


@functools.cache
def _client_of(endpoint: str | None, process: int) -> Any:
    """One client an endpoint and process: they are safe to share between threads, not over a fork."""
    import boto3
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "max_attempts": 6},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=32,
        # Names like bucket.minio resolve nowhere; Amazon's own do.
        s3={"addressing_style": "path" if endpoint else "auto"},
    )
    return boto3.session.Session().client("s3", endpoint_url=endpoint, config=config)


def own_endpoint() -> str | None:
    """The store that the environment names, if it is not Amazon's."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


@contextmanager
def errors(path: str) -> Iterator[None]:
    """What boto3 raises, as one message with the path and the remedy."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    try:
        yield
    except ClientError as error:
        raise _failure(path, code_of(error), error) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise Failure(
            f"{path}: no credentials; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
    except (BotoCoreError, Boto3Error) as error:
        cause = error.__context__
        if isinstance(cause, ClientError):  # upload_file wraps what the store said
            raise _failure(path, code_of(cause), cause) from error
        where = f" at {redact_text(own_endpoint() or '')}" if own_endpoint() else ""
        raise Failure(
            f"{path}: the store{where} does not answer ({redact_text(str(error))}); check AWS_ENDPOINT_URL and network"
        ) from error


def _failure(path: str, code: str, error: BaseException) -> Failure:
    kind = MissingObject if code in ("NoSuchBucket", "NoSuchKey") else Failure
    return kind(f"{path}: {_REMEDIES.get(code) or redact_text(str(error))}")


def code_of(error: Any) -> str:
    code = str(error.response.get("Error", {}).get("Code", ""))
    return _SAME.get(code, code)

"""A store in a bucket of S3 or of what speaks like it.

Large objects are uploaded in parts (``s3_store_large_object_chunk_size``): a bucket shows such an object when the
last call completes it, so a half one is never seen, and what a killed upload left is aborted by ``delete``.
Names are never used twice, so nothing is replaced: ``put`` looks first, and that is enough.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from oslo_config import cfg

from core.errors import BadRequest, Conflict, DriverError, NotFound
from image.drivers.base import COMMON_OPTS, Space, Store

_MIB = 1 << 20
_CHUNK = 1 << 20
_MOST_PARTS = 10_000
OPTS: list[cfg.Opt] = [
    cfg.StrOpt("s3_store_host", help="kind s3: URL of the server (default: Amazon's)."),
    cfg.StrOpt("s3_store_region_name", default="us-east-1", help="kind s3: region."),
    cfg.StrOpt("s3_store_bucket", help="kind s3: the bucket."),
    cfg.StrOpt("s3_store_access_key", secret=True, help="kind s3: access key."),
    cfg.StrOpt("s3_store_secret_key", secret=True, help="kind s3: secret key."),
    cfg.StrOpt(
        "s3_store_cacert", default="", help="kind s3: file of certificates to trust instead of the system's."
    ),
    cfg.BoolOpt(
        "s3_store_create_bucket_on_put", default=False, help="kind s3: make the bucket if there is none."
    ),
    cfg.IntOpt(
        "s3_store_large_object_chunk_size",
        default=16,
        min=5,
        help="kind s3: MiB of a part (an object has at most 10,000 of them).",
    ),
]


class S3Kind:
    """Makes S3 stores from their options."""

    OPTS: list[cfg.Opt] = [*COMMON_OPTS, *OPTS]

    def __call__(self, store_id: str, options: Any, _folder: Any) -> Store:
        return S3Store(store_id, options)


class S3Store(Store):
    """See the module."""

    kind = "s3"

    def __init__(self, store_id: str, options: Any) -> None:
        super().__init__(store_id)
        if not options.s3_store_bucket:
            raise DriverError(f"[image_store_{store_id}]s3_store_bucket is not set")
        self._bucket: str = options.s3_store_bucket
        self._options = options
        self._part_size: int = options.s3_store_large_object_chunk_size * _MIB
        self._s3 = boto3.client(
            "s3",
            endpoint_url=options.s3_store_host,
            region_name=options.s3_store_region_name,
            aws_access_key_id=options.s3_store_access_key,
            aws_secret_access_key=options.s3_store_secret_key,
            verify=options.s3_store_cacert or None,
            config=Config(connect_timeout=10, retries={"max_attempts": 5}, max_pool_connections=16),
        )

    def put(self, chunks: Iterable[bytes], name: str) -> int:
        key = {"Bucket": self._bucket, "Key": _checked(name)}
        with _errors():
            if self._options.s3_store_create_bucket_on_put:
                self._make_bucket()
            if self.exists(name):
                raise Conflict(f"There is image data named {name} already.")
        parts = _parts(chunks, self._part_size)
        first = next(parts, b"")
        if len(first) < self._part_size:
            with _errors():
                self._s3.put_object(**key, Body=first)
            return len(first)
        with _errors():
            upload: str = self._s3.create_multipart_upload(**key)["UploadId"]
        try:
            return self._put_parts(key, upload, first, parts)
        except BaseException:
            with contextlib.suppress(ClientError, BotoCoreError):  # ``delete`` does it again
                self._s3.abort_multipart_upload(**key, UploadId=upload)
            raise

    def _put_parts(self, key: dict[str, str], upload: str, first: bytes, rest: Iterator[bytes]) -> int:
        made: list[dict[str, Any]] = []
        size, part = 0, first
        while part:
            number = len(made) + 1
            if number > _MOST_PARTS:
                raise DriverError(f"An object in S3 has at most {_MOST_PARTS} parts: they are too small.")
            with _errors():
                answer = self._s3.upload_part(**key, UploadId=upload, PartNumber=number, Body=part)
            made.append({"PartNumber": number, "ETag": answer["ETag"]})
            size += len(part)
            part = next(rest, b"")
        with _errors():
            self._s3.complete_multipart_upload(**key, UploadId=upload, MultipartUpload={"Parts": made})
        return size

    def _make_bucket(self) -> None:
        region = self._options.s3_store_region_name
        try:
            self._s3.head_bucket(Bucket=self._bucket)
        except ClientError as error:
            if _status(error) != 404:
                raise
            place = (
                {"CreateBucketConfiguration": {"LocationConstraint": region}} if region != "us-east-1" else {}
            )
            self._s3.create_bucket(Bucket=self._bucket, **place)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        wanted: dict[str, str] = {}
        if offset or length is not None:
            if length == 0:
                if not self.exists(name):
                    raise NotFound("The store has no data of this image.")
                return iter(())
            wanted["Range"] = f"bytes={offset}-{'' if length is None else offset + length - 1}"
        with _errors():
            answer = self._s3.get_object(Bucket=self._bucket, Key=_checked(name), **wanted)
        if length is not None and answer["ContentLength"] != length:
            answer["Body"].close()
            raise DriverError("The data in the image store is shorter than it should be.")
        return _Reading(answer["Body"])

    def delete(self, name: str) -> None:
        with _errors(bucket_may_miss=True):
            pages = self._s3.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self._bucket, Prefix=_checked(name)):
                for each in page.get("Uploads", ()):
                    if each["Key"] == name:
                        self._s3.abort_multipart_upload(
                            Bucket=self._bucket, Key=name, UploadId=each["UploadId"]
                        )
            self._s3.delete_object(Bucket=self._bucket, Key=name)

    def exists(self, name: str) -> bool:
        try:
            self._s3.head_object(Bucket=self._bucket, Key=_checked(name))
        except ClientError as error:
            if _status(error) == 404:
                return False
            raise DriverError("The image store could not be asked.", cause=error) from error
        except BotoCoreError as error:
            raise DriverError("The image store could not be asked.", cause=error) from error
        return True

    def space(self) -> Space | None:
        """S3 has no end."""
        return None

    def url(self, name: str) -> str:
        """Where the object is, without the keys that open it."""
        server = urlsplit(self._s3.meta.endpoint_url)
        scheme = "s3+https" if server.scheme == "https" else "s3"
        return f"{scheme}://{server.netloc}{server.path.rstrip('/')}/{self._bucket}/{name}"

    def properties(self) -> dict[str, Any]:
        return {
            "s3_store_host": self._s3.meta.endpoint_url,
            "s3_store_bucket": self._bucket,
            "s3_store_large_object_chunk_size": self._part_size // _MIB,
        }


class _Reading(Iterator[bytes]):
    """Reads an answer's body; closes it at the end, or when the server closes ours."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def __next__(self) -> bytes:
        try:
            data: bytes = self._body.read(_CHUNK)
        except (BotoCoreError, OSError) as error:
            self._body.close()
            raise DriverError("The image store broke off.", cause=error) from error
        if not data:
            self._body.close()
            raise StopIteration
        return data

    def close(self) -> None:
        self._body.close()


def _parts(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Pieces of ``size`` bytes each, the last one of what is left."""
    waiting = bytearray()
    for chunk in chunks:
        waiting += chunk
        while len(waiting) >= size:
            yield bytes(memoryview(waiting)[:size])
            del waiting[:size]
    if waiting:
        yield bytes(waiting)


def _checked(name: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z._-]*", name):
        raise BadRequest("That is no name of image data.")
    return name


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextlib.contextmanager
def _errors(bucket_may_miss: bool = False) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code")
        if code == "NoSuchBucket" and bucket_may_miss:
            return
        if code == "NoSuchKey":
            raise NotFound("The store has no data of this image.", cause=error) from error
        raise DriverError("The image store could not read or write its data.", cause=error) from error
    except BotoCoreError as error:
        raise DriverError("The image store does not answer.", cause=error) from error

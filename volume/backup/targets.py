"""Where backups lie: a folder, or a bucket of S3. A target keeps named objects, and knows no format.

An object is there whole or not at all: a folder's files are written under another name and renamed,
S3 shows an upload only when it is complete. ``volume.backup.chunks`` relies on it.
"""

from __future__ import annotations

import abc
import os
import re
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from oslo_config import cfg

from core.errors import DriverError, NotFound, Unavailable

GROUP = "volume_backup"
OPTS: list[cfg.Opt] = [
    cfg.StrOpt("target", default="posix", choices=["posix", "s3"], help="Where backups are kept."),
    cfg.StrOpt("path", default="$state_path/backups", help="target=posix: the folder, local or NFS."),
    cfg.StrOpt("s3_endpoint", help="target=s3: URL of the server (default: Amazon's)."),
    cfg.StrOpt("s3_bucket", default="haneul-backups", help="target=s3: an existing bucket."),
    cfg.StrOpt("s3_region", default="us-east-1", help="target=s3: region."),
    cfg.StrOpt("s3_access_key", secret=True, help="target=s3: access key."),
    cfg.StrOpt("s3_secret_key", secret=True, help="target=s3: secret key."),
    cfg.IntOpt("chunk_mib", default=16, min=1, max=256, help="Size of the pieces that a volume is cut into."),
    cfg.IntOpt("threads", default=4, min=1, help="How many pieces are compressed and sent at a time."),
    cfg.IntOpt("compression_level", default=3, min=1, max=19, help="zstd's level."),
]
_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]*(/[0-9A-Za-z][0-9A-Za-z._-]*)*")


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]


class Target(abc.ABC):
    """Named objects. Errors: DriverError; NotFound from ``get``."""

    @abc.abstractmethod
    def put(self, name: str, data: bytes) -> None:
        """Store an object, whole or not at all; one of this name is replaced."""

    @abc.abstractmethod
    def get(self, name: str) -> bytes:
        """:raises NotFound: there is none."""

    @abc.abstractmethod
    def list(self, prefix: str) -> set[str]:
        """Names of the objects below ``prefix`` (a folder's name, without the slash)."""

    @abc.abstractmethod
    def delete(self, names: Iterable[str]) -> None:
        """What is not there any more is no fault."""


def load(conf: cfg.ConfigOpts) -> Target:
    """The configured target. :raises Unavailable: it can't be used."""
    conf.register_opts(OPTS, group=GROUP)
    options = conf[GROUP]
    return PosixTarget(Path(options.path)) if options.target == "posix" else S3Target(options)


def _checked(name: str) -> str:
    """Names come from manifests, which may have been imported: none leads out of the target."""
    if not _NAME.fullmatch(name):
        raise DriverError(f"{name!r} is no name of a backup's object")
    return name


class PosixTarget(Target):
    """Files in a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise Unavailable(f"the folder {root} can't be used: {error.strerror}", cause=error) from error

    def put(self, name: str, data: bytes) -> None:
        file = self._root / _checked(name)
        part = file.parent / f".{file.name}.{uuid.uuid4().hex[:8]}"
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(handle, "wb") as opened:
                opened.write(data)
                opened.flush()
                os.fsync(opened.fileno())
            part.replace(file)
            _sync_folder(file.parent)
        except OSError as error:
            raise DriverError(f"a backup can't be written: {error.strerror}", cause=error) from error
        finally:
            part.unlink(missing_ok=True)

    def get(self, name: str) -> bytes:
        try:
            return (self._root / _checked(name)).read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"the backup's object {name} is gone", cause=error) from error
        except OSError as error:
            raise DriverError(f"a backup can't be read: {error.strerror}", cause=error) from error

    def list(self, prefix: str) -> set[str]:
        files = (path for path in (self._root / _checked(prefix)).rglob("*") if path.is_file())
        return {str(path.relative_to(self._root)) for path in files if not path.name.startswith(".")}

    def delete(self, names: Iterable[str]) -> None:
        folders: set[Path] = set()
        for name in names:
            file = self._root / _checked(name)
            file.unlink(missing_ok=True)
            folders.update(parent for parent in file.parents if parent.is_relative_to(self._root))
        for folder in sorted(folders - {self._root}, reverse=True):
            if not folder.is_dir():
                continue
            for part in folder.glob(".*"):  # of writes that a crash cut short
                part.unlink(missing_ok=True)
            if not any(folder.iterdir()):
                folder.rmdir()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class S3Target(Target):
    """Objects in a bucket."""

    def __init__(self, options: Any) -> None:
        self._bucket = options.s3_bucket
        self._s3 = boto3.client(
            "s3",
            endpoint_url=options.s3_endpoint,
            region_name=options.s3_region,
            aws_access_key_id=options.s3_access_key,
            aws_secret_access_key=options.s3_secret_key,
            config=Config(
                connect_timeout=10, retries={"max_attempts": 5}, max_pool_connections=options.threads + 1
            ),
        )
        try:
            self._s3.head_bucket(Bucket=self._bucket)
        except (ClientError, BotoCoreError) as error:
            raise Unavailable(f"the bucket {self._bucket} can't be used", cause=error) from error

    def put(self, name: str, data: bytes) -> None:
        try:
            self._s3.put_object(Bucket=self._bucket, Key=_checked(name), Body=data)
        except (ClientError, BotoCoreError) as error:
            raise DriverError("a backup can't be written to S3", cause=error) from error

    def get(self, name: str) -> bytes:
        try:
            return bytes(self._s3.get_object(Bucket=self._bucket, Key=_checked(name))["Body"].read())
        except self._s3.exceptions.NoSuchKey as error:
            raise NotFound(f"the backup's object {name} is gone", cause=error) from error
        except (ClientError, BotoCoreError) as error:
            raise DriverError("a backup can't be read from S3", cause=error) from error

    def list(self, prefix: str) -> set[str]:
        pages = self._s3.get_paginator("list_objects_v2")
        try:
            found = pages.paginate(Bucket=self._bucket, Prefix=f"{_checked(prefix)}/")
            return {each["Key"] for page in found for each in page.get("Contents", ())}
        except (ClientError, BotoCoreError) as error:
            raise DriverError("the backups in S3 can't be listed", cause=error) from error

    def delete(self, names: Iterable[str]) -> None:
        keys = [{"Key": _checked(name)} for name in names]
        try:
            for first in range(0, len(keys), 1000):  # as many as S3 takes at once
                answer = self._s3.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": keys[first : first + 1000], "Quiet": True}
                )
                if answer.get("Errors"):
                    raise DriverError("S3 kept objects that were to be deleted", cause=answer["Errors"][:3])
        except (ClientError, BotoCoreError) as error:
            raise DriverError("a backup can't be deleted from S3", cause=error) from error

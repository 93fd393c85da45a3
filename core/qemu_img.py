"""``qemu-img`` as a child with limits: what it reads may be an attacker's.

Formats are always said, never guessed; backing files of untrusted images are never followed,
because ``check_content`` refuses images that have one.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from oslo_concurrency import processutils
from oslo_config import cfg
from oslo_utils.imageutils import format_inspector

from core.errors import BadRequest, DriverError

GROUP = "qemu_img"
OPTS: list[cfg.Opt] = [
    cfg.IntOpt("memory_mib", default=4096, min=64, help="Address space of one qemu-img."),
    cfg.IntOpt("cpu_s", default=3600, min=1, help="CPU seconds of one qemu-img."),
    cfg.IntOpt("file_size_gib", default=2048, min=1, help="Largest file that one qemu-img may write."),
]
_WATCH_S = 0.5
CONTENT_FORMATS = ("raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso", "luks", "gpt")
_QEMU_NAMES = {"vhd": "vpc", "iso": "raw", "gpt": "raw"}


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]


def qemu_name(disk_format: str) -> str:
    """What qemu calls an image's ``disk_format``."""
    return _QEMU_NAMES.get(disk_format, disk_format)


def secret_objects(secrets: Mapping[str, str]) -> tuple[list[str], str]:
    """Arguments that make QEMU's secret objects of these names, and what belongs on its standard input.

    On the command line, which every process sees, stand ciphertexts; their key goes through a pipe,
    so no passphrase is on a disk either. It is QEMU's own way (AES-256-CBC under a master secret).
    """
    key = os.urandom(32)
    arguments = ["--object", "secret,id=master,file=/dev/stdin,format=base64"]
    for name, secret in secrets.items():
        vector, padder = os.urandom(16), padding.PKCS7(128).padder()
        cipher = Cipher(algorithms.AES(key), modes.CBC(vector)).encryptor()
        sealed = cipher.update(padder.update(secret.encode()) + padder.finalize()) + cipher.finalize()
        arguments += [
            "--object",
            f"secret,id={name},keyid=master,format=base64,data={base64.b64encode(sealed).decode()},"
            f"iv={base64.b64encode(vector).decode()}",
        ]
    return arguments, base64.b64encode(key).decode()


def image_options(options: Mapping[str, str]) -> str:
    """One argument for ``--image-opts``; commas in values are said twice."""
    return ",".join(f"{key}={value.replace(',', ',,')}" for key, value in options.items())


def qemu_img(
    conf: cfg.ConfigOpts,
    *arguments: str,
    watch: Callable[[], None] | None = None,
    secrets: Mapping[str, str] | None = None,
) -> str:
    """Run qemu-img with limits; returns what it printed.

    ``watch`` is called every half second meanwhile; what it raises ends qemu-img, and comes out of here.
    ``secrets``: {id: passphrase}, for ``key-secret=ID`` in the arguments.

    :raises DriverError: with its last words.
    """
    conf.register_opts(OPTS, group=GROUP)
    settings = conf[GROUP]
    limits = processutils.ProcessLimits(
        address_space=settings.memory_mib << 20,
        cpu_time=settings.cpu_s,
        file_size=settings.file_size_gib << 30,
    )
    watcher = _Watcher(watch) if watch is not None else None
    objects, stdin = secret_objects(secrets) if secrets else ([], None)
    try:
        out, _ = processutils.execute(
            "qemu-img",
            arguments[0],
            *objects,
            *arguments[1:],
            prlimit=limits,
            env_variables={**os.environ, "LC_ALL": "C"},
            process_input=stdin,
            on_execute=watcher.begin if watcher else None,
            on_completion=watcher.end if watcher else None,
        )
    except processutils.ProcessExecutionError as error:
        if watcher is not None and watcher.raised is not None:
            raise watcher.raised from error
        words = (error.stderr or error.stdout or "it said nothing").strip().splitlines()[-1]
        raise DriverError(f"qemu-img {arguments[0]} failed: {words}", cause=error) from error
    except OSError as error:
        raise DriverError("qemu-img is missing on this host: install qemu-utils", cause=error) from error
    return str(out)


class _Watcher:
    """Calls a function now and then while a process runs, and ends the process when it raises."""

    def __init__(self, watch: Callable[[], None]) -> None:
        self._watch = watch
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.raised: BaseException | None = None

    def begin(self, process: Any) -> None:
        self._thread = threading.Thread(
            target=self._look, args=(process,), name="qemu-img-watch", daemon=True
        )
        self._thread.start()

    def _look(self, process: Any) -> None:
        while not self._over.wait(_WATCH_S):
            try:
                self._watch()
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits for the process
                self.raised = error
                process.terminate()
                return

    def end(self, _process: Any) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()


def info(conf: cfg.ConfigOpts, path: Path, qemu_format: str) -> dict[str, Any]:
    """``qemu-img info`` of a file of a known format."""
    result: dict[str, Any] = json.loads(
        qemu_img(conf, "info", "--force-share", "--output=json", "-f", qemu_format, str(path))
    )
    return result


def check_content(path: Path, disk_format: str) -> str:
    """qemu's name of a file's format; the content must be ``disk_format`` and self-contained.

    :raises BadRequest: it is something else, or refers to other files.
    """
    if disk_format not in CONTENT_FORMATS:
        raise BadRequest(f"Images of disk_format {disk_format} hold no disk.")
    found = str(format_inspector.detect_file_format(str(path)))
    if disk_format == "raw" and found in ("gpt", "iso", "luks"):  # what a raw disk may hold
        return "raw"
    if found != disk_format:
        raise BadRequest(f"The image's content is {found}, but its disk_format says {disk_format}.")
    if found != "raw":
        kind = format_inspector.get_inspector(found)
        if kind is None:
            raise BadRequest(f"The image's content is {found}, which can't be inspected.")
        try:
            kind.from_file(str(path)).safety_check()
        except format_inspector.SafetyCheckFailed as error:
            raise BadRequest(f"The image is not safe to use: {error}", cause=error) from error
    return qemu_name(found)

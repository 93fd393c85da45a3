"""What an upload really is: inspected while it streams by, nothing is read twice.

``Inspection`` is fed with the chunks on their way to the store.  At the end
``verdict`` says whether the content is what the image's ``disk_format`` claims,
whether it is safe, and how big the disk is that a guest would see.  The parsers
are oslo.utils' format inspectors; the rules on top of them are ours:

* qcow2, vmdk, vhd, vhdx, vdi, iso and luks must be just that, and only that: two
  signatures in one file are refused, except an ISO that can be booted as a disk.
* raw may be what a disk holds (nothing known, a partition table, a file system of
  a CD, LUKS), but not another *layout* of a disk (qcow2, …): whoever opened it
  later and guessed the format would follow the names of other files in it.
* Whatever is found must pass its safety checks, even when the container format
  says that the format itself is not to be compared (ovf, docker, …).
* aki and ari are kernels: the boot signature in them is not a partition table.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection

from oslo_utils.imageutils import format_inspector

from core.errors import Unsupported

LOG = logging.getLogger(__name__)

LAYOUTS = frozenset({"qcow2", "vmdk", "vhd", "vhdx", "vdi", "qed"})
"""Formats that describe a disk instead of being its content."""
DISK_CONTENT = frozenset({"raw", "gpt", "iso", "luks"})
INSPECTABLE = frozenset(format_inspector.ALL_FORMATS)
MAGICS = {
    b"QFI\xfb": "qcow2",
    b"QED\x00": "qed",
    b"KDMV": "vmdk",
    b"COWD": "vmdk",
    b"# Disk DescriptorFile": "vmdk",
    b"conectix": "vhd",
    b"vhdxfile": "vhdx",
    b"<<< ": "vdi",
}
"""Beginnings that betray a layout even when the file is too short to be parsed."""
MIN_CHUNK = 1 << 20
"""Inspectors look at a text descriptor in the chunk in which it begins, so the first
chunk must not be cut short by whoever sends it."""


class ContentMismatch(Unsupported):
    """The content is not what the image claims, or not safe; the message says why."""

    code = "haneul.image.content"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """``format``: what the content is; ``virtual_size``: bytes that a guest would see."""

    format: str
    virtual_size: int


class Inspection:
    """Looks at one stream. Feed chunks of ``MIN_CHUNK`` bytes or the whole rest."""

    def __init__(self) -> None:
        self._inspectors = {
            name: kind() for name, kind in format_inspector.ALL_FORMATS.items() if name != "raw"
        }
        self._failed: set[str] = set()
        self._head = b""
        self._size = 0

    def feed(self, chunk: bytes) -> None:
        """Show the next bytes to every inspector that still wants them."""
        if len(self._head) < 32:
            self._head += chunk[: 32 - len(self._head)]
        self._size += len(chunk)
        for name, inspector in self._inspectors.items():
            if name in self._failed:
                continue
            try:
                inspector.eat_chunk(chunk)
            except Exception as error:  # noqa: BLE001 - "not this format" comes as anything
                LOG.debug("not %s: %s", name, error)
                self._failed.add(name)

    def _matches(self) -> list[str]:
        found = []
        for name, inspector in self._inspectors.items():
            inspector.finish()
            if name in self._failed:
                continue
            try:
                if inspector.format_match:
                    found.append(name)
            except Exception as error:  # noqa: BLE001 - as above, on untrusted data
                LOG.debug("not %s: %s", name, error)
        if sorted(found) == ["gpt", "iso"]:
            return ["iso"]
        return found

    def verdict(
        self, disk_format: str, container_format: str = "bare", nonfatal_checks: Collection[str] = ()
    ) -> Verdict:
        """Compare with what is claimed; call once, after the last chunk.

        ``nonfatal_checks``: names of partition table checks that only warn.
        :raises ContentMismatch: with the reason.
        """
        matches = self._matches()
        if len(matches) > 1:
            raise ContentMismatch(
                f"The content looks like several formats at once: {', '.join(sorted(matches))}."
            )
        found = matches[0] if matches else "raw"
        if found in ("raw", "gpt") and (layout := self._betrayed()):
            raise ContentMismatch(f"The content begins as {layout}, but is not a whole {layout} image.")
        if container_format == "bare":
            self._compare(disk_format, found)
        self._check_safety(disk_format, found, nonfatal_checks)
        return Verdict(found, self._virtual_size(disk_format, found))

    def _betrayed(self) -> str | None:
        return next((name for magic, name in MAGICS.items() if self._head.startswith(magic)), None)

    def _compare(self, disk_format: str, found: str) -> None:
        if disk_format == found:
            return
        if disk_format == "raw" and found in DISK_CONTENT:
            return
        if disk_format not in INSPECTABLE and found not in LAYOUTS and found != "iso":
            # ami, aki, ari, ploop: nobody can tell, as long as it is nothing else
            return
        raise ContentMismatch(
            f"Image disk_format {disk_format} does not match the content, which is {found}."
        )

    def _check_safety(self, disk_format: str, found: str, nonfatal_checks: Collection[str]) -> None:
        if found == "raw":
            return
        try:
            self._inspectors[found].safety_check()
        except format_inspector.ImageFormatError as error:
            raise ContentMismatch(
                f"The content begins as {found}, but is not complete.", cause=error
            ) from error
        except format_inspector.SafetyCheckFailed as error:
            failures = dict(error.failures)
            if found == "gpt":
                for name in nonfatal_checks:
                    failures.pop(name, None)
                if disk_format in ("aki", "ari"):
                    failures.pop("mbr", None)
            if failures:
                reasons = "; ".join(str(reason) for reason in failures.values())
                raise ContentMismatch(f"Image failed safety checks as {found}: {reasons}.") from error
            LOG.warning("tolerated by configuration: %s", error)

    def _virtual_size(self, disk_format: str, found: str) -> int:
        if found not in LAYOUTS and found != "iso":
            return self._size
        if disk_format == "raw":
            return self._size
        return int(self._inspectors[found].virtual_size or 0) or self._size

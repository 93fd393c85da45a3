"""Encrypted volumes: what the backend keeps is a LUKS stream, a header and behind it the guest's data.

For a driver these are bytes like any others, so snapshots, clones, backups and migrations copy ciphertext, in
constant time where the backend can, and need no key. Only three things do: to write the header of a new
volume, to write an image behind it, and to change the passphrase of a header that came from elsewhere. QEMU's own
tools do them; no plaintext of a volume is ever on the worker's disks.

An area that nothing was written to reads as noise to the guest, as on any encrypted device.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from oslo_config import cfg

from core import qemu_img
from core.errors import BadRequest, DriverError
from core.luks import Luks
from volume.drivers.base import Location, Progress, Volume, VolumeDriver

_GIB = 1 << 30


class Encrypter:
    """Makes the volumes of one backend with one passphrase, which it keeps to itself."""

    def __init__(self, conf: cfg.ConfigOpts, driver: VolumeDriver, luks: Luks, passphrase: str) -> None:
        self._conf = conf
        self._driver = driver
        self._luks = luks
        self._secrets = {"own": passphrase}

    def create(self, volume: Volume) -> Location:
        """An empty volume. A repeat writes another header: there is no data yet that it could lose."""
        location = self._driver.create(volume)
        if self._driver.keeps_data:
            self._write_header(volume)
        return location

    def write_image(
        self, volume: Volume, path: Path, qemu_format: str, progress: Progress, passphrase: str | None = None
    ) -> Location:
        """A volume with the content of an image's file. ``passphrase``: the image is a LUKS stream that it opens.

        :raises BadRequest: the image is larger than the volume.
        """
        if not self._driver.keeps_data:
            return self._driver.write_image(volume, path, qemu_format, progress)
        source = {"driver": qemu_format, "file.driver": "file", "file.filename": str(path)}
        secrets = dict(self._secrets)
        if passphrase is not None:
            source = {
                "driver": "luks",
                "key-secret": "image",
                **_below({"driver": "file", "filename": str(path)}),
            }
            secrets["image"] = passphrase
        size = int(qemu_img.info(self._conf, path, source["driver"])["virtual-size"])
        if size > volume.size_gib * _GIB:
            raise BadRequest(
                f"The image's disk of {-(-size // _GIB)} GiB is larger than the volume of {volume.size_gib} GiB."
            )
        location = self.create(volume)
        with self._driver.node(volume) as node:
            qemu_img.qemu_img(
                self._conf, "convert", "-q", "-n", "-W", "--image-opts", "--target-image-opts",
                qemu_img.image_options(source), self._target(node, "own"), secrets=secrets, watch=lambda: progress(0),
            )  # fmt: skip
        progress(size)
        return location

    def rekey(self, volume: Volume, passphrase: str) -> None:
        """The volume's data came with a header that ``passphrase`` opens: from now on its own opens it alone."""
        if not self._driver.keeps_data or passphrase == self._secrets["own"]:
            return
        secrets = {**self._secrets, "other": passphrase}
        with self._driver.node(volume) as node:
            for options, opened_by in (
                ("state=active,new-secret=own,iter-time=10", "other"),
                ("state=inactive,old-secret=other", "own"),
            ):
                qemu_img.qemu_img(
                    self._conf, "amend", "-q", "--image-opts", "-o", options, self._target(node, opened_by),
                    secrets=secrets,
                )  # fmt: skip

    @staticmethod
    def _target(node: Mapping[str, str], secret: str) -> str:
        return qemu_img.image_options({"driver": "luks", "key-secret": secret, **_below(node)})

    def _write_header(self, volume: Volume) -> None:
        """Made in a file, since qemu-img would make the whole device itself."""
        folder = Path(self._conf.state_path) / "volume-images"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="header.") as made:
            file = Path(made) / "header"
            qemu_img.qemu_img(
                self._conf, "create", "-q", "-f", "luks", "-o",
                f"key-secret=own,{self._luks.create_options}", str(file), "0", secrets=self._secrets,
            )  # fmt: skip
            header = file.read_bytes()
        if len(header) != volume.header_bytes:
            raise DriverError(
                f"qemu-img made a LUKS header of {len(header)} bytes, not {volume.header_bytes}"
            )
        with self._driver.open(volume, write=True) as opened:
            opened.seek(0)
            opened.write(header)


def _below(node: Mapping[str, str]) -> dict[str, str]:
    return {f"file.{key}": value for key, value in node.items()}

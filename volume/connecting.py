"""The worker's own host as one that volumes are connected to: for the other end of a copy.

What another worker's backend answers (``initialize_connection``) is what a hypervisor host would get, and it is
opened likewise: files where they lie, Ceph images by QEMU, iSCSI and NVMe over fabrics by os-brick.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from oslo_config import cfg

from core import brick
from core.errors import DriverError
from volume.drivers.base import Disk, whole_disk

OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "rbd_ceph_conf",
        default="/etc/ceph/ceph.conf",
        help="Configuration of the Ceph cluster that another worker's volumes are in, for copies to them.",
    ),
]


class HostConnector:
    """One per worker process."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf

    def properties(self) -> dict[str, Any]:
        """What this host is to storage."""
        with brick.errors("say what it is to storage"):
            found = self._connectors().get_connector_properties(
                brick.root_helper(), self._conf.my_ip, False, enforce_multipath=False, host=self._conf.host
            )
        return dict(found)

    @contextlib.contextmanager
    def disk(self, info: Mapping[str, Any]) -> Iterator[Disk]:
        """What a backend answered, connected for the block. :raises DriverError: it can't be reached from here."""
        protocol, data = str(info["driver_volume_type"]).lower(), dict(info["data"])
        if protocol in ("local", "file"):
            path, fmt = Path(str(data["device_path"])), str(data.get("format") or "raw")
            if not path.exists() or fmt not in ("raw", "qcow2"):
                raise DriverError(f"host {self._conf.host} has no file {path} in a format that it knows")
            yield whole_disk(path, fmt)
        elif protocol == "rbd":
            yield self._rbd(data)
        elif protocol in brick.PROTOCOLS:
            connector = self._connectors().InitiatorConnector.factory(protocol, brick.root_helper())
            with brick.errors("connect the volume"):
                device = connector.connect_volume(data)
            try:
                yield whole_disk(Path(os.fsdecode(device["path"])), "raw")
            finally:
                with brick.errors("let go of the volume"):
                    connector.disconnect_volume(data, device, force=False)
        else:
            raise DriverError(f"volumes of type {protocol!r} can't be connected to host {self._conf.host}")

    def _rbd(self, data: Mapping[str, Any]) -> Disk:
        pool, _, image = str(data["name"]).partition("/")
        disk = {"driver": "raw", "file.driver": "rbd", "file.pool": pool, "file.image": image}
        disk["file.conf"] = self._conf.volume_worker.rbd_ceph_conf
        if data.get("auth_enabled") and data.get("auth_username"):
            disk["file.user"] = str(data["auth_username"])
        return disk

    def _connectors(self) -> Any:
        return brick.connectors(Path(self._conf.state_path) / "locks")

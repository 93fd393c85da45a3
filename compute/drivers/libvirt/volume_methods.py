"""The driver's methods about volumes: the host's side (``host_volumes``) and the guest's (``guest_volumes``) together."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import libvirt
from oslo_config import cfg
from oslo_utils import strutils

from compute.drivers.base import GuestSpec
from compute.drivers.libvirt import domain_xml, guest_volumes
from compute.drivers.libvirt.connection import Connection
from compute.drivers.libvirt.disk_xml import DiskDevice, Names, Source, volume_device
from compute.drivers.libvirt.host_volumes import HostVolumes
from compute.volumes import is_read_only
from core.errors import BadRequest, Conflict, DriverError
from core.files import to_disk
from core.qemu_img import qemu_img

LOG = logging.getLogger(__name__)
_GIB = 1 << 30
_LUKS1 = b"LUKS\xba\xbe\x00\x01"


class VolumeMethods:
    """Part of ``LibvirtDriver``, which has what is only named here."""

    _conf: cfg.ConfigOpts
    _host_volumes: HostVolumes
    _connection: Connection
    _find: Callable[[str], Any]
    _require: Callable[[str], Any]
    _try: Callable[[str, Callable[[], Any]], Any]

    def connector(self) -> dict[str, Any]:
        return self._host_volumes.connector()

    def connect_volume(self, volume: Mapping[str, Any]) -> None:
        first = str(volume["volume_id"]) not in self._host_volumes.claims().values()
        self._host_volumes.connect(volume)
        if first and not is_read_only(volume):
            # an extension or a swap that was cut short may have left the file short
            source = self._host_volumes.source(volume)
            if source.kind == "file":
                self._extend_file(source, int(volume.get("size_gib") or 0) * _GIB)

    def disconnect_volume(self, volume: Mapping[str, Any]) -> None:
        self._host_volumes.disconnect(volume, self._is_open)

    def _is_open(self, name: str) -> bool:
        """Has a guest that runs here this open?"""
        running = libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE
        for domain in self._try("list guests", lambda: self._connection.get().listAllDomains(running)):
            try:
                if guest_volumes.is_open(domain, name):
                    return True
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:  # it ended meanwhile
                    raise DriverError(f"a guest can't be looked at: {error}", cause=error) from error
        return False

    def attach_volume(self, guest: GuestSpec, volume: Mapping[str, Any]) -> None:
        domain = self._require(guest.server_id)
        source = self._host_volumes.source(volume)
        properties = guest.image.properties if guest.image else {}
        self._try(
            f"attach volume {volume['volume_id']}",
            lambda: guest_volumes.attach(
                domain,
                str(volume["volume_id"]),
                self._host_volumes.claims(),
                lambda names: self._device(guest, volume, source, names),
                properties,
            ),
        )

    def _device(
        self, guest: GuestSpec, volume: Mapping[str, Any], source: Source, names: Names
    ) -> DiskDevice:
        return volume_device(
            volume,
            source,
            guest.image.properties if guest.image else {},
            machine=domain_xml.machine_of(self._conf, guest),
            names=names,
            cache=domain_xml.cache_for(self._conf, source),
        )

    def detach_volume(self, server_id: str, volume_id: str) -> None:
        domain = self._find(server_id)
        if domain is None:
            return
        options = self._conf.libvirt
        self._try(
            f"detach volume {volume_id}",
            lambda: guest_volumes.detach(
                domain,
                volume_id,
                self._host_volumes.claims(),
                attempts=options.device_detach_attempts,
                wait_s=options.device_detach_timeout,
            ),
        )

    def extend_volume(self, server_id: str, volume: Mapping[str, Any], size_gib: int) -> None:
        volume_id = str(volume["volume_id"])
        source = self._host_volumes.source(volume)
        device_bytes = self._host_volumes.extend(volume)
        domain = self._find(server_id)
        if domain is not None and self._try("look at the guest", domain.isActive):
            # a device may be larger than what was asked for; its LUKS header is not the guest's
            plain = device_bytes if device_bytes and not source.luks_secret else None
            size = plain or size_gib * _GIB
            claims = self._host_volumes.claims()
            self._try(
                f"extend volume {volume_id}", lambda: guest_volumes.resize(domain, volume_id, claims, size)
            )
        elif source.kind == "file":
            self._extend_file(source, size_gib * _GIB)

    def _extend_file(self, source: Source, size: int) -> None:
        """Nobody has the file open: the backend leaves an attached one to us."""
        if source.format == "raw" and source.luks_secret:
            size += _luks_header_bytes(Path(source.name))
        if self._virtual_size(source) < size:
            self._resize_file(source, size)

    def _virtual_size(self, source: Source) -> int:
        shown = qemu_img(
            self._conf, "info", "--force-share", "--output=json", "-f", source.format, source.name
        )
        return int(json.loads(shown)["virtual-size"])

    def swap_volume(
        self, guest: GuestSpec, old: Mapping[str, Any], new: Mapping[str, Any], check: Callable[[], None]
    ) -> None:
        domain = self._require(guest.server_id)
        old_id, new_id = str(old["volume_id"]), str(new["volume_id"])
        source = self._host_volumes.source(new)
        if not self._try("look at the guest", domain.isActive):
            raise Conflict(f"server {guest.server_id} does not run: its volumes can't be swapped")
        claims = self._host_volumes.claims()
        size = int(new.get("size_gib") or 0) * _GIB
        now = self._try("look at the volume", lambda: guest_volumes.size_of(domain, old_id, claims))
        # None: it has left the old one already, or (on the way back of a swap) never left the one asked for
        if now is not None and size < max(now, int(old.get("size_gib") or 0) * _GIB):
            raise BadRequest("The new volume is smaller than the old one.")
        # the disk keeps its name
        ids = (old_id, new_id)
        targets = (guest_volumes.target_of(domain, each, claims) for each in ids)
        wanted = next((target for target in targets if target), None)
        device = self._device(guest, {**new, "device_name": wanted}, source, Names())
        with self._fitted(device, now, size) as fitted:
            self._try(
                f"copy volume {old_id}",
                lambda: guest_volumes.swap(domain, old_id, new_id, claims, fitted, check),
            )
        if source.kind == "file":
            self._try("grow the disk", lambda: guest_volumes.resize(domain, new_id, claims, size))
        self._try(
            "define the disk", lambda: guest_volumes.define_anew(domain, old_id, new_id, claims, device)
        )

    @contextlib.contextmanager
    def _fitted(self, device: DiskDevice, now: int | None, size: int) -> Iterator[DiskDevice]:
        """The new volume in the size of the old one: QEMU copies between two of one size only.

        A file is made shorter before the copy (all that is in it is overwritten), and as long as it was when
        that fails. Of anything else QEMU uses only so much, until the guest is started the next time.
        """
        source = device.source
        if now is None or now == size:
            yield device
        elif source.kind != "file":
            if source.luks_secret:
                raise BadRequest("An encrypted volume can be swapped only for one of the same size.")
            yield dataclasses.replace(device, source=dataclasses.replace(source, only_bytes=now))
        else:
            header = _luks_header_bytes(Path(source.name)) if source.luks_secret else 0
            if (
                self._virtual_size(source) != now + header
            ):  # else a former attempt did it, and copies to it still
                self._resize_file(source, now + header)
            try:
                yield device
            except BaseException:
                try:
                    self._resize_file(source, size + header)
                except DriverError:
                    LOG.exception("%s keeps the size of the volume that it should have replaced", source.name)
                raise

    def _resize_file(self, source: Source, size: int) -> None:
        qemu_img(self._conf, "resize", "-q", "--shrink", "-f", source.format, source.name, str(size))

    def snapshot_volume(
        self, guest: GuestSpec, volume: Mapping[str, Any], target: str, check: Callable[[], None]
    ) -> None:
        domain = self._require(guest.server_id)
        volume_id = str(volume["volume_id"])
        source = self._host_volumes.source(volume)
        path = _snapshot_file(source, target)
        running = self._try("look at the guest", domain.isActive)
        properties = guest.image.properties if guest.image else {}
        if not running:
            qemu_img(
                self._conf, "convert", "-q", "-W", "-t", "writeback", "-f", source.format, "-O", "qcow2",
                source.name, str(path),
            )  # fmt: skip
        else:
            claims = self._host_volumes.claims()
            size = self._try("look at the volume", lambda: guest_volumes.size_of(domain, volume_id, claims))
            # QEMU copies between two of one size only
            qemu_img(self._conf, "create", "-q", "-f", "qcow2", str(path), str(size))
            made = Source("file", str(path), "qcow2")
            self._try(
                f"copy volume {volume_id}",
                lambda: guest_volumes.copy_out(
                    domain, volume_id, claims, made, check, lambda: self._still(guest.server_id, properties)
                ),
            )
        to_disk(path)

    @contextlib.contextmanager
    def _still(self, server_id: str, properties: Mapping[str, Any]) -> Iterator[None]:
        """As the image's properties say: with its agent's help, without if there is none, or not at all without."""
        required = strutils.bool_from_string(properties.get("os_require_quiesce"))
        held = False
        if required or strutils.bool_from_string(properties.get("hw_qemu_guest_agent")):
            try:
                self.quiesce(server_id)
                held = True
            except Conflict as error:
                if required:
                    raise
                LOG.warning("server %s is copied as if the power had failed: %s", server_id, error)
        try:
            yield
        finally:
            if held:
                self.unquiesce(server_id)

    def quiesce(self, server_id: str) -> None:
        domain = self._require(server_id)
        self._try("hold the guest's file systems still", lambda: guest_volumes.freeze(domain))

    def unquiesce(self, server_id: str) -> None:
        domain = self._find(server_id)
        if domain is not None:
            self._try("let the guest's file systems go on", lambda: guest_volumes.thaw(domain))


def _snapshot_file(source: Source, target: str) -> Path:
    """The file that a backend has made for a copy. :raises BadRequest: it is not in the folder of the volume's backend."""
    path = Path(target)
    if source.kind != "file" or source.format != "qcow2" or source.luks_secret:
        raise BadRequest("Only of volumes in plain files can a host take snapshots.")
    root = Path(source.name).resolve().parent.parent
    if path.is_symlink() or not path.is_file() or path.suffix != ".part":
        raise BadRequest(f"There is no file {target} for a snapshot on this host.")
    if root not in path.resolve().parents:
        raise BadRequest(f"The file {target} is not in the folder of the volume's backend.")
    return path


def _luks_header_bytes(path: Path) -> int:
    """How far into the file the content begins. :raises DriverError: it is not encrypted as it should be."""
    with path.open("rb") as file:
        header = file.read(512)
    if not header.startswith(_LUKS1):
        raise DriverError(f"{path.name} does not begin as an encrypted volume does")
    sectors: int = struct.unpack_from(">I", header, 104)[0]
    return sectors * 512

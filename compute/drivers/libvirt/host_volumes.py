"""The host's side of volumes: what must be there before a guest can open one.

    STATE/connections/VOLUME_ID/record.json   what QEMU opens; what os-brick gave back
    STATE/connections/VOLUME_ID/device        a link to the block device, if it is one
    STATE/connections/VOLUME_ID/for-ATTACHMENT  who needs it here: an empty file each

Devices get other names when a host starts again, so guests are given the link, which says the same for ever.
A name is written down before the host is connected and goes after it let go: a crash may leave a volume
connected for nobody, never one gone that somebody needs. Two guests of one host may share a multi-attach volume.

iSCSI and NVMe over fabrics are os-brick's; Ceph images and files QEMU opens itself.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import libvirt
from oslo_concurrency import lockutils
from oslo_config import cfg

from compute.drivers.libvirt import secret_values
from compute.drivers.libvirt.disk_xml import Source
from core import brick
from core.errors import DriverError
from core.qemu_img import qemu_img

LOG = logging.getLogger(__name__)
_FILES = ("local", "file")


class HostVolumes:
    """Connects volumes to this host; all by ids, idempotent."""

    def __init__(
        self, conf: cfg.ConfigOpts, host: str, folder: Path, connection: Callable[[], Any], locks: Path
    ) -> None:
        self._conf = conf
        self._host = host
        self._folder = folder
        self._connection = connection
        self._locks = locks

    def connector(self) -> dict[str, Any]:
        """What this host is to storage; what is not installed is left out."""
        with brick.errors("say what it is to storage"):
            found = brick.connectors(self._locks).get_connector_properties(
                brick.root_helper(),
                self._conf.my_ip,
                self._conf.libvirt.volume_use_multipath,
                enforce_multipath=False,
                host=self._host,
            )
        return dict(found)

    # -- connecting ------------------------------------------------------------------

    def connect(self, volume: Mapping[str, Any]) -> None:
        """:raises DriverError: the host can't reach it."""
        volume_id, info = str(volume["volume_id"]), volume["connection_info"]
        _require_key(volume)
        with self._held(volume_id):
            folder = self._folder / volume_id
            folder.mkdir(parents=True, exist_ok=True)
            self._user(volume).touch()
            protocol = _protocol(info)
            device: dict[str, Any] = {}
            if protocol in _FILES:
                source = self._file(volume)
            elif protocol == "rbd":
                source = self._rbd(volume)
            elif protocol in brick.PROTOCOLS:
                self._write(
                    volume_id, {"source": str(folder / "device"), "protocol": protocol, "data": dict(info)}
                )
                device = self._brick_connect(protocol, info)
                _link(folder / "device", str(device["path"]))
                source = Source("block", str(folder / "device"))
            else:
                raise DriverError(f"host {self._host} knows no volumes of type {protocol!r}")
            if volume.get("encryption"):
                self._put_passphrase(volume_id, volume["encryption"])
            kept = {"source": source.name, "protocol": protocol, "device": _plain(device), "data": dict(info)}
            self._write(volume_id, kept)

    def disconnect(
        self, volume: Mapping[str, Any], is_open: Callable[[str], bool] = lambda _name: False
    ) -> None:
        """Content when it is not connected.

        :raises DriverError: a guest has it open (``is_open``): another host could be let at it next.
        """
        volume_id = str(volume["volume_id"])
        with self._held(volume_id):
            folder, record = self._folder / volume_id, self._record(volume_id)
            self._user(volume).unlink(missing_ok=True)
            if not folder.exists() or any(folder.glob("for-*")):
                return
            if record.get("source") and is_open(str(record["source"])):
                self._user(volume).touch()
                raise DriverError(
                    f"a guest of host {self._host} has volume {volume_id} open: detach it first"
                )
            protocol = str(record.get("protocol") or "")
            if protocol in brick.PROTOCOLS:
                self._brick_disconnect(protocol, record)
            with _libvirts("forget a volume's passphrase"):
                secret_values.remove_passphrase(self._connection(), volume_id)
            shutil.rmtree(folder)

    def extend(self, volume: Mapping[str, Any]) -> int | None:
        """Look anew how large the volume's device is: its bytes, None when that is for QEMU to see."""
        protocol = _protocol(volume["connection_info"])
        if protocol not in brick.PROTOCOLS:
            return None
        with self._held(str(volume["volume_id"])), brick.errors(f"extend volume {volume['volume_id']}"):
            size = self._brick(protocol).extend_volume(_properties(volume["connection_info"]))
        return int(size) if size else None

    def source(self, volume: Mapping[str, Any]) -> Source:
        """What QEMU opens of a connected volume. :raises DriverError: it is not connected."""
        volume_id = str(volume["volume_id"])
        if not self._user(volume).exists() or not self._record(volume_id):
            raise DriverError(f"volume {volume_id} is not connected to host {self._host}")
        _require_key(volume)
        protocol = _protocol(volume["connection_info"])
        if protocol in _FILES:
            return self._file(volume)
        if protocol == "rbd":
            return self._rbd_source(volume)
        return Source("block", str(self._folder / volume_id / "device"), luks_secret=_luks(volume))

    def claims(self) -> dict[str, str]:
        """{what QEMU opens: volume id} of all that is connected here."""
        found = {}
        for path in self._folder.glob("*/record.json"):
            record = self._record(path.parent.name)
            if record.get("source"):
                found[str(record["source"])] = path.parent.name
        return found

    # -- kinds -----------------------------------------------------------------------

    def _file(self, volume: Mapping[str, Any]) -> Source:
        info = volume["connection_info"]
        path, fmt = Path(str(info["device_path"])), str(info.get("format") or "raw")
        if not path.exists():
            raise DriverError(f"volume {volume['volume_id']} has no file {path} on host {self._host}")
        if fmt not in ("raw", "qcow2"):
            raise DriverError(f"volume {volume['volume_id']} is in {fmt}, which is not served")
        if path.is_block_device():
            return Source("block", str(path), fmt, luks_secret=_luks(volume))
        if fmt == "qcow2":
            self._check_layers(path)
        return Source("file", str(path), fmt, luks_secret=_luks(volume))

    def _check_layers(self, path: Path) -> None:
        """Each layer below names the format of the next, and lies in the backend's own folder.

        A guest can't write the header of the file that it stands on. This is for the day on which a file that
        somebody gave us (manage, an image) was let in as it was.
        """
        text = qemu_img(
            self._conf, "info", "--force-share", "--backing-chain", "--output=json", "-f", "qcow2", str(path)
        )
        root = path.resolve().parent.parent
        for each in json.loads(text):
            below = each.get("full-backing-filename")
            if below and (
                each.get("backing-filename-format") != "qcow2" or root not in Path(below).resolve().parents
            ):
                raise DriverError(f"{path} stands on a file that is none of the backend's: {below}")
            data_file = (each.get("format-specific") or {}).get("data", {}).get("data-file")
            if data_file:
                raise DriverError(f"{path} keeps its data in another file: {data_file}")

    def _rbd(self, volume: Mapping[str, Any]) -> Source:
        source = self._rbd_source(volume)
        if source.user and source.secret:
            with _libvirts("keep the key of a Ceph user"):
                secret_values.put_ceph_key(
                    self._connection(), source.secret, source.user, Path(self._conf.libvirt.rbd_ceph_conf)
                )
        return source

    def _rbd_source(self, volume: Mapping[str, Any]) -> Source:
        info, options = volume["connection_info"], self._conf.libvirt
        hosts = tuple(zip(map(str, info.get("hosts") or ()), map(str, info.get("ports") or ()), strict=True))
        user = secret = None
        if info.get("auth_enabled"):
            user = options.rbd_user or str(info.get("auth_username"))
            secret = options.rbd_secret_uuid or info.get("secret_uuid") or secret_values.ceph_id(user, hosts)
        return Source(
            "rbd", str(info["name"]), hosts=hosts, user=user, secret=secret, luks_secret=_luks(volume)
        )

    def _put_passphrase(self, volume_id: str, encryption: Mapping[str, Any]) -> None:
        if encryption.get("format") != "luks":
            raise DriverError(
                f"volume {volume_id} is encrypted in a way that QEMU can't decrypt: luks is served"
            )
        with _libvirts("keep a volume's passphrase"):
            secret_values.put_passphrase(self._connection(), volume_id, str(encryption["secret"]))

    # -- os-brick --------------------------------------------------------------------

    def _brick(self, protocol: str) -> Any:
        options = self._conf.libvirt
        return brick.connectors(self._locks).InitiatorConnector.factory(
            protocol,
            brick.root_helper(),
            use_multipath=options.volume_use_multipath,
            device_scan_attempts=options.num_volume_scan_tries,
        )

    def _brick_connect(self, protocol: str, info: Mapping[str, Any]) -> dict[str, Any]:
        with brick.errors("connect the volume"):
            found = self._brick(protocol).connect_volume(_properties(info))
        if not found or not found.get("path"):
            raise DriverError(f"host {self._host} got no device of the volume")
        # some of os-brick's connectors answer in bytes
        return {
            key: os.fsdecode(value) if isinstance(value, bytes) else value for key, value in found.items()
        }

    def _brick_disconnect(self, protocol: str, record: Mapping[str, Any]) -> None:
        with brick.errors("let go of the volume"):
            self._brick(protocol).disconnect_volume(
                _properties(record["data"]), record.get("device") or None, force=False
            )

    # -- records ---------------------------------------------------------------------

    def _user(self, volume: Mapping[str, Any]) -> Path:
        name = "".join(char for char in str(volume.get("attachment_id")) if char.isalnum() or char == "-")
        return self._folder / str(volume["volume_id"]) / f"for-{name}"

    def _record(self, volume_id: str) -> dict[str, Any]:
        with contextlib.suppress(FileNotFoundError):
            record: dict[str, Any] = json.loads((self._folder / volume_id / "record.json").read_text())
            return record
        return {}

    def _write(self, volume_id: str, record: Mapping[str, Any]) -> None:
        target = self._folder / volume_id / "record.json"
        part = target.with_suffix(".part")
        part.touch(mode=0o600)  # there may be a CHAP password in it
        part.write_text(json.dumps(record))
        part.replace(target)

    @contextlib.contextmanager
    def _held(self, volume_id: str) -> Iterator[None]:
        with lockutils.lock(f"volume-{volume_id}", external=True, lock_path=str(self._locks)):
            yield


def _protocol(info: Mapping[str, Any]) -> str:
    return str(info.get("driver_volume_type") or "").lower()


def _properties(info: Mapping[str, Any]) -> dict[str, Any]:
    """The driver's own data, as os-brick takes it.

    Not that it is encrypted: os-brick would prepare for dm-crypt, but QEMU decrypts.
    """
    return {key: value for key, value in info.items() if key not in ("driver_volume_type", "encrypted")}


def _luks(volume: Mapping[str, Any]) -> str | None:
    return secret_values.luks_id(str(volume["volume_id"])) if volume.get("encryption") else None


def _require_key(volume: Mapping[str, Any]) -> None:
    """A guest that is given the encrypted bytes as its disk would write over the header, and all is lost."""
    if volume["connection_info"].get("encrypted") and not volume.get("encryption"):
        raise DriverError(f"volume {volume['volume_id']} is encrypted, and there is no passphrase for it")


def _plain(device: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in device.items() if isinstance(value, str | int | list | type(None))}


def _link(link: Path, device: str) -> None:
    """``link`` leads to the device; whoever looks meanwhile sees the old one or the new one."""
    part = link.with_name("device.part")
    part.unlink(missing_ok=True)
    part.symlink_to(device)
    part.replace(link)


@contextlib.contextmanager
def _libvirts(what: str) -> Iterator[None]:
    try:
        yield
    except libvirt.libvirtError as error:
        raise DriverError(f"libvirt could not {what}: {error}", cause=error) from error

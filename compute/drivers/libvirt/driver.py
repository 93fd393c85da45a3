"""The libvirt driver: guests as libvirt domains with disks in files.

All methods are idempotent (see ``compute.drivers.base``).  A domain is ours if
its metadata says so; others are reported and never touched.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import libvirt
from lxml import etree
from oslo_config import cfg

from compute.drivers.base import (
    ComputeDriver,
    GuestImage,
    GuestInfo,
    GuestSpec,
    HostInventory,
    ImageFetcher,
    PowerListener,
    PowerState,
)
from compute.drivers.libvirt import (
    daemon,
    diagnostics,
    domain_xml,
    host_info,
    nics,
    options,
    probe,
    snapshots,
)
from compute.drivers.libvirt.connection import POWER_STATES, Connection
from compute.drivers.libvirt.disks import Disks
from compute.drivers.libvirt.host_volumes import HostVolumes
from compute.drivers.libvirt.images import ImageCache
from compute.drivers.libvirt.volume_methods import VolumeMethods
from compute.volumes import in_order
from core.errors import Conflict, DriverError, NotFound, Rebuildable

LOG = logging.getLogger(__name__)
T = TypeVar("T")
list_opts = options.list_opts
_ACPI_AGAIN_S = 10.0
_SCREEN_TRIES = 5  # see _start: how often another process may be faster at taking a VNC port


class LibvirtDriver(VolumeMethods, ComputeDriver):
    """One host's libvirtd."""

    def __init__(self, conf: cfg.ConfigOpts, host: str) -> None:
        conf.register_opts(options.OPTS, group=options.GROUP)
        self._conf = conf
        self._host = host
        self._state = Path(conf.state_path).resolve()
        self._instances = Path(conf.libvirt.instances_path or self._state / "instances").resolve()
        self._cache = ImageCache(conf, self._instances / "_base")
        self._disks = Disks(conf, self._instances, self._cache)
        self._connection = Connection(conf.libvirt.connection_uri or daemon.find_uri(self._state))
        self._verdict = probe.Verdict("qemu", "")
        self._host_volumes = HostVolumes(
            conf, host, self._state / "connections", self._connection.get, self._state / "locks"
        )

    # -- the host ------------------------------------------------------------

    def start(self) -> None:
        self._instances.mkdir(parents=True, exist_ok=True)
        if not self._conf.libvirt.connection_uri:
            self._connection.uri = daemon.find_uri(self._state)
        self._connection.get()
        self._verdict = probe.decide(
            self._conf.libvirt.virt_type, self._state, self._conf.libvirt.probe_kernel
        )
        LOG.info("guests run under %s. %s", self._verdict.virt_type, self._verdict.reason)

    def close(self) -> None:
        self._connection.close()

    def inventory(self) -> HostInventory:
        warnings = (self._verdict.reason,) if self._verdict.reason else ()
        return self._try(
            "read what the host offers",
            lambda: host_info.inventory(
                self._connection.get(),
                virt_type=self._verdict.virt_type,
                instances=self._instances,
                my_ip=self._conf.my_ip,
                warnings=warnings,
            ),
        )

    def guests(self) -> list[GuestInfo]:
        found = []
        for domain in self._try("list guests", lambda: self._connection.get().listAllDomains()):
            try:
                state = POWER_STATES.get(domain.state()[0], PowerState.NOSTATE)
                ours = self._is_ours(domain)
                found.append(GuestInfo(domain.UUIDString() if ours else None, domain.name(), state))
            except libvirt.libvirtError as error:
                # it was undefined between the list and the look
                if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                    raise DriverError("a guest can't be looked at", cause=error) from error
        return found

    @staticmethod
    def _is_ours(domain: Any) -> bool:
        try:
            domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, domain_xml.NAMESPACE)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
                return False
            raise
        return True

    def listen(self, listener: PowerListener) -> None:
        self._connection.listen(listener)

    # -- disks ---------------------------------------------------------------

    def cache_image(self, image: GuestImage, fetch: ImageFetcher) -> None:
        self._cache.ensure(image, fetch)

    def create_disks(self, guest: GuestSpec) -> None:
        self._disks.create(guest)

    def remove_disks(self, server_id: str) -> None:
        self._disks.remove(server_id)

    def expire_images(self) -> list[str]:
        """Remove cached images that are old and unused; returns their names."""
        return self._cache.expire(self._disks.bases_in_use())

    # -- guests --------------------------------------------------------------

    def define(self, guest: GuestSpec) -> None:
        capabilities = domain_xml.Host(self._verdict.virt_type)
        attached = [(volume, self._host_volumes.source(volume)) for volume in in_order(guest.volumes)]
        xml = domain_xml.build(
            self._conf,
            capabilities,
            guest,
            self._disks.of(guest),
            self._disks.console_log(guest.server_id),
            attached,
        )
        self._try("define the guest", lambda: self._connection.get().defineXML(xml))

    def undefine(self, server_id: str) -> None:
        domain = self._find(server_id)
        if domain is None:
            return
        self._destroy(domain)
        flags = (
            libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
        )
        self._gone_is_fine("undefine the guest", lambda: domain.undefineFlags(flags))

    def power_state(self, server_id: str) -> PowerState:
        domain = self._find(server_id)
        if domain is None:
            return PowerState.NOSTATE
        return POWER_STATES.get(self._try("look at the guest", domain.state)[0], PowerState.NOSTATE)

    def power_on(self, server_id: str) -> None:
        domain = self._require(server_id)
        state = self._try("look at the guest", domain.state)[0]
        if state == libvirt.VIR_DOMAIN_PAUSED:
            self._try("resume the guest", domain.resume)
        elif state not in (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED):
            self._disks.folder(server_id).mkdir(parents=True, exist_ok=True)
            self._start(domain)

    def _start(self, domain: Any) -> None:
        nics.wait_for_taps(domain)
        for tries_left in reversed(range(_SCREEN_TRIES)):
            try:
                domain.create()
                return
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID and domain.isActive():
                    return  # someone else started it
                # libvirt looks for a free VNC port before QEMU takes it: another daemon's guest may come
                # between.  The next try looks again, and finds the next port.
                if tries_left and "Address already in use" in str(error):
                    continue
                raise Rebuildable(
                    f"the hypervisor could not start the guest: {error}", cause=error
                ) from error

    def power_off(self, server_id: str, timeout_s: float) -> None:
        domain = self._find(server_id)
        if domain is None:
            return
        if timeout_s > 0:
            self._shut_down(domain, timeout_s)
        self._destroy(domain)

    def _shut_down(self, domain: Any, timeout_s: float) -> bool:
        """Press the power button, again every few seconds, until the guest is off or time is up."""
        deadline, pressed = time.monotonic() + timeout_s, 0.0
        while time.monotonic() < deadline:
            try:
                if not domain.isActive():
                    return True
                if time.monotonic() - pressed > _ACPI_AGAIN_S:
                    pressed = time.monotonic()
                    domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
            except libvirt.libvirtError as error:
                LOG.debug("shutdown: %s", error)
            time.sleep(0.2)
        return False

    def _destroy(self, domain: Any) -> None:
        def destroy() -> None:
            if domain.isActive():
                domain.destroy()

        self._gone_is_fine("stop the guest", destroy)

    def reboot(self, server_id: str, hard: bool, timeout_s: float) -> None:
        domain = self._require(server_id)
        if not hard and not self._shut_down(domain, timeout_s):
            LOG.info("server %s did not shut down in %.0f s: reset", server_id, timeout_s)
        self._destroy(domain)
        self._start(domain)

    def attach_nic(self, guest: GuestSpec, nic: dict[str, Any]) -> None:
        domain = self._require(guest.server_id)
        properties = guest.image.properties if guest.image else {}
        self._try("plug in the interface", lambda: nics.attach(domain, nic, properties))

    def detach_nic(self, server_id: str, mac_address: str) -> None:
        domain = self._find(server_id)
        if domain is not None:
            options = self._conf.libvirt
            tries = {
                "attempts": options.device_detach_attempts,
                "wait_s": options.device_detach_timeout,
            }
            self._try("pull out the interface", lambda: nics.detach(domain, mac_address, **tries))

    # -- snapshots -----------------------------------------------------------

    def take_snapshot(self, server_id: str, snapshot_id: str, check: Callable[[], None]) -> None:
        target = self._disks.snapshot(server_id, snapshot_id)
        if target.exists():
            return
        part = target.with_suffix(".part")
        domain = self._require(server_id)
        snapshots.abort(domain, part)
        part.unlink(missing_ok=True)
        root = self._disks.root(server_id)
        if root is None:
            raise DriverError(f"server {server_id} has no root disk on this host")
        if self._try("look at the guest", domain.isActive):
            self._try("copy the disk", lambda: snapshots.copy_live(domain, root.path, part, check))
        else:
            snapshots.copy_stopped(self._conf, root, part)
        part.replace(target)

    def read_snapshot(self, server_id: str, snapshot_id: str) -> Iterator[bytes]:
        with self._disks.snapshot(server_id, snapshot_id).open("rb") as file:
            while piece := file.read(1 << 20):
                yield piece

    def remove_snapshot(self, server_id: str, snapshot_id: str) -> None:
        target = self._disks.snapshot(server_id, snapshot_id)
        part = target.with_suffix(".part")
        domain = self._find(server_id)
        if domain is not None:
            snapshots.abort(domain, part)
        for path in (part, target):
            path.unlink(missing_ok=True)

    # -- looking -------------------------------------------------------------

    def console_output(self, server_id: str, max_bytes: int) -> str:
        path = self._disks.console_log(server_id)
        data = b""
        for part in (path, path.with_name(path.name + ".0")):  # virtlogd turns files over
            if part.exists() and len(data) < max_bytes:
                with part.open("rb") as file:
                    size = file.seek(0, 2)
                    file.seek(max(0, size - (max_bytes - len(data))))
                    data = file.read() + data
        return data.decode("utf-8", errors="replace")

    def diagnostics(self, server_id: str) -> dict[str, Any]:
        domain = self._require(server_id)
        if not self._try("look at the guest", domain.isActive):
            raise Conflict(f"server {server_id} does not run: there is nothing to measure")
        has_config = self._disks.has_config_drive(server_id)
        return self._try(
            "measure the guest",
            lambda: diagnostics.of(self._connection.get(), domain, self._verdict.virt_type, has_config),
        )

    def vnc(self, server_id: str) -> dict[str, Any]:
        domain = self._require(server_id)
        xml = etree.fromstring(self._try("look at the guest", lambda: domain.XMLDesc(0)).encode())
        graphics = xml.find("devices/graphics[@type='vnc']")
        if graphics is None or int(graphics.get("port", "-1")) < 0:
            raise Conflict(f"server {server_id} has no screen now")
        listen = graphics.get("listen", "127.0.0.1")
        host = self._conf.my_ip if listen in ("0.0.0.0", "::") else listen
        return {"host": host, "port": int(graphics.get("port"))}

    # -- errors --------------------------------------------------------------

    def _find(self, server_id: str) -> Any:
        """The domain, or None."""
        try:
            return self._connection.get().lookupByUUIDString(server_id)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise DriverError(f"the guest can't be looked up: {error}", cause=error) from error

    def _require(self, server_id: str) -> Any:
        domain = self._find(server_id)
        if domain is None:
            raise NotFound(f"there is no guest of server {server_id} on host {self._host}")
        return domain

    @staticmethod
    def _try(what: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except libvirt.libvirtError as error:
            raise DriverError(f"the hypervisor could not {what}: {error}", cause=error) from error

    @staticmethod
    def _gone_is_fine(what: str, call: Callable[[], Any]) -> None:
        try:
            call()
        except libvirt.libvirtError as error:
            gone = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)
            if error.get_error_code() not in gone:
                raise DriverError(f"the hypervisor could not {what}: {error}", cause=error) from error

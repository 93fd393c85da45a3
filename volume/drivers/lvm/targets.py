"""What exports logical volumes to hypervisor hosts: the small class behind which LIO and nvmet stand.

The kernel forgets its targets when the machine starts anew, and every one of them is made from what is
written down here before it is made: a file per volume in ``$state_path/exports/BACKEND`` with the hosts
that may have it.  ``start`` makes what is missing and removes what no volume stands behind.
"""

from __future__ import annotations

import abc
import contextlib
import json
import logging
import re
import subprocess
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from oslo_config import cfg

from core.errors import BadRequest, DriverError
from core.files import write_private

LOG = logging.getLogger(__name__)
_KERNEL = threading.Lock()
"""configfs is one for the whole process, whatever the number of backends."""
OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "target_helper",
        default="lio",
        choices=[("lio", "iSCSI by LIO, through rtslib"), ("nvmet", "NVMe over TCP")],
        help="driver=lvm: what exports the volumes.",
    ),
    cfg.StrOpt("target_ip_address", default="127.0.0.1", help="driver=lvm: address that targets listen on."),
    cfg.PortOpt("target_port", help="driver=lvm: their port (default: 3260 for iSCSI, 4420 for NVMe/TCP)."),
    cfg.StrOpt(
        "target_prefix",
        default="2026-11.org.haneul",
        help="driver=lvm: what targets' names hold between iqn. or nqn. and the volume's.",
    ),
]


_CONFIGFS = Path("/sys/kernel/config")


def mount_configfs() -> None:
    """The kernel's interface to targets, where systemd has not mounted it. (rtslib 2.2 tries, on a wrong path.)

    :raises DriverError: it could not be mounted.
    """
    if _CONFIGFS.is_mount():
        return
    try:
        subprocess.run(["modprobe", "configfs"], check=False, capture_output=True)
        done = subprocess.run(
            ["mount", "-t", "configfs", "configfs", str(_CONFIGFS)],
            check=False,
            capture_output=True,
            text=True,
        )
    except OSError as error:
        raise DriverError(f"configfs could not be mounted: {error}", cause=error) from error
    if done.returncode and not _CONFIGFS.is_mount():
        raise DriverError(f"configfs could not be mounted: {done.stderr.strip()}")


def make(conf: cfg.ConfigOpts, group: str) -> Target:
    """The target that a backend's options name."""
    if conf[group].target_helper == "nvmet":
        from volume.drivers.lvm.nvmet import Nvmet

        return Nvmet(conf, group)
    from volume.drivers.lvm.lio import Lio

    return Lio(conf, group)


class Target(abc.ABC):
    """Exports by name; each method repeats harmlessly."""

    protocol = ""
    default_port = 0
    who = ""
    """the connector's key that names the host to the target"""
    folds_case = False
    exports_read_only = True
    """can one host have a volume to read only, while another writes?"""
    names: re.Pattern[str]
    """what such a name may look like: it comes from an API's caller, and becomes a folder's name in configfs"""

    def __init__(self, conf: cfg.ConfigOpts, group: str) -> None:
        self._options = conf[group]
        self._state = Path(conf.state_path)
        self._folder = self._state / "exports" / group

    @property
    def address(self) -> str:
        return str(self._options.target_ip_address)

    @property
    def portal_host(self) -> str:
        """The address as it stands in front of a port."""
        return f"[{self.address}]" if ":" in self.address else self.address

    @property
    def port(self) -> int:
        return int(self._options.target_port or self.default_port)

    # -- what is written down ----------------------------------------------------------

    def _record(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _hosts(self, name: str) -> dict[str, str]:
        """{host's name: "rw" or "ro"}."""
        with contextlib.suppress(FileNotFoundError):
            found: dict[str, str] = json.loads(self._record(name).read_text())["hosts"]
            return found
        return {}

    def _write(self, name: str, hosts: Mapping[str, str], device: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(self._record(name), json.dumps({"hosts": dict(hosts), "device": str(device)}))

    def _host_of(self, connector: Mapping[str, Any]) -> str:
        """:raises BadRequest: the connector does not say who the host is, in a name of the protocol's."""
        host = connector.get(self.who)
        if not host or not isinstance(host, str):
            raise BadRequest(
                f"The connector lacks {self.who!r}: that host can't reach {self.protocol} targets."
            )
        if not self.names.fullmatch(host):
            raise BadRequest(
                f"The connector's {self.who!r} is no name of a host for {self.protocol} targets."
            )
        return host.lower() if self.folds_case else host

    # -- what the driver calls ---------------------------------------------------------

    def start(self, there: Collection[str], activate: Callable[[str], Path]) -> None:
        """Bring back what hosts use. ``there``: the volumes that there are; ``activate`` gives one's device.

        A volume that can't be exported keeps no other from its hosts; it is tried again when it is asked for.
        """
        mount_configfs()
        self.check()
        if not self._folder.is_dir():
            return
        for file in sorted(self._folder.glob("*.json")):
            name = file.stem
            try:
                if name in there:
                    with _KERNEL:
                        self.export(name, activate(name), self._hosts(name))
                else:
                    self.remove(name)
            except DriverError as error:
                LOG.error("%s is not exported as it should be: %s", name, error)

    def connect(
        self, volume_id: str, name: str, device: Path, connector: Mapping[str, Any], mode: str
    ) -> dict[str, Any]:
        """Let a host have the volume; what os-brick needs to know there.

        :raises BadRequest: the connector does not say who the host is, or the target can't keep it from writing.
        """
        host = self._host_of(connector)
        if mode == "ro" and not self.exports_read_only:
            raise BadRequest(f"{self.protocol} targets can't give a host a volume to read only.")
        with _KERNEL:
            hosts = {**self._hosts(name), host: mode}
            self._write(name, hosts, device)
            self.export(name, device, hosts)
        return self.information(volume_id, name, host, mode)

    def disconnect(self, name: str, connector: Mapping[str, Any]) -> None:
        """Let go of one host; with the last one the target goes."""
        try:
            host = self._host_of(connector)
        except BadRequest:
            return  # it never got the volume
        with _KERNEL:
            hosts = self._hosts(name)
            if host not in hosts:
                return
            device = Path(json.loads(self._record(name).read_text())["device"])
            del hosts[host]
            if hosts:
                self._write(name, hosts, device)
                self.export(name, device, hosts)
                return
        self.remove(name)

    def remove(self, name: str) -> None:
        """No host has the volume any more."""
        with _KERNEL:
            if not self._record(name).exists() and not self.exported(name):
                return
            self.withdraw(name)
            self._record(name).unlink(missing_ok=True)

    def resized(self, name: str) -> None:  # noqa: B027 - nothing to do is a fine answer
        """The device has grown; most targets see it by themselves."""

    # -- what a target does ------------------------------------------------------------

    @abc.abstractmethod
    def check(self) -> None:
        """:raises DriverError: the kernel or a library lacks it."""

    @abc.abstractmethod
    def exported(self, name: str) -> bool:
        """Does the kernel know a target of this name?"""

    @abc.abstractmethod
    def export(self, name: str, device: Path, hosts: Mapping[str, str]) -> None:
        """A target for exactly these hosts; those that have it stay connected."""

    @abc.abstractmethod
    def withdraw(self, name: str) -> None:
        """No target, nothing of it left."""

    @abc.abstractmethod
    def information(self, volume_id: str, name: str, host: str, mode: str) -> dict[str, Any]:
        """What os-brick's connector takes."""

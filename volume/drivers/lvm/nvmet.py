"""NVMe over TCP by the kernel's nvmet: a subsystem a volume, and the hosts that may connect to it.

The interface is files and folders in configfs (Documentation/ABI of the kernel; nvmetcli writes the same).
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.errors import DriverError
from volume.drivers.lvm.targets import Target

_ROOT = Path("/sys/kernel/config/nvmet")
_MODULES = ("nvmet", "nvmet-tcp")


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DriverError(f"{what}: {error.strerror or error}", cause=error) from error


class Nvmet(Target):
    """See the module."""

    protocol = "NVMe-TCP"
    default_port = 4420
    who = "nqn"
    exports_read_only = False  # the kernel's nvmet has no such namespace
    names = re.compile(r"nqn\.\d{4}-\d\d\.[A-Za-z0-9.:_-]{1,200}")

    def check(self) -> None:
        for module in _MODULES:
            subprocess.run(["modprobe", module], check=False, capture_output=True)
        if not (_ROOT / "subsystems").is_dir():
            raise DriverError("the kernel offers no NVMe targets: modprobe nvmet-tcp, and mount configfs")

    def _nqn(self, name: str) -> str:
        return f"nqn.{self._options.target_prefix}:{name}"

    def _subsystem(self, name: str) -> Path:
        return _ROOT / "subsystems" / self._nqn(name)

    def exported(self, name: str) -> bool:
        return self._subsystem(name).exists()

    def _port(self) -> Path:
        """The port with our address; made if there is none."""
        wanted = {"addr_trtype": "tcp", "addr_traddr": self.address, "addr_trsvcid": str(self.port)}
        ports = _ROOT / "ports"
        for found in sorted(ports.iterdir()):
            if all((found / key).read_text().strip() == value for key, value in wanted.items()):
                return found
        number = next(each for each in range(1, 65536) if not (ports / str(each)).exists())
        made = ports / str(number)
        made.mkdir()
        (made / "addr_adrfam").write_text("ipv6" if ":" in self.address else "ipv4")
        for key, value in wanted.items():
            (made / key).write_text(value)
        return made

    def export(self, name: str, device: Path, hosts: Mapping[str, str]) -> None:
        with _told(f"{name} could not be exported by NVMe/TCP"):
            subsystem = self._subsystem(name)
            subsystem.mkdir(exist_ok=True)
            (subsystem / "attr_allow_any_host").write_text("0")
            self._admit(subsystem, hosts)
            space = subsystem / "namespaces" / "1"
            space.mkdir(exist_ok=True)
            if (space / "enable").read_text().strip() != "1":
                (space / "device_path").write_text(str(device))
                (space / "device_uuid").write_text(name.removeprefix("volume-"))
                (space / "enable").write_text("1")
            link = self._port() / "subsystems" / subsystem.name
            if not link.is_symlink():
                link.symlink_to(subsystem)

    @staticmethod
    def _admit(subsystem: Path, hosts: Mapping[str, str]) -> None:
        allowed = subsystem / "allowed_hosts"
        for found in list(allowed.iterdir()):
            if found.name not in hosts:
                found.unlink()
                _forget_host(found.name)
        for host in hosts:
            known = _ROOT / "hosts" / host
            known.mkdir(exist_ok=True)
            if not (allowed / host).is_symlink():
                (allowed / host).symlink_to(known)

    def withdraw(self, name: str) -> None:
        subsystem = self._subsystem(name)
        if not subsystem.exists():
            return
        with _told(f"the NVMe target of {name} could not be removed"):
            for port in (_ROOT / "ports").iterdir():
                (port / "subsystems" / subsystem.name).unlink(missing_ok=True)
                if not any((port / "subsystems").iterdir()):
                    port.rmdir()
            for space in (subsystem / "namespaces").iterdir():
                (space / "enable").write_text("0")
                space.rmdir()
            self._admit(subsystem, {})
            subsystem.rmdir()

    def resized(self, name: str) -> None:
        again = self._subsystem(name) / "namespaces" / "1" / "revalidate_size"
        if again.exists():
            with _told(f"the NVMe target of {name} does not see its new size"):
                again.write_text("1")

    def information(self, volume_id: str, name: str, host: str, mode: str) -> dict[str, Any]:
        return {
            "driver_volume_type": "nvmeof",
            "data": {
                "target_nqn": self._nqn(name),
                "vol_uuid": volume_id,
                "ns_id": 1,
                "portals": [[self.address, self.port, "tcp"]],
                "volume_id": volume_id,
                "access_mode": mode,
                "discard": True,
            },
        }


def _forget_host(nqn: str) -> None:
    """A host that no subsystem admits any more; one that is still admitted somewhere stays."""
    with contextlib.suppress(OSError):
        (_ROOT / "hosts" / nqn).rmdir()

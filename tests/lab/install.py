"""Installs what tests need, once, where that is possible: root on Debian. Elsewhere it says what is missing.

``python -m tests.lab.install databases drivers hypervisor network storage fresh``: any of these sets.
Never fails: what is not there is skipped by the tests that need it, by name and
with the reason.  No service is started; tests start their own.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

from cli import packages
from core.errors import Unavailable
from tests.lab import servers

FRESH = {"debootstrap": "debootstrap", "unshare": "util-linux", "git": "git"}
# what stands for guests and the outside in tests of the data plane
# what mysqlclient is built with; the extra "mysql" in setup.cfg
DRIVERS = {
    "gcc": "gcc",
    "pkg-config": "pkg-config",
    "mariadb_config": "libmariadb-dev",
}
# what a kernel guest is made of, and what is tried in it (tests.lab.kernel_guest)
KERNEL_GUEST = {
    "lvs": "lvm2",
    "thin_check": "thin-provisioning-tools",
    "iscsid": "open-iscsi",
    "lsscsi": "lsscsi",
    "nvme": "nvme-cli",
    "udevadm": "udev",
    "depmod": "kmod",
    "busybox": "busybox-static",
    "qemu-system-x86_64": "qemu-system-x86",
}
NETWORK = {
    "ping": "iputils-ping",
    "arping": "iputils-arping",
    "ssh": "openssh-client",
    "/bin/busybox": "busybox-static",
}


def wanted(name: str) -> list[str]:
    """The missing packages of one set."""
    if name == "databases":
        return sorted(
            package for kind, (_p, package, _f) in servers.PROGRAMS.items() if servers.missing(kind)
        )
    if name == "hypervisor":
        from cli import guest_image

        return sorted({*packages.missing(packages.HYPERVISOR), *guest_image.missing_packages()})
    if name == "network":
        return packages.missing({**packages.NETWORK, **NETWORK})
    if name == "drivers":
        return [] if importlib.util.find_spec("MySQLdb") else packages.missing(DRIVERS)
    if name == "storage":
        from tests.lab import ceph

        return packages.missing({**ceph.NEEDED, **KERNEL_GUEST})
    if name == "fresh":
        return packages.missing(FRESH)
    raise SystemExit(f"unknown set {name!r}: databases, drivers, hypervisor, network, storage, fresh")


def main(names: list[str]) -> None:
    for name in names:
        lacking = wanted(name)
        if lacking:
            try:
                packages.install(lacking, lambda text: print(text, flush=True), start_services=False)
            except Unavailable as failure:
                print(f"{name}: {failure.message}; the tests that need it will be skipped", flush=True)
                continue
        if name == "drivers":
            build_drivers()
        else:
            print(f"{name}: all there", flush=True)


def build_drivers() -> None:
    """The compiled driver for MariaDB: nothing needs it, and tests of MariaDB use it where it can be built."""
    if importlib.util.find_spec("MySQLdb"):
        print("drivers: all there", flush=True)
        return
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "mysqlclient>=2.2",
    ]
    built = subprocess.run(command, capture_output=True, text=True).returncode == 0
    print(
        f"drivers: {'all there' if built else 'mysqlclient can not be built here; PyMySQL is used'}",
        flush=True,
    )


if __name__ == "__main__":
    main(sys.argv[1:])

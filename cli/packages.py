"""System packages: which are needed, which are missing, and installing them on Debian as root.

Without root, or without apt, nothing is changed: the message says what to install.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from core.errors import Unavailable

SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
# what shows that a Debian package is there → the package
HYPERVISOR = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "libvirtd": "libvirt-daemon-system",
    "virsh": "libvirt-clients",
    "/usr/share/OVMF/OVMF_CODE_4M.fd": "ovmf",
}
# what the network agent works with, beside the kernel
NETWORK = {
    "nft": "nftables",
    "dnsmasq": "dnsmasq-base",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "radvd": "radvd",
}
POLICY = Path("/usr/sbin/policy-rc.d")


def missing(needed: dict[str, str]) -> list[str]:
    """The packages whose program or file is not on this machine."""
    path = os.pathsep.join([os.environ.get("PATH", ""), SBIN])
    return sorted(
        {
            package
            for what, package in needed.items()
            if not (Path(what).exists() if what.startswith("/") else shutil.which(what, path=path))
        }
    )


def how_to_install(packages: Iterable[str]) -> str:
    """The line that a person can type."""
    names = " ".join(packages)
    if shutil.which("apt-get"):
        return f"sudo apt-get install {names}"
    return f"install what Debian calls {names} with this system's package manager"


def can_install() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(
    packages: list[str], say: Callable[[str], None], start_services: bool = True, attempts: int = 3
) -> None:
    """Install Debian packages without questions; a package list that is too old is renewed.

    ``start_services`` False, or a machine without systemd: the packages' services
    are not started.

    :raises Unavailable: it can't be done; the message says what to type or what apt said.
    """
    if not packages:
        return
    if not can_install():
        raise Unavailable(f"missing: {' '.join(packages)}. To get it: {how_to_install(packages)}")
    quiet = not start_services or not Path("/run/systemd/system").exists()
    with _no_services() if quiet else contextlib.nullcontext():
        for attempt in range(1, attempts + 1):
            if attempt > 1 or not any(Path("/var/lib/apt/lists").glob("*Packages*")):
                say("apt-get update")
                _apt("update")
            say(f"apt-get install {' '.join(packages)}")
            failure = _apt("install", "--no-install-recommends", *packages)
            if failure is None:
                return
    raise Unavailable(f"apt-get could not install {' '.join(packages)}: {failure}")


def _apt(*arguments: str) -> str | None:
    """None if it went well, else the last line that apt wrote."""
    done = subprocess.run(
        ["apt-get", "--yes", "--quiet", "-o", "DPkg::Lock::Timeout=300", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return None
    lines = [line for line in done.stdout.splitlines() if line.startswith("E:")] or done.stdout.splitlines()
    return lines[0] if lines else f"exit status {done.returncode}"


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """While packages are installed, a policy forbids their services to start (Debian's own way)."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)

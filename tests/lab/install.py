"""Installs what tests need, once, where that is possible: root on Debian. Elsewhere it says what is missing.

``python -m tests.lab.install databases hypervisor network fresh``: any of these sets.
Never fails: what is not there is skipped by the tests that need it, by name and
with the reason.  No service is started; tests start their own.
"""

from __future__ import annotations

import sys

from cli import packages
from core.errors import Unavailable
from tests.lab import servers

FRESH = {"debootstrap": "debootstrap", "unshare": "util-linux", "git": "git"}
# what stands for guests and the outside in tests of the data plane
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
    if name == "fresh":
        return packages.missing(FRESH)
    raise SystemExit(f"unknown set {name!r}: databases, hypervisor, network, fresh")


def main(names: list[str]) -> None:
    for name in names:
        lacking = wanted(name)
        if not lacking:
            print(f"{name}: all there", flush=True)
            continue
        try:
            packages.install(lacking, lambda text: print(text, flush=True), start_services=False)
        except Unavailable as failure:
            print(f"{name}: {failure.message}; the tests that need it will be skipped", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

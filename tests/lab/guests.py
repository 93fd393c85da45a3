"""For tests with real guests: what they need, the tiny image (built once per machine), a private libvirtd."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from oslo_concurrency import lockutils

from cli import guest_image
from compute.drivers.base import GuestImage
from compute.drivers.libvirt import daemon
from core.errors import HaneulError

LAB = Path(__file__).resolve().parents[2] / ".lab"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing() -> str | None:
    """Why no real guest can be booted here, or None."""
    for program in ("libvirtd", "virtlogd", "qemu-system-x86_64", "qemu-img"):
        if shutil.which(program, path=_PATH) is None:
            return f"{program} is not installed (Debian: apt-get install {' '.join(daemon.APT_PACKAGES)})"
    if os.geteuid() != 0:
        return "a private libvirtd needs root"
    packages = guest_image.missing_packages()
    if packages:
        return f"the guest image needs: apt-get install {' '.join(packages)}"
    return None


def tiny_image() -> Path:
    """The guest image, built when it is not there; workers of one run wait for each other."""
    LAB.mkdir(exist_ok=True)
    target = LAB / "guest" / "tiny.qcow2"
    with lockutils.lock("guest-image", external=True, lock_path=str(LAB / "locks")):
        guest_image.build_guest_image(LAB / "guest" / "work", target, lambda _text: None)
    return target


def described(path: Path) -> GuestImage:
    """The image as the image API would describe it."""
    digest = hashlib.sha512(path.read_bytes()).hexdigest()
    return GuestImage(
        id="11111111-2222-4333-8444-555555555555",
        name="tiny",
        disk_format="qcow2",
        size_bytes=path.stat().st_size,
        os_hash_algo="sha512",
        os_hash_value=digest,
    )


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The tiny guest image; skips where no guest can be booted."""
    why = missing()
    if why:
        pytest.skip(why)
    try:
        return tiny_image()
    except HaneulError as error:
        pytest.skip(f"the guest image can't be built: {error}")


@pytest.fixture(scope="module")
def libvirtd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state folder with a private libvirtd."""
    why = missing()
    if why:
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("lv")
    started = daemon.ensure_libvirtd(folder)
    yield folder
    started.stop()

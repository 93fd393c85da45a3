"""Debian's generic kernel in QEMU, around this machine's own file system: for what a test machine's kernel lacks.

Device-mapper, LIO, nvmet, VLANs: many machines that run tests have a kernel without them and no way to load
modules.  virtme-ng boots another kernel with this root file system (9p, read only, with overlays that are
forgotten over /etc, /var and /root), Python's environment included.  Under emulation a boot takes half a
minute, so tests share one: ``run`` gives a pytest command to the guest and returns what it said.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from oslo_concurrency import lockutils

from cli import guest_image
from core.errors import HaneulError
from tests.lab.guests import LAB

INSIDE = "HANEUL_KERNEL_GUEST"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KERNEL = "linux-image-amd64"
_ROOT = Path(__file__).resolve().parents[2]
_END = "KERNEL GUEST ENDED WITH"
_PROGRAMS = {"qemu-system-x86_64": "qemu-system-x86", "busybox": "busybox-static", "depmod": "kmod"}


def inside() -> bool:
    """Is this process in such a guest?"""
    return bool(os.environ.get(INSIDE))


def missing(*programs: tuple[str, str]) -> str | None:
    """Why no such guest can be had here, or None. ``programs``: further (program, Debian package) pairs."""
    if os.geteuid() != 0:
        return "a kernel guest needs root, to read the machine's own file system"
    for program, package in (*_PROGRAMS.items(), *programs):
        if shutil.which(program, path=_PATH) is None:
            return f"{program} is not installed (Debian: apt-get install {package})"
    if importlib.util.find_spec("virtme_ng") is None and importlib.util.find_spec("virtme") is None:
        return "virtme-ng is not installed (pip install virtme-ng)"
    try:
        kernel()
    except (HaneulError, OSError, subprocess.CalledProcessError) as error:
        return f"no kernel for the guest: {error}"
    return None


def kernel() -> Path:
    """Debian's generic kernel with its modules, unpacked once per checkout."""
    folder = LAB / "kernel"
    folder.mkdir(parents=True, exist_ok=True)
    with lockutils.lock("guest-kernel", external=True, lock_path=str(LAB / "locks")):
        there = sorted(folder.glob("root/boot/vmlinuz-*"))
        if there:
            return there[-1]
        package = guest_image.fetch_kernel_package(folder, _KERNEL)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            guest_image.unpack_kernel(package, Path(scratch) / "root")
            shutil.move(str(Path(scratch) / "root"), folder / "root")
        package.unlink()
        return sorted(folder.glob("root/boot/vmlinuz-*"))[-1]


def run(
    *pytest_arguments: str,
    work: Path,
    disks_gib: Sequence[int] = (),
    timeout_s: float = 900,
    memory: str = "1G",
) -> str:
    """Run pytest in a guest; what it printed. ``disks_gib``: empty disks, /dev/vda, /dev/vdb there.

    ``work`` is where the script and the disk lie; the guest sees it, and can't write there.

    :raises AssertionError: with the output, if a test failed or the guest did not come to its end.
    """
    script = work / "inside.sh"
    # plugins that tests here do without take a minute of an emulated processor to import
    arguments = " ".join(f"'{each}'" for each in pytest_arguments)
    script.write_text(
        f"cd {_ROOT}\n"
        f"export {INSIDE}=1 PYTHONPATH={_ROOT} PYTHONDONTWRITEBYTECODE=1 PYTEST_DISABLE_PLUGIN_AUTOLOAD=1"
        f" HOME=/root TMPDIR=/tmp PATH={_PATH}\n"
        "modprobe configfs; mount -t configfs configfs /sys/kernel/config 2>/dev/null\n"
        "mount -t tmpfs tmpfs /tmp 2>/dev/null; ip link set lo up\n"
        f"{sys.executable} -m pytest -v -p no:cacheprovider -p pytest_timeout --durations=8"
        f" --basetemp=/tmp/pytest {arguments}\n"
        f'echo "{_END} $?"\n'
    )
    options = ["--disable-kvm", "--disable-microvm", "--force-9p", "--force-initramfs"]
    options += ["--memory", memory, "--cpus", "2", "--user", "root"]
    for folder in ("/etc", "/var", "/root"):
        options += ["--overlay-rwdir", folder]
    for number, size_gib in enumerate(disks_gib):
        disk = work / f"disk{number}.raw"
        with disk.open("wb") as file:
            file.truncate(size_gib << 30)
        options.append(f"--qemu-opts=-drive file={disk},format=raw,if=virtio,cache=unsafe,discard=unmap")
    vng = Path(sys.executable).with_name("vng")
    done = subprocess.run(
        [str(vng), "--run", str(kernel()), *options, "--exec", f"bash {script}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout_s,
        check=False,
        env={**os.environ, "PATH": f"{vng.parent}:{_PATH}"},
    )
    said = done.stdout.decode(errors="replace")
    assert f"{_END} 0" in said, said
    return said

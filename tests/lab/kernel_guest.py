"""Debian's generic kernel in QEMU, around this machine's own file system: for what a test machine's kernel lacks.

Device-mapper, LIO, nvmet, VLANs: many machines that run tests have a kernel without them and no way to load
modules.  virtme-ng boots another kernel with this root file system, Python's environment included; what is
written goes to memory and is forgotten.  Under emulation a boot takes half a minute and imports as long
again, so tests share one guest: ``run`` gives it a pytest command and returns what that said.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
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
_SCRIPT = Path(__file__).with_suffix(".sh")
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
    modules: Sequence[str] = (),
    timeout_s: float = 900,
    memory: str = "1G",
) -> str:
    """Run pytest in a guest; what it printed. ``disks_gib``: empty disks, /dev/vda, /dev/vdb there;
    ``modules``: the kernel's, to be there before Python is.

    ``work`` is where the disks and the output (``guest.log``) lie; the guest sees it as it was at its start.

    :raises AssertionError: with the output, if a test failed or the guest did not come to its end.
    """
    kernel_image = kernel()
    (folder,) = kernel_image.parents[1].glob("lib/modules/*")
    # plugins that tests here do without take their time of an emulated processor to import
    pytest = ["-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "pytest_timeout", "--durations=8"]
    inside = [sys.executable, *pytest, "--basetemp=/run/pytest", *pytest_arguments]
    environment = {
        INSIDE: "1",
        "PYTHONPATH": str(_ROOT),
        "PYTHONUNBUFFERED": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "HOME": "/root",
        "TMPDIR": "/tmp",
        "PATH": _PATH,
    }
    command = ["bash", str(_SCRIPT), str(folder), ",".join(modules), "env", "-C", str(_ROOT)]
    command += [f"{name}={value}" for name, value in environment.items()]
    command += ["bash", "-c", f'"$@"; echo "{_END} $?"', "bash", *inside]
    options = ["--disable-kvm", "--disable-microvm", "--force-9p", "--force-initramfs"]
    # one processor: two that are emulated wait for each other as soon as the machine has other things to do
    options += ["--memory", memory, "--cpus", "1", "--user", "root", "--append", "mitigations=off"]
    host = "-fsdev local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"
    options.append(f"--qemu-opts={host} -device virtio-9p-pci,fsdev=host,mount_tag=host")
    for number, size_gib in enumerate(disks_gib):
        disk = work / f"disk{number}.raw"
        with disk.open("wb") as file:
            file.truncate(size_gib << 30)
        options.append(f"--qemu-opts=-drive file={disk},format=raw,if=virtio,cache=unsafe,discard=unmap")
    vng = Path(sys.executable).with_name("vng")
    log = work / "guest.log"
    # a pipe: QEMU opens its standard output once for each channel, and in a file they would write over each other
    started = subprocess.Popen(
        [str(vng), "--run", str(kernel_image), *options, "--exec", shlex.join(command)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PATH": f"{vng.parent}:{_PATH}"},
        start_new_session=True,
    )
    assert started.stdout is not None
    keeper = threading.Thread(target=_keep, args=(started.stdout.fileno(), log), daemon=True)
    keeper.start()
    late = ""
    try:
        started.wait(timeout_s)
    except subprocess.TimeoutExpired:
        late = f"\nno end in {timeout_s} s\n"
    finally:
        # it has children, QEMU among them
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()
        keeper.join(10)
        started.stdout.close()
    said = log.read_text(errors="replace") + late
    assert f"{_END} 0" in said, said
    return said


def _keep(pipe: int, log: Path) -> None:
    """All that comes, at once: one may look at it meanwhile."""
    with log.open("wb", buffering=0) as file:
        while block := os.read(pipe, 65536):
            file.write(block)

"""Builds a tiny bootable guest image (about 17 MB) from Debian packages, without root and without mounts.

``haneul up`` boots its first server from it, and the tests their guests.  Inside
are busybox, dropbear (ssh with the injected key), a few of Debian's programs for
disks, stand-ins for sudo and curl, and Debian's cloud kernel: what people and
upstream's tests call in a guest.  It boots with BIOS (syslinux) and UEFI (systemd-boot), asks every network card for
DHCP, reads the config drive or the metadata service, runs a user data script,
obeys the ACPI power button, and prints ``GUEST-READY`` on the serial console.
The scripts that run in the guest lie in ``cli/guest/``.

Everything runs from an initial RAM disk; the second partition (ext4, mounted at
/data) keeps ssh host keys and a count of boots.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from core.errors import DriverError

APT_PACKAGES = (
    "busybox-static",
    "dosfstools",
    "dropbear-bin",
    "e2fsprogs",
    "fdisk",
    "kmod",
    "mtools",
    "qemu-utils",
    "syslinux",
    "syslinux-common",
    "systemd-boot-efi",
)
KERNEL_PACKAGE = "linux-image-cloud-amd64"
KERNEL_COMMAND_LINE = "console=tty0 console=ttyS0,115200 quiet panic=5 net.ifnames=0"

_TOOLS = {
    "apt-cache": "apt",
    "apt-get": "apt",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "ldd": "libc-bin",
    "mcopy": "mtools",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "mmd": "mtools",
    "qemu-img": "qemu-utils",
    "sfdisk": "fdisk",
    "syslinux": "syslinux",
}
_BUSYBOX = Path("/bin/busybox")
_MBR = Path("/usr/lib/syslinux/mbr/mbr.bin")
_EFI_LOADER = Path("/usr/lib/systemd/boot/efi/systemd-bootx64.efi")
_DROPBEAR = Path("/usr/sbin/dropbear")
_PROGRAMS = {
    _DROPBEAR: "dropbear-bin",
    Path("/usr/bin/lsblk"): "util-linux",
    Path("/usr/sbin/blkid"): "util-linux",
    Path("/usr/sbin/mkfs"): "util-linux",
    Path("/usr/sbin/mkfs.ext4"): "e2fsprogs",
}
"""Copied into the guest, with the libraries that they are linked with."""
_FILES = {
    **_PROGRAMS,
    _BUSYBOX: "busybox-static",
    _MBR: "syslinux-common",
    _EFI_LOADER: "systemd-boot-efi",
}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MIB = 1024 * 1024
_DATA_MIB = 8
_MODULES = [
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_scsi",
    "virtio_console",
    "virtio_balloon",
    "virtio_rng",
    "sd_mod",
    "sr_mod",
    "ata_piix",
    "ahci",
    "e1000",
    "isofs",
    "vfat",
    "nls_cp437",
    "nls_iso8859_1",
    "nls_ascii",
    "nls_utf8",
    "button",
    "evdev",
]
"""Those that the kernel has neither built in nor as a module are left out."""
_GUEST_FILES = {
    "init": ("init.sh", 0o755),
    "etc/inittab": ("inittab.sh", 0o644),
    "etc/haneul/network": ("network.sh", 0o755),
    "etc/haneul/lease": ("lease.sh", 0o755),
    "etc/haneul/metadata": ("metadata.sh", 0o755),
    "etc/haneul/shell": ("shell.sh", 0o755),
    "usr/bin/curl": ("curl.sh", 0o755),
    "usr/bin/sudo": ("sudo.sh", 0o755),
    "etc/acpi/PWRF/00000080": ("power_button.sh", 0o755),
}


def build_guest_image(work_dir: Path, output: Path, progress: Callable[[str], None]) -> Path:
    """Build the image into ``output`` (qcow2), unless it is there already; return ``output``.

    ``work_dir`` keeps the downloaded kernel package between calls.  Raises
    DriverError that names the missing packages or the command that failed.
    """
    if output.exists():
        return output
    missing = missing_packages()
    if missing:
        raise DriverError(f"The guest image needs: apt-get install {' '.join(missing)}")
    work_dir.mkdir(parents=True, exist_ok=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work_dir, prefix="build-") as scratch_name:
        scratch = Path(scratch_name)
        progress("fetching the kernel package")
        kernel, modules = unpack_kernel(fetch_kernel_package(work_dir), scratch / "kernel")
        progress("packing the initial RAM disk")
        root = scratch / "root"
        _fill_root(root, modules)
        initrd = scratch / "initrd.gz"
        with gzip.GzipFile(initrd, "wb", compresslevel=9, mtime=0) as packed:
            for block in _cpio(root):
                packed.write(block)
        progress("putting the disk together")
        raw = _assemble(scratch, kernel, initrd)
        # Built beside and renamed: whoever sees ``output`` sees a whole image.
        packed_image = output.with_name(f".{output.name}.{os.getpid()}")
        _run("qemu-img", "convert", "-c", "-O", "qcow2", str(raw), str(packed_image))
        packed_image.replace(output)
        # kept beside the image: the compute agent tries with it whether KVM works
        shutil.copy(kernel, output.with_name("vmlinuz"))
    progress(f"guest image ready: {output} ({output.stat().st_size // _MIB} MiB)")
    return output


def missing_packages() -> list[str]:
    """The Debian packages that have to be installed before an image can be built."""
    missing = {package for tool, package in _TOOLS.items() if shutil.which(tool, path=_PATH) is None}
    missing |= {package for path, package in _FILES.items() if not path.exists()}
    return sorted(missing)


def fetch_kernel_package(work_dir: Path, package: str = KERNEL_PACKAGE) -> Path:
    """Download a kernel of Debian's with apt (no root needed), once per version; return the .deb's path.

    ``package``: the one that depends on the newest version; the cloud kernel unless said otherwise.
    """
    shown = _run("apt-cache", "depends", package, check=False)
    match = re.search(r"Depends: (linux-image-\S+)", shown)
    if match is None:
        raise DriverError(f"apt knows no package {package}: run apt-get update on a Debian machine")
    real = match[1]
    there = sorted(work_dir.glob(f"{real}_*.deb"))
    if there:
        return there[-1]
    with tempfile.TemporaryDirectory(dir=work_dir, prefix="download-") as folder:
        _run("apt-get", "download", "-q", real, cwd=Path(folder))
        downloaded = next(Path(folder).glob(f"{real}_*.deb"))
        return downloaded.rename(work_dir / downloaded.name)


def unpack_kernel(package: Path, folder: Path) -> tuple[Path, Path]:
    """Unpack the kernel package; return the paths of the kernel and of its modules' folder."""
    _run("dpkg-deb", "-x", str(package), str(folder))
    modules = next((folder / "lib/modules").iterdir())
    _run("depmod", "-b", str(folder), modules.name)
    return folder / "boot" / f"vmlinuz-{modules.name}", modules


def _fill_root(root: Path, modules: Path) -> None:
    """Lay out the guest's root file system below ``root``."""
    for name in [
        "bin",
        "dev",
        "proc",
        "sys",
        "run",
        "tmp",
        "mnt",
        "data",
        "etc/haneul",
        "root/.ssh",
        "var/log",
        "usr/bin",
    ]:
        (root / name).mkdir(parents=True)
    (root / "var/run").symlink_to("/run")
    (root / "root/.ssh").chmod(0o700)
    for alias in ("sbin", "usr/sbin"):
        (root / alias).symlink_to("/bin")
    shutil.copy(_BUSYBOX, root / "bin/busybox")
    for applet in _run(str(_BUSYBOX), "--list").split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    for program in _PROGRAMS:
        _copy_program(program, root)
    for target, (source, mode) in _GUEST_FILES.items():
        path = root / target
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((Path(__file__).parent / "guest" / source).read_bytes())
        path.chmod(mode)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "etc/shadow").write_text("root:*:19000:0:99999:7:::\n")
    (root / "etc/shells").write_text("/bin/sh\n")
    (root / "etc/modules").write_text("".join(f"{name}\n" for name in _MODULES))
    _copy_modules(modules, root / "lib/modules" / modules.name)
    _run("depmod", "-b", str(root), modules.name)


def _copy_program(program: Path, root: Path) -> None:
    """Copy a program, in the place of busybox's if it has one, and the shared libraries that it is linked with."""
    target = root / "bin" / program.name
    target.unlink(missing_ok=True)
    shutil.copy(program, target)
    for library in re.findall(r"(/\S+\.so\S*)", _run("ldd", str(program))):
        target = root / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)


def _copy_modules(source: Path, target: Path) -> None:
    """Copy the wanted kernel modules with everything that they depend on, as modules.dep says."""
    depends: dict[str, list[str]] = {}
    by_name: dict[str, str] = {}
    for line in (source / "modules.dep").read_text().splitlines():
        path, _colon, needs = line.partition(":")
        depends[path] = needs.split()
        by_name[Path(path).name.split(".ko")[0].replace("-", "_")] = path
    wanted = {by_name[name] for name in _MODULES if name in by_name}
    for path in sorted(wanted.union(*(depends[path] for path in wanted))):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / path, target / path)
    for index in ("modules.order", "modules.builtin"):
        shutil.copy(source / index, target / index)


def _cpio(root: Path) -> Iterator[bytes]:
    """The folder as a cpio archive (newc), every file owned by root whoever builds."""
    for number, path in enumerate(sorted(root.rglob("*")), start=1):
        status = path.lstat()
        content = b""
        if stat.S_ISLNK(status.st_mode):
            content = os.fsencode(path.readlink())
        elif stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        yield _cpio_entry(str(path.relative_to(root)), number, status.st_mode, content)
    yield _cpio_entry("TRAILER!!!", 0, 0, b"")


def _cpio_entry(name: str, number: int, mode: int, content: bytes) -> bytes:
    """One entry: 13 hexadecimal fields, the name and the content, each padded to four bytes."""
    encoded = os.fsencode(name) + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (number, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    return header + b"\0" * (-len(header) % 4) + content + b"\0" * (-len(content) % 4)


def _assemble(scratch: Path, kernel: Path, initrd: Path) -> Path:
    """Boot sector, FAT partition with both boot loaders, data partition; return the raw disk's path."""
    boot_mib = (kernel.stat().st_size + initrd.stat().st_size) // _MIB + 4
    fat = _boot_partition(scratch, kernel, initrd, boot_mib)
    data = scratch / "data.img"
    _sparse(data, _DATA_MIB)
    _run("mkfs.ext4", "-q", "-L", "haneul-data", "-O", "^has_journal", str(data))
    disk = scratch / "disk.raw"
    _sparse(disk, boot_mib + _DATA_MIB + 2)
    table = (
        "label: dos\n"
        f"start=1MiB,size={boot_mib}MiB,type=e,bootable\n"
        f"start={boot_mib + 1}MiB,size={_DATA_MIB}MiB,type=83\n"
    )
    _run("sfdisk", "-q", str(disk), stdin=table)
    with disk.open("r+b") as target:
        target.write(_MBR.read_bytes()[:440])
        for start_mib, part in ((1, fat), (boot_mib + 1, data)):
            target.seek(start_mib * _MIB)
            with part.open("rb") as source:
                shutil.copyfileobj(source, target, _MIB)
    return disk


def _boot_partition(scratch: Path, kernel: Path, initrd: Path, size_mib: int) -> Path:
    fat = scratch / "boot.img"
    _sparse(fat, size_mib)
    # The geometry and the sectors before the partition must be those of the disk it will lie on.
    _run("mkfs.vfat", "-n", "BOOT", "-g", "16/63", "-h", "2048", str(fat))
    files = {
        "syslinux.cfg": "DEFAULT tiny\nPROMPT 0\nTIMEOUT 0\nLABEL tiny\n KERNEL /vmlinuz\n INITRD /initrd.gz\n"
        f" APPEND {KERNEL_COMMAND_LINE}\n",
        "loader/loader.conf": "default tiny.conf\ntimeout 0\n",
        "loader/entries/tiny.conf": "title tiny\nlinux /vmlinuz\ninitrd /initrd.gz\n"
        f"options {KERNEL_COMMAND_LINE}\n",
    }
    _run("mmd", "-i", str(fat), "::/EFI", "::/EFI/BOOT", "::/loader", "::/loader/entries")
    _run("mcopy", "-i", str(fat), str(kernel), "::/vmlinuz")
    _run("mcopy", "-i", str(fat), str(initrd), "::/initrd.gz")
    _run("mcopy", "-i", str(fat), str(_EFI_LOADER), "::/EFI/BOOT/BOOTX64.EFI")
    for name, text in files.items():
        local = scratch / Path(name).name
        local.write_text(text)
        _run("mcopy", "-i", str(fat), str(local), f"::/{name}")
    _run("syslinux", "--install", str(fat))
    return fat


def _sparse(path: Path, size_mib: int) -> None:
    with path.open("wb") as file:
        file.truncate(size_mib * _MIB)


def _run(*command: str, cwd: Path | None = None, stdin: str | None = None, check: bool = True) -> str:
    """Run a program and return what it printed; DriverError with its last words if it fails."""
    environment = {**os.environ, "PATH": _PATH, "LC_ALL": "C", "MTOOLS_SKIP_CHECK": "1"}
    result = subprocess.run(
        command,
        cwd=cwd,
        input=stdin,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if check and result.returncode != 0:
        words = (result.stderr.strip() or result.stdout.strip() or "it said nothing").splitlines()[-1]
        raise DriverError(f"{command[0]} failed: {words}", cause=f"{command}: {result.stderr}")
    return result.stdout

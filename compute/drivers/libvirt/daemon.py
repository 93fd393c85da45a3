"""A private libvirtd for machines where none runs (no systemd, a lab, a test).

The daemon lives in a mount namespace of its own, in which libvirt's folders in
/etc, /run and /var are folders of haneul's state: the machine's own libvirt
configuration is neither read nor changed, and several may run side by side.
Clients reach it by the socket in the state folder.  Guests outlive the daemon.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import libvirt

from core.errors import Unavailable

APT_PACKAGES = ("libvirt-daemon-system", "libvirt-clients", "qemu-system-x86", "qemu-utils")
SYSTEM_URI = "qemu:///system"
_FOLDERS = (
    "/etc/libvirt",
    "/run/libvirt",
    "/var/lib/libvirt",
    "/var/log/libvirt",
    "/var/cache/libvirt",
)
_QEMU_CONF = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = []
"""
_LIBVIRTD_CONF = """\
unix_sock_group = "root"
auth_unix_ro = "none"
auth_unix_rw = "none"
"""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_START_S = 20.0


@dataclasses.dataclass
class StartedDaemons:
    """What ``ensure_libvirtd`` started; nothing when a daemon ran already."""

    uri: str
    pid_files: tuple[Path, ...] = ()

    def stop(self) -> None:
        """End exactly what was started; guests go on running."""
        for file in reversed(self.pid_files):
            _end(file)


def private_uri(state_dir: Path) -> str:
    """The URI of the private daemon of a state folder."""
    return f"qemu+unix:///system?socket={_socket(state_dir)}"


def find_uri(state_dir: Path) -> str:
    """The private daemon if there is one, else the machine's."""
    return private_uri(state_dir) if _socket(state_dir).exists() else SYSTEM_URI


def ensure_libvirtd(state_dir: Path) -> StartedDaemons:
    """Have a libvirtd: as root the private one, else the machine's own.

    The machine's runs guests as a user of its own, who could not read disks below
    /root, and reads a configuration that is not ours to change.

    :raises Unavailable: says in one line what is missing.
    """
    if os.geteuid() != 0 and _answers(SYSTEM_URI):
        return StartedDaemons(SYSTEM_URI)
    state_dir = state_dir.resolve()
    uri = private_uri(state_dir)
    pid_files = tuple(_base(state_dir) / f"{name}.pid" for name in ("virtlogd", "libvirtd"))
    if _answers(uri):
        return StartedDaemons(uri, pid_files)
    for program in ("libvirtd", "virtlogd", "unshare", "mount", "qemu-system-x86_64"):
        if shutil.which(program, path=_PATH) is None:
            raise Unavailable(f"{program} is missing: apt-get install {' '.join(APT_PACKAGES)}")
    if os.geteuid() != 0:
        raise Unavailable("no libvirtd answers at qemu:///system, and only root can start a private one")
    if len(str(_socket(state_dir))) > 100:
        raise Unavailable(
            f"the path of the state folder is too long for libvirt's socket: {_socket(state_dir)}"
        )
    _start(state_dir, pid_files)
    deadline = time.monotonic() + _START_S
    while not _answers(uri):
        if time.monotonic() > deadline:
            raise Unavailable(
                f"libvirtd does not answer {_START_S:.0f} s after its start: see {_log(state_dir)}"
            )
        time.sleep(0.05)
    return StartedDaemons(uri, pid_files)


def _base(state_dir: Path) -> Path:
    return state_dir / "libvirt"


def _socket(state_dir: Path) -> Path:
    return _base(state_dir) / "run" / "libvirt-sock"


def _log(state_dir: Path) -> Path:
    return _base(state_dir) / "start.log"


def _bound(state_dir: Path, folder: str) -> Path:
    """/run/libvirt → STATE/libvirt/run, and so on: short, for sockets have short names."""
    parts = folder.strip("/").split("/")
    return _base(state_dir) / "-".join(part for part in parts if part != "libvirt")


def _start(state_dir: Path, pid_files: tuple[Path, ...]) -> None:
    for folder in _FOLDERS:
        _bound(state_dir, folder).mkdir(parents=True, exist_ok=True)
        Path(folder).mkdir(parents=True, exist_ok=True)
    etc = _bound(state_dir, "/etc/libvirt")
    (etc / "qemu.conf").write_text(_QEMU_CONF)
    (etc / "libvirtd.conf").write_text(_LIBVIRTD_CONF)
    for file in pid_files:
        _end(file)
    binds = [f"{_bound(state_dir, folder)}:{folder}" for folder in _FOLDERS]
    command = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        sys.executable,
        str(Path(__file__).with_name("daemon_start.py")),
        *(str(file) for file in pid_files),
        *binds,
    ]
    with _log(state_dir).open("wb") as log:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": _PATH},
            timeout=60,
            check=False,
        )
    if result.returncode != 0:
        words = _log(state_dir).read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        raise Unavailable(f"libvirtd could not be started: {words[-1]}")


def _answers(uri: str) -> bool:
    libvirt.registerErrorHandler(lambda _context, _error: None, None)  # it would print
    try:
        libvirt.openReadOnly(uri).close()
    except libvirt.libvirtError:
        return False
    return True


def _end(pid_file: Path) -> None:
    """End the daemon of a pid file, if the process still is that daemon."""
    try:
        pid = int(pid_file.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return
    if pid_file.stem.encode() not in command or str(pid_file).encode() not in command:
        return
    os.kill(pid, signal.SIGTERM)
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            break
        time.sleep(0.05)
    else:
        os.kill(pid, signal.SIGKILL)
    pid_file.unlink(missing_ok=True)

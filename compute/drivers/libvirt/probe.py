"""Does KVM really run guests here? Only booting a kernel tells.

There are machines on which /dev/kvm exists and every ordinary 64-bit guest hangs
at its first instructions (a KVM made for paravirtual guests inside another
hypervisor).  The probe boots a kernel without a disk: it prints its first lines,
finds no root file system, panics and ends QEMU.  The verdict is kept until the
machine boots again.
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import subprocess
import time
from pathlib import Path

from oslo_log import log

LOG = log.getLogger(__name__)

_FIRST_OUTPUT_S = 6.0
_WHOLE_S = 30.0
_PROOF = (b"Kernel panic", b"Unable to mount root fs", b"reboot: ")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """``virt_type`` to use and, unless that is kvm, why."""

    virt_type: str
    reason: str


def decide(wanted: str, state_dir: Path, probe_kernel: str | None) -> Verdict:
    """kvm or qemu, by option, by what is there, by a try."""
    if wanted != "auto":
        return Verdict(wanted, "" if wanted == "kvm" else "emulation: [libvirt]virt_type says so")
    if not Path("/dev/kvm").exists():
        return Verdict("qemu", "emulation: this machine has no /dev/kvm")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return Verdict("qemu", "emulation: /dev/kvm may not be opened by this user (group kvm?)")
    kernel = find_kernel(state_dir, probe_kernel)
    if kernel is None:
        return Verdict("qemu", "emulation: no kernel found to try KVM with; set [libvirt]probe_kernel")
    return _remembered(state_dir, kernel) or _remember(state_dir, kernel, try_kvm(kernel))


def find_kernel(state_dir: Path, probe_kernel: str | None) -> Path | None:
    """The kernel for the try: the option's, one that haneul keeps, the host's newest."""
    if probe_kernel:
        return Path(probe_kernel)
    kept = state_dir / "cache" / "vmlinuz"
    if kept.exists():
        return kept
    found = [path for path in Path("/boot").glob("vmlinuz-*") if os.access(path, os.R_OK)]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def try_kvm(kernel: Path) -> Verdict:
    """Boot ``kernel`` under KVM within a time limit."""
    command = [
        "qemu-system-x86_64",
        *("-accel", "kvm", "-cpu", "host", "-m", "128", "-smp", "1", "-nodefaults", "-display", "none"),
        *("-no-reboot", "-serial", "stdio", "-kernel", str(kernel)),
        *("-append", "console=ttyS0,115200 earlyprintk=serial,ttyS0,115200 panic=-1"),
    ]
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except OSError as error:
        return Verdict("qemu", f"emulation: QEMU can't be started: {error}")
    try:
        output = _watch(process, started)
    finally:
        process.kill()
        process.wait()
    seconds = time.monotonic() - started
    if any(proof in output for proof in _PROOF):
        LOG.info("KVM works: a kernel booted in %.1f s", seconds)
        return Verdict("kvm", "")
    if b"KVM" in output and b"Linux version" not in output:
        words = output.decode(errors="replace").strip().splitlines()[-1]
        return Verdict("qemu", f"emulation: KVM refused: {words[:150]}")
    return Verdict(
        "qemu", f"emulation: a kernel under KVM hung for {seconds:.0f} s (/dev/kvm exists, but is of no use)"
    )


def _watch(process: subprocess.Popen[bytes], started: float) -> bytes:
    """Read until the proof, the end, or a limit."""
    assert process.stdout is not None
    output = b""
    while time.monotonic() - started < (_WHOLE_S if output else _FIRST_OUTPUT_S):
        ready, _, _ = select.select([process.stdout], [], [], 0.2)
        if not ready:
            continue
        block = os.read(process.stdout.fileno(), 65536)
        if not block:
            break
        output += block
        if any(proof in output for proof in _PROOF):
            break
    return output


def _key(kernel: Path) -> dict[str, str]:
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return {"boot_id": boot_id, "kernel": str(kernel), "size": str(kernel.stat().st_size)}


def _file(state_dir: Path) -> Path:
    return state_dir / "cache" / "kvm-probe.json"


def _remembered(state_dir: Path, kernel: Path) -> Verdict | None:
    try:
        kept = json.loads(_file(state_dir).read_text())
    except (OSError, ValueError):
        return None
    return Verdict(**kept["verdict"]) if kept.get("key") == _key(kernel) else None


def _remember(state_dir: Path, kernel: Path, verdict: Verdict) -> Verdict:
    _file(state_dir).parent.mkdir(parents=True, exist_ok=True)
    _file(state_dir).write_text(json.dumps({"key": _key(kernel), "verdict": dataclasses.asdict(verdict)}))
    return verdict

"""What a host is and offers: read from libvirt's capabilities and the machine itself."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import Any

from lxml import etree

from compute.drivers.base import HostInventory

# os-traits has names for these CPU features
_TRAITS = {
    "sse": "SSE",
    "sse2": "SSE2",
    "pni": "SSE3",
    "ssse3": "SSSE3",
    "sse4.1": "SSE41",
    "sse4.2": "SSE42",
    "avx": "AVX",
    "avx2": "AVX2",
    "avx512f": "AVX512F",
    "aes": "AESNI",
    "fma": "FMA3",
    "f16c": "F16C",
    "bmi1": "BMI",
    "bmi2": "BMI2",
    "mmx": "MMX",
    "vmx": "VMX",
    "svm": "SVM",
    "sha-ni": "SHA",
}


def inventory(
    connection: Any, *, virt_type: str, instances: Path, my_ip: str, warnings: tuple[str, ...]
) -> HostInventory:
    """The host as it is now."""
    capabilities = etree.fromstring(connection.getCapabilities().encode())
    info = connection.getInfo()
    disk = shutil.disk_usage(instances)
    cpu = _cpu(capabilities)
    traits = {f"HW_CPU_X86_{_TRAITS[name]}" for name in cpu["features"] if name in _TRAITS}
    traits |= {"COMPUTE_NODE", "COMPUTE_GRAPHICS_MODEL_VGA", "COMPUTE_STORAGE_BUS_VIRTIO"}
    return HostInventory(
        hypervisor_type="QEMU",
        hypervisor_version=connection.getVersion(),
        hypervisor_hostname=connection.getHostname(),
        vcpus=int(info[2]),
        memory_mib=_memory_mib(),
        disk_gib=disk.total >> 30,
        disk_available_gib=disk.free >> 30,
        cpu_info=cpu,
        host_ip=my_ip,
        uptime=_uptime(),
        traits=tuple(sorted(traits)),
        supported_instances=_supported(capabilities, virt_type),
        numa_cells=_numa(capabilities),
        warnings=warnings,
    )


def _memory_mib() -> int:
    """From the kernel: libvirt's figure lacks memory that was plugged in after the start."""
    found = re.search(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) >> 10 if found else 0


def _cpu(capabilities: Any) -> dict[str, Any]:
    cpu = capabilities.find("host/cpu")
    topology = cpu.find("topology")
    return {
        "arch": cpu.findtext("arch"),
        "model": cpu.findtext("model"),
        "vendor": cpu.findtext("vendor"),
        "features": sorted(feature.get("name") for feature in cpu.findall("feature")),
        "topology": {
            key: int(topology.get(key)) for key in ("sockets", "cores", "threads") if topology.get(key)
        }
        if topology is not None
        else {},
    }


def _supported(capabilities: Any, virt_type: str) -> tuple[tuple[str, str, str], ...]:
    found = set()
    for guest in capabilities.findall("guest"):
        mode = guest.findtext("os_type")
        for arch in guest.findall("arch"):
            for domain in arch.findall("domain"):
                kind = domain.get("type")
                if kind != "kvm" or virt_type == "kvm":
                    found.add((arch.get("name"), kind, mode))
    return tuple(sorted(found))


def _numa(capabilities: Any) -> tuple[dict[str, Any], ...]:
    cells = []
    for cell in capabilities.findall("host/topology/cells/cell"):
        memory_kib = int(cell.findtext("memory") or 0)
        cpus = [int(cpu.get("id")) for cpu in cell.findall("cpus/cpu")]
        cells.append({"id": int(cell.get("id")), "memory_mib": memory_kib >> 10, "cpus": cpus})
    return tuple(cells)


def _uptime() -> str:
    """As the ``uptime`` command prints it, which is what GET …/uptime shows upstream."""
    seconds = int(float(Path("/proc/uptime").read_text().split()[0]))
    load = Path("/proc/loadavg").read_text().split()[:3]
    days, rest = divmod(seconds, 86400)
    hours, minutes = rest // 3600, rest % 3600 // 60
    since = f"{days} days, {hours:2}:{minutes:02}" if days else f"{hours}:{minutes:02}"
    return f" {time.strftime('%H:%M:%S')} up {since},  0 users,  load average: {', '.join(load)}"


def guest_os(_connection: Any) -> str:
    """The operating system of the host, for diagnostics."""
    text = Path("/etc/os-release").read_text() if Path("/etc/os-release").exists() else ""
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)', text, re.MULTILINE)
    return found[1] if found else "linux"

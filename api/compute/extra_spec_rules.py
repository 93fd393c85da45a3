"""Which extra specs exist and what they may say: checked from microversion 2.86.

Keys of a namespace that is not listed here are free; a key that nobody knows in a
namespace that is listed is a typing mistake, and refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from core.errors import BadRequest

_BOOL = r"(?i)(1|t|true|on|y|yes|0|f|false|off|n|no)"
_INT = r"-?\d+"
_UINT = r"\d+"
_ANY = r"[\s\S]*"
_MEM_PAGE = r"(?i)(large|small|any|\d+([kmgt]i?)?(b|bit)?)"
_CPUS = r"\^?\d+(-\d+)?(,\s*\^?\d+(-\d+)?)*"
_OPERATOR = r"[\s\S]*"


def _one_of(*values: str) -> str:
    return "|".join(re.escape(value) for value in values)


_SHARES = {"shares": _INT, "period": _UINT, "quota": _INT}
_QUOTAS: dict[str, str] = {
    **{f"cpu_{key}": value for key, value in _SHARES.items()},
    **{
        f"disk_{side}_{unit}_sec{burst}": _UINT
        for side in ("read", "write", "total")
        for unit in ("bytes", "iops")
        for burst in ("", "_max", "_max_length")
    },
    **{
        f"{resource}_{key}": value
        for resource in ("cpu", "memory", "disk_io", "vif")
        for key, value in (("limit", _UINT), ("reservation", _UINT), ("shares_share", _UINT))
    },
    **{f"{r}_shares_level": _one_of("low", "normal", "high", "custom") for r in ("cpu", "memory", "disk_io")},
    "vif_shares_level": _one_of("low", "normal", "high", "custom"),
    **{f"vif_{way}_{key}": _UINT for way in ("inbound", "outbound") for key in ("average", "burst", "peak")},
}
_SECURE_BOOT = _one_of("disabled", "optional", "required")
_DISK_BUS = _one_of("fdc", "ide", "sata", "scsi", "usb", "virtio", "xen", "lxc", "uml")
_CPU_POLICY = _one_of("dedicated", "shared", "mixed")
_THREADS = _one_of("prefer", "isolate", "require")
_HW: dict[str, str] = {
    "boot_menu": _BOOL,
    "cdrom_bus": _DISK_BUS,
    "cpu_cores": _UINT,
    "cpu_dedicated_mask": _CPUS,
    "cpu_emulation_mode": _ANY,
    "cpu_max_cores": _UINT,
    "cpu_max_sockets": _UINT,
    "cpu_max_threads": _UINT,
    "cpu_policy": _CPU_POLICY,
    "cpu_realtime": _BOOL,
    "cpu_realtime_mask": _ANY,
    "cpu_sockets": _UINT,
    "cpu_thread_policy": _THREADS,
    "cpu_threads": _UINT,
    "disk_bus": _DISK_BUS,
    "emulator_threads_policy": _one_of("isolate", "share"),
    "hide_hypervisor_id": _BOOL,
    "input_bus": _one_of("usb", "virtio"),
    "iommu_model": _one_of("auto", "intel", "smmuv3", "virtio"),
    "locked_memory": _BOOL,
    "maxphysaddr_bits": _UINT,
    "maxphysaddr_mode": _one_of("passthrough", "emulate"),
    "mem_encryption": _BOOL,
    "mem_encryption_model": _one_of("amd-sev", "amd-sev-es"),
    "mem_page_size": _MEM_PAGE,
    "numa_nodes": r"[1-9]\d*",
    "pci_numa_affinity_policy": _one_of("required", "preferred", "legacy", "socket"),
    "pmem": _ANY,
    "pmu": _BOOL,
    "pointer_model": _one_of("usbtablet", "ps2mouse"),
    "qemu_guest_agent": _BOOL,
    "rescue_bus": _DISK_BUS,
    "rescue_device": _one_of("cdrom", "disk", "floppy"),
    "scsi_model": _one_of("virtio-scsi", "lsilogic", "lsisas1068", "lsisas1078", "buslogic", "auto"),
    "serial_port_count": _UINT,
    "sound_model": _one_of("ich6", "ich9", "ac97", "sb16", "pcspk", "es1370", "usb", "virtio"),
    "tpm_model": _one_of("tpm-tis", "tpm-crb", "tpm-spapr", "tpm-spapr-proxy"),
    "tpm_secret_security": _one_of("user", "host", "deployment"),
    "tpm_version": _one_of("1.2", "2.0"),
    "usb_model": _one_of("qemu-xhci", "nec-xhci", "none"),
    "redirected_usb_ports": _UINT,
    "video_model": _one_of("vga", "cirrus", "vmvga", "xen", "qxl", "gop", "virtio", "none", "bochs"),
    "vif_model": _ANY,
    "vif_multiqueue_enabled": _BOOL,
    "virtio_packed_ring": _BOOL,
    "viommu_model": _one_of("intel", "smmuv3", "virtio", "auto"),
    "watchdog_action": _one_of("none", "pause", "poweroff", "reset", "disabled"),
}
_HW_PATTERNS = {r"numa_cpus\.\d+": _CPUS, r"numa_mem\.\d+": _UINT}

NAMESPACES: dict[str, dict[str, str]] = {
    "accel": {"device_profile": _ANY},
    "aggregate_instance_extra_specs": {r".+": _OPERATOR},
    "capabilities": {r".+": _OPERATOR},
    "hw": {**{re.escape(key): value for key, value in _HW.items()}, **_HW_PATTERNS},
    "hw_rng": {"allowed": _BOOL, "rate_bytes": _UINT, "rate_period": _UINT},
    "hw_video": {"ram_max_mb": _UINT},
    "os": {"secure_boot": _SECURE_BOOT, "vif_multiqueue_enabled": _BOOL},
    "pci_passthrough": {"alias": _ANY},
    "powervm": {r".+": _ANY},
    "quota": _QUOTAS,
    "vmware": {r".+": _ANY},
}
_GROUPED = {
    "resources": (r"[A-Z0-9_]+", _UINT),
    "trait": (r"[A-Z0-9_]+", _one_of("required", "forbidden")),
}
_PLAIN = {"hide_hypervisor_id": _BOOL, "group_policy": _one_of("isolate", "none")}


def _check_one(key: str, value: str) -> None:
    namespace, colon, name = key.partition(":")
    if not colon:
        keys = {re.escape(known): pattern for known, pattern in _PLAIN.items()}
        if key not in _PLAIN:
            return
        name = key
    else:
        # resources1:…, trait_NET:…: a suffix names the group of resources
        grouped = re.fullmatch(r"(resources|trait)([a-zA-Z0-9_-]{1,64})?", namespace)
        if grouped:
            keys = dict([_GROUPED[grouped[1]]])
        elif namespace in NAMESPACES:
            keys = NAMESPACES[namespace]
        else:
            return
    for known, pattern in keys.items():
        if re.fullmatch(known, name):
            if not re.fullmatch(pattern, value):
                raise BadRequest(f"Validation failed; extra spec '{key}' can't be '{value}'.")
            return
    raise BadRequest(f"Validation failed; extra spec '{key}' does not appear to be a valid extra spec.")


def check(specs: Mapping[str, str]) -> None:
    """:raises BadRequest: a key that does not exist, or a value that it can't have."""
    for key, value in specs.items():
        _check_one(key, value)

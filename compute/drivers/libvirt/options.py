"""Options of the libvirt driver."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "libvirt"
OPTS = [
    cfg.StrOpt(
        "connection_uri",
        default="",
        help="libvirt URI. Empty: haneul's private daemon if it runs (see 'haneul up'), else qemu:///system.",
    ),
    cfg.StrOpt(
        "instances_path", help="Folder of guests' disks and of cached images. Default: state_path/instances."
    ),
    cfg.StrOpt(
        "virt_type",
        default="auto",
        choices=[
            ("auto", "KVM if a small kernel boots under it, else emulation"),
            ("kvm", "KVM, without a try"),
            ("qemu", "emulation"),
        ],
        help="How guests are run.",
    ),
    cfg.StrOpt(
        "probe_kernel", help="Kernel for trying KVM. Default: one in state_path/cache, else in /boot."
    ),
    cfg.StrOpt(
        "cpu_mode",
        default="auto",
        choices=["auto", "host-model", "host-passthrough", "maximum", "custom", "none"],
        help="CPU of guests. auto: host-model under KVM, maximum under emulation.",
    ),
    cfg.StrOpt("cpu_model", help="Model for cpu_mode=custom."),
    cfg.StrOpt("hw_machine_type", default="pc", help="Machine type of guests whose image names none."),
    cfg.IntOpt("num_pcie_ports", default=12, min=0, max=28, help="Ports for hot plug of q35 guests."),
    cfg.StrOpt(
        "images_type",
        default="qcow2",
        choices=[("qcow2", "overlays over the cached image"), ("raw", "whole copies")],
        help="How root disks are made.",
    ),
    cfg.StrOpt(
        "disk_cachemodes", default="none", help="Cache mode of file disks; 'writeback' if O_DIRECT fails."
    ),
    cfg.HostAddressOpt(
        "vnc_listen", default="127.0.0.1", help="Address on which guests' VNC servers listen."
    ),
    cfg.BoolOpt("vnc_enabled", default=True, help="Give guests a screen with a VNC server."),
    cfg.IntOpt(
        "device_detach_attempts", default=8, min=1, help="How often a guest is asked to let go of a device."
    ),
    cfg.IntOpt("device_detach_timeout", default=20, min=1, help="Seconds to wait for it each time."),
    cfg.BoolOpt("volume_use_multipath", default=False, help="Use multipathd for iSCSI and NVMe volumes."),
    cfg.IntOpt(
        "num_volume_scan_tries", default=5, min=1, help="How often to look for the device of a volume."
    ),
    cfg.StrOpt("rbd_user", help="Ceph user of guests' disks. Default: the backend's."),
    cfg.StrOpt(
        "rbd_secret_uuid",
        help="libvirt's secret with the key of rbd_user. Default: the backend's; without one, the key is"
        " taken from this host's keyring.",
    ),
    cfg.StrOpt(
        "rbd_ceph_conf", default="/etc/ceph/ceph.conf", help="Ceph's configuration: where keyrings lie."
    ),
    cfg.IntOpt("image_cache_max_age_s", default=86400, min=0, help="Unused cached images go after so long."),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]

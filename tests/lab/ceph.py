"""A Ceph cluster of one node in user space, on loopback: monitor, manager and one OSD that keeps all in memory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.lab import processes

# what shows that a Debian package is there → the package
NEEDED = {
    "ceph-mon": "ceph-mon",
    "ceph-osd": "ceph-osd",
    "ceph-mgr": "ceph-mgr",
    "ceph": "ceph-common",
    "/usr/share/doc/python3-rbd": "python3-rbd",
    "/usr/share/doc/python3-rados": "python3-rados",
    "/usr/share/doc/qemu-block-extra": "qemu-block-extra",
}
PACKAGES = tuple(sorted(set(NEEDED.values())))
_ADDRESS = "127.0.0.1"
_CONFIGURATION = """\
[global]
fsid = {fsid}
mon_initial_members = a
mon_host = [v2:{address}:{port},v1:{address}:{port1}]
public_network = {address}/32
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
keyring = {folder}/keyring
run_dir = {folder}/run
admin_socket = {folder}/run/$cluster-$name.asok
log_file = {folder}/log/$name.log
pid_file = {folder}/run/$name.pid
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_allow_pool_delete = true
osd_objectstore = memstore
memstore_device_bytes = 4294967296
ms_bind_ipv6 = false
mon_data_avail_crit = 1
mon_data_avail_warn = 2
mgr_modules =
[mon.a]
mon_data = {folder}/mon
[mgr.a]
mgr_data = {folder}/mgr
keyring = {folder}/mgr/keyring
[osd.0]
osd_data = {folder}/osd
keyring = {folder}/osd/keyring
[client.cinder]
keyring = {folder}/cinder.keyring
"""


def missing() -> str | None:
    """Why no cluster can be started here, or None."""
    if os.geteuid() != 0:
        return "Ceph's daemons are started as root"
    for program in ("ceph-mon", "ceph-osd", "ceph-mgr", "ceph"):
        if processes.find_program(program) is None:
            return f"{program} is not installed (Debian: apt-get install {' '.join(PACKAGES)})"
    if not any(Path("/usr/lib/python3/dist-packages").glob("rbd*.so")):
        return "Python's binding of Ceph is not installed (Debian: apt-get install python3-rbd)"
    return None


class Cluster:
    """``start`` makes pools ``volumes`` and ``images`` and the user ``cinder``; ``stop`` ends what was started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configuration = folder / "ceph.conf"

    def _run(self, *arguments: str, text: str | None = None) -> str:
        done = subprocess.run(
            arguments,
            input=text,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "CEPH_CONF": str(self.configuration)},
        )
        if done.returncode != 0:
            raise processes.NotStarted(f"{' '.join(arguments[:3])}: {done.stderr.strip()[-400:]}")
        return done.stdout

    def start(self) -> None:
        folder = self.folder
        for name in ("mon", "mgr", "osd", "run", "log"):
            (folder / name).mkdir(parents=True)
        port, fsid = processes.free_port(), str(uuid.uuid4())
        port1 = processes.free_port()
        self.configuration.write_text(
            _CONFIGURATION.format(fsid=fsid, address=_ADDRESS, port=port, port1=port1, folder=folder)
        )
        keyring, conf = str(folder / "keyring"), str(self.configuration)
        self._run("ceph-authtool", "-C", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        self._run(
            "ceph-authtool", keyring, "--gen-key", "-n", "client.admin",
            *_caps({"mon": "allow *", "osd": "allow *", "mgr": "allow *"}, "--cap"),
        )  # fmt: skip
        addresses = f"[v2:{_ADDRESS}:{port},v1:{_ADDRESS}:{port1}]"
        monmap = str(folder / "monmap")
        self._run("monmaptool", "--create", "--addv", "a", addresses, "--fsid", fsid, monmap)
        self._run("ceph-mon", "-c", conf, "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
        self._run("ceph-mon", "-c", conf, "-i", "a")
        self._run("ceph", "auth", "get-or-create", "mgr.a", *_caps({"mon": "allow profile mgr", "osd": "allow *"}),
                  "-o", str(folder / "mgr/keyring"))  # fmt: skip
        self._run("ceph-mgr", "-c", conf, "-i", "a")
        self._start_osd(conf)
        for pool in ("volumes", "images"):
            self._run("ceph", "osd", "pool", "create", pool, "8", "8")
            self._run("rbd", "pool", "init", pool)
        profile = "profile rbd pool=volumes, profile rbd pool=images"
        self._run("ceph", "auth", "get-or-create", "client.cinder", *_caps({"mon": "profile rbd", "osd": profile}),
                  "-o", str(folder / "cinder.keyring"))  # fmt: skip

    def _start_osd(self, conf: str) -> None:
        identifier, key = str(uuid.uuid4()), self._run("ceph-authtool", "--gen-print-key").strip()
        self._run("ceph", "osd", "new", identifier, "-i", "-", text=json.dumps({"cephx_secret": key}))
        keyring = str(self.folder / "osd/keyring")
        self._run("ceph-authtool", "-C", keyring, "-n", "osd.0", "--add-key", key)
        self._run("ceph-osd", "-c", conf, "-i", "0", "--mkfs", "--osd-uuid", identifier, "--keyring", keyring)
        self._run("ceph-osd", "-c", conf, "-i", "0", "--keyring", keyring)

    def stop(self) -> None:
        pids = []
        for file in (self.folder / "run").glob("*.pid"):
            with contextlib.suppress(OSError, ValueError):
                pid = int(file.read_text())
                if str(self.configuration) in processes.command_line(pid):
                    os.kill(pid, signal.SIGTERM)
                    pids.append(pid)
        deadline = time.monotonic() + 10
        while any(processes.alive(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _caps(caps: Mapping[str, str], flag: str | None = None) -> Iterator[str]:
    for daemon, allowed in caps.items():
        if flag:
            yield flag
        yield daemon
        yield allowed

"""os-brick, made ready: it connects this host to iSCSI and NVMe over fabrics targets.

A hypervisor host's agent uses it for its guests' volumes (``compute/drivers/libvirt/host_volumes.py``), a volume
worker for the other end of a copy (``volume/connecting.py``).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from oslo_concurrency import processutils
from oslo_config import cfg

from core.errors import DriverError

PROTOCOLS = ("iscsi", "iser", "nvmeof", "nvme", "fibre_channel")
_lock = threading.Lock()
_ready = False


def connectors(locks: Path) -> Any:
    """``os_brick.initiator.connector``, ready for use; ``locks``: the folder of its lock files.

    As root its privileged functions are called in this process. Otherwise oslo.privsep starts its helper by
    sudo, which has to be allowed to run ``privsep-helper``. os-brick reads its options from oslo.config's
    global object: that is set here, for os-brick alone.
    """
    global _ready
    # imported late: who has no such volumes need not wait for it
    from os_brick import privileged
    from os_brick.initiator import connector
    from oslo_privsep import priv_context

    with _lock:
        if not _ready:
            locks.mkdir(parents=True, exist_ok=True)
            cfg.CONF.set_override("lock_path", str(locks), group="os_brick")
            if os.geteuid() == 0:
                for context in (privileged.default, privileged.brick_privsep_hide_output):
                    context.set_client_mode(False)
            else:
                priv_context.init(root_helper=["sudo"])
            _ready = True
    return connector


def root_helper() -> str:
    """What os-brick puts before the commands that only root may run."""
    return "" if os.geteuid() == 0 else "sudo"


@contextlib.contextmanager
def errors(what: str) -> Iterator[None]:
    """os-brick's many errors as one. :raises DriverError: this host could not do ``what``."""
    from os_brick import exception

    try:
        yield
    except (exception.BrickException, processutils.ProcessExecutionError, OSError, ValueError) as error:
        raise DriverError(f"the host could not {what}: {_words(error)}", cause=error) from error


def _words(error: BaseException) -> str:
    """Never a command line: CHAP passwords stand in those."""
    if isinstance(error, processutils.ProcessExecutionError):
        lines = (error.stderr or error.stdout or "").strip().splitlines()
        return lines[-1] if lines else "a program failed"
    return str(error)

"""Python's bindings of Ceph, which are on no package index: who uses Ceph finds them here."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import sysconfig
from pathlib import Path
from typing import Any

from core.errors import DriverError

_SYSTEM_PACKAGES = Path("/usr/lib/python3/dist-packages")


def binding(name: str) -> Any:
    """Python's binding ``rados`` or ``rbd``: installed, or the system package's for this very Python.

    Neither is on PyPI, and a virtual environment does not see the system's packages.
    :raises DriverError: there is none.
    """
    if name in sys.modules:
        return sys.modules[name]
    with contextlib.suppress(ImportError):
        return importlib.import_module(name)
    file = _SYSTEM_PACKAGES / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    spec = importlib.util.spec_from_file_location(name, file) if file.exists() else None
    if spec is None or spec.loader is None:
        raise DriverError(f"Python's binding of Ceph is missing: apt-get install python3-{name}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module

"""Chooses what services run on, before anything else is imported.

This is the only module that patches the standard library, and it does so only
when eventlet is asked for.  ``haneul serve`` calls ``select`` as its first act.
"""

from __future__ import annotations

import os
import sys

_selected: str | None = None


def select(backend: str) -> None:
    """Run on "threading" (native threads) or "eventlet" (green threads).

    :raises RuntimeError: another backend was selected in this process already.
    """
    global _selected
    if _selected == backend:
        return
    if _selected is not None:
        raise RuntimeError(f"this process runs on {_selected} already")
    if backend == "eventlet":
        os.environ.setdefault("EVENTLET_NO_GREENDNS", "yes")
        import eventlet

        eventlet.monkey_patch()
    elif backend != "threading":
        raise ValueError(f"unknown backend {backend!r}: threading or eventlet")
    from oslo_service import backend as oslo_backend

    kind = oslo_backend.BackendType.EVENTLET if backend == "eventlet" else oslo_backend.BackendType.THREADING
    oslo_backend.init_backend(kind)
    _selected = backend


def selected() -> str:
    """The backend in use; threading unless ``select`` said otherwise."""
    return _selected or "threading"


def executor() -> str:
    """The name of oslo.messaging's executor that fits."""
    return selected()


def patched() -> bool:
    return "eventlet" in sys.modules and selected() == "eventlet"

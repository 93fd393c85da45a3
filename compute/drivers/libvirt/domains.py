"""What everything that changes a defined guest needs: its description as a tree, and waiting for the guest."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import libvirt
from lxml import etree

_PAUSE_S = 0.1


def tree(domain: Any, *, live: bool) -> Any:
    """The domain's XML: as the guest runs, or as it will be started."""
    return etree.fromstring(domain.XMLDesc(0 if live else libvirt.VIR_DOMAIN_XML_INACTIVE).encode())


def text(element: Any) -> str:
    """An element as libvirt takes it."""
    return str(etree.tostring(element, encoding="unicode"))


def wait(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_S)
    return True

"""Which ports the network agents have plugged, as far as was heard.

The Network API tells the Compute API (os-server-external-events), which tells the
agent of the server's host.  An event may come before anyone waits for it, so the last
ones are kept; one that was lost is made up for by asking now and then.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

_MOST = 10_000


class Plugging:
    """Safe to share between threads."""

    def __init__(self) -> None:
        self._heard: OrderedDict[str, str] = OrderedDict()
        self._condition = threading.Condition()

    def hear(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Take note of network-vif-plugged and -unplugged; ``tag`` is the port's id."""
        with self._condition:
            for event in events:
                port_id = event.get("tag")
                if not port_id:
                    continue
                if event["name"] == "network-vif-plugged":
                    self._heard[port_id] = str(event.get("status") or "completed")
                    self._heard.move_to_end(port_id)
                elif event["name"] == "network-vif-unplugged":
                    self._heard.pop(port_id, None)
            while len(self._heard) > _MOST:
                self._heard.popitem(last=False)
            self._condition.notify_all()

    def forget(self, port_ids: Collection[str]) -> None:
        """What was heard of these is over: they are bound anew."""
        with self._condition:
            for port_id in port_ids:
                self._heard.pop(port_id, None)

    def wait(self, port_ids: Collection[str], timeout_s: float) -> tuple[set[str], set[str]]:
        """(plugged, failed) among these, as soon as all are one or the other, or after ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        with self._condition:
            while True:
                heard = {port_id: self._heard[port_id] for port_id in port_ids if port_id in self._heard}
                left = deadline - time.monotonic()
                if len(heard) == len(set(port_ids)) or left <= 0:
                    failed = {port_id for port_id, status in heard.items() if status == "failed"}
                    return set(heard) - failed, failed
                self._condition.wait(left)

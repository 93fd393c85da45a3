"""Stand-ins for what the Compute API speaks to: the image API and the other roles."""

from __future__ import annotations

import uuid
from typing import Any

from core.context import RequestContext
from core.errors import NotFound

IMAGE = "70a599e0-31e7-49b7-b260-868f441e862b"


def image(image_id: str = IMAGE, **values: Any) -> dict[str, Any]:
    """An image as GET /v2/images/{id} answers."""
    return {
        "id": image_id,
        "name": "tiny",
        "status": "active",
        "visibility": "public",
        "owner": "p1",
        "size": 1024,
        "virtual_size": 4096,
        "disk_format": "qcow2",
        "container_format": "bare",
        "min_disk": 0,
        "min_ram": 0,
        "os_hash_algo": "sha512",
        "os_hash_value": "0" * 128,
        "hw_machine_type": "q35",
        **values,
    }


class FakeImages:
    """The image API: what stands in ``images``, private ones for their owner."""

    def __init__(self) -> None:
        self.images = {IMAGE: image()}

    def add(self, **values: Any) -> str:
        image_id = str(uuid.uuid4())
        self.images[image_id] = image(image_id, **values)
        return image_id

    def get(self, context: RequestContext, image_id: str) -> dict[str, Any]:
        found = self.images.get(image_id)
        if found is None or (found["visibility"] == "private" and found["owner"] != context.project_id):
            raise NotFound(f"Image {image_id} could not be found.")
        return found


class FakeAgent:
    """What an agent answers to calls that wait."""

    def __init__(self) -> None:
        self.console = ""
        self.calls: list[tuple[Any, ...]] = []
        self.failure: Exception | None = None

    def console_output(self, context: Any, host: str, server_id: str, max_bytes: int) -> str:
        self.calls.append(("console_output", host, server_id, max_bytes))
        if self.failure is not None:
            raise self.failure
        return self.console[-max_bytes:]

    def diagnostics(self, context: Any, host: str, server_id: str) -> dict[str, Any]:
        self.calls.append(("diagnostics", host, server_id))
        return {
            "state": "running",
            "driver": "libvirt",
            "hypervisor": "kvm",
            "hypervisor_os": "linux",
            "uptime": 46664,
            "config_drive": True,
            "num_cpus": 1,
            "num_nics": 0,
            "num_disks": 1,
            "cpu_details": [{"id": 0, "time": 17300000000, "utilisation": 15}],
            "nic_details": [],
            "disk_details": [
                {"read_bytes": 262144, "read_requests": 112, "write_bytes": 5778432}
                | {"write_requests": 488, "errors_count": 1}
            ],
            "memory_details": {"maximum": 524288, "used": 0},
        }


class RecordedDoorbells:
    """Keeps what was rung."""

    def __init__(self) -> None:
        self.scheduler = 0
        self.conductors: list[tuple[int, list[str]]] = []
        self.cancels: list[tuple[int, str, list[str]]] = []
        self.the_agent = FakeAgent()

    def ring_scheduler(self) -> None:
        self.scheduler += 1

    def ring_conductor(self, cell_id: int, intent_ids: list[str]) -> None:
        self.conductors.append((cell_id, intent_ids))

    def cancel(self, cell_id: int, host: str, intent_ids: list[str]) -> None:
        self.cancels.append((cell_id, host, intent_ids))

    def agent(self, cell_id: int) -> FakeAgent:
        return self.the_agent

    def close(self) -> None:
        """Nothing runs."""

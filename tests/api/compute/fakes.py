"""Stand-ins for what the Compute API speaks to: the image API and the other roles."""

from __future__ import annotations

import uuid
from typing import Any

import orjson
from oslo_config import cfg

from api.compute.image_client import ImageClient

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


class Answer:
    """What keystoneauth gives back."""

    def __init__(self, status: int, body: Any = None) -> None:
        self.status_code = status
        self.content = b"" if body is None else orjson.dumps(body)

    def json(self) -> Any:
        return orjson.loads(self.content)


class ImageApi:
    """What ``keystoneauth1.adapter.Adapter`` looks like to the client, with a dictionary behind it."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, Any]]] = []
        self.images = {IMAGE: image()}

    def get_endpoint(self) -> str:
        return "http://127.0.0.1:9292"

    def request(self, path: str, method: str, **options: Any) -> Answer:
        self.requests.append((method, path, options))
        project = options["headers"]["X-Auth-Token"].rpartition("@")[2]
        if path == "/v2/images" and method == "POST":
            made = image(str(uuid.uuid4()), status="queued", owner=project, **options["json"])
            self.images[made["id"]] = made
            return Answer(201, made)
        if path == "/v2/images":
            return Answer(200, {"images": list(self.images.values())})
        found = self.images.get(path.rpartition("/")[2])
        if found is None or (found["visibility"] == "private" and found["owner"] != project):
            return Answer(404)
        if method == "DELETE":
            if found.get("protected"):
                return Answer(403)
            del self.images[found["id"]]
            return Answer(204)
        if method == "PATCH":
            for change in orjson.loads(options["data"]):
                key = change["path"][1:]
                assert (change["op"] == "add") == (key not in found)
                if change["op"] == "remove":
                    del found[key]
                else:
                    found[key] = change["value"]
        return Answer(200, found)


class FakeImages(ImageClient):
    """The real client before such an image API."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        super().__init__(conf)
        self.api = ImageApi()
        self._adapter = self.api

    def add(self, **values: Any) -> str:
        image_id = str(uuid.uuid4())
        self.api.images[image_id] = image(image_id, **values)
        return image_id


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

    def vnc(self, context: Any, host: str, server_id: str) -> dict[str, Any]:
        self.calls.append(("vnc", host, server_id))
        if self.failure is not None:
            raise self.failure
        return {"host": "127.0.0.1", "port": 5901}

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
        self.events: list[tuple[int, str, dict[str, Any]]] = []
        self.the_agent = FakeAgent()

    def ring_scheduler(self) -> None:
        self.scheduler += 1

    def ring_conductor(self, cell_id: int, intent_ids: list[str]) -> None:
        self.conductors.append((cell_id, intent_ids))

    def cancel(self, cell_id: int, host: str, intent_ids: list[str]) -> None:
        self.cancels.append((cell_id, host, intent_ids))

    def tell(self, cell_id: int, host: str, event: dict[str, Any]) -> None:
        self.events.append((cell_id, host, event))

    def agent(self, cell_id: int) -> FakeAgent:
        return self.the_agent

    def close(self) -> None:
        """Nothing runs."""

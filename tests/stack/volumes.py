"""A Volume API for ``tests.stack.cloud``, behind real HTTP, with a worker whose backend is simulated.

API and worker are the real ones over the cloud's own global database; the cloud's scheduler places
volumes.  Hosts and the Compute API call it as haneul's service user.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import requests

from api.common.server import ApiRole
from api.volume.app import make_app
from api.volume.services import GROUP, VolumeServices
from core import config
from lifecycle.volume_client import VolumeApi
from tests.api.identity import authenticate
from tests.lab.processes import free_port
from tests.stack.credentials import volume_endpoint
from volume import service as volume_service
from volume.drivers import backends, simulated

OWNER = "member@project-1"
TYPE = "shared"
"""a volume type whose volumes may be multi-attach"""


class VolumePlane:
    """Start it once the cloud's databases are there."""

    def __init__(self, cloud: Any, folder: Path) -> None:
        conf = cloud.conf
        self.services = VolumeServices(conf)
        config.override(conf, f"{GROUP}.port", free_port())
        self.url = f"http://127.0.0.1:{conf[GROUP].port}/v3"
        config.register(conf, volume_service.list_opts())
        config.register(conf, backends.list_opts())
        conf.register_opts([*backends.BACKEND_OPTS, *simulated.OPTS], group="one")
        for name, value in {
            "volume.host": "storage",
            "volume.enabled_backends": ["one"],
            "volume_worker.interval_s": 0.1,
            "volume_worker.retry_s": 0.01,
            "one.driver": "simulated",
            "one.state_dir": str(folder / "volumes"),
            **{f"volume_quota.{each}": -1 for each in ("volumes", "snapshots", "gigabytes")},
        }.items():
            config.override(conf, name, value)
        volume_endpoint(conf, self.url)
        self._api = ApiRole("volume", conf, GROUP, lambda conf: make_app(conf, self.services, authenticate))
        self.role = volume_service.make_role(conf)
        self.client = VolumeApi(conf)

    def start(self) -> None:
        self.role.start()
        self._api.start()

    def stop(self) -> None:
        self._api.stop()
        self.role.stop()
        self.services.close()

    def call(self, method: str, path: str, body: Any = None, as_: str = OWNER) -> Any:
        """As the project's member, at the newest microversion."""
        headers = {"X-Auth-Token": as_, "OpenStack-API-Version": "volume 3.70"}
        answer = requests.request(method, f"{self.url}{path}", json=body, headers=headers, timeout=30)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def make(self, size_gib: int = 1, *, wait: bool = True, **asked: Any) -> str:
        """A volume of the project; its id."""
        made = self.call("POST", "/volumes", {"volume": {"size": size_gib, **asked}})["volume"]
        if wait:
            self.wait(made["id"], "available")
        return str(made["id"])

    def make_shared(self, size_gib: int = 1) -> str:
        """One that several servers may have at a time."""
        types = [each["name"] for each in self.call("GET", "/types")["volume_types"]]
        if TYPE not in types:
            new = {"name": TYPE, "extra_specs": {"multiattach": "<is> True"}}
            self.call("POST", "/types", {"volume_type": new}, as_="admin@p0")
        return self.make(size_gib, volume_type=TYPE)

    def show(self, volume_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.volume(volume_id)
        return found

    def wait(self, volume_id: str, status: str, timeout_s: float = 120) -> dict[str, Any]:
        from tests.stack.cloud import wait_for

        wait_for(
            lambda: self.show(volume_id)["status"] == status,
            f"volume {volume_id} is {status}",
            timeout_s,
            lambda: self.show(volume_id)["status"],
        )
        return self.show(volume_id)

    def volumes(self) -> dict[str, dict[str, Any]]:
        """All there are, by id."""
        found = self.call("GET", "/volumes/detail?all_tenants=1", as_="admin@p0")["volumes"]
        return {row["id"]: row for row in found}

    def attachments(self) -> list[dict[str, Any]]:
        """All there are."""
        found: list[dict[str, Any]] = self.call("GET", "/attachments/detail?all_tenants=1", as_="admin@p0")[
            "attachments"
        ]
        return found

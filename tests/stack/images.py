"""An Image API for ``tests.stack.cloud``, behind real HTTP: what snapshots of servers are uploaded to.

The API is the real one over the cloud's own global database, with a file store.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import requests
import sqlalchemy as sa

from api.common.server import ApiRole
from api.image.app import make_app
from api.image.services import GROUP, ImageServices
from core import config
from db.global_schema import images as images_table
from tests.api.identity import authenticate
from tests.lab.processes import free_port

OWNER = "member@project-1"


class ImagePlane:
    """Start it once the cloud's databases are there."""

    def __init__(self, cloud: Any, folder: Path) -> None:
        conf = cloud.conf
        self.store = folder / "image-store"
        self.services = ImageServices(conf)
        config.override(conf, f"{GROUP}.port", free_port())
        self.url = f"http://127.0.0.1:{conf[GROUP].port}"
        self._role = ApiRole("image", conf, GROUP, lambda conf: make_app(conf, self.services, authenticate))

    def start(self) -> None:
        self._role.start()

    def stop(self) -> None:
        self._role.stop()
        self.services.close()

    def make(self, server_id: str) -> str:
        """An image of a server before it has data, as the Compute API makes it."""
        image = {
            "name": f"of {server_id}",
            "disk_format": "qcow2",
            "container_format": "bare",
            "image_type": "snapshot",
            "instance_uuid": server_id,
        }
        answer = requests.post(
            f"{self.url}/v2/images", json=image, headers={"X-Auth-Token": OWNER}, timeout=30
        )
        answer.raise_for_status()
        return str(answer.json()["id"])

    def statuses(self) -> set[str]:
        """Those of all images that are there."""
        with self.services.databases.global_.read() as connection:
            statement = sa.select(images_table.c.status).where(images_table.c.deleted.is_(False))
            return set(connection.execute(statement).scalars())

"""What the steps of the volume worker work with: a backend, its rows, images.

Steps know tables only through this module: what drivers get to see of a volume or a
snapshot (``volume.drivers.base``) is read here, fresh, whenever a step begins.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from oslo_config import cfg

from core import luks
from core.clients import service_adapter
from core.errors import DriverError, NotFound, Unavailable
from core.keys import KeyManager
from core.luks import Luks
from core.messaging import Messaging
from db import volume_ends, volume_moves, volume_types
from db.sessions import Databases
from db.types import now
from db.volume_base import Row, attachments, find, snapshots, volumes
from lifecycle.rpc import SchedulerClient
from lifecycle.volume_rpc import VolumeClient
from volume.connecting import HostConnector
from volume.drivers.backends import Backend
from volume.drivers.base import Snapshot, Volume

LOG = logging.getLogger(__name__)
_PIECE = 1 << 20
_IMAGE_TRIES, _IMAGE_PAUSE_S = 4, 1.0


class VolumeWorker:
    """One backend as steps see it (``run.worker``)."""

    def __init__(self, conf: cfg.ConfigOpts, databases: Databases, backend: Backend) -> None:
        self.conf = conf
        self.databases = databases
        self.backend = backend
        self.driver = backend.driver
        self.keys = KeyManager(conf)
        self.peers: Mapping[str, VolumeWorker] = {}
        """the backends of this process, this one among them, by host@backend"""
        self.connector = HostConnector(conf)
        self._messaging: Messaging | None = None

    def join(self, peers: Mapping[str, VolumeWorker], messaging: Messaging) -> None:
        """The others of this process, and the way to those that are not."""
        self.peers, self._messaging = peers, messaging

    @property
    def client(self) -> VolumeClient:
        """For what other workers' backends are asked."""
        return VolumeClient(self._bus())

    def ring_scheduler(self) -> None:
        """Intents wait for a place. It looks by itself, too: nothing is lost with the ring."""
        SchedulerClient(self._bus()).ring()

    def _bus(self) -> Messaging:
        if self._messaging is None:
            raise DriverError("this worker knows no others")
        return self._messaging

    # -- rows --------------------------------------------------------------------

    def volume_row(self, volume_id: str) -> Row:
        with self.databases.global_.read() as connection:
            return find(connection, volumes, "Volume", volume_id)

    def volume(self, volume_id: str, size_gib: int | None = None) -> Volume:
        """A volume as drivers see it. ``size_gib`` instead of the row's. :raises NotFound:"""
        with self.databases.global_.read() as connection:
            row = find(connection, volumes, "Volume", volume_id)
            used = sa.select(attachments.c.id).where(
                attachments.c.volume_id == volume_id, attachments.c.status.in_(["attached", "attaching"])
            )
            specs = volume_types.get(connection, row["type_id"])["extra_specs"] if row["type_id"] else {}
            encryption = _luks(connection, row)
            return Volume(
                id=volume_moves.data_id(row),
                size_gib=size_gib or row["size_gib"],
                location=row["provider_location"],
                extra_specs=specs,
                in_use=connection.execute(used.limit(1)).first() is not None,
                multiattach=bool(row["multiattach"]),
                header_bytes=encryption.header_bytes if encryption else 0,
            )

    def luks(self, volume_id: str) -> Luks | None:
        """How a volume is encrypted; None: it is not. :raises NotFound:"""
        with self.databases.global_.read() as connection:
            return _luks(connection, find(connection, volumes, "Volume", volume_id))

    def snapshot_row(self, snapshot_id: str) -> Row:
        with self.databases.global_.read() as connection:
            return find(connection, snapshots, "Snapshot", snapshot_id)

    def snapshot(self, snapshot_id: str) -> Snapshot:
        """A snapshot as drivers see it. :raises NotFound:"""
        with self.databases.global_.read() as connection:
            row = find(connection, snapshots, "Snapshot", snapshot_id)
        return Snapshot(
            id=row["id"],
            volume=self.volume(row["volume_id"]),
            size_gib=row["size_gib"],
            location=row["provider_location"],
        )

    def snapshot_or_none(self, snapshot_id: str) -> Snapshot | None:
        """None: its row is gone, so is its data."""
        try:
            return self.snapshot(snapshot_id)
        except NotFound:
            return None

    def tell_owner(self, asked: Mapping[str, Any], volume_id: str, event: str, message: str) -> None:
        """A user message about a volume, to who asked ("project_id", "request_id")."""
        with self.databases.global_.write() as connection:
            volume_ends.tell(connection, asked, "volume", volume_id, event, message, now())

    # -- images ------------------------------------------------------------------

    @contextmanager
    def image(self, image_id: str) -> Iterator[Path]:
        """An image's data in a temporary file that goes with the block.

        :raises Unavailable: the image service does not give it. :raises DriverError: it came short.
        """
        folder = Path(self.conf.state_path) / "volume-images"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f"{image_id}.") as file:
            answer = self._image_data(image_id)
            size = 0
            for piece in answer.iter_content(_PIECE):
                file.write(piece)
                size += len(piece)
            file.flush()
            expected = answer.headers.get("Content-Length")
            if expected is not None and int(expected) != size:
                raise DriverError(f"The data of image {image_id} came short: {size} of {expected} bytes.")
            yield Path(file.name)

    def _image_data(self, image_id: str) -> Any:
        """The answer with the data. What may pass (a restart, data not there yet) is waited for a little.

        :raises Unavailable: the image service does not give it.
        """
        for left in reversed(range(_IMAGE_TRIES)):
            answer = service_adapter(self.conf, "image").get(
                f"/v2/images/{image_id}/file", raise_exc=False, stream=True
            )
            if answer.status_code == 200:
                return answer
            if not left or 400 <= answer.status_code < 500:
                break
            LOG.warning("image %s: no data (%d); asked for again", image_id, answer.status_code)
            time.sleep(_IMAGE_PAUSE_S)
        raise Unavailable(
            f"The image service does not give the data of image {image_id} ({answer.status_code})."
        )

    def image_locations(self, image_id: str) -> list[dict[str, Any]]:
        """Where an image's data is: [{"url":, "metadata":}]; none if the image service does not tell."""
        answer = service_adapter(self.conf, "image").get(f"/v2/images/{image_id}/locations", raise_exc=False)
        if answer.status_code != 200:
            LOG.info("no locations of image %s (%d): its data is copied", image_id, answer.status_code)
            return []
        return list(answer.json())

    def image_is_active(self, image_id: str) -> bool:
        """Has it its data already? :raises NotFound: somebody deleted it."""
        answer = service_adapter(self.conf, "image").get(f"/v2/images/{image_id}", raise_exc=False)
        if answer.status_code == 404:
            raise NotFound(f"Image {image_id} was deleted.")
        if answer.status_code != 200:
            raise Unavailable(f"The image service does not show image {image_id} ({answer.status_code}).")
        return bool(answer.json()["status"] == "active")

    def set_image_properties(self, image_id: str, properties: Mapping[str, str]) -> None:
        """A repeat changes nothing. :raises Unavailable: the image service does not take them."""
        changes = [{"op": "add", "path": f"/{key}", "value": value} for key, value in properties.items()]
        answer = service_adapter(self.conf, "image").patch(
            f"/v2/images/{image_id}",
            json=changes,
            headers={"Content-Type": "application/openstack-images-v2.1-json-patch"},
            raise_exc=False,
        )
        if answer.status_code != 200:
            raise Unavailable(
                f"The image service does not take properties of image {image_id} ({answer.status_code})."
            )

    def upload(self, image_id: str, path: Path) -> None:
        """Give an image that has none its data. :raises Unavailable: the image service did not take it."""
        with path.open("rb") as file:
            answer = service_adapter(self.conf, "image").put(
                f"/v2/images/{image_id}/file",
                data=file,
                headers={"Content-Type": "application/octet-stream"},
                raise_exc=False,
            )
        if answer.status_code != 204:
            raise Unavailable(
                f"The image service does not take the data of image {image_id} ({answer.status_code})."
            )

    def delete_image(self, image_id: str) -> None:
        """One that is gone is no error. :raises Unavailable: it is still there."""
        answer = service_adapter(self.conf, "image").delete(f"/v2/images/{image_id}", raise_exc=False)
        if answer.status_code not in (204, 404):
            raise Unavailable(f"The image service does not delete image {image_id} ({answer.status_code}).")


def _luks(connection: sa.Connection, row: Row) -> Luks | None:
    """A type's encryption does not change while volumes have the type."""
    if not row["encrypted"]:
        return None
    return luks.of_type(volume_types.encryption(connection, row["type_id"]) or {})

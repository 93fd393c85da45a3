"""What the steps of backups work with, and the sign of life of the backup service, which is part of the volume role.

It reads and writes volumes of the backends of its own process, so the API gives it the
volumes of its host. Its service row ``cinder-backup`` lives while the target can be used.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from oslo_config import cfg

from core import config
from core.errors import DriverError, HaneulError
from core.keys import KeyManager
from db import volume_services
from db.sessions import Databases, retrying
from db.volume_base import Row, backups, find, volumes
from volume.backup import targets
from volume.backup.targets import GROUP, Target
from volume.worker import VolumeWorker

LOG = logging.getLogger(__name__)


class BackupWorker:
    """What the steps of backups work with (``run.worker``)."""

    def __init__(
        self, conf: cfg.ConfigOpts, databases: Databases, host: str, workers: Mapping[str, VolumeWorker]
    ) -> None:
        config.register(conf, targets.list_opts())
        self.conf = conf
        self.databases = databases
        self.host = host
        self._workers = workers
        self.keys = KeyManager(conf)

    @property
    def service(self) -> str:
        """The kind of target, as records name it."""
        return str(self.conf[GROUP].target)

    def target(self) -> Target:
        """:raises Unavailable: it can't be used."""
        return targets.load(self.conf)

    def row(self, backup_id: str) -> Row:
        """:raises NotFound:"""
        with self.databases.global_.read() as connection:
            return find(connection, backups, "Backup", backup_id)

    def volume_row(self, volume_id: str) -> Row:
        """:raises NotFound:"""
        with self.databases.global_.read() as connection:
            return find(connection, volumes, "Volume", volume_id)

    def of_volume(self, volume_id: str) -> VolumeWorker:
        """The worker of a volume's backend. :raises DriverError: another host serves it."""
        host = str(self.volume_row(volume_id)["host"]).partition("#")[0]
        if host not in self._workers:
            raise DriverError(f"the backup service of {self.host} does not reach backend {host}")
        return self._workers[host]

    def heartbeat(self, zone: str) -> None:
        """A sign of life, if the target can be used."""
        try:
            self.target()
        except HaneulError as error:
            LOG.warning("backups can't be made: %s", error)
            return
        self._report(zone)

    @retrying
    def _report(self, zone: str) -> None:
        with self.databases.global_.write() as connection:
            volume_services.heartbeat(connection, self.host, volume_services.BACKUP, zone)

"""All controllers of the Volume API, in one place."""

from __future__ import annotations

from typing import Any

from api.common.operations import Controller
from api.volume.attachments import AttachmentsController
from api.volume.backends import (
    AvailabilityZonesController,
    ClustersController,
    HostsController,
    PoolsController,
    ServicesController,
    WorkersController,
)
from api.volume.backups import BackupsController
from api.volume.extensions import ExtensionsController, ResourceFiltersController
from api.volume.group_snapshots import GroupSnapshotsController
from api.volume.group_types import GroupTypesController, GroupTypeSpecsController
from api.volume.groups import GroupsController
from api.volume.manage import ManageSnapshotsController, ManageVolumesController, VolumeEncryptionController
from api.volume.messages import MessagesController
from api.volume.qos_specs import QosSpecsController
from api.volume.quotas import LimitsController, QuotaClassSetsController, QuotaSetsController
from api.volume.snapshots import SnapshotMetadataController, SnapshotsController
from api.volume.transfers import TransfersController
from api.volume.types import (
    DefaultTypesController,
    TypeAccessController,
    TypeEncryptionController,
    TypeExtraSpecsController,
    TypesController,
)
from api.volume.versions import VersionsController
from api.volume.volume_actions import VolumeActionsController
from api.volume.volume_attach_actions import VolumeAttachActionsController
from api.volume.volume_flags import VolumeFlagsController
from api.volume.volume_placement import VolumePlacementController
from api.volume.volumes import VolumeMetadataController, VolumesController

CONTROLLERS: tuple[type[Controller], ...] = (
    VersionsController,
    ExtensionsController,
    ResourceFiltersController,
    VolumesController,
    VolumeMetadataController,
    VolumeActionsController,
    VolumeFlagsController,
    VolumePlacementController,
    VolumeAttachActionsController,
    AttachmentsController,
    SnapshotsController,
    SnapshotMetadataController,
    TransfersController,
    ManageVolumesController,
    ManageSnapshotsController,
    VolumeEncryptionController,
    BackupsController,
    GroupTypesController,
    GroupTypeSpecsController,
    GroupsController,
    GroupSnapshotsController,
    TypesController,
    TypeExtraSpecsController,
    TypeAccessController,
    TypeEncryptionController,
    DefaultTypesController,
    QosSpecsController,
    QuotaSetsController,
    QuotaClassSetsController,
    LimitsController,
    MessagesController,
    AvailabilityZonesController,
    ServicesController,
    HostsController,
    PoolsController,
    ClustersController,
    WorkersController,
)


def all_controllers(services: Any) -> list[Controller]:
    """One object of each, made with what the API has."""
    return [controller(services) for controller in CONTROLLERS]

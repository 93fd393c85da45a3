"""All controllers of the Compute API, in one place."""

from __future__ import annotations

from api.common.operations import Controller
from api.compute.aggregate_images import AggregateImagesController
from api.compute.aggregates import AggregatesController
from api.compute.assisted_snapshots import AssistedSnapshotsController
from api.compute.availability_zones import AvailabilityZonesController
from api.compute.console_auth_tokens import ConsoleAuthTokensController
from api.compute.consoles import ConsolesController
from api.compute.extensions import ExtensionsController
from api.compute.external_events import ExternalEventsController
from api.compute.flavor_access import FlavorAccessController
from api.compute.flavor_extra_specs import FlavorExtraSpecsController
from api.compute.flavors import FlavorsController
from api.compute.gone import GoneController
from api.compute.hosts import HostsController
from api.compute.hypervisors import HypervisorsController
from api.compute.images import ImageMetadataController, ImagesController
from api.compute.instance_actions import InstanceActionsController
from api.compute.keypairs import KeypairsController
from api.compute.limits import LimitsController
from api.compute.migrations import MigrationsController
from api.compute.network_proxies import (
    FloatingIpProxiesController,
    NetworkProxiesController,
    SecurityGroupProxiesController,
)
from api.compute.os_services import OsServicesController
from api.compute.quota_class_sets import QuotaClassSetsController
from api.compute.quota_sets import QuotaSetsController
from api.compute.server_actions import ServerActionsController
from api.compute.server_groups import ServerGroupsController
from api.compute.server_images import ServerImagesController
from api.compute.server_interfaces import ServerInterfacesController
from api.compute.server_metadata import ServerMetadataController
from api.compute.server_network_actions import ServerNetworkActionsController
from api.compute.server_parts import ServerPartsController
from api.compute.server_placement import ServerPlacementController
from api.compute.server_tags import ServerTagsController
from api.compute.server_volumes import ServerVolumesController
from api.compute.servers import ServersController
from api.compute.services import ComputeServices
from api.compute.usage import UsageController
from api.compute.usage_audit_log import UsageAuditLogController
from api.compute.versions import VersionsController
from api.compute.volume_proxies import SnapshotProxiesController, VolumeProxiesController
from api.compute.volumes_boot import VolumesBootController

CONTROLLERS: tuple[type[Controller], ...] = (
    VersionsController,
    FlavorsController,
    FlavorExtraSpecsController,
    FlavorAccessController,
    KeypairsController,
    QuotaSetsController,
    QuotaClassSetsController,
    LimitsController,
    OsServicesController,
    HypervisorsController,
    AggregatesController,
    AggregateImagesController,
    AvailabilityZonesController,
    ServerGroupsController,
    HostsController,
    ServersController,
    UsageController,
    UsageAuditLogController,
    MigrationsController,
    AssistedSnapshotsController,
    ExternalEventsController,
    ConsoleAuthTokensController,
    ConsolesController,
    ExtensionsController,
    ImagesController,
    ImageMetadataController,
    GoneController,
    ServerActionsController,
    ServerImagesController,
    ServerMetadataController,
    ServerTagsController,
    InstanceActionsController,
    ServerPartsController,
    ServerInterfacesController,
    ServerVolumesController,
    ServerNetworkActionsController,
    NetworkProxiesController,
    SecurityGroupProxiesController,
    FloatingIpProxiesController,
    VolumeProxiesController,
    SnapshotProxiesController,
    VolumesBootController,
    ServerPlacementController,
)


def all_controllers(services: ComputeServices) -> list[Controller]:
    """One object of each, made with what the API has."""
    return [controller(services) for controller in CONTROLLERS]

"""What this API has beyond its core, and what its lists may be filtered by."""

from __future__ import annotations

from typing import Any

from api.common.operations import Call, Controller, operation
from core.errors import NotFound

EXTENSIONS = {
    "OS-SCH-HNT": ("SchedulerHints", "Pass arbitrary key/value pairs to the scheduler."),
    "backups": ("Backups", "Backups support."),
    "capabilities": ("Capabilities", "Capabilities support."),
    "cgsnapshots": ("Cgsnapshots", "cgsnapshots support."),
    "consistencygroups": ("Consistencygroups", "consistency groups support."),
    "encryption": ("VolumeEncryptionMetadata", "Volume encryption metadata retrieval support."),
    "os-admin-actions": ("AdminActions", "Enable admin actions."),
    "os-availability-zone": ("AvailabilityZones", "Describe Availability Zones."),
    "os-extended-services": ("ExtendedServices", "Extended services support."),
    "os-extended-snapshot-attributes": ("ExtendedSnapshotAttributes", "Extended SnapshotAttributes support."),
    "os-hosts": ("Hosts", "Admin-only host administration."),
    "os-quota-class-sets": ("QuotaClasses", "Quota classes management support."),
    "os-quota-sets": ("Quotas", "Quota management support."),
    "os-services": ("Services", "Services support."),
    "os-snapshot-actions": ("SnapshotActions", "Enable snapshot manager actions."),
    "os-snapshot-manage": (
        "SnapshotManage",
        "Allows existing backend storage to be 'managed' by this service.",
    ),
    "os-snapshot-unmanage": ("SnapshotUnmanage", "Enable volume unmanage operation."),
    "os-types-extra-specs": ("TypesExtraSpecs", "Type extra specs support."),
    "os-types-manage": ("TypesManage", "Types manage support."),
    "os-used-limits": ("UsedLimits", "Provide data on limited resources that are being used."),
    "os-vol-host-attr": ("VolumeHostAttribute", "Expose host as an attribute of a volume."),
    "os-vol-image-meta": ("VolumeImageMetadata", "Show image metadata associated with the volume."),
    "os-vol-mig-status-attr": ("VolumeMigStatusAttribute", "Expose migration_status of a volume."),
    "os-vol-tenant-attr": ("VolumeTenantAttribute", "Expose the internal project_id of a volume."),
    "os-volume-actions": ("VolumeActions", "Enable volume actions."),
    "os-volume-encryption-metadata": ("VolumeEncryptionMetadata", "Volume encryption metadata retrieval."),
    "os-volume-manage": ("VolumeManage", "Allows existing backend storage to be 'managed' by this service."),
    "os-volume-transfer": ("VolumeTransfer", "Volume transfer management support."),
    "os-volume-type-access": ("VolumeTypeAccess", "Volume type access support."),
    "os-volume-unmanage": ("VolumeUnmanage", "Enable volume unmanage operation."),
    "qos-specs": ("Qos_specs_manage", "QoS specs support."),
    "scheduler-stats": ("Scheduler_stats", "Scheduler stats support."),
}
FILTERS = {
    "volume": "name,status,metadata,bootable,migration_status,availability_zone,group_id,size,"
    "created_at,updated_at,glance_metadata,description,encrypted,multiattach,user_id,snapshot_id,source_volid,"
    "volume_type_id,consumes_quota,id",
    "backup": "name,status,volume_id,created_at,updated_at",
    "snapshot": "name,status,volume_id,metadata,availability_zone,consumes_quota,created_at,updated_at,id,user_id,"
    "size,description,progress,group_snapshot_id",
    "group": "name,status",
    "group_snapshot": "name,status,group_id",
    "attachment": "volume_id,status,instance_id,attach_status",
    "message": "resource_uuid,resource_type,event_id,request_id,message_level",
    "pool": "name,volume_type",
    "volume_type": "is_public,name,description,extra_specs",
    "transfer": "name,volume_id",
}


class ExtensionsController(Controller):
    """Names of what there is."""

    @operation("GET", "/extensions", policy="volume_extension:extensions")
    def index(self, call: Call) -> dict[str, Any]:
        """List extensions."""
        return {"extensions": [self._view(alias) for alias in EXTENSIONS]}

    @operation("GET", "/extensions/{alias}", policy="volume_extension:extensions")
    def show(self, call: Call) -> dict[str, Any]:
        """Show an extension."""
        alias = call.params["alias"]
        if alias not in EXTENSIONS:
            raise NotFound("The resource could not be found.")
        return {"extension": self._view(alias)}

    @staticmethod
    def _view(alias: str) -> dict[str, Any]:
        name, description = EXTENSIONS[alias]
        return {
            "alias": alias,
            "name": name,
            "description": description,
            "updated": "2017-03-13T00:00:00+00:00",
            "links": [],
        }


class ResourceFiltersController(Controller):
    """What lists may be filtered by."""

    @operation("GET", "/resource_filters", policy="volume_extension:resource_filters", since="3.33")
    def index(self, call: Call) -> dict[str, Any]:
        """List filters, per resource."""
        wanted = call.first("resource")
        return {
            "resource_filters": [
                {"resource": resource, "filters": text.split(",")}
                for resource, text in FILTERS.items()
                if wanted in (None, resource)
            ]
        }

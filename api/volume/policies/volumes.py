"""Rules on volumes, their metadata, actions, attachments, snapshots and transfers."""

from __future__ import annotations

from api.volume.policies.base import (
    ADMIN,
    ANYONE,
    PROJECT_MEMBER_OR_ADMIN,
    PROJECT_READER_OR_ADMIN,
    SERVICE_OR_ADMIN,
    SERVICE_OR_MEMBER,
    rules,
)

_READERS = """
volume:get_all | List volumes | GET /volumes, GET /volumes/detail, GET /volumes/summary
volume:get | Show a volume | GET /volumes/{volume_id}
volume_extension:volume_tenant_attribute | See the project of a volume | GET /volumes/{volume_id}
volume:get_volume_metadata | Show metadata of a volume | GET /volumes/{volume_id}/metadata
volume_extension:volume_image_metadata:show | Show image metadata | POST /volumes/{volume_id}/action
volume_extension:volume_encryption_metadata | Show how a volume is encrypted | GET /volumes/{volume_id}/encryption
volume:get_all_snapshots | List snapshots | GET /snapshots, GET /snapshots/detail
volume:get_snapshot | Show a snapshot | GET /snapshots/{snapshot_id}
volume_extension:extended_snapshot_attributes | See project and progress of a snapshot | GET /snapshots/{snapshot_id}
volume:get_snapshot_metadata | Show metadata of a snapshot | GET /snapshots/{snapshot_id}/metadata
volume:attachment_get_all | List attachments | GET /attachments
volume:attachment_get | Show an attachment | GET /attachments/{attachment_id}
volume:get_all_transfers | List transfers | GET /volume-transfers
volume:get_transfer | Show a transfer | GET /volume-transfers/{transfer_id}
haneul:volumes:placement | See why a volume is where it is, or nowhere | GET /haneul/volumes/{volume_id}/placement
"""
_MEMBERS = """
volume:create | Create a volume | POST /volumes
volume:create_from_image | Create a volume from an image | POST /volumes
volume:create_multiattach_volume | Create a volume for several servers | POST /volumes
volume:update | Change name and description | PUT /volumes/{volume_id}
volume:delete | Delete a volume | DELETE /volumes/{volume_id}
volume:create_volume_metadata | Add metadata | POST /volumes/{volume_id}/metadata
volume:update_volume_metadata | Change metadata | PUT /volumes/{volume_id}/metadata
volume:delete_volume_metadata | Delete metadata | DELETE /volumes/{volume_id}/metadata/{key}
volume_extension:volume_image_metadata:set | Set image metadata | POST /volumes/{volume_id}/action
volume_extension:volume_image_metadata:remove | Remove image metadata | POST /volumes/{volume_id}/action
volume:extend | Extend a volume | POST /volumes/{volume_id}/action
volume:extend_attached_volume | Extend an attached volume | POST /volumes/{volume_id}/action
volume:revert_to_snapshot | Revert to a snapshot | POST /volumes/{volume_id}/action
volume:retype | Change the type | POST /volumes/{volume_id}/action
volume:update_readonly_flag | Make read only | POST /volumes/{volume_id}/action
volume:reimage | Write an image anew | POST /volumes/{volume_id}/action
volume:reimage_reserved | Write an image anew on a reserved volume | POST /volumes/{volume_id}/action
volume:multiattach_bootable_volume | Attach a bootable volume twice | POST /attachments
volume_extension:volume_actions:upload_image | Upload to an image | POST /volumes/{volume_id}/action
volume_extension:volume_actions:set_bootable | Set bootable | POST /volumes/{volume_id}/action
volume:create_snapshot | Create a snapshot | POST /snapshots
volume:update_snapshot | Change a snapshot | PUT /snapshots/{snapshot_id}
volume:delete_snapshot | Delete a snapshot | DELETE /snapshots/{snapshot_id}
volume:create_snapshot_metadata | Add metadata | POST /snapshots/{snapshot_id}/metadata
volume:update_snapshot_metadata | Change metadata | PUT /snapshots/{snapshot_id}/metadata
volume:delete_snapshot_metadata | Delete metadata | DELETE /snapshots/{snapshot_id}/metadata/{key}
volume:create_transfer | Offer a volume | POST /volume-transfers
volume:delete_transfer | Take the offer back | DELETE /volume-transfers/{transfer_id}
volume:accept_transfer | Accept an offer | POST /volume-transfers/{transfer_id}/accept
"""
_MEMBERS_AND_SERVICES = """
volume_extension:volume_actions:initialize_connection | Connect | POST /volumes/{volume_id}/action
volume_extension:volume_actions:terminate_connection | Disconnect | POST /volumes/{volume_id}/action
volume_extension:volume_actions:reserve | Reserve | POST /volumes/{volume_id}/action
volume_extension:volume_actions:unreserve | Unreserve | POST /volumes/{volume_id}/action
volume_extension:volume_actions:begin_detaching | Begin to detach | POST /volumes/{volume_id}/action
volume_extension:volume_actions:roll_detaching | Take that back | POST /volumes/{volume_id}/action
volume_extension:volume_actions:attach | Record an attachment | POST /volumes/{volume_id}/action
volume_extension:volume_actions:detach | Remove that record | POST /volumes/{volume_id}/action
volume:attachment_create | Create an attachment | POST /attachments
volume:attachment_update | Connect an attachment | PUT /attachments/{attachment_id}
volume:attachment_complete | Complete an attachment | POST /attachments/{attachment_id}/action
volume:attachment_delete | Delete an attachment | DELETE /attachments/{attachment_id}
snapshot_extension:snapshot_actions:update_snapshot_status | Report a snapshot | POST /snapshots/{snapshot_id}/action
"""
_SERVICES = """
volume:extend_volume_completion | Report an extension | POST /volumes/{volume_id}/action
"""
_ADMINS = """
volume_extension:volume_host_attribute | See the host of a volume | GET /volumes/{volume_id}
volume_extension:volume_mig_status_attribute | See the migration status | GET /volumes/{volume_id}
volume_extension:volume_admin_actions:reset_status | Reset the status | POST /volumes/{volume_id}/action
volume_extension:volume_admin_actions:force_delete | Force delete | POST /volumes/{volume_id}/action
volume_extension:volume_admin_actions:force_detach | Force detach | POST /volumes/{volume_id}/action
volume_extension:volume_admin_actions:migrate_volume | Migrate | POST /volumes/{volume_id}/action
volume_extension:volume_admin_actions:migrate_volume_completion | Report that | POST /volumes/{volume_id}/action
volume_extension:volume_actions:upload_public | Upload to a public image | POST /volumes/{volume_id}/action
volume_extension:volume_manage | Manage a volume | POST /manageable_volumes
volume_extension:volume_unmanage | Unmanage a volume | POST /volumes/{volume_id}/action
volume_extension:list_manageable | List what may be managed | GET /manageable_volumes
volume_extension:snapshot_admin_actions:reset_status | Reset the status | POST /snapshots/{snapshot_id}/action
volume_extension:snapshot_admin_actions:force_delete | Force delete | POST /snapshots/{snapshot_id}/action
snapshot_extension:snapshot_manage | Manage a snapshot | POST /manageable_snapshots
snapshot_extension:snapshot_unmanage | Unmanage a snapshot | POST /snapshots/{snapshot_id}/action
snapshot_extension:list_manageable | List what may be managed | GET /manageable_snapshots
"""

RULES = [
    *rules(PROJECT_READER_OR_ADMIN, _READERS),
    *rules(PROJECT_MEMBER_OR_ADMIN, _MEMBERS),
    *rules(SERVICE_OR_MEMBER, _MEMBERS_AND_SERVICES),
    *rules(SERVICE_OR_ADMIN, _SERVICES),
    *rules(ADMIN, _ADMINS),
    *rules(ANYONE, "volume:availability_zone_list | List zones | GET /os-availability-zone"),
]

"""Rules on backups, groups and messages."""

from __future__ import annotations

from api.volume.policies.base import (
    ADMIN,
    ANYONE,
    PROJECT_MEMBER_OR_ADMIN,
    PROJECT_READER_OR_ADMIN,
    rules,
)

_READERS = """
backup:get_all | List backups | GET /backups
backup:get | Show a backup | GET /backups/{backup_id}
message:get_all | List messages | GET /messages
message:get | Show a message | GET /messages/{message_id}
group:get_all | List groups | GET /groups
group:get | Show a group | GET /groups/{group_id}
group:get_all_group_snapshots | List group snapshots | GET /group_snapshots
group:get_group_snapshot | Show a group snapshot | GET /group_snapshots/{group_snapshot_id}
"""
_MEMBERS = """
backup:create | Create a backup | POST /backups
backup:update | Change a backup | PUT /backups/{backup_id}
backup:delete | Delete a backup | DELETE /backups/{backup_id}
backup:restore | Restore a backup | POST /backups/{backup_id}/restore
message:delete | Delete a message | DELETE /messages/{message_id}
group:create | Create a group | POST /groups
group:update | Change a group | PUT /groups/{group_id}
group:delete | Delete a group | POST /groups/{group_id}/action
group:create_group_snapshot | Create a group snapshot | POST /group_snapshots
group:delete_group_snapshot | Delete a group snapshot | DELETE /group_snapshots/{group_snapshot_id}
group:enable_replication | Enable replication | POST /groups/{group_id}/action
group:disable_replication | Disable replication | POST /groups/{group_id}/action
group:failover_replication | Fail over | POST /groups/{group_id}/action
group:list_replication_targets | List replication targets | POST /groups/{group_id}/action
"""
_ADMINS = """
backup:get_project_attribute | See the project of a backup | GET /backups/{backup_id}
backup:export-import | Import and export records | GET /backups/{backup_id}/export_record
backup:backup-import | Import a record | POST /backups/import_record
backup:backup-export | Export a record | GET /backups/{backup_id}/export_record
volume_extension:backup_admin_actions:reset_status | Reset the status | POST /backups/{backup_id}/action
volume_extension:backup_admin_actions:force_delete | Force delete | POST /backups/{backup_id}/action
group:group_project_attribute | See the project of a group | GET /groups/{group_id}
group:group_snapshot_project_attribute | See the project | GET /group_snapshots/{group_snapshot_id}
group:reset_status | Reset the status | POST /groups/{group_id}/action
group:reset_group_snapshot_status | Reset the status | POST /group_snapshots/{group_snapshot_id}/action
group:group_types:create | Create a group type | POST /group_types
group:group_types:update | Change a group type | PUT /group_types/{group_type_id}
group:group_types:delete | Delete a group type | DELETE /group_types/{group_type_id}
group:access_group_types_specs | See group specs | GET /group_types/{group_type_id}
group:group_types_specs:get_all | List group specs | GET /group_types/{group_type_id}/group_specs
group:group_types_specs:get | Show a group spec | GET /group_types/{group_type_id}/group_specs/{key}
group:group_types_specs:create | Add group specs | POST /group_types/{group_type_id}/group_specs
group:group_types_specs:update | Change a group spec | PUT /group_types/{group_type_id}/group_specs/{key}
group:group_types_specs:delete | Delete a group spec | DELETE /group_types/{group_type_id}/group_specs/{key}
"""

RULES = [
    *rules(PROJECT_READER_OR_ADMIN, _READERS),
    *rules(PROJECT_MEMBER_OR_ADMIN, _MEMBERS),
    *rules(ADMIN, _ADMINS),
    *rules(ANYONE, "group:group_types:get | List group types | GET /group_types"),
]

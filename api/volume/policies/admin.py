"""Rules on types, QoS specs, quotas, services and what else administrators look after."""

from __future__ import annotations

from api.volume.policies.base import ADMIN, ANYONE, PROJECT_READER_OR_ADMIN, rules

_ANYONE = """
volume_extension:type_get | Show a type | GET /types/{type_id}
volume_extension:type_get_all | List types | GET /types
volume_extension:access_types_extra_specs | See the extra specs of a type | GET /types/{type_id}
volume_extension:types_extra_specs:index | List extra specs | GET /types/{type_id}/extra_specs
volume_extension:types_extra_specs:show | Show an extra spec | GET /types/{type_id}/extra_specs/{key}
volume_extension:resource_filters | List what lists may be filtered by | GET /resource_filters
volume_extension:extensions | List extensions | GET /extensions
"""
_READERS = """
limits_extension:used_limits | See limits and what is used | GET /limits
volume_extension:quotas:show | Show quotas | GET /os-quota-sets/{project_id}
"""
_ADMINS = """
haneul:volumes:placement:hosts | See the same with the names of pools | GET /haneul/volumes/{volume_id}/placement
volume_extension:type_create | Create a type | POST /types
volume_extension:type_update | Change a type | PUT /types/{type_id}
volume_extension:type_delete | Delete a type | DELETE /types/{type_id}
volume_extension:access_types_qos_specs_id | See the QoS specs of a type | GET /types/{type_id}
volume_extension:types_extra_specs:read_sensitive | See all extra specs | GET /types/{type_id}
volume_extension:types_extra_specs:create | Add extra specs | POST /types/{type_id}/extra_specs
volume_extension:types_extra_specs:update | Change an extra spec | PUT /types/{type_id}/extra_specs/{key}
volume_extension:types_extra_specs:delete | Delete an extra spec | DELETE /types/{type_id}/extra_specs/{key}
volume_extension:volume_type_access | See whether a type is public | GET /types/{type_id}
volume_extension:volume_type_access:get_all_for_type | List access | GET /types/{type_id}/os-volume-type-access
volume_extension:volume_type_access:addProjectAccess | Give access | POST /types/{type_id}/action
volume_extension:volume_type_access:removeProjectAccess | Take access | POST /types/{type_id}/action
volume_extension:volume_type_encryption:create | Encrypt a type | POST /types/{type_id}/encryption
volume_extension:volume_type_encryption:get | Show a type's encryption | GET /types/{type_id}/encryption
volume_extension:volume_type_encryption:update | Change it | PUT /types/{type_id}/encryption/{encryption_id}
volume_extension:volume_type_encryption:delete | Remove it | DELETE /types/{type_id}/encryption/{encryption_id}
volume_extension:default_set_or_update | Set a project's default type | PUT /default-types/{project_id}
volume_extension:default_get | Show it | GET /default-types/{project_id}
volume_extension:default_get_all | List them | GET /default-types
volume_extension:default_unset | Unset it | DELETE /default-types/{project_id}
volume_extension:qos_specs_manage:get_all | List QoS specs | GET /qos-specs
volume_extension:qos_specs_manage:get | Show QoS specs | GET /qos-specs/{qos_id}
volume_extension:qos_specs_manage:create | Create QoS specs | POST /qos-specs
volume_extension:qos_specs_manage:update | Change QoS specs | PUT /qos-specs/{qos_id}
volume_extension:qos_specs_manage:delete | Delete QoS specs | DELETE /qos-specs/{qos_id}
volume_extension:quotas:update | Set quotas | PUT /os-quota-sets/{project_id}
volume_extension:quotas:delete | Put the defaults back | DELETE /os-quota-sets/{project_id}
volume_extension:quota_classes:get | Show the default quotas | GET /os-quota-class-sets/{class_name}
volume_extension:quota_classes:update | Set the default quotas | PUT /os-quota-class-sets/{class_name}
volume_extension:services:index | List services | GET /os-services
volume_extension:services:update | Enable and disable services | PUT /os-services/{action}
volume:freeze_host | Freeze a backend | PUT /os-services/freeze
volume:thaw_host | Thaw a backend | PUT /os-services/thaw
volume:failover_host | Fail a backend over | PUT /os-services/failover_host
volume_extension:hosts | List hosts | GET /os-hosts
volume_extension:capabilities | Show what a backend can do | GET /capabilities/{host}
scheduler_extension:scheduler_stats:get_pools | List pools | GET /scheduler-stats/get_pools
clusters:get_all | List clusters | GET /clusters
clusters:get | Show a cluster | GET /clusters/{cluster_name}
clusters:update | Enable and disable clusters | PUT /clusters/{action}
workers:cleanup | Clean up behind workers | POST /workers/cleanup
"""

RULES = [
    *rules(ANYONE, _ANYONE),
    *rules(PROJECT_READER_OR_ADMIN, _READERS),
    *rules(ADMIN, _ADMINS),
]

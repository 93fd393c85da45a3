"""Policies of the Image API: upstream's rule names and defaults.

Targets describe an image: ``project_id`` (its owner), ``visibility``, and
``member_id``, the asker's project if the image is shared with it.
"""

from __future__ import annotations

from oslo_policy import policy as oslo_policy

from core.policy import ADMIN, BASE_RULES, PROJECT_MEMBER_OR_ADMIN, PROJECT_READER_OR_ADMIN

_IS_MEMBER = "project_id:%(member_id)s"
_CAN_SEE = (
    f"project_id:%(project_id)s or {_IS_MEMBER} or 'community':%(visibility)s"
    " or 'public':%(visibility)s or 'shared':%(visibility)s"
)
_SEEN_BY_READER = f"{ADMIN} or (role:reader and ({_CAN_SEE}))"
_SEEN_BY_MEMBER = f"{ADMIN} or (role:member and ({_CAN_SEE}))"
_READER_OR_SHARED = f"{ADMIN} or role:reader and (project_id:%(project_id)s or {_IS_MEMBER})"
_SHARED_WITH = f"{ADMIN} or (role:member and {_IS_MEMBER})"
_SERVICE = f"rule:service_api or {ADMIN}"

_IMAGE = "/v2/images/{image_id}"
_MEMBERS = f"{_IMAGE}/members"

_METADEFS = "/v2/metadefs/namespaces"
_NAMESPACE = f"{_METADEFS}/{{namespace}}"
_METADEF_ADMIN = "rule:metadef_admin"
_METADEF_SEEN = f"{ADMIN} or (role:reader and (project_id:%(project_id)s or 'public':%(visibility)s))"


def _rule(name: str, check: str, description: str, *operations: str) -> oslo_policy.DocumentedRuleDefault:
    described: list[oslo_policy.Operation] = []
    for text in operations:
        method, path = text.split()
        described.append({"method": method, "path": path})
    return oslo_policy.DocumentedRuleDefault(name, check, description, described, scope_types=["project"])


RULES: list[oslo_policy.RuleDefault] = [
    _rule("add_image", PROJECT_MEMBER_OR_ADMIN, "Create an image.", "POST /v2/images"),
    _rule("delete_image", PROJECT_MEMBER_OR_ADMIN, "Delete an image.", f"DELETE {_IMAGE}"),
    _rule("get_image", _SEEN_BY_READER, "Show an image.", f"GET {_IMAGE}"),
    _rule("get_images", PROJECT_READER_OR_ADMIN, "List images.", "GET /v2/images"),
    _rule("modify_image", PROJECT_MEMBER_OR_ADMIN, "Change an image.", f"PATCH {_IMAGE}"),
    _rule("publicize_image", ADMIN, "Make an image public.", f"PATCH {_IMAGE}"),
    _rule("communitize_image", PROJECT_MEMBER_OR_ADMIN, "Offer to all projects.", f"PATCH {_IMAGE}"),
    _rule("download_image", _SEEN_BY_MEMBER, "Download data.", f"GET {_IMAGE}/file"),
    _rule("download_from_store", _SEEN_BY_MEMBER, "Download from a named store.", f"GET {_IMAGE}/file"),
    _rule("upload_image", PROJECT_MEMBER_OR_ADMIN, "Upload data.", f"PUT {_IMAGE}/file"),
    _rule("get_image_location", PROJECT_READER_OR_ADMIN, "See where data is.", f"GET {_IMAGE}"),
    _rule("set_image_location", PROJECT_MEMBER_OR_ADMIN, "Say where data is.", f"PATCH {_IMAGE}"),
    _rule("delete_image_location", ADMIN, "Remove a location.", f"PATCH {_IMAGE}"),
    _rule("add_image_location", PROJECT_MEMBER_OR_ADMIN, "Register data.", f"POST {_IMAGE}/locations"),
    _rule("fetch_image_location", _SERVICE, "List locations.", f"GET {_IMAGE}/locations"),
    _rule("add_member", PROJECT_MEMBER_OR_ADMIN, "Share with a project.", f"POST {_MEMBERS}"),
    _rule("delete_member", PROJECT_MEMBER_OR_ADMIN, "Stop sharing.", f"DELETE {_MEMBERS}/{{member_id}}"),
    _rule("get_member", _READER_OR_SHARED, "Show a member.", f"GET {_MEMBERS}/{{member_id}}"),
    _rule("get_members", _READER_OR_SHARED, "List members.", f"GET {_MEMBERS}"),
    _rule("modify_member", _SHARED_WITH, "Accept or reject.", f"PUT {_MEMBERS}/{{member_id}}"),
    _rule("deactivate", PROJECT_MEMBER_OR_ADMIN, "Deactivate.", f"POST {_IMAGE}/actions/deactivate"),
    _rule("reactivate", PROJECT_MEMBER_OR_ADMIN, "Reactivate.", f"POST {_IMAGE}/actions/reactivate"),
    _rule("copy_image", ADMIN, "Copy to further stores.", f"POST {_IMAGE}/import"),
    _rule("cache_image", ADMIN, "Fetch an image before it is asked for.", "PUT /v2/cache/{image_id}"),
    _rule("cache_list", ADMIN, "List what is cached.", "GET /v2/cache"),
    _rule("cache_delete", ADMIN, "Remove copies.", "DELETE /v2/cache", "DELETE /v2/cache/{image_id}"),
    _rule("tasks_api_access", ADMIN, "See tasks, and make some.", "GET /v2/tasks", "POST /v2/tasks"),
    _rule("stores_info_detail", ADMIN, "Describe stores.", "GET /v2/info/stores/detail"),
]


def _metadef_rules() -> list[oslo_policy.RuleDefault]:
    """Definitions are read with the namespace; all else is the administrator's."""
    found: list[oslo_policy.RuleDefault] = [
        oslo_policy.RuleDefault("metadef_default", "", "Not asked for any more; kept for policy files."),
        oslo_policy.RuleDefault("metadef_admin", "role:admin", "Who may write metadata definitions."),
        _rule("get_metadef_namespaces", PROJECT_READER_OR_ADMIN, "List namespaces.", f"GET {_METADEFS}"),
        _rule(
            "list_metadef_resource_types",
            PROJECT_READER_OR_ADMIN,
            "List resource types.",
            "GET /v2/metadefs/resource_types",
        ),
    ]
    for name, path in (
        ("get_metadef_namespace", _NAMESPACE),
        ("get_metadef_resource_type", f"{_NAMESPACE}/resource_types"),
        ("get_metadef_objects", f"{_NAMESPACE}/objects"),
        ("get_metadef_object", f"{_NAMESPACE}/objects/{{object_name}}"),
        ("get_metadef_properties", f"{_NAMESPACE}/properties"),
        ("get_metadef_property", f"{_NAMESPACE}/properties/{{property_name}}"),
        ("get_metadef_tags", f"{_NAMESPACE}/tags"),
        ("get_metadef_tag", f"{_NAMESPACE}/tags/{{tag_name}}"),
    ):
        found.append(_rule(name, _METADEF_SEEN, "Read metadata definitions.", f"GET {path}"))
    for name, where in (
        ("add_metadef_namespace", f"POST {_METADEFS}"),
        ("modify_metadef_namespace", f"PUT {_NAMESPACE}"),
        ("delete_metadef_namespace", f"DELETE {_NAMESPACE}"),
        ("add_metadef_resource_type_association", f"POST {_NAMESPACE}/resource_types"),
        ("remove_metadef_resource_type_association", f"DELETE {_NAMESPACE}/resource_types/{{name}}"),
        ("add_metadef_object", f"POST {_NAMESPACE}/objects"),
        ("modify_metadef_object", f"PUT {_NAMESPACE}/objects/{{object_name}}"),
        ("delete_metadef_object", f"DELETE {_NAMESPACE}/objects/{{object_name}}"),
        ("add_metadef_property", f"POST {_NAMESPACE}/properties"),
        ("modify_metadef_property", f"PUT {_NAMESPACE}/properties/{{property_name}}"),
        ("remove_metadef_property", f"DELETE {_NAMESPACE}/properties/{{property_name}}"),
        ("add_metadef_tag", f"POST {_NAMESPACE}/tags/{{tag_name}}"),
        ("add_metadef_tags", f"POST {_NAMESPACE}/tags"),
        ("modify_metadef_tag", f"PUT {_NAMESPACE}/tags/{{tag_name}}"),
        ("delete_metadef_tag", f"DELETE {_NAMESPACE}/tags/{{tag_name}}"),
        ("delete_metadef_tags", f"DELETE {_NAMESPACE}/tags"),
    ):
        found.append(_rule(name, _METADEF_ADMIN, "Write metadata definitions.", where))
    return found


RULES += _metadef_rules()


def list_rules() -> list[oslo_policy.RuleDefault]:
    """Everything that a policy file of this API may set: for oslopolicy-sample-generator."""
    return [*BASE_RULES, *RULES]

"""The queries of GET /servers and /servers/detail: filters, sorting, paging."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping

import orjson

from api.common.operations import Call
from api.compute import common
from api.compute.schemas.servers import SORT_COLUMNS
from api.compute.server_status import states_of
from core.errors import BadRequest, Forbidden
from db.server_list import Filter, StateFilter, pattern
from db.servers import Row

_FOR_ALL = frozenset(
    {"reservation_id", "name", "status", "image", "flavor", "ip", "changes-since", "all_tenants"}
)
_SINCE = (
    ("2.5", {"ip6"}),
    ("2.26", {"tags", "tags-any", "not-tags", "not-tags-any"}),
    ("2.66", {"changes-before"}),
    ("2.73", {"locked"}),
    (
        "2.83",
        {"availability_zone", "config_drive", "key_name", "created_at", "launched_at", "terminated_at"}
        | {"power_state", "task_state", "vm_state", "progress", "user_id"},
    ),
)
_ALIASES = {
    "tenant_id": "project_id",
    "image_ref": "image",
    "display_name": "name",
    "display_description": "description",
}
_EQUAL = {
    "user_id": "user_id",
    "image": "image_id",
    "host": "host",
    "flavor": "flavor_id",
    "uuid": "id",
    "reservation_id": "reservation_id",
    "node": "node",
    "locked_by": "locked_by",
    "root_device_name": "root_device_name",
    "auto_disk_config": "disk_config",
}
_MATCHED = {
    "name": "name",
    "hostname": "hostname",
    "description": "description",
    "key_name": "key_name",
    "availability_zone": "availability_zone",
    "access_ip_v4": "access_ip_v4",
    "access_ip_v6": "access_ip_v6",
}
_NUMBERS = {"launch_index": "launch_index", "progress": "progress", "power_state": "power_state"}
_TIMES = {"created_at": "created_at", "launched_at": "launched_at", "terminated_at": "terminated_at"}
_JOINED = frozenset({"block_device_mapping", "services", "info_cache", "pci_devices"})
_POWER_STATES = {"nostate": 0, "running": 1, "paused": 3, "shutdown": 4, "crashed": 6, "suspended": 7}


class Nothing(Exception):
    """The filters contradict: the list is empty without a look."""


def sort_of(call: Call) -> tuple[tuple[str, str], ...]:
    """((column, direction), …), ending in the id. :raises BadRequest:"""
    keys = call.query.get("sort_key", [])
    directions = [text.lower() for text in call.query.get("sort_dir", [])]
    for direction in directions:
        if direction not in ("asc", "desc"):
            raise BadRequest(f"Unknown sort direction {direction!r}: asc or desc is expected.")
    if keys and len(directions) > len(keys):
        raise BadRequest("Sort direction size exceeds sort key size")
    # a key without a direction goes as the first one does, or descending
    rest = directions[0] if directions else "desc"
    sort: list[tuple[str, str]] = []
    for index, key in enumerate(keys or ["created_at"]):
        direction = directions[index] if index < len(directions) else rest
        column = "locked_by" if key == "locked" and call.since("2.73") else SORT_COLUMNS.get(key, "")
        if column and column not in [name for name, _ in sort]:
            sort.append((column, direction))
    if "id" not in [name for name, _ in sort]:
        sort.append(("id", sort[-1][1] if sort else "desc"))
    return tuple(sort)


def options_of(call: Call) -> dict[str, str]:
    """The filters that the asker may use, by their names without aliases; the others are left out."""
    allowed: set[str] | None = None
    if not call.allowed("os_compute_api:servers:allow_all_filters"):
        allowed = set(_FOR_ALL)
        for since, names in _SINCE:
            if call.since(since):
                allowed |= names
    found: dict[str, str] = {}
    for key, values in call.query.items():
        if key in ("limit", "marker", "sort_key", "sort_dir"):
            continue
        if (allowed is not None and key not in allowed) or key in _unknown_at(call):
            continue
        # the CLI sends "None" for what was not given
        value = values[-1]
        if key == "status":
            value = ",".join(text for text in values if text and text != "None")
        if key == "all_tenants" and not value:
            value = "true"  # ?all_tenants
        if value in ("", "None"):
            continue
        found[_ALIASES.get(key, key)] = value
    return found


def _unknown_at(call: Call) -> set[str]:
    """Filters that exist only at later microversions."""
    return {name for since, names in _SINCE[1:4] if not call.since(since) for name in names}


def filter_of(call: Call, *, policy: str) -> Filter:
    """What the list is narrowed to.

    :raises Nothing: no server can match. :raises BadRequest, Forbidden:
    """
    options = options_of(call)
    wanted = Filter()
    _projects(call, options, wanted, policy)
    _deleted(call, options, wanted)
    for name, column in _EQUAL.items():
        if name in options:
            wanted.equal[column] = options[name]
    for name, column in _MATCHED.items():
        if name in options:
            wanted.matches[column] = pattern(options[name], name)
    _typed(options, wanted)
    _tags(options, wanted)
    _addresses(options, wanted)
    if any(name in options for name in _JOINED) or any(name.startswith("_") for name in options):
        raise BadRequest("Invalid filter: this can't be filtered by.")
    if "kernel_id" in options or "ramdisk_id" in options:
        # images here have no separate kernel
        raise Nothing()
    return wanted


def _projects(call: Call, options: dict[str, str], wanted: Filter, policy: str) -> None:
    everywhere = "all_tenants" in options and _truth(options["all_tenants"], "all_tenants")
    if "project_id" in options and "all_tenants" not in options and "tenant_id" in call.query:
        # by the old name it means: that project's, so over all projects
        everywhere = True
    if everywhere:
        call.authorize(policy=policy)
        wanted.project_id = options.get("project_id")
    elif call.context.project_id:
        wanted.project_id = str(call.context.project_id)
    else:
        wanted.equal["user_id"] = str(call.context.user_id)


def _truth(text: str, name: str) -> bool:
    try:
        return common.strict_truth(text)
    except BadRequest:
        raise BadRequest(f"Invalid value for {name}: {text!r}. true or false is expected.") from None


def _deleted(call: Call, options: dict[str, str], wanted: Filter) -> None:
    """status, vm_state, deleted and changes-since say together which states are meant."""
    wanted.deleted = False
    if "changes-since" in options:
        wanted.deleted = None
        wanted.changed_since = moment(options["changes-since"], "changes-since")
    if "changes-before" in options:
        wanted.changed_before = moment(options["changes-before"], "changes-before")
        if wanted.changed_since is not None and wanted.changed_since > wanted.changed_before:
            raise BadRequest("The value of changes-since must be less than or equal to changes-before.")
        if wanted.changed_before.microsecond == 0:
            # servers show whole seconds: who hands one back means all of it
            wanted.changed_before = wanted.changed_before.replace(microsecond=999_999)
    if "deleted" in options:
        # like upstream: what is no boolean means no
        wanted.deleted = common.truth(options["deleted"])
    if "status" in options:
        statuses = options["status"].lower().split(",")
        states = states_of(statuses)
        if not states:
            raise Nothing()
        if any(state.vm_state == "deleted" for state in states):
            if not common.is_admin(call):
                raise Forbidden("Only administrators may list deleted instances")
            wanted.deleted = True if len(states) == 1 else None
        wanted.states = states
    elif "vm_state" in options:
        wanted.states = [StateFilter(options["vm_state"].lower())]
    if "task_state" in options:
        wanted.equal["task_state"] = options["task_state"]
    if "soft_deleted" in options and common.truth(options["soft_deleted"]):
        wanted.states = [StateFilter("soft-delete")]


def _typed(options: Mapping[str, str], wanted: Filter) -> None:
    for name, column in _NUMBERS.items():
        if name in options:
            text = options[name]
            if name == "power_state" and text.lower() in _POWER_STATES:
                wanted.equal[column] = _POWER_STATES[text.lower()]
            elif re.fullmatch(r"[0-9]{1,9}", text):
                wanted.equal[column] = int(text)
            else:
                raise Nothing()
    for name, column in _TIMES.items():
        if name in options:
            wanted.equal[column] = moment(options[name], name)
    if "config_drive" in options:
        wanted.equal["config_drive"] = common.truth(options["config_drive"])
    if "locked" in options:
        wanted.locked = _truth(options["locked"], "locked")
    if "metadata" in options:
        wanted.metadata = _metadata(options["metadata"])
    for name in ("system_metadata", "security_groups"):
        if name in options:
            raise BadRequest(f"Invalid filter: {name} can't be filtered by.")


def _metadata(text: str) -> dict[str, str]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = None
    pairs = value if isinstance(value, list) else [value]
    if not all(isinstance(pair, dict) for pair in pairs):
        raise BadRequest("Invalid filter metadata: a JSON object is expected.")
    return {str(key): str(item) for pair in pairs for key, item in pair.items()}


def _tags(options: Mapping[str, str], wanted: Filter) -> None:
    def split(name: str) -> tuple[str, ...]:
        return tuple(tag for tag in options.get(name, "").split(",") if tag)

    wanted.tags, wanted.tags_any = split("tags"), split("tags-any")
    wanted.not_tags, wanted.not_tags_any = split("not-tags"), split("not-tags-any")


def _addresses(options: Mapping[str, str], wanted: Filter) -> None:
    """ip and ip6 are regular expressions over a server's addresses, as upstream has it."""
    expressions = [
        (version, re.compile(pattern(options[name], name)))
        for name, version in (("ip", 4), ("ip6", 6))
        if name in options
    ]
    if not expressions:
        return

    def test(row: Row) -> bool:
        addresses = [each for entry in row["network_info"] for each in entry.get("addresses", ())]
        return all(
            any(each["version"] == version and expression.match(each["address"]) for each in addresses)
            for version, expression in expressions
        )

    wanted.has_address = True
    wanted.row_test = test


def moment(text: str, name: str) -> datetime.datetime:
    """An ISO 8601 time as the database has it. :raises BadRequest:"""
    try:
        found = datetime.datetime.fromisoformat(text.strip().replace(" ", "+") if "T" in text else text)
        if found.tzinfo is not None:
            found = found.astimezone(datetime.UTC).replace(tzinfo=None)
    except (ValueError, OverflowError) as error:
        raise BadRequest(
            f"Invalid input for query parameters {name}. Value: {text}. An ISO 8601 time is expected."
        ) from error
    return found

"""Fills the embedded Keystone's database: migrations, bootstrap, and the plan.

Runs in a forked copy of the embedded Keystone's process (``cli.keystone_wsgi``)
before it serves, with Keystone's own code: its migrations, its bootstrap, and
for the rest the manager calls that bootstrap makes, too.  Through the REST API
the same takes three seconds longer, half of a cloud's cold start.  Everything
is made only when missing, so it may run again, also after a crash in between.
"""

from __future__ import annotations

import uuid
from typing import Any

import keystone.conf
from keystone import exception
from keystone.cmd import bootstrap
from keystone.common import driver_hints, provider_api
from keystone.common.sql import upgrades

MANAGERS = provider_api.ProviderAPIs
DOMAIN = "default"
# Every password made here is random with more than 128 bits, which no number of
# rounds makes safer; users made later get the configured rounds.
ROUNDS_FOR_RANDOM_PASSWORDS = 4


def fill(plan: dict[str, Any]) -> None:
    """Bring the database to ``plan`` (``cli.plan.Plan`` as a dictionary)."""
    upgrades.offline_sync_database_to_version()
    keystone.conf.CONF.set_override("password_hash_rounds", ROUNDS_FOR_RANDOM_PASSWORDS, group="identity")
    work = bootstrap.Bootstrapper()
    work.admin_username = work.project_name = work.admin_role_name = "admin"
    work.admin_password = plan["admin_password"]
    work.service_name = "keystone"
    work.region_id = plan["region"]
    work.public_url = work.internal_url = work.admin_url = plan["url"]
    work.immutable_roles = True
    work.bootstrap()
    projects = {name: _project(name) for name in plan["projects"]}
    roles = {row["name"]: row["id"] for row in MANAGERS.role_api.list_roles(driver_hints.Hints())}
    for user in plan["users"]:
        _user(user, projects, roles)
    _catalog(plan["endpoints"], plan["region"])


def _project(name: str) -> str:
    project_id = uuid.uuid4().hex
    body = {"id": project_id, "name": name, "domain_id": DOMAIN, "enabled": True, "description": ""}
    try:
        MANAGERS.resource_api.create_project(project_id, body)
    except exception.Conflict:
        return str(MANAGERS.resource_api.get_project_by_name(name, DOMAIN)["id"])
    return project_id


def _user(user: dict[str, Any], projects: dict[str, str], roles: dict[str, str]) -> None:
    body = {"name": user["name"], "password": user["password"], "domain_id": DOMAIN, "enabled": True}
    try:
        user_id = MANAGERS.identity_api.create_user({**body, "description": user["description"]})["id"]
    except exception.Conflict:
        user_id = MANAGERS.identity_api.get_user_by_name(user["name"], DOMAIN)["id"]
    for project, names in user["roles"].items():
        for name in names:
            try:
                MANAGERS.assignment_api.add_role_to_user_and_project(
                    user_id=user_id, project_id=projects[project], role_id=roles[name]
                )
            except exception.Conflict:
                continue  # has it already


def _catalog(wanted: list[dict[str, Any]], region: str) -> None:
    catalog = MANAGERS.catalog_api
    services = {(row["type"], row["name"]): row["id"] for row in catalog.list_services(driver_hints.Hints())}
    present = {
        (row["service_id"], row["interface"]): row for row in catalog.list_endpoints(driver_hints.Hints())
    }
    for endpoint in wanted:
        service_id = services.get((endpoint["type"], endpoint["name"]))
        if service_id is None:
            service_id = uuid.uuid4().hex
            fields = {name: endpoint[name] for name in ("name", "type", "description")}
            catalog.create_service(service_id, {"id": service_id, "enabled": True, **fields})
        for interface in ("public", "internal", "admin"):
            row = present.get((service_id, interface))
            if row is None:
                row = {"id": uuid.uuid4().hex, "interface": interface, "service_id": service_id}
                row |= {"region_id": region, "enabled": True, "url": endpoint["url"]}
                catalog.create_endpoint(row["id"], row)
            elif row["url"] != endpoint["url"]:
                catalog.update_endpoint(row["id"], {**row, "url": endpoint["url"]})

"""Address groups: lists of addresses that security group rules name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from db import network_base as base
from db.network_base import TABLES
from db.network_errors import bad_request, conflict, not_found

groups = TABLES["address_groups"]
RBAC = "address_group"


def _expand(connection: sa.Connection, rows: Sequence[dict[str, Any]], viewer: base.Viewer) -> None:
    base.add_shared(connection, rows, viewer, RBAC)


MODEL = base.Model(
    name="address_group",
    noun="Address group",
    not_found_type="AddressGroupNotFound",
    table=groups,
    columns=base.columns_of(groups),
    filters={"shared": base.shared_filter(RBAC, groups.c.id)},
    expand=_expand,
    rbac_type=RBAC,
    tagged=False,
)


def change_addresses(
    connection: sa.Connection, group: Mapping[str, Any], asked: Sequence[str], *, add: bool
) -> None:
    """Add or remove; the caller holds the group's row.

    :raises BadRequest: what shall be added is there. :raises NotFound: what shall go is not.
    """
    present = set(group["addresses"])
    if add:
        if both := present.intersection(asked):
            raise bad_request(
                "AddressesAlreadyExist",
                f"Addresses {sorted(both)} already exist in the address group {group['id']}.",
            )
        new = present.union(asked)
    else:
        if absent := set(asked) - present:
            raise not_found("AddressesNotFound", "Addresses", ", ".join(sorted(absent)))
        new = present.difference(asked)
    base.change(connection, groups, group["id"], {"addresses": sorted(new)})


def delete(connection: sa.Connection, group_id: str) -> None:
    """:raises Conflict: a rule names it."""
    try:
        base.delete(connection, groups, group_id)
    except db_exc.DBReferenceError as error:
        raise conflict(
            "AddressGroupInUse",
            f"Address group {group_id} is in use on one or more security group rules.",
        ) from error

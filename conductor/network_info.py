"""Writing down what agents learn of servers' ports: addresses, names, whether they are plugged.

Which NICs a server has is changed by its intents alone, at their end; here only what is
known of those is brought up to date, and a NIC goes whose port is gone for good.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from db.cell_schema import servers
from db.sessions import Database, retrying

Nic = dict[str, Any]
_OURS = ("tag", "preserve_on_delete")
"""what the Network API does not know of a NIC"""


@retrying
def write(
    cell: Database, host: str, known: Mapping[str, Sequence[Nic]], gone: Collection[str]
) -> dict[str, Any]:
    """Merge ``known`` ({server: its ports' NICs, as the Network API has them now}) into the rows.

    ``gone``: ports that do not exist any more.  Returns {"missing": ports that a server has by
    its row and not in ``known``, "removed": [[server, MAC] of NICs that went]}.
    """
    missing: list[str] = []
    removed: list[list[str]] = []
    statement = sa.select(servers.c.id, servers.c.network_info, servers.c.generation).where(
        servers.c.id.in_(list(known)), servers.c.host == host, servers.c.deleted == 0
    )
    with cell.write() as connection:
        for row in connection.execute(statement).mappings().all():
            nics, absent = _merged(row["network_info"], known[row["id"]], gone)
            missing += absent
            if nics == row["network_info"]:
                continue
            # generation: whoever changes the server meanwhile goes first, and this is heard again
            written = connection.execute(
                sa.update(servers)
                .where(servers.c.id == row["id"], servers.c.generation == row["generation"])
                .values(network_info=nics, generation=row["generation"] + 1)
            ).rowcount
            if written:
                left = {nic["port_id"] for nic in nics}
                removed += [
                    [row["id"], nic["mac_address"]]
                    for nic in row["network_info"]
                    if nic["port_id"] not in left
                ]
    return {"missing": missing, "removed": removed}


def _merged(old: Sequence[Nic], known: Sequence[Nic], gone: Collection[str]) -> tuple[list[Nic], list[str]]:
    """(the NICs as they are now, ports of them that nothing is known of)"""
    new = {nic["port_id"]: nic for nic in known}
    nics, missing = [], []
    for nic in old:
        port_id = nic["port_id"]
        if port_id in new:
            nics.append({**new[port_id], **{key: nic.get(key) for key in _OURS}})
        elif port_id not in gone:
            nics.append(nic)
            missing.append(port_id)
    return nics, missing

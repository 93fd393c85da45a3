"""How much image data is allowed, and how it is checked.

Limits of a project: the row in ``quotas`` (service "image"), else the option.
Names and units are upstream's: sizes in MiB, counts; -1 is no limit.
"""

from __future__ import annotations

import re

import sqlalchemy as sa
from oslo_config import cfg

from core.errors import TooLarge, Unavailable
from db import images
from db.global_schema import quotas
from db.quotas import lock

GROUP = "image"
MIB = 1 << 20
RESOURCES = ("image_size_total", "image_stage_total", "image_count_total", "image_count_uploading")
OPTS: list[cfg.Opt] = [
    cfg.IntOpt("image_size_cap", default=1 << 40, min=1, help="Most bytes of one image."),
    cfg.StrOpt(
        "user_storage_quota",
        default="0",
        help="Most bytes of all images of a project: a number with B, KB, MB, GB or TB; 0 for no limit.",
    ),
    *(
        cfg.IntOpt(name, default=-1, min=-1, help=f"Default limit of a project; -1 for no limit ({unit}).")
        for name, unit in zip(RESOURCES, ("MiB", "MiB", "images", "images"), strict=True)
    ),
    cfg.IntOpt("image_property_quota", default=128, min=-1, help="Most properties of an image."),
    cfg.IntOpt("image_tag_quota", default=128, min=-1, help="Most tags of an image."),
    cfg.IntOpt("image_member_quota", default=128, min=-1, help="Most members of an image."),
]
_UNITS = {"": 1, "B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]


class Limits:
    """The limits of one deployment."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        conf.register_opts(OPTS, group=GROUP)
        self.options = conf[GROUP]
        match = re.fullmatch(r"\s*(\d+)\s*([KMGT]?B)?\s*", self.options.user_storage_quota, re.IGNORECASE)
        if match is None:
            raise Unavailable("[image]user_storage_quota is not a number of bytes such as 100GB")
        self._storage = int(match[1]) * _UNITS[(match[2] or "").upper()]

    def of(self, connection: sa.Connection, project_id: str) -> dict[str, int]:
        """A project's limits by resource."""
        rows = connection.execute(
            sa.select(quotas.c.resource, quotas.c.hard_limit).where(
                quotas.c.service == "image", quotas.c.project_id == project_id, quotas.c.user_id == ""
            )
        )
        return {name: int(self.options[name]) for name in RESOURCES} | dict(rows.tuples().all())

    def usage(self, connection: sa.Connection, project_id: str) -> dict[str, dict[str, int]]:
        """{resource: {"usage", "limit"}}"""
        limits, used = self.of(connection, project_id), images.usage(connection, project_id)
        amounts = (used["bytes"] // MIB, used["staged"] // MIB, used["images"], used["uploading"])
        return {
            name: {"usage": amount, "limit": limits[name]}
            for name, amount in zip(RESOURCES, amounts, strict=True)
        }

    def check_count(self, connection: sa.Connection, project_id: str) -> None:
        """Call it first in the transaction that creates an image. :raises TooLarge: one too many."""
        limit = self.of(connection, project_id)["image_count_total"]
        if limit < 0:
            return
        lock(connection, project_id)
        if (used := images.usage(connection, project_id)["images"]) + 1 > limit:
            raise TooLarge(
                f"Project {project_id} is over a limit for image_count_total: {used} of {limit} are used."
            )

    def check_uploading(self, connection: sa.Connection, project_id: str | None) -> None:
        """Call it in the transaction that has begun an upload. :raises TooLarge: one too many."""
        if project_id is None:
            return
        limit = self.of(connection, project_id)["image_count_uploading"]
        if limit < 0:
            return
        lock(connection, project_id)
        if images.usage(connection, project_id)["uploading"] > limit:
            raise TooLarge(f"Project {project_id} is over a limit for image_count_uploading: {limit}.")

    def room(self, connection: sa.Connection, project_id: str | None) -> int:
        """Bytes that one more image of the project may have."""
        bounds = [int(self.options.image_size_cap)]
        if project_id is not None:
            total = self.of(connection, project_id)["image_size_total"]
            if total >= 0 or self._storage:
                used = images.usage(connection, project_id)["bytes"]
                bounds += [total * MIB - used] if total >= 0 else []
                bounds += [self._storage - used] if self._storage else []
        return max(0, min(bounds))

    def stage_room(self, connection: sa.Connection, project_id: str | None) -> int:
        """Bytes that the project may stage now."""
        bounds = [int(self.options.image_size_cap)]
        if project_id is not None:
            total = self.of(connection, project_id)["image_stage_total"]
            if total >= 0:
                bounds.append(total * MIB - images.usage(connection, project_id)["staged"])
        return max(0, min(bounds))

    def check_size(self, connection: sa.Connection, project_id: str | None, size: int) -> None:
        """Call it in the transaction that makes an image active: other uploads may have
        ended since this one began. :raises TooLarge:
        """
        if project_id is not None:
            lock(connection, project_id)
        if size > self.room(connection, project_id):
            raise TooLarge("Image exceeds the storage quota.")

"""What the cloud needs in its embedded Keystone: projects, service users, catalog.

``haneul up`` writes it to identity/plan.json, the child of ``cli.identity``
reads it.  Plain data, so that commands need not import what serves.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from core.errors import Unavailable


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """One service of the catalog."""

    name: str
    type: str
    url: str
    description: str = ""


@dataclasses.dataclass(frozen=True)
class User:
    """A user that must exist, with roles per project; an existing one keeps its password."""

    name: str
    password: str
    roles: Mapping[str, Sequence[str]]
    """project name → role names"""
    description: str = ""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What must exist in the embedded Keystone. Holds passwords: kept 0600, never logged."""

    url: str
    region: str
    admin_password: str
    projects: tuple[str, ...]
    users: tuple[User, ...]
    endpoints: tuple[Endpoint, ...]

    def to_json(self) -> str:
        """One line."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_file(cls, path: Path) -> Plan:
        """:raises Unavailable: there is no plan, or it can't be read."""
        try:
            content = json.loads(path.read_text())
            content["users"] = tuple(User(**user) for user in content["users"])
            content["endpoints"] = tuple(Endpoint(**endpoint) for endpoint in content["endpoints"])
            return cls(**{**content, "projects": tuple(content["projects"])})
        except (OSError, ValueError, KeyError, TypeError) as failure:
            raise Unavailable(f"identity has no usable plan in {path}: haneul up writes one") from failure

"""Roles: what a process can be started as.

A role is made by a factory ``(conf) -> Role``; ``cli.serve`` maps names to
factories and runs them under oslo.service's launcher.
"""

from __future__ import annotations

import abc
from typing import Any

from oslo_service import service as oslo_service


class Role(abc.ABC):
    """One role of a process: start returns once it works, stop ends what it started."""

    name: str

    @abc.abstractmethod
    def start(self) -> None:
        """Start threads, servers, listeners. Raises HaneulError with one line saying what is missing."""

    @abc.abstractmethod
    def stop(self) -> None:
        """Stop taking work, let running steps reach a harmless point, close."""


class RoleService(oslo_service.ServiceBase):
    """Runs roles as one oslo.service service; they stop in reverse order."""

    def __init__(self, roles: list[Role]) -> None:
        self.roles = roles

    def start(self) -> None:
        for role in self.roles:
            role.start()

    def stop(self, graceful: bool = False) -> None:
        for role in reversed(self.roles):
            role.stop()

    def wait(self) -> None:
        """Roles are stopped when stop() returns."""

    def reset(self) -> Any:
        """SIGHUP: options that can change at run time are read where they are used."""

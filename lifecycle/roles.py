"""Roles: what a process can be started as.

A role is made by a factory ``(conf) -> Role``; ``cli.serve`` maps names to
factories and runs them under oslo.service's launcher.
"""

from __future__ import annotations

import abc


class Role(abc.ABC):
    """One role of a process: start returns once it works, stop ends what it started."""

    name: str

    @abc.abstractmethod
    def start(self) -> None:
        """Start threads, servers, listeners. Raises HaneulError with one line saying what is missing."""

    @abc.abstractmethod
    def stop(self) -> None:
        """Stop taking work, let running steps reach a harmless point, close."""

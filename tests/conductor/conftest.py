"""The plane of agents and conductors in one process."""

from tests.network.plane import plane

__all__ = ["plane"]

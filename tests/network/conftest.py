"""The plane of agents in one process; guests and libvirtd for tests with real guests."""

from tests.lab.guests import libvirtd, tiny
from tests.network.plane import plane

__all__ = ["libvirtd", "plane", "tiny"]

"""Guests and libvirtd for tests of the network with real guests."""

from tests.lab.guests import libvirtd, tiny

__all__ = ["libvirtd", "tiny"]

"""The ``lvm`` backend: logical volumes, and the targets that export them."""

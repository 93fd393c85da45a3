"""The compute agent on a hypervisor host. Imports neither db nor conductor."""

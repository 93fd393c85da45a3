"""The plugin for the ``openstack`` command: what haneul has and upstream has not."""

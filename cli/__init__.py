"""The haneul command and the plugin for the openstack command."""

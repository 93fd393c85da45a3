"""How a process of a test speaks to the Network API; imports nothing that a host would not have."""

from __future__ import annotations

from keystoneauth1 import loading
from oslo_config import cfg

from core.clients import CREDENTIALS_GROUP

TOKEN = "cloud@services"


def credentials(conf: cfg.ConfigOpts, url: str, image_url: str | None = None) -> None:
    """Let this process call the Network API at ``url`` as haneul's own user, and the Image API if there is one."""
    loading.register_auth_conf_options(conf, CREDENTIALS_GROUP)
    conf.register_opts(loading.get_auth_plugin_conf_options("admin_token"), group=CREDENTIALS_GROUP)
    for name, value in (("auth_type", "admin_token"), ("endpoint", url), ("token", TOKEN)):
        conf.set_override(name, value, group=CREDENTIALS_GROUP)
    if image_url is not None:
        loading.register_adapter_conf_options(conf, "image")
        conf.set_override("endpoint_override", image_url, group="image")


def volume_endpoint(conf: cfg.ConfigOpts, url: str) -> None:
    """Let this process call the Volume API at ``url``, as the same user."""
    loading.register_adapter_conf_options(conf, "block-storage")
    conf.set_override("endpoint_override", url, group="block-storage")

"""Sessions for calling other services at their public doors.

One keystoneauth session per process with the service user of
``[service_credentials]``; one adapter per service type, whose endpoint comes
from the catalog or from ``[SERVICE]endpoint_override`` (a real Glance, Neutron
or Cinder may stand there).
"""

from __future__ import annotations

import threading
from typing import Any

from keystoneauth1 import loading
from keystoneauth1.adapter import Adapter
from oslo_config import cfg

CREDENTIALS_GROUP = "service_credentials"
_lock = threading.Lock()


def _register(conf: cfg.ConfigOpts, service: str) -> None:
    loading.register_auth_conf_options(conf, CREDENTIALS_GROUP)
    loading.register_session_conf_options(conf, CREDENTIALS_GROUP)
    loading.register_adapter_conf_options(conf, service)
    conf.set_default("service_type", service, group=service)
    conf.set_default("valid_interfaces", ["internal", "public"], group=service)


def service_adapter(conf: cfg.ConfigOpts, service: str, **options: Any) -> Adapter:
    """An adapter for ``service`` ("image", "network", "block-storage") as haneul's own user.

    It authenticates with the first call; tokens are renewed by keystoneauth.
    """
    with _lock:
        _register(conf, service)
        auth = loading.load_auth_from_conf_options(conf, CREDENTIALS_GROUP)
        session = loading.load_session_from_conf_options(conf, CREDENTIALS_GROUP, auth=auth)
        adapter: Adapter = loading.load_adapter_from_conf_options(conf, service, session=session, **options)
    return adapter


def configured(conf: cfg.ConfigOpts) -> bool:
    """Are service credentials given at all?"""
    loading.register_auth_conf_options(conf, CREDENTIALS_GROUP)
    return bool(conf[CREDENTIALS_GROUP].auth_type)

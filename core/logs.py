"""Logs: one line per event with the request id; JSON on request (``use_json``)."""

from __future__ import annotations

from oslo_config import cfg
from oslo_log import log as oslo_logging

_QUIET = (
    "oslo_messaging=WARNING",
    "oslo.messaging=WARNING",
    "amqp=WARNING",
    "kombu=WARNING",
    "keystonemiddleware=WARNING",
    "keystoneauth=WARNING",
    "urllib3=WARNING",
    "oslo_policy=WARNING",
    "stevedore=WARNING",
    "openstack=WARNING",
    "sqlalchemy=WARNING",
    "cheroot=WARNING",
    "cotyledon=WARNING",
    "alembic=WARNING",
)


def setup(conf: cfg.ConfigOpts, program: str) -> None:
    """Send the process's logs where the configuration says."""
    oslo_logging.set_defaults(
        logging_context_format_string=(
            "%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s [%(request_id)s"
            " %(user_identity)s] %(instance)s%(message)s"
        ),
        default_log_levels=list(_QUIET),
    )
    oslo_logging.setup(conf, "haneul", version=program)

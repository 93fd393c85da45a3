"""Logs: one line per event with the request id; JSON on request (``use_json``)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from oslo_config import cfg
from oslo_context import context as oslo_context
from oslo_log import formatters
from oslo_log import log as oslo_logging

from core.context import RequestContext

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


class OneLineFormatter(formatters.ContextFormatter):
    """A message with line breaks in it stays one line, so nothing that clients send can forge a line."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        text: str = super().formatMessage(record)
        return text.replace("\r", "\\r").replace("\n", "\\n")


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
    for handler in logging.getLogger().handlers:
        if type(handler.formatter) is formatters.ContextFormatter:
            handler.setFormatter(OneLineFormatter(project="haneul", version=program, config=conf))


@contextlib.contextmanager
def on_behalf_of(asker: Mapping[str, Any]) -> Iterator[None]:
    """What this thread logs meanwhile carries the request that caused it.

    ``asker``: request_id, project_id and user_id, as an intent keeps them.
    """
    previous = oslo_context.get_current()
    known = {name: asker[name] for name in ("request_id", "project_id", "user_id") if asker.get(name)}
    RequestContext(overwrite=True, **known)
    try:
        yield
    finally:
        if previous is not None:
            previous.update_store()


def set_levels(levels: Mapping[str, str]) -> None:
    """Set log levels by the loggers' names ("" is all of them)."""
    for name, level in levels.items():
        logging.getLogger(name or None).setLevel(level)

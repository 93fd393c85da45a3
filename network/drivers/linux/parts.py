"""What the parts of the data plane share: one thing's failure is a line, and the others go on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from oslo_log import log as logging

from core.errors import HaneulError
from network.drivers.base import Applied

LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def attempt(applied: Applied, what: str) -> Iterator[None]:
    """What fails inside is in ``applied.errors``."""
    try:
        yield
    except HaneulError as error:
        LOG.warning("%s: %s (%r)", what, error.message, error.cause)
        applied.errors.append(f"{what}: {error.message}")
    except Exception as error:
        LOG.exception("%s", what)
        applied.errors.append(f"{what}: {type(error).__name__}: {error}")

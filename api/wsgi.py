"""One API for a WSGI server of yours: uWSGI, gunicorn, mod_wsgi.

    HANEUL_API=compute HANEUL_CONFIG_FILE=/etc/haneul/haneul.conf gunicorn --threads 16 api.wsgi

The application is made with the first request, not when this is imported: servers that
import before they fork must not hand threads and database connections down.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterable
from typing import Any

from api.common.auth import WsgiApp
from core import config, logs
from core.errors import BadRequest

APIS = ("compute", "image", "network", "volume", "metadata", "key_manager")
_lock = threading.Lock()
_made: list[WsgiApp] = []


def make() -> WsgiApp:
    """The application that the environment names.

    :raises BadRequest: it names none, or the configuration can't be read.
    """
    name, files = os.environ.get("HANEUL_API", ""), os.environ.get("HANEUL_CONFIG_FILE", "")
    if name not in APIS:
        raise BadRequest(f"HANEUL_API is {name!r}: one of {', '.join(APIS)} is wanted")
    if not files:
        raise BadRequest("HANEUL_CONFIG_FILE names no configuration (several: separated by colons)")
    conf = config.load(files.split(":"))
    logs.setup(conf, "haneul")
    application: WsgiApp = importlib.import_module(f"api.{name}.app").make_app(conf)
    return application


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """What WSGI servers call."""
    if not _made:
        with _lock:
            if not _made:
                _made.append(make())
    return _made[0](environ, start_response)

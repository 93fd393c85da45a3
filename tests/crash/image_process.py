"""One life of an image worker that kills itself where it is told to.

    python -m tests.crash.image_process FOLDER DATABASE-URL PORT WHERE

It takes what waits, and dies by SIGKILL with the first import that comes to WHERE: ``data`` (some of it is
read), ``stored`` (the object is there, its row does not say so), ``told`` (the row says so, the intent waits).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from oslo_config.cfg import ConfigOpts

from core import config
from image import stores
from image.imports import Importer
from image.service import make_role
from tests.api.client import configured


def configure(conf: ConfigOpts, folder: str) -> ConfigOpts:
    """As the test and the victim share it."""
    conf.register_opts(stores.OPTS, group=stores.GROUP)
    config.override(conf, "state_path", folder)
    config.override(conf, "image.stores", {"one": "file", "two": "file", "web": "http"})
    return conf


def configure_web(conf: ConfigOpts, port: int) -> None:
    """Once the options are there."""
    for name, value in {"allowed_ports": [str(port)], "allowed_networks": ["127.0.0.0/8"]}.items():
        config.override(conf, f"import_filtering.{name}", value)
        config.override(conf, f"image_store_web.{name}", value)
    config.override(conf, "image_store_web.allowed_hosts", ["127.0.0.1"])
    config.override(conf, "image_import_opts.image_import_plugins", ["image_conversion"])


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(where: str) -> None:
    finish = Importer._finish

    def stored(self: Importer, *arguments: Any) -> None:
        if where == "told":
            finish(self, *arguments)
        die()

    if where == "data":
        Importer._keeper = lambda *_: lambda _size: die()  # type: ignore[method-assign]
    else:
        Importer._finish = stored  # type: ignore[method-assign]


def main() -> None:
    folder, url, port, where = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    conf = configure(configured(url), folder)
    role = make_role(conf)
    configure_web(conf, port)
    arm(where)
    role.take()
    time.sleep(60)


if __name__ == "__main__":
    main()

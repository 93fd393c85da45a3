"""The Image API on a free port in a process of its own, with the stand-in for Keystone.

``python -m tests.api.image.serve FOLDER [OPTION=VALUE …]`` prints the port and runs until it is killed.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from api.common.server import ApiRole
from api.image.app import make_app
from api.image.services import GROUP
from core import config
from tests.api.identity import authenticate
from tests.api.image.conftest import make_services


def main(folder: Path, options: list[str]) -> None:
    services = make_services(folder, f"sqlite:///{folder}/global.sqlite")
    for option in options:
        name, _, value = option.partition("=")
        config.override(services.conf, name, int(value))
    config.override(services.conf, f"{GROUP}.port", 0)
    role = ApiRole("image-api", services.conf, GROUP, lambda conf: make_app(conf, services, authenticate))
    role.start()
    assert role._server is not None
    print(role._server.bind_addr[1], flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

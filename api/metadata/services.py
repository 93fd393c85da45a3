"""What the metadata service works with: databases, the secret that proxies sign with, vendor data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from oslo_config import cfg

from api.common.server import server_opts
from core import metadata as signing
from core.errors import BadRequest
from db.sessions import Databases

GROUP = "metadata_api"
OPTS = [
    *server_opts(8775),
    cfg.StrOpt(
        "vendor_data_file",
        help="A JSON file with an object that all guests are given as vendor_data.json. Read at the start.",
    ),
    cfg.StrOpt(
        "default_availability_zone",
        default="nova",
        help="Zone that servers without one are told they are in.",
    ),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]


class MetadataServices:
    """Made once per process and shared by all request threads.

    :raises BadRequest: the vendor data can't be used.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        conf.register_opts(OPTS, group=GROUP)
        conf.register_opts(signing.OPTS, group=signing.GROUP)
        self.conf = conf
        self.options = conf[GROUP]
        self.vendor_data = read_vendor_data(self.options.vendor_data_file)
        self.databases = Databases(conf)

    @property
    def secret(self) -> str:
        return str(self.conf[signing.GROUP].shared_secret)

    def close(self) -> None:
        """Give the database connections back."""
        self.databases.dispose()


def read_vendor_data(file: str | None) -> dict[str, Any]:
    """The operator's JSON object; {} without a file. :raises BadRequest: says what is wrong with it."""
    if not file:
        return {}
    try:
        data = json.loads(Path(file).read_text())
    except (OSError, ValueError) as error:
        raise BadRequest(f"[{GROUP}] vendor_data_file {file} can't be read: {error}", cause=error) from error
    if not isinstance(data, dict):
        raise BadRequest(f"[{GROUP}] vendor_data_file {file} must hold a JSON object")
    return data

"""How the ``openstack`` command finds our commands (osc-lib's plugin interface).

Commands are entry points of ``openstack.haneul.v1``.  They speak to the compute
API through the SDK connection that the ``openstack`` command has already.
"""

from __future__ import annotations

import argparse
from typing import Any

DEFAULT_API_VERSION = "1"
API_VERSION_OPTION = "os_haneul_api_version"
API_NAME = "haneul"
API_VERSIONS = ("1",)


def make_client(instance: Any) -> Any:
    """Our client is the compute proxy of the SDK connection."""
    return instance.sdk_connection.compute


def build_option_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """We add no global options."""
    return parser

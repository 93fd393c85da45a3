"""Configuration: one oslo.config object per process, passed to whoever needs it.

There is no global CONF.  ``load`` reads the files, and each module that has
options offers ``list_opts()``; its factory calls ``register`` once.  The sample
configuration in etc/ is made from the same lists (entry points
``oslo.config.opts``).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from oslo_config import cfg
from oslo_log import log as oslo_logging

from core.errors import BadRequest

OptionLists = Iterable[tuple[str | None, Sequence[cfg.Opt]]]

CORE_OPTS = [
    cfg.StrOpt(
        "state_path",
        default="/var/lib/haneul",
        help="Folder for what haneul itself keeps on this machine: files, sockets, locks.",
    ),
    cfg.HostAddressOpt(
        "my_ip", default="127.0.0.1", help="Address under which other parts reach this machine."
    ),
    cfg.StrOpt(
        "host",
        default=os.uname().nodename,
        sample_default="compute-1",
        help="Name of this host within its cell.",
    ),
    cfg.IntOpt(
        "service_down_time",
        default=60,
        min=1,
        help="Seconds without a sign of life after which a service counts as down.",
    ),
    cfg.StrOpt(
        "service_backend",
        default="threading",
        choices=[
            ("threading", "native threads"),
            ("eventlet", "green threads; patches the standard library"),
        ],
        help="What services run on. Read before anything else is imported (see core.backend).",
    ),
]


def list_opts() -> list[tuple[str | None, list[cfg.Opt]]]:
    return [("DEFAULT", CORE_OPTS)]


def register(conf: cfg.ConfigOpts, options: OptionLists) -> None:
    """Register option lists; registering the same list twice is harmless."""
    for group, opts in options:
        conf.register_opts(opts, group=None if group == "DEFAULT" else group)


def load(
    files: Sequence[str | Path] = (),
    overrides: Mapping[str, Any] | None = None,
    argv: Sequence[str] = (),
) -> cfg.ConfigOpts:
    """Read configuration files and return the object.

    ``overrides`` maps "group.name" or "name" to a value; options that are not
    registered yet are set when their module registers them, so ``override``
    may be called for any option after its registration, too.

    :raises BadRequest: a file can't be read or parsed; the message says where.
    """
    conf = cfg.ConfigOpts()
    oslo_logging.register_options(conf)
    register(conf, list_opts())
    try:
        conf(
            list(argv),
            project="haneul",
            default_config_files=[str(name) for name in files],
            default_config_dirs=[],
        )
    except (
        cfg.ConfigFileParseError,
        cfg.ConfigFilesNotFoundError,
        cfg.ConfigFilesPermissionDeniedError,
    ) as error:
        raise BadRequest(f"the configuration can't be read: {error}", cause=error) from error
    for name, value in (overrides or {}).items():
        override(conf, name, value)
    return conf


def override(conf: cfg.ConfigOpts, name: str, value: Any) -> None:
    """Set one option ("group.name" or "name") from code."""
    group, _, option = name.rpartition(".")
    with contextlib.suppress(cfg.DuplicateOptError):
        conf.set_override(option, value, group=group or None)

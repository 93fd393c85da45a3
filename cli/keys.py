"""Make or change the key file, with which the key manager encrypts secrets in the database.

To change the key: add, reseal, then forget. Services read the file again when it
changes; where several hosts serve the key manager, give all of them the new file before 'reseal'.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cli import arguments
from cli.state import StateFolder

EXAMPLES = """\
examples:
  haneul keys create     a key file with one key, unless there is one
  haneul keys add        a new key in front of the others: it encrypts from now on
  haneul keys reseal     encrypt all secrets anew with the first key
  haneul keys forget     remove all keys but the first, once 'reseal' is through
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["create", "add", "reseal", "forget"], help="see the examples")
    arguments.add_config_file(parser)


def run(options: argparse.Namespace) -> int:
    from api.key_manager import services
    from core import config, key_file
    from core.key_file import KeyFile
    from db import secrets, sessions
    from db.sessions import Databases

    conf = config.load(options.config_files or [StateFolder(options.state).config_file])
    for listed in (services.list_opts(), sessions.list_opts()):
        config.register(conf, listed)
    path = Path(conf[services.GROUP].key_file)
    if options.action == "create":
        print(f"{path}: {'made; back it up' if key_file.create(path) else 'there already, left as it is'}")
        return 0
    if options.action == "add":
        key_file.add(path)
        print(f"{path}: a new key encrypts from now on; back the file up, then: haneul keys reseal")
        return 0
    databases = Databases(conf)
    try:
        if options.action == "reseal":
            print(f"{secrets.reseal(databases.global_, KeyFile(path))} secrets encrypted anew")
            return 0
        KeyFile(path).check()
        secrets.refuse_old(databases.global_, KeyFile(path))
        print(f"{path}: {key_file.keep_first(path)} keys removed")
        return 0
    finally:
        databases.dispose()

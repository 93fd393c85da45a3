"""What the handlers of the key manager work with: database, policy, options, the key file."""

from __future__ import annotations

from pathlib import Path

from oslo_config import cfg

from api.common.server import server_opts
from api.common.services import ApiServices
from api.key_manager.policies import RULES
from core.key_file import KeyFile

GROUP = "key_manager_api"
OPTS: list[cfg.Opt] = [
    *server_opts(9311),
    cfg.StrOpt(
        "key_file",
        default="$state_path/keys/secrets.keys",
        help="What secrets in the database are encrypted with: a key per line, the first encrypts. Made by"
        " 'haneul keys create', mode 0600. Without it every secret is lost: back it up, apart from the database.",
    ),
    cfg.IntOpt("max_secret_bytes", default=20_000, min=1, help="Largest secret that is taken."),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]


class KeyManagerServices(ApiServices):
    """What all APIs have, and the key file. :raises Unavailable: that can't be used."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        super().__init__(conf, GROUP, OPTS, RULES)
        self.keys = KeyFile(Path(self.options.key_file))
        self.keys.check()

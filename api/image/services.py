"""What the handlers of the Image API work with: database, stores, policy, options."""

from __future__ import annotations

from keystonemiddleware import auth_token
from oslo_config import cfg

from api.common.server import server_opts
from api.image.policies import RULES
from core.policy import Policy
from db.sessions import Databases
from image.data import ImageData

GROUP = "image_api"
OPTS: list[cfg.Opt] = [
    *server_opts(9292),
    cfg.IntOpt("limit_param_default", default=25, min=1, help="Images on a page when no limit is asked for."),
    cfg.IntOpt("api_limit_max", default=1000, min=1, help="Most images that one page has."),
    cfg.ListOpt(
        "container_formats",
        default=["ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"],
        help="Container formats that images may have.",
    ),
    cfg.ListOpt(
        "disk_formats",
        default=["ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop"],
        help="Disk formats that images may have.",
    ),
    cfg.BoolOpt(
        "show_image_direct_url", default=False, help="Images show the URL of their data in the store."
    ),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]


class ImageServices:
    """Made once per process and shared by all request threads."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        conf.register_opts(OPTS, group=GROUP)
        for group, options in auth_token.list_opts():
            conf.register_opts(options, group=group)
        self.conf = conf
        self.options = conf[GROUP]
        self.databases = Databases(conf)
        self.data = ImageData(conf, self.databases)
        self.limits = self.data.limits
        self.policy = Policy(conf, RULES)
        self.auth_uri = conf.keystone_authtoken.www_authenticate_uri or ""

    def close(self) -> None:
        """Give the database connections back."""
        self.databases.dispose()

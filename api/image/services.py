"""What the handlers of the Image API work with: database, stores, policy, options."""

from __future__ import annotations

from collections.abc import Iterator

from oslo_config import cfg

from api.common.server import server_opts
from api.common.services import ApiServices
from api.image.policies import RULES
from core.errors import NotFound
from db import images
from db.image_filters import Asker
from db.images import Image
from image.cache import ImageCache, Prefetcher
from image.data import ImageData
from image.fetch import Fetcher
from image.import_plugins import Plugins

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
        default=["ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop", "gpt"],
        help="Disk formats that images may have.",
    ),
    cfg.BoolOpt(
        "show_image_direct_url", default=False, help="Images show the URL of their data in the store."
    ),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS)]


class ImageServices(ApiServices):
    """What all APIs have, and the images' data with its limits."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        super().__init__(conf, GROUP, OPTS, RULES)
        self.cache = ImageCache(conf)
        self.data = ImageData(conf, self.databases, self.cache)
        self.prefetcher = Prefetcher(conf, self.cache, self._fetch)
        self.prefetcher.start()
        self.limits = self.data.limits
        self.fetcher = Fetcher(conf)
        self.import_plugins = Plugins(conf)

    def close(self) -> None:
        self.prefetcher.stop()
        super().close()

    def _fetch(self, image_id: str) -> tuple[Image, Iterator[bytes]]:
        """:raises NotFound: there is no data of it (any more)."""
        with self.databases.global_.read() as connection:
            image = images.get(connection, image_id, Asker(None, is_admin=True))
        if image["status"] not in ("active", "deactivated"):
            raise NotFound(f"Image {image_id} has no data.")
        return image, self.data.from_store(image)

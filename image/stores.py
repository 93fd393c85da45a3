"""The configured stores, by id.

``[image] stores`` maps ids to kinds (``fast:file,cheap:file``); each store has a group
``[image_store_ID]`` with the options of its kind.  Kinds are the built-in ones and
those that an entry point in ``haneul.image.stores`` offers: a callable
``(store id, options, default folder) -> Store`` with a list ``OPTS``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import stevedore
from oslo_config import cfg

from core.errors import BadRequest, HaneulError, Unavailable
from image import fetch
from image.drivers import file, http, rbd, s3
from image.drivers.base import COMMON_OPTS, Store

LOG = logging.getLogger(__name__)
GROUP = "image"
OPTS: list[cfg.Opt] = [
    cfg.DictOpt("stores", default={"file": "file"}, help="Stores: id:kind, …. Kinds: file, rbd, s3, http."),
    cfg.StrOpt("default_store", help="Where data goes when nobody says where; default: the first store."),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [(GROUP, OPTS), ("image_store_file", [*file.OPTS, *rbd.OPTS, *s3.OPTS, *HttpKind.OPTS])]


class FileKind:
    """Makes file stores from their options."""

    OPTS: Sequence[cfg.Opt] = file.OPTS

    def __call__(self, store_id: str, options: Any, folder: Path) -> Store:
        return file.FileStore(
            store_id,
            Path(options.datadir) if options.datadir else folder,
            fsync=options.fsync,
            thin_provisioning=options.thin_provisioning,
        )


class HttpKind:
    """Makes read-only stores of web servers' data."""

    OPTS: Sequence[cfg.Opt] = [
        *COMMON_OPTS,
        *(each for each in fetch.OPTS if each.name not in {found.name for found in COMMON_OPTS}),
    ]

    def __call__(self, store_id: str, options: Any, folder: Path) -> Store:
        return http.HttpStore(store_id, options)


@dataclasses.dataclass(frozen=True)
class Configured:
    """A store and what the configuration says of it."""

    store: Store
    description: str
    weight: int


class Stores:
    """All stores of this deployment; made once per process."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        conf.register_opts(OPTS, group=GROUP)
        self._stores: dict[str, Configured] = {}
        root = Path(conf.state_path) / "images"
        for store_id, kind in conf.image.stores.items():
            make = _kind(kind)
            group = f"image_store_{store_id}"
            conf.register_opts(list(make.OPTS), group=group)
            options = conf[group]
            folder = root if len(conf.image.stores) == 1 else root / store_id
            self._stores[store_id] = Configured(
                make(store_id, options, folder), options.description, options.weight
            )
        if not self._stores:
            raise Unavailable("[image]stores is empty: images have nowhere to go")
        self.default = conf.image.default_store or next(iter(self._stores))
        if self.default not in self._stores:
            raise Unavailable(f"[image]default_store {self.default} is not among the stores")
        if self.get(self.default).read_only:
            raise Unavailable(f"[image]default_store {self.default} is read only")

    def __contains__(self, store_id: str) -> bool:
        return store_id in self._stores

    def ids(self) -> list[str]:
        return list(self._stores)

    def writable(self) -> list[str]:
        return [store_id for store_id in self._stores if not self.get(store_id).read_only]

    def of_url(self, url: str) -> Store:
        """The store that data at this URL can be registered in.

        Objects of our own stores can't: they are data of some image, perhaps somebody else's.
        :raises BadRequest: there is none, or it refuses the URL.
        """
        stores = [each.store for each in self._stores.values() if isinstance(each.store, http.HttpStore)]
        if not stores:
            raise BadRequest("No store takes locations: none is of the kind http.")
        for store in stores[:-1]:
            with contextlib.suppress(BadRequest):
                store.check(url)
                return store
        stores[-1].check(url)
        return stores[-1]

    def get(self, store_id: str) -> Store:
        """:raises BadRequest: there is no such store."""
        return self.configured(store_id).store

    def sweep(self) -> int:
        """Each store removes what could not go at once. Returns how many objects."""
        return sum(self._swept(store_id) for store_id in self._stores)

    def _swept(self, store_id: str) -> int:
        try:
            return self.get(store_id).sweep()
        except HaneulError as error:  # one store that is away must not keep the others from it
            LOG.warning("store %s can't be swept: %s", store_id, error)
            return 0

    def close(self) -> None:
        for each in self._stores.values():
            each.store.close()

    def configured(self, store_id: str) -> Configured:
        if store_id not in self._stores:
            raise BadRequest(f"Unknown store {store_id!r}: one of {', '.join(self._stores)} is expected.")
        return self._stores[store_id]


_KINDS: dict[str, Any] = {"file": FileKind(), "rbd": rbd.RbdKind(), "s3": s3.S3Kind(), "http": HttpKind()}


def _kind(kind: str) -> Any:
    if kind in _KINDS:
        return _KINDS[kind]
    try:
        return stevedore.DriverManager("haneul.image.stores", kind).driver
    except stevedore.exception.NoMatches as error:
        raise Unavailable(f"[image]stores names {kind}, and there is no such kind of store") from error

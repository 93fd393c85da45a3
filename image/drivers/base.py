"""What a store of image data must do: a few operations on whole objects.

An object is written once under a name that is never used again (it carries the id
of the upload), so a store needs no overwriting, no locking and no versions: the
database says which object is an image's data.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from oslo_config import cfg

from core.errors import HaneulError

COMMON_OPTS: list[cfg.Opt] = [
    cfg.StrOpt("description", default="", help="What GET /v2/info/stores says of the store."),
    cfg.IntOpt("weight", default=0, help="Stores of a higher weight are read from first."),
]
"""Options of every kind."""


class StoreFull(HaneulError):
    """There is no space for the object."""

    code = "haneul.image.store_full"
    http_status = 413


@dataclasses.dataclass(frozen=True)
class Space:
    """Bytes: ``total`` of the store, ``free`` for new objects."""

    total: int
    free: int


class Store(abc.ABC):
    """A place for image data. Methods may be called from several threads."""

    kind = ""
    """As /v2/info/stores/detail names it: file, rbd, …"""
    read_only = False
    """Only what is registered by its location is there."""

    def __init__(self, store_id: str) -> None:
        self.store_id = store_id

    @abc.abstractmethod
    def put(self, chunks: Iterable[bytes], name: str) -> int:
        """Write a new object; it is visible whole or not at all. Returns its size in bytes.

        When ``chunks`` raises, nothing stays behind, and the exception goes on.
        :raises StoreFull: no space. :raises Conflict: there is such an object.
        :raises DriverError: the store refused.
        """

    @abc.abstractmethod
    def get(self, name: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes from ``offset`` on, ``length`` or all that follow; opened at once.

        :raises NotFound: no such object.
        """

    @abc.abstractmethod
    def delete(self, name: str) -> None:
        """Remove an object and what a killed ``put`` left of it; harmless if there is none."""

    @abc.abstractmethod
    def exists(self, name: str) -> bool:
        """Is there a whole object of this name?"""

    @abc.abstractmethod
    def space(self) -> Space | None:
        """How much fits; None if the store can't say."""

    @abc.abstractmethod
    def url(self, name: str) -> str:
        """The location as the API shows it to those who may see it."""

    @abc.abstractmethod
    def properties(self) -> dict[str, Any]:
        """What /v2/info/stores/detail shows to administrators; no secrets."""

    def sweep(self) -> int:
        """Remove what could not go at once when it was deleted. Returns how many objects."""
        return 0

    def close(self) -> None:  # noqa: B027 - most stores have none
        """Let connections go."""

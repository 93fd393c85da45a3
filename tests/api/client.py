"""What the tests of every API speak with: webtest as a persona, and databases made on the spot."""

from __future__ import annotations

from typing import Any, ClassVar

import sqlalchemy as sa
import webtest
from oslo_config import cfg

from core import config
from db.sessions import OPTS, make_engine

MEMBER = "member@p1"
READER = "reader@p1"
OTHER = "member@p2"


class Client:
    """webtest with the persona as a keyword: ``client.get("/flavors", as_="admin@p1")``."""

    prefix: ClassVar[str]
    """What all paths are below."""

    def __init__(self, app: webtest.TestApp) -> None:
        self.app = app

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        as_: str = MEMBER,
        status: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> webtest.TestResponse:
        """``body``: bytes as they are, all else as JSON. ``status`` None: any success."""
        encode = "_json" if body is not None and not isinstance(body, bytes) else ""
        return getattr(self.app, f"{method.lower()}{encode}")(
            f"{self.prefix}{path}",
            headers={"X-Auth-Token": as_, **(headers or {})},
            status=status,
            **({} if body is None else {"params": body}),
        )


def configured(url: str) -> cfg.ConfigOpts:
    """A configuration whose global database is at ``url``."""
    conf = config.load()
    conf.register_opts(OPTS, group="database")
    config.override(conf, "database.connection", url)
    return conf


def make_tables(url: str, metadata: sa.MetaData) -> None:
    engine = make_engine(url)
    metadata.create_all(engine)
    engine.dispose()

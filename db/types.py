"""Column types and shared tables that behave alike on SQLite, MariaDB and PostgreSQL."""

from __future__ import annotations

import datetime
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

Uuid = sa.String(36)
"""Ids of API resources, as their text: the API takes and gives text."""
Name = sa.String(255)
LongText = sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")


class Time(sa.types.TypeDecorator[datetime.datetime]):
    """UTC with microseconds, naive in Python: one meaning on all databases."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Any) -> Any:
        if dialect.name in ("mysql", "mariadb"):
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(sa.DateTime())


class Json(sa.types.TypeDecorator[Any]):
    """JSON kept as text, so that it is stored and compared the same everywhere."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Any) -> Any:
        return dialect.type_descriptor(LongText)

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:
        return None if value is None else orjson.dumps(value).decode()

    def process_result_value(self, value: str | None, dialect: Any) -> Any:
        return _loads(value)

    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        # without the layers of TypeDecorator: a page of servers has thousands of these
        return _loads


def _loads(value: str | None) -> Any:
    return None if value is None else orjson.loads(value)


def now() -> datetime.datetime:
    """The present moment as ``Time`` columns hold it."""
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)


def table_options() -> dict[str, Any]:
    """What every table is created with."""
    return {
        "mysql_engine": "InnoDB",
        "mysql_charset": "utf8mb4",
        "mysql_collate": "utf8mb4_bin",
        "mariadb_engine": "InnoDB",
        "mariadb_charset": "utf8mb4",
        "mariadb_collate": "utf8mb4_bin",
    }

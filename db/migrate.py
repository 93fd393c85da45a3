"""Brings a database to this version's schema, and says how it differs from it.

There has been no release yet, so there is nothing to migrate from: ``upgrade``
makes what is missing from the models.  Alembic's comparison tells differences.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from db.cell_schema import cell_metadata
from db.global_schema import global_metadata

METADATA = {"global": global_metadata, "cell": cell_metadata}


def upgrade(engine: sa.Engine, kind: str) -> None:
    """Make what is missing in a ``global`` or ``cell`` database; twice is harmless."""
    METADATA[kind].create_all(engine.execution_options(haneul_write=True))


def differences(engine: sa.Engine, kind: str) -> list[str]:
    """What the database lacks or has too much of, one line each; [] when it fits."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        return [_sentence(item) for item in compare_metadata(context, METADATA[kind])]


def _sentence(item: object) -> str:
    if isinstance(item, list):  # changes of one column come as a list
        return "; ".join(_sentence(part) for part in item)
    assert isinstance(item, tuple)
    names = [
        getattr(part, "name", part) for part in item[1:] if isinstance(part, (str, sa.schema.SchemaItem))
    ]
    return f"{str(item[0]).replace('_', ' ')}: {' '.join(str(name) for name in names if name)}"

"""Migrations: two branches of alembic revisions, ``global_`` and ``cell``, one folder each.

``db.migrate`` runs them, ``db.migrations.write`` writes new ones from the models
(doc/developing.md says when).  They name every table and column themselves, so
that what a released version made can be made again later.
"""

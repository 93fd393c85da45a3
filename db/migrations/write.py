"""Writes migrations from the models: ``python -m db.migrations.write``.

Until the first release there is one revision per branch, written anew whenever a
table changes (``--initial``); its id follows its content, so that a database made
between two releases is told apart.  Afterwards::

    python -m db.migrations.write cell "servers know their rack"

adds a revision with the difference between the newest one and the models, to be
read and completed by hand (data, renamed columns) before it is committed.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.autogenerate.rewriter import Rewriter
from alembic.migration import MigrationContext
from alembic.operations import ops

from db import migrate
from db.types import Json, LongText, Time

HEAD = '''"""{doc}."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from db.types import {types}

revision = "{revision}"
down_revision = {down}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """{doc}."""
{body}
'''

writer = Rewriter()


@writer.rewrites(ops.CreateTableOp)
@writer.rewrites(ops.CreateIndexOp)
def _harmless_twice(_context: Any, _revision: Any, op: Any) -> Any:
    """An upgrade that was cut off goes on where MariaDB left it."""
    op.if_not_exists = True
    return op


def _render(type_: str, item: Any, context: Any) -> Any:
    if type_ != "type":
        return False
    if isinstance(item, (Json, Time)):
        return f"{type(item).__name__}()"
    return "LongText" if item is LongText else False


def rendered(kind: str, doc: str, *, initial: bool) -> tuple[Path, str]:
    """A revision's path and text; the text is "" if the models ask for nothing."""
    engine = sa.create_engine("sqlite://")
    if not initial:
        migrate.upgrade(engine, kind)
    script = migrate._script(kind)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        found = produce_migrations(context, migrate.metadata_of(kind))
        writer(context, (), [found])
    assert found.upgrade_ops is not None
    if found.upgrade_ops.is_empty():
        return Path(script.dir), ""
    lines = render_python_code(found.upgrade_ops, render_item=_render, migration_context=context)
    body = "\n".join("    " + line.strip() if line.startswith("#") else line for line in lines.splitlines())
    body = "\n".join(line for line in body.splitlines() if "### " not in line)
    number = 1 if initial else len(list(script.walk_revisions())) + 1
    revision = f"{number:04}_{hashlib.sha256(body.encode()).hexdigest()[:8]}"
    down = None if initial else script.get_current_head()
    types = ", ".join(name for name in ("Json", "LongText", "Time") if name in body)
    text = HEAD.format(
        doc=doc, revision=revision, down=f'"{down}"' if down else None, body=body, types=types or "Json"
    )
    path = Path(script.dir) / "versions" / f"{number:04}_{'_'.join(doc.lower().split())}.py"
    for arguments in (["check", "-q", "--fix"], ["format", "-q"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", str(path), "-"]
        text = subprocess.run(command, input=text, capture_output=True, check=True, text=True).stdout
    return path, text


def write(kind: str, doc: str, *, initial: bool) -> str:
    """Write one revision; returns what was done."""
    path, text = rendered(kind, doc, initial=initial)
    if not text:
        return f"{kind}: the models are as the newest revision says"
    path.write_text(text)
    return str(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--initial", action="store_true", help="write both first revisions anew")
    parser.add_argument("kind", nargs="?", choices=sorted(migrate.FOLDERS))
    parser.add_argument("doc", nargs="?", help="what changes, in a few words")
    options = parser.parse_args()
    if options.initial:
        for kind in migrate.FOLDERS:
            print(write(kind, f"The first {kind} tables", initial=True))
        return
    if not options.kind or not options.doc:
        parser.error("name the kind of database and what changes, or use --initial")
    print(write(options.kind, options.doc, initial=False))


if __name__ == "__main__":
    main()

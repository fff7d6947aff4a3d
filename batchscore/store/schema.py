"""Makes and checks a store's tables: alembic's migrations, run from inside the package, with no configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from batchscore.errors import Refused
from batchscore.keys import IdKind
from batchscore.store.tables import installation

_SCRIPTS: Final = Path(__file__).parent / "migrations"


def upgrade(connection: sa.Connection, id_kind: IdKind) -> None:
    """Bring the tables to this code's version, in the caller's transaction; a new store is given its kind of ids.

    Raises:
        Refused: ``store_schema`` (made by newer code) or ``id_kind`` (the store holds ids of the other kind).
    """
    script = ScriptDirectory(str(_SCRIPTS))
    current = MigrationContext.configure(connection).get_current_revision()
    if current != script.get_current_head():
        _refuse_unknown(script, current)
        config = Config()
        config.set_main_option("script_location", str(_SCRIPTS))
        config.attributes.update(connection=connection, id_kind=id_kind)
        command.upgrade(config, "head")
    if current is None:
        connection.execute(installation.insert().values(id_kind=id_kind))
    found = kind_of(connection)
    if found != id_kind:
        raise Refused(
            "id_kind",
            f"this store holds {found} account ids, the feature set says {id_kind}",
            where="store",
            remedy="use another store for this spec: kinds are never mixed",
        )


def require_current(connection: sa.Connection) -> None:
    """Raise Refused ``store_schema`` (or ``store_missing``) unless the tables are of this code's version; changes nothing."""
    script = ScriptDirectory(str(_SCRIPTS))
    current = MigrationContext.configure(connection).get_current_revision()
    if current is None:
        raise Refused("store_missing", "the store is just being made", where="store", remedy="try again in a moment")
    if current != script.get_current_head():
        _refuse_unknown(script, current)
        raise Refused(
            "store_schema",
            f"the tables are of version {current}, this code reads {script.get_current_head()}",
            where="store",
            remedy="run anything that writes (batchscore run) with this version first",
        )


def kind_of(connection: sa.Connection) -> IdKind:
    """The kind of account ids this store was made for."""
    kind: IdKind = connection.execute(sa.select(installation.c.id_kind)).scalar_one()
    return kind


def _refuse_unknown(script: ScriptDirectory, current: str | None) -> None:
    if current is not None and current not in {revision.revision for revision in script.walk_revisions()}:
        raise Refused(
            "store_schema", "the tables were made by a newer batchscore", where="store", remedy="use that version, or a newer one"
        )

"""Makes a store's tables: alembic's migrations, run from inside the package, with no configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from batchscore.errors import Refused
from batchscore.keys import IdKind
from batchscore.store.schema import REVISIONS, kind_of, refuse_newer, revision_of
from batchscore.store.tables import installation

SCRIPTS: Final = Path(__file__).parent / "migrations"


def upgrade(connection: sa.Connection, id_kind: IdKind) -> None:
    """Bring the tables to this code's version, in the caller's transaction; a new store is given its kind of ids.

    Raises:
        Refused: ``store_schema`` (made by newer code) or ``id_kind`` (the store holds ids of the other kind).
    """
    current = revision_of(connection)
    if current is not None:
        refuse_newer(current)
    if current != REVISIONS[-1]:
        config = Config()
        config.set_main_option("script_location", str(SCRIPTS))
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

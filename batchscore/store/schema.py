"""Checks a store's tables by one query: `status` answers at once, so the migrations, and alembic, are `migrate`'s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from batchscore.database import is_mysql
from batchscore.errors import Refused
from batchscore.store.tables import installation

if TYPE_CHECKING:
    from batchscore.keys import IdKind

# Of the migrations, oldest first; a test compares them with the scripts.
REVISIONS: Final = (
    "0001",
    "0002",
    "0003",
    "0004",
    "0005",
    "0006",
    "0007",
    "0008",
    "0009",
    "0010",
    "0011",
    "0012",
    "0013",
    "0014",
    "0015",
    "0016",
)
_VERSION: Final = sa.table("alembic_version", sa.column("version_num"))


def require_current(connection: sa.Connection) -> None:
    """Raise Refused ``store_schema`` (or ``store_missing``) unless the tables are of this code's version; changes nothing."""
    current = revision_of(connection)
    if current is None:
        raise Refused(
            "store_missing",
            "the database has no tables yet",
            where="store",
            remedy="batchscore db upgrade SPEC" if is_mysql(connection) else "it is just being made: try again in a moment",
        )
    if current != REVISIONS[-1]:
        refuse_newer(current)
        raise Refused(
            "store_schema",
            f"the tables are of version {current}, this code reads {REVISIONS[-1]}",
            where="store",
            remedy="batchscore db upgrade SPEC"
            if is_mysql(connection)
            else "run anything that writes (batchscore run) with this version first",
        )


def has_version(connection: sa.Connection) -> bool:
    """Whether alembic's table is there, if empty: an upgrade has begun."""
    return sa.inspect(connection).has_table(_VERSION.name)


def revision_of(connection: sa.Connection) -> str | None:
    """The revision of the store's tables; None before there are any."""
    if not has_version(connection):
        return None
    revision: str | None = connection.execute(sa.select(_VERSION.c.version_num)).scalar_one_or_none()
    return revision


def require_kind(connection: sa.Connection, id_kind: IdKind) -> None:
    """Raise Refused ``id_kind`` when the store holds ids of the other kind."""
    refuse_kind(kind_of(connection), id_kind)


def refuse_kind(found: IdKind, id_kind: IdKind) -> None:
    """Raise Refused ``id_kind`` when a store's ids are of another kind than those that are asked for."""
    if found != id_kind:
        raise Refused(
            "id_kind",
            f"this store holds {found} account ids, the feature set says {id_kind}",
            where="store",
            remedy="use another store for this spec: kinds are never mixed",
        )


def kind_of(connection: sa.Connection) -> IdKind:
    """The kind of account ids this store was made for."""
    kind: IdKind = connection.execute(sa.select(installation.c.id_kind)).scalar_one()
    return kind


def refuse_newer(current: str) -> None:
    """Raise Refused ``store_schema`` when no migration of this code has that revision."""
    if current not in REVISIONS:
        raise Refused(
            "store_schema", "the tables were made by a newer batchscore", where="store", remedy="use that version, or a newer one"
        )

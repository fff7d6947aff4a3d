"""Which account needs which right of a store on MySQL, as the statements that give it. Run once the tables are there.

Four accounts, so that the server itself keeps the engine from what people own: the migrator makes tables; the committer is the
driver's; the reviewer is the desk's, and may change of a flag only where it stands; the reader reads.
"""

from __future__ import annotations

from typing import Final, Literal

from batchscore.store.tables import PEOPLES, WITH_IDS, metadata

Writer = Literal["committer", "reviewer"]  # of rows
Role = Writer | Literal["migrator", "reader"]
_ONLY_READ: Final = {"installation", *PEOPLES}  # by the driver
_ONLY_ADDED: Final = {"audit", "events", "dispositions"}  # by anybody
_MIGRATOR: Final = "SELECT, INSERT, UPDATE, CREATE, ALTER, DROP, INDEX, REFERENCES, CREATE VIEW, TRIGGER"
_OF_REVIEWER: Final[dict[str, tuple[str, ...]]] = {
    "claims": ("INSERT", "UPDATE"),
    "dispositions": ("INSERT",),
    "suppressions": ("INSERT", "UPDATE"),
    "flags": ("UPDATE (state, open_marker, closed_at, overtaken_by, released_as, turns, turned_at)",),
    "queues": ("INSERT", "UPDATE"),
    "audit": ("INSERT",),
    "audit_head": ("UPDATE",),
    "events": ("INSERT",),
}
_OF_COMMITTER: Final[dict[str, tuple[str, ...]]] = {
    table: ("INSERT",) if table in _ONLY_ADDED else ("INSERT", "UPDATE")
    for table in (*metadata.tables, *WITH_IDS)
    if table not in _ONLY_READ
}
# Of each table what an account writes there, as a GRANT says it; all is read.
WRITERS: Final[dict[Writer, dict[str, tuple[str, ...]]]] = {"committer": _OF_COMMITTER, "reviewer": _OF_REVIEWER}


def grants(database: str) -> dict[Role, tuple[str, ...]]:
    """Role → its GRANT statements, for accounts that are named as the roles are."""
    return {
        "migrator": (f"GRANT {_MIGRATOR} ON `{database}`.* TO migrator",),
        "committer": (f"GRANT SELECT ON `{database}`.* TO committer", *_each(database, "committer")),
        "reviewer": (f"GRANT SELECT ON `{database}`.* TO reviewer", *_each(database, "reviewer")),
        "reader": (f"GRANT SELECT ON `{database}`.* TO reader",),
    }


def _each(database: str, role: Writer) -> tuple[str, ...]:
    return tuple(
        f"GRANT {', '.join(rights)} ON `{database}`.`{table}` TO {role}" for table, rights in sorted(WRITERS[role].items())
    )

"""Rows that are inserted where their key is not there yet: the same in SQLite and MySQL, in one statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, sqlite

from batchscore.database.engine import is_mysql


def insert_missing(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows; one whose key is in the table stays as it is there. Whatever else is wrong with a row is an error.

    MySQL's INSERT IGNORE would pass over that too: so a key that is there is updated to itself.
    """
    if not rows:
        return
    insert: mysql.Insert | sqlite.Insert
    if is_mysql(connection):
        key = next(iter(table.primary_key))
        insert = mysql.insert(table).on_duplicate_key_update({key.name: key})
    else:
        insert = sqlite.insert(table).on_conflict_do_nothing()
    connection.execute(insert, list(rows))

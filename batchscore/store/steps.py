"""The steps of a migration, each of which may be begun again: what is there already is passed over.

MySQL commits at every DDL statement, so a migration that is cut leaves half of what it makes. Its next try walks the same steps,
and each asks information_schema first. In a script for a DBA the server is asked the same by the script itself. On SQLite a
chain of migrations is one transaction, of which nothing stands unless all does: there is nothing to ask.

A step of data (`execute`) says itself when it is done, or gives the same when it is done twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import StringIO
from typing import Any, Final

import sqlalchemy as sa
from alembic import op
from alembic.migration import MigrationContext
from alembic.operations import Operations

from batchscore.errors import Refused

_IN_MYSQL: Final[dict[str, Any]] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
_NAMED: Final[dict[str, Any]] = {"paramstyle": "named"}  # so that no percent sign is doubled
_DONE: Final = "EXISTS (SELECT 1 FROM alembic_version WHERE version_num >= {})"


def has_table(table: str) -> str:
    """The condition, on MySQL, that a table is there."""
    return _there("tables", table_name=table)


def has_column(table: str, column: str) -> str:
    """The condition, on MySQL, that a table has a column."""
    return _there("columns", table_name=table, column_name=column)


def has_index(table: str, index: str) -> str:
    """The condition, on MySQL, that a table has an index of that name."""
    return _there("statistics", table_name=table, index_name=index)


class Steps:
    """The steps of one revision, in the order in which they are called. To be made inside its ``upgrade``.

    ``unless``: the SQL condition, on MySQL, under which a step is done already; SQLite is not asked.
    """

    def __init__(self, revision: str) -> None:
        context = op.get_context()
        self.on_mysql = context.dialect.name == "mysql"
        self._as_script = context.as_sql
        self._write = context.impl.static_output
        self._text = StringIO()
        options = {"as_sql": True, "output_buffer": self._text}
        self._statements = Operations(MigrationContext.configure(dialect=type(context.dialect)(**_NAMED), opts=options))
        if self._as_script:
            self._write(f"SET @batchscore_done = {_DONE.format(_quoted(revision))};")

    def create_table(self, name: str, *columns: sa.schema.SchemaItem, unless: str | None = None) -> None:
        """A table; on MySQL InnoDB, its text compared by its bytes.

        Raises:
            Refused: ``store_schema``: another table of that name is there.
        """
        there = has_table(name)
        if self.on_mysql and not self._as_script and self._holds(there):
            self._refuse_another(name, {column.name for column in columns if isinstance(column, sa.Column)})
        statement = self._said(lambda make: make.create_table(name, *columns, **_IN_MYSQL))
        self.execute(statement, unless=f"{there} OR ({unless})" if unless else there)

    def add_column(self, table: str, column: sa.Column[Any]) -> None:
        """A column, at the end of its table."""
        self.execute(self._said(lambda make: make.add_column(table, column)), unless=has_column(table, column.name))

    def create_index(self, name: str, table: str, columns: Sequence[Any]) -> None:
        """An index over ``columns``: names, or expressions of SQLAlchemy."""
        self.execute(self._said(lambda make: make.create_index(name, table, columns)), unless=has_index(table, name))

    def drop_index(self, name: str, table: str) -> None:
        """No such index."""
        self.execute(self._said(lambda make: make.drop_index(name, table)), unless=f"NOT {has_index(table, name)}")

    def view(self, name: str, query: str) -> None:
        """A view, in the place of one that has its name: on MySQL at once, so that no reader finds none."""
        if self.on_mysql:
            self.execute(f"CREATE OR REPLACE VIEW {name} AS {query}")
        else:
            op.execute(f"DROP VIEW IF EXISTS {name}")
            op.execute(f"CREATE VIEW {name} AS {query}")

    def drop_trigger(self, name: str) -> None:
        """No such trigger."""
        self._anew(f"DROP TRIGGER IF EXISTS {name}")

    def trigger(self, name: str, event: str, *, forbidden: str, says: str) -> None:
        """A trigger that refuses a row's change (``event``, such as ``UPDATE ON flags``) where ``forbidden`` is true."""
        self.drop_trigger(name)
        if self.on_mysql:
            refuse = f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = {_quoted(says)}"
            self._anew(f"CREATE TRIGGER {name} BEFORE {event} FOR EACH ROW\nIF {forbidden} THEN {refuse}; END IF")
        else:
            refuse = f"SELECT RAISE(ABORT, {_quoted(says)})"
            op.execute(f"CREATE TRIGGER {name} BEFORE {event} FOR EACH ROW WHEN {forbidden} BEGIN {refuse}; END")

    def execute(self, statement: str, *, unless: str | None = None) -> None:
        """A statement as it stands, unless it is done already."""
        if not self.on_mysql:
            op.execute(_literal(statement))
        elif self._as_script:
            done = f"@batchscore_done OR ({unless})" if unless else "@batchscore_done"
            self._write(
                f"SET @batchscore_step = IF({done}, 'DO 0', {_quoted(statement)});\n"
                "PREPARE batchscore_step FROM @batchscore_step;\nEXECUTE batchscore_step;\nDEALLOCATE PREPARE batchscore_step;"
            )
        elif unless is None or not self._holds(unless):
            op.execute(_literal(statement))

    def _anew(self, statement: str) -> None:
        """A statement about a trigger: MySQL prepares none, so in a script it is done again whatever is there."""
        if self._as_script:  # a client would end it at its first semicolon
            self._write(f"DELIMITER //\n{statement}//\nDELIMITER ;" if ";" in statement else f"{statement};")
        else:
            op.execute(_literal(statement))

    def _holds(self, condition: str) -> bool:
        return bool(op.get_bind().execute(sa.select(sa.literal_column(condition))).scalar_one())

    def _refuse_another(self, name: str, columns: set[str]) -> None:
        found = {column["name"] for column in sa.inspect(op.get_bind()).get_columns(name)}
        if missing := sorted(columns - found):
            raise Refused(
                "store_schema",
                f"a table {name} is there that batchscore did not make: it has no {', '.join(missing)}",
                where="store",
                remedy="use an empty database",
            )

    def _said(self, write: Callable[[Operations], object]) -> str:
        """The one statement that alembic makes of an operation."""
        self._text.seek(0)
        self._text.truncate()
        write(self._statements)
        statement = self._text.getvalue().strip()
        assert statement.count(";") == 1, "one statement, and none with a semicolon in it"
        return statement.removesuffix(";")


def _there(kind: str, **names: str) -> str:
    wanted = " AND ".join(f"{column} = {_quoted(name)}" for column, name in names.items())
    return f"EXISTS (SELECT 1 FROM information_schema.{kind} WHERE table_schema = DATABASE() AND {wanted})"  # noqa: S608 (our names)


def _quoted(text: str) -> str:
    assert "\\" not in text, "what a backslash means depends on the session"
    return "'" + text.replace("'", "''") + "'"


def _literal(statement: str) -> sa.TextClause:
    return sa.text(statement.replace(":", r"\:"))

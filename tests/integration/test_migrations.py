"""A store that an older version made is brought to this one, and what it held is still there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from batchscore.audit import BEGINNING
from batchscore.database import open_engine
from batchscore.errors import Refused
from batchscore.store import DATABASE, open_reader, open_store, schema, tables
from batchscore.store.migrate import SCRIPTS
from tests.contract.store.conftest import make_plan

RUN = """
INSERT INTO runs (run_id, plan_digest, generation, name, plan, state, why, epoch,
                  lease_owner, lease_until, created_at, updated_at)
VALUES ('r-12345678-1', :digest, 1, 'weekly', :plan, 'finished', '', 1, '', 0, 1, 1)
"""


def test_a_run_of_the_first_version_is_read_after_the_next_write(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    engine = open_engine(f"sqlite:///{tmp_path / DATABASE}")
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
        config.attributes.update(connection=connection, id_kind="integer")
        command.upgrade(config, "0001")
        connection.execute(sa.text(RUN), {"digest": plan.digest, "plan": plan.model_dump_json(by_alias=True)})
    with pytest.raises(Refused, match="store_schema"):
        open_reader(tmp_path)
    open_store(tmp_path, "integer")
    found = open_reader(tmp_path).run("r-12345678-1")
    assert (found.executor, found.undone_at) == ("", None)
    assert open_reader(tmp_path).audit_head() == (0, BEGINNING)
    with engine.connect() as connection:
        columns = {column["name"] for column in sa.inspect(connection).get_columns("runs")}
    assert columns == {column.name for column in tables.runs.c}


def test_migrations_make_nothing_but_by_steps_that_may_be_begun_again() -> None:
    for script in (SCRIPTS / "versions").glob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, ast.Name)}
        assert "Steps" in names, f"{script.name}: use batchscore.store.steps"
        assert not names & {"op", "connection"}, f"{script.name}: what `op` makes cannot be made again after a cut on MySQL"

"""The revisions that `schema` knows by heart are those of the migrations."""

from __future__ import annotations

import sys

from alembic.script import ScriptDirectory

from batchscore.store.migrate import SCRIPTS
from batchscore.store.schema import REVISIONS
from tests.commands import succeeded


def test_known_revisions_are_those_of_the_scripts_in_order() -> None:
    script = ScriptDirectory(str(SCRIPTS))
    assert [revision.revision for revision in script.walk_revisions()] == list(reversed(REVISIONS))
    assert script.get_current_head() == REVISIONS[-1]


def test_reading_a_store_imports_neither_alembic_nor_arrow_nor_numpy() -> None:
    code = "import sys, batchscore.store, batchscore.cli.look; print(sorted({'alembic', 'numpy', 'pyarrow'} & set(sys.modules)))"
    assert succeeded(sys.executable, "-c", code) == "[]\n"

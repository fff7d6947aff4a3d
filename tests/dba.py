"""A store's database in the hands of somebody who may do anything: what tests break, and no account of ours could."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from batchscore.database import open_engine
from batchscore.store.place import database_name, engine_of

URL: Final = "BATCHSCORE_TEST_DBA_URL"  # of the store on MySQL that the fixture `mysql_store` made last


def dba_engine(folder: Path) -> sa.Engine:
    """The administrator's engine where the store is on MySQL; else the one that everybody has."""
    return engine_of(folder) if database_name(folder) is None else open_engine(os.environ[URL])

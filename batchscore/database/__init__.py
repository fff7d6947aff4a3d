"""Databases by URL: engines with every timeout set, transactions that are done once, and one map from drivers' errors to ours.

What differs between SQLite and MySQL stands here, so that `store` and `sources` read the same for both. No URL, password
or bound parameter ever stands in a message.
"""

from batchscore.database.engine import READ_S, clock, execute_text, is_mysql, now, open_engine, quoted, reading_engine
from batchscore.database.failures import code_of, translated
from batchscore.database.inserting import insert_missing
from batchscore.database.tables import columns_of_table, rows_of_table
from batchscore.database.transaction import read, transact

__all__ = [
    "READ_S",
    "clock",
    "code_of",
    "columns_of_table",
    "execute_text",
    "insert_missing",
    "is_mysql",
    "now",
    "open_engine",
    "quoted",
    "read",
    "reading_engine",
    "rows_of_table",
    "transact",
    "translated",
]

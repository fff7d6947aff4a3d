"""The process behind `mysql_fast.FastReader`: queries in, Arrow out into shared memory, nothing else.

The URL is looked up here, by its name.
"""

from __future__ import annotations

import struct
import sys
import time
from typing import Final

import pyarrow as pa

from batchscore.settings import database_url

SIZE: Final = struct.Struct(">q")  # of a query, before it
ANSWER: Final = struct.Struct(">qd")  # bytes of the answer, seconds that it took
UNREADABLE: Final = -1


def main() -> None:
    """Answer until the parent goes away."""
    import connectorx  # noqa: PLC0415 (an extra)

    url = _plain(database_url(sys.argv[1]))
    shared, asked, answers = f"/proc/self/fd/{sys.argv[2]}", sys.stdin.buffer, sys.stdout.buffer
    while len(head := asked.read(SIZE.size)) == SIZE.size:
        query = asked.read(SIZE.unpack(head)[0]).decode()
        began = time.monotonic()
        try:
            table = connectorx.read_sql(url, query, return_type="arrow")
        except BaseException:  # noqa: BLE001 (a panic of its Rust is no Exception; its words may hold the URL)
            answers.write(ANSWER.pack(UNREADABLE, time.monotonic() - began))
        else:
            with pa.OSFile(shared, "wb") as held:
                with pa.ipc.new_stream(held, table.schema) as stream:
                    stream.write_table(table)
                answers.write(ANSWER.pack(held.tell(), time.monotonic() - began))
        answers.flush()


def _plain(url: str) -> str:
    """SQLAlchemy's URL as connectorx wants it: no driver, no query."""
    scheme, _, rest = url.partition("://")
    return f"{scheme.partition('+')[0].replace('mariadb', 'mysql')}://{rest.partition('?')[0]}"


if __name__ == "__main__":
    main()

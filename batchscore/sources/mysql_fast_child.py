"""The process behind `mysql_fast.FastReader`: queries in, Arrow out in memory that the asker may map, nothing else.

The URL is looked up here, by its name.
"""

from __future__ import annotations

import os
import socket
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
    asked, answers = sys.stdin.buffer, socket.socket(fileno=int(sys.argv[2]))
    while len(head := asked.read(SIZE.size)) == SIZE.size:
        query = asked.read(SIZE.unpack(head)[0]).decode()
        began = time.monotonic()
        try:
            table = connectorx.read_sql(url, query, return_type="arrow")
        except BaseException:  # noqa: BLE001 (a panic of its Rust is no Exception; its words may hold the URL)
            table = None
        if table is None or any(map(pa.types.is_boolean, table.schema.types)):  # earlier versions took any TINYINT for a bool
            answers.send(ANSWER.pack(UNREADABLE, time.monotonic() - began))
        else:
            seconds = time.monotonic() - began
            page, size = _page(table)
            del table  # before the next is read
            socket.send_fds(answers, [ANSWER.pack(size, seconds)], [page])
            os.close(page)


def _page(table: pa.Table) -> tuple[int, int]:
    """A table in memory of its own without a name, as a descriptor; and its size in bytes."""
    page = os.memfd_create("batchscore-page")
    with pa.OSFile(f"/proc/self/fd/{page}", "wb") as held:
        with pa.ipc.new_stream(held, table.schema) as stream:
            stream.write_table(table)
        return page, held.tell()


def _plain(url: str) -> str:
    """SQLAlchemy's URL as connectorx wants it: no driver, no query."""
    scheme, _, rest = url.partition("://")
    return f"{scheme.partition('+')[0].replace('mariadb', 'mysql')}://{rest.partition('?')[0]}"


if __name__ == "__main__":
    main()

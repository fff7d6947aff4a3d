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
from batchscore.sources.shared_page import PageSender

ASK: Final = struct.Struct(">q?")  # before a query: its bytes, and whether the memory that is kept for answers is free
ANSWER: Final = struct.Struct(">qd?")  # bytes of the answer, seconds that it took, and whether it is in that memory
UNREADABLE: Final = -1


def main() -> None:
    """Answer until the parent goes away."""
    import connectorx  # noqa: PLC0415 (an extra)

    url = _plain(database_url(sys.argv[1]))
    asked, answers = sys.stdin.buffer, socket.socket(fileno=int(sys.argv[2]))
    memory = PageSender()
    while len(head := asked.read(ASK.size)) == ASK.size:
        n_bytes, kept_is_free = ASK.unpack(head)
        query = asked.read(n_bytes).decode()
        began = time.monotonic()
        try:
            table = connectorx.read_sql(url, query, return_type="arrow")
        except BaseException:  # noqa: BLE001 (a panic of its Rust is no Exception; its words may hold the URL)
            table = None
        if table is None or any(map(pa.types.is_boolean, table.schema.types)):  # earlier versions took any TINYINT for a bool
            answers.send(ANSWER.pack(UNREADABLE, time.monotonic() - began, False))  # noqa: FBT003 (in a message)
        else:
            seconds = time.monotonic() - began
            page, size, is_kept = memory.put(table, kept_is_free=kept_is_free)
            del table  # before the next is read
            socket.send_fds(answers, [ANSWER.pack(size, seconds, is_kept)], [page])
            os.close(page)


def _plain(url: str) -> str:
    """SQLAlchemy's URL as connectorx wants it: no driver, no query."""
    scheme, _, rest = url.partition("://")
    return f"{scheme.partition('+')[0].replace('mariadb', 'mysql')}://{rest.partition('?')[0]}"


if __name__ == "__main__":
    main()

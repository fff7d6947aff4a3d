"""PyMySQL's connection, but that those without certificates to check share one TLS context.

PyMySQL makes a context for every connection, also for one that checks nothing: reading the system's authorities takes 20 ms of
a core, more than all else that a connection needs, and a freeze, a brake and a lease connect often.
"""

from __future__ import annotations

import ssl
import threading
from typing import Any, ClassVar

from pymysql.connections import Connection


class MySqlConnection(Connection):
    """A connection as `pymysql.connect` makes it."""

    _unchecked: ClassVar[ssl.SSLContext | None] = None
    _turn: ClassVar[threading.Lock] = threading.Lock()

    def _create_ssl_ctx(self, sslp: Any) -> ssl.SSLContext:
        made = super()._create_ssl_ctx  # type: ignore[misc]  # PyMySQL's own; a test tells when it is gone
        if sslp:
            checked: ssl.SSLContext = made(sslp)
            return checked
        cls = MySqlConnection
        with cls._turn:
            if cls._unchecked is None:
                cls._unchecked = made(sslp)
            return cls._unchecked

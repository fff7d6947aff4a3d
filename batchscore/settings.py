"""What the environment decides, read in one place: secrets by name, limits, and the versions that decide a score's bits.

A database URL is never in a spec: the spec names it (``url: accounts``), the environment holds it
(``BATCHSCORE_URL_ACCOUNTS``), or a file does (``BATCHSCORE_URL_ACCOUNTS_FILE``, as systemd and Kubernetes hand out secrets).
"""

from __future__ import annotations

import os
import platform
import re
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from batchscore.errors import Refused

# A version of any of these may change the bits of a feature or score: part of the fingerprint, compared with each worker.
PINNED_LIBRARIES: Final = ("batchscore", "numpy", "pandas", "pyarrow", "xgboost")
MAX_PARTITION_BYTES: Final = 1 << 30  # a decoded row group or partition beyond this is `memory_limit`
STRING_ID_BYTES: Final = 255  # the longest account id that a review database holds
MAX_SNAPSHOT_GROUP_ROWS: Final = 16_384  # rows of one row group in the files we write: what a key range read overshoots by

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")  # as a spec has them (`values.NAME`, which is a higher layer's)


def database_url(name: str) -> str:
    """The database URL of that name.

    Raises:
        Refused: ``secret_missing``, saying which variable to set; never the URL.
    """
    if _NAME.fullmatch(name) is None:  # it may be a URL with its password: it is not repeated
        raise Refused(
            "secret_missing",
            "a database is given by a name, and this is none",
            where="url",
            remedy="give a name such as crm, and export BATCHSCORE_URL_CRM=… with the URL",
        )
    variable = f"BATCHSCORE_URL_{name.upper().replace('-', '_')}"
    if url := os.environ.get(variable):
        return url
    if file := os.environ.get(f"{variable}_FILE"):
        try:
            return Path(file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise Refused(
                "secret_missing",
                f"{variable}_FILE cannot be read: {error.strerror}",
                where=f"url: {name}",
                remedy="name a file that this user may read and that holds the URL, and nothing else",
            ) from None
    raise Refused(
        "secret_missing",
        f"the database {name!r} is asked for, but neither {variable} nor {variable}_FILE is set",
        where=f"url: {name}",
        remedy=f"export {variable}=…  (a SQLAlchemy URL such as sqlite:////path/to.db)",
    )


@cache
def library_versions() -> tuple[tuple[str, str], ...]:
    """(name, version) of Python and of every library that decides bits, sorted by name."""
    found = {"python": platform.python_version()}
    for name in PINNED_LIBRARIES:
        found[name] = _version(name)
    return tuple(sorted(found.items()))


def _version(name: str) -> str:
    # xgboost-cpu holds the same module as xgboost, without CUDA; either may be installed, never both.
    for candidate in (name, f"{name}-cpu"):
        try:
            return version(candidate)
        except PackageNotFoundError:
            continue
    return "absent"

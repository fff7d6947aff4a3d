"""Writes a report as one HTML page."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from batchscore.errors import Refused
from batchscore.observe.text import plain
from batchscore.report.model import Report
from batchscore.report.page import page


def write_page(report: Report, path: Path) -> Path:
    """Draw the report as one HTML page, in place of an older one; a reader never meets half a page.

    Raises:
        Refused: ``report_unwritable``.
    """
    return write_html(page(report, plain=plain), path)


def write_html(drawn: str, path: Path) -> Path:
    """Write a page in place of an older one; a reader never meets half a page.

    Raises:
        Refused: ``report_unwritable``.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(drawn, encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        what = f"the page cannot be written: {os.strerror(error.errno or 0)}"
        raise Refused("report_unwritable", what, where=str(path), remedy="name another file: --html FILE") from error
    return path

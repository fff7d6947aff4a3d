"""The report of a run: gathered from what it left so far, and written as a page. What it says is counted in `batchscore.report`.

| module | what |
|---|---|
| `gathered` | all of it: one function, which the others serve |
| `scored`, `flagged`, `facts` | its parts |
| `gaps` | what could not be read |
| `written` | the page |
"""

from __future__ import annotations

from batchscore.operations.report.gaps import Gaps
from batchscore.operations.report.gathered import report_of
from batchscore.operations.report.written import write_html, write_page

__all__ = ["Gaps", "report_of", "write_html", "write_page"]

"""Past flags for tests: what a test does not speak of is as of a flag that nobody decided."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from batchscore.flag import FlagState
from batchscore.ports import PastFlag


def past_flag(account_id: int | str, opened_at: datetime, closed_at: datetime | None, **known: Any) -> PastFlag:
    plain: dict[str, Any] = {
        "run_id": "r-00000000-1",
        "as_of": opened_at,
        "state": FlagState.OPEN,
        "score": 0.5,
        "reason_codes": (),
        "decided_at": None,
        "n_evidence": 1,
    }
    return PastFlag(account_id=account_id, opened_at=opened_at, closed_at=closed_at, **(plain | known))

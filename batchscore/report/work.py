"""Folds the receipts of a stage: rows, seconds by part, the slowest partitions, rejects by code. Each receipt is seen once."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Container, Iterable
from typing import Final

from batchscore.errors import REJECT_CODES, alert_meaning
from batchscore.plan import Stage, StageEstimate
from batchscore.ports import StageRow
from batchscore.receipt import Receipt
from batchscore.report.model import Alerts, PartitionTime, Rejects, StageReport

MAX_SLOWEST: Final = 8
_REJECTED: Final = "rejected "
# The name of a stage's count of rows.
_ROWS: Final = {Stage.FREEZE: "rows", Stage.ROLLUP: "events", Stage.SCORE: "scores", Stage.SHADOW: "scores"}
_OWN_PARTS: Final = ("contract", "predict", "write", "settle")  # of an attempt at scores: what it does for one bundle alone


class StageWork:
    """What the receipts of one stage add up to."""

    def __init__(self, stage: Stage, receipts: Iterable[Receipt], reused: Container[tuple[Stage, int]]) -> None:
        self.stage = stage
        self.rows = 0
        self.rows_made = 0  # by attempts of this run
        self.n_reused = 0
        self.attempt_s: dict[str, float] = {}
        self.worst_lag_s: float | None = None
        self.scorers: Counter[str] = Counter()
        self._alerts: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._slowest: list[tuple[float, int, PartitionTime]] = []
        for receipt in receipts:
            self._add(receipt, reused=(stage, receipt.number) in reused)

    def _add(self, receipt: Receipt, *, reused: bool) -> None:
        self.rows += self._rows_of(receipt)
        for name, n in receipt.counts.items():
            if name.startswith(_REJECTED):
                code = name.removeprefix(_REJECTED)
                self._rejected[code] += n
        self._alerts.update(receipt.alerts)
        if receipt.scorer:
            self.scorers[receipt.scorer] += 1
        if reused:
            self.n_reused += 1  # its seconds are those of another run
            return
        lags = [lag for lag in (self.worst_lag_s, receipt.worst_lag_s) if lag is not None]
        self.worst_lag_s = max(lags, default=None)
        self.rows_made += self._rows_of(receipt)
        for part, seconds in receipt.seconds.items():
            self.attempt_s[part] = self.attempt_s.get(part, 0.0) + seconds
        took = sum(receipt.seconds.values())
        entry = PartitionTime(
            stage=self.stage, number=receipt.number, n_rows=self._rows_of(receipt), seconds=took, parts=receipt.seconds
        )
        heapq.heappush(self._slowest, (took, -receipt.number, entry))
        if len(self._slowest) > MAX_SLOWEST:
            heapq.heappop(self._slowest)

    def _rows_of(self, receipt: Receipt) -> int:
        name = _ROWS.get(self.stage)
        if name is None:
            return sum(output.n_rows for output in receipt.outputs)
        rejected = sum(n for count, n in receipt.counts.items() if count.startswith(_REJECTED))
        return receipt.counts.get(name, 0) + (0 if self.stage is Stage.FREEZE else rejected)  # a freeze counts its rejects in

    @property
    def own_s(self) -> float:
        """Seconds of attempts that went into one bundle alone: the features, which all share, are not in them."""
        return sum(self.attempt_s.get(part, 0.0) for part in _OWN_PARTS)

    def rejects(self) -> tuple[Rejects, ...]:
        """By code."""
        return tuple(
            Rejects(stage=self.stage, code=code, meaning=REJECT_CODES.get(code, ""), n=n)
            for code, n in sorted(self._rejected.items())
        )

    def alerts(self) -> tuple[Alerts, ...]:
        """By code."""
        return tuple(
            Alerts(stage=self.stage, code=code, meaning=alert_meaning(code), n_partitions=n)
            for code, n in sorted(self._alerts.items())
        )

    def report(self, planned: StageEstimate, row: StageRow | None) -> StageReport:
        """Beside the plan's estimate; ``row`` is the ledger's, None before the stage's layout."""
        if row is None:
            return StageReport(
                stage=planned.stage,
                does=planned.does,
                rows_planned=planned.n_rows,
                rows_done=None,
                partitions_planned=planned.n_partitions,
            )
        return StageReport(
            stage=planned.stage,
            does=planned.does,
            rows_planned=planned.n_rows,
            rows_done=self.rows,
            partitions_planned=planned.n_partitions,
            n_partitions=row.n_partitions,
            n_committed=row.n_committed,
            n_reused=self.n_reused,
            n_quarantined=row.n_quarantined,
            seconds=(row.updated_at - row.started_at).total_seconds() if row.updated_at and row.started_at else None,
            attempt_s={part: round(seconds, 3) for part, seconds in self.attempt_s.items()},
        )

    def slowest(self) -> list[PartitionTime]:
        """The few that took longest, the slowest first."""
        return [entry for _, _, entry in sorted(self._slowest, key=lambda held: (-held[0], -held[1]))]


def slowest_of_all(works: Iterable[StageWork]) -> tuple[PartitionTime, ...]:
    """The few that took longest over all stages."""
    entries = [entry for work in works for entry in work.slowest()]
    return tuple(sorted(entries, key=lambda entry: -entry.seconds)[:MAX_SLOWEST])

"""Which scores become flags: the exact global top-K above the threshold, whatever the order and cut of the scores.

Order: the score, high first, then the account id, low first (bytes for text, unsigned for integers). Ids are distinct, so
the order is total and the result is one. Memory holds the best K so far and the newest tables, never all scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.decide.memory import blocked_accounts, blocked_now
from batchscore.errors import RunFailed
from batchscore.spec import Policy

_MIN_WAITING: Final = 65_536  # rows gathered before they are ranked against the best so far
_BEST_FIRST: Final = [("score", "descending"), ("account_id", "ascending")]
_SCORED: Final = ("account_id", "score", "margin")


def decide(scores: Iterable[pa.Table], as_of: datetime, policy: Policy, blocked: pa.Array) -> pa.Table:
    """The accounts to flag, best first.

    Args:
        scores: Scores of this as-of, each account once: account_id (uint64 or string), score and margin (float32 or float64).
        as_of: Put into the result; not compared with anything.
        policy: An account is selected when its score, widened to float64 (which is exact), is at or above ``threshold``, and
            it is among the best ``budget`` of those. None means no such bound. A NaN or null score is never selected.
        blocked: Accounts that cannot get a flag now, of the ids' type; they use up no budget.

    Returns:
        account_id, as_of (timestamp[us, UTC]), rank (int64, from 1), score, margin; sorted by rank.

    Raises:
        TypeError: ids and ``blocked`` have different types.
        RunFailed: ``proof_failed``: an account came twice into the selection.
    """
    best = _Best(policy, blocked)
    for table in scores:
        best.offer(table)
    selected = best.ranked()
    if pc.count_distinct(selected["account_id"]).as_py() != len(selected):
        raise RunFailed(
            "proof_failed",
            "an account was scored twice for one as-of",
            where=f"as-of {as_of.isoformat()}",
            remedy="report it to batchscore with the run id: this must not be",
        )
    moments = pa.repeat(pa.scalar(as_of, pa.timestamp("us", tz="UTC")), len(selected))
    ranks = pa.array(np.arange(1, len(selected) + 1, dtype=np.int64))
    return selected.add_column(1, "as_of", moments).add_column(2, "rank", ranks)


def decide_dates(
    scores: Callable[[datetime], Iterable[pa.Table]],
    as_ofs: Sequence[datetime],
    policy: Policy,
    memory: pa.Table,
    *,
    release: Literal["none", "latest"],
) -> Iterator[pa.Table]:
    """What `decide` selects for each as-of, in order of time; the tables as they are made.

    A simulated as-of sees the memory as it was then, and the simulated flags of earlier ones as still open: an account is
    flagged once. With ``release`` latest the last as-of is no simulation: it sees real flags only, as they stand now.
    Between dates only the ids flagged so far are kept. ``memory`` is `memory.remember`'s.
    """
    in_order = sorted(as_ofs)
    simulated = [memory["account_id"].combine_chunks()[:0]]
    for as_of in in_order:
        released = release == "latest" and as_of == in_order[-1]
        blocked = blocked_now(memory) if released else pa.concat_arrays([blocked_accounts(memory, as_of), *simulated])
        selected = decide(scores(as_of), as_of, policy, blocked)
        simulated = [pa.concat_arrays([*simulated, *selected["account_id"].chunks])]
        yield selected


class _Best:
    """The best K so far, and tables that wait to be ranked against them."""

    def __init__(self, policy: Policy, blocked: pa.Array) -> None:
        self._budget = policy.budget
        self._floor = -np.inf if policy.threshold is None else policy.threshold
        self._blocked = blocked
        self._waiting: list[pa.Table] = []
        self._n_waiting = 0
        self._enough = np.inf if policy.budget is None else max(_MIN_WAITING, policy.budget)  # without a budget all are kept

    def offer(self, table: pa.Table) -> None:
        """Keep the rows that may still be selected."""
        table = table.select(_SCORED)
        if table.schema.field("account_id").type != self._blocked.type:
            msg = f"account ids are {table.schema.field('account_id').type}, the blocked ones {self._blocked.type}"
            raise TypeError(msg)
        above = table.filter(pa.array(_widened(table) >= self._floor))
        if len(above) or not self._waiting:  # the first stays for its types
            self._waiting.append(above)
        self._n_waiting += len(above)
        if self._n_waiting >= self._enough:
            self._rank()

    def ranked(self) -> pa.Table:
        """The selection, best first."""
        if not self._waiting:
            nothing = pa.schema([("account_id", self._blocked.type), ("score", pa.float32()), ("margin", pa.float32())])
            return nothing.empty_table()
        self._rank()
        return self._waiting[0]

    def _rank(self) -> None:
        """Bring what waits down to the best K; the score of the last of them is the new floor."""
        found = pa.concat_tables(self._waiting)
        if len(self._blocked):
            found = found.filter(pc.invert(pc.is_in(found["account_id"], value_set=self._blocked)))
        if self._budget is None:
            found = found.sort_by(_BEST_FIRST)
        else:
            found = found.take(pc.select_k_unstable(found, k=self._budget, sort_keys=_BEST_FIRST))
            if 0 < len(found) == self._budget:
                self._floor = max(self._floor, float(_widened(found)[-1]))
        self._waiting, self._n_waiting = [found.combine_chunks()], 0


def _widened(table: pa.Table) -> npt.NDArray[np.float64]:
    """Scores as float64 (n,), which is exact; null is NaN, and NaN is at or above nothing."""
    scores: npt.NDArray[np.float64] = table["score"].to_numpy().astype(np.float64, copy=False)
    return scores

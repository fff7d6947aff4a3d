"""Lays a stage out in partitions, and says what each partition's output depends on: its address. Reads; writes only indexes.

rollup follows from the plan, and from what the freeze (`freeze_layout`) left of live tables. score is laid out once those two are
committed, because its key ranges are cut from what they wrote; reasons once the decision stands. The ledger keeps the layout,
so that a resumed run never cuts again.

| module | what |
|---|---|
| `definitions` | what every partition refers to, and what an address is the digest of |
| `rollups`, `scores`, `explained` | the layouts |
| `left` | what the attempts of a stage left, for whoever comes after |
"""

from __future__ import annotations

from batchscore.layout.definitions import Definitions, what_it_reads
from batchscore.layout.explained import lay_out_reasons, lay_out_reconsider
from batchscore.layout.left import (
    decided_rows,
    flags_of,
    frozen_events,
    keys_set_aside,
    live_table,
    rollups_of,
    score_work,
    scored_keys,
    scores_of,
    with_merged,
)
from batchscore.layout.rollups import earlier_rollups, lay_out_merge, lay_out_rollup, n_rows_of_files
from batchscore.layout.scores import in_one_pass, lay_out_score, lay_out_shadow

__all__ = [
    "Definitions",
    "decided_rows",
    "earlier_rollups",
    "flags_of",
    "frozen_events",
    "in_one_pass",
    "keys_set_aside",
    "lay_out_merge",
    "lay_out_reasons",
    "lay_out_reconsider",
    "lay_out_rollup",
    "lay_out_score",
    "lay_out_shadow",
    "live_table",
    "n_rows_of_files",
    "rollups_of",
    "score_work",
    "scored_keys",
    "scores_of",
    "what_it_reads",
    "with_merged",
]

"""The decision as a table: every account that a policy had something to say of, at each as-of. Pure.

Files of earlier releases hold flags alone, in the first columns; `whole` gives them the others.
"""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from batchscore.keys import ACCOUNT_ID, MOMENT

FLAG: Final = "flag"
RESERVE: Final = "reserve"
EVIDENCE: Final = "evidence"
WITHHELD: Final = "withheld"
_DEFAULTS: Final[dict[str, Any]] = {"standing": FLAG, "probability": 1.0, "second_reviewer": False}


def decision_schema(id_type: pa.DataType) -> pa.Schema:
    """One row per account and as-of.

    ``rank`` (from 1) is of flags, then of the reserve; null where withheld. ``standing``: flag, reserve, evidence (a flag of it
    stands, and what was scored may add to that; its rank is that of the flag before which it would have stood) or withheld; of
    the last two ``withheld`` (`memory.Withheld`) and ``why`` in words. ``since``: what moved since it was cleared. ``group``: its
    campaign. ``stratum``: where it was drawn, null where its score selected it; ``probability``: with which it came in, null if
    it did not.
    """
    return pa.schema(
        [
            (ACCOUNT_ID, id_type),
            ("as_of", MOMENT),
            ("rank", pa.int64()),
            ("score", pa.float32()),
            ("margin", pa.float32()),
            ("standing", pa.string()),
            ("withheld", pa.string()),
            ("why", pa.string()),
            ("since", pa.string()),
            ("group", pa.string()),
            ("segment", pa.string()),
            ("domain", pa.string()),
            ("second_reviewer", pa.bool_()),
            ("stratum", pa.string()),
            ("probability", pa.float64()),
        ]
    )


def whole(decided: pa.Table) -> pa.Table:
    """A decision with all columns, ``release`` too where it has it; what an earlier release did not know is as it was then."""
    for field in decision_schema(decided.schema.field(ACCOUNT_ID).type):
        if field.name not in decided.column_names:
            value = _DEFAULTS.get(field.name)
            column = (
                pa.nulls(len(decided), field.type) if value is None else pa.repeat(pa.scalar(value, field.type), len(decided))
            )
            decided = decided.append_column(field, column)
    return decided


def of_standing(decided: pa.Table, *standings: str) -> pa.Table:
    """The rows of a whole decision with one of those standings."""
    return decided.filter(pc.is_in(decided["standing"], value_set=pa.array(standings)))


def flags_in(decided: pa.Table) -> pa.Table:
    """The rows of a decision that are flags, whatever release wrote it."""
    return of_standing(decided, FLAG) if "standing" in decided.column_names else decided


def as_earlier(decided: pa.Table, schema: pa.Schema) -> pa.Table:
    """What a file of ``schema``, which an earlier release may have written, would hold of a decision: then flags alone."""
    if "standing" in schema.names:
        return decided
    kept = flags_in(decided)
    return whole(kept.select([name for name in schema.names if name in kept.column_names]))

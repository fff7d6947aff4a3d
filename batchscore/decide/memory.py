"""Memory: what decide knows of earlier flags and of suppressions, and whom of the accounts it keeps from being flagged. Pure.

It is one table, frozen with the decision. A flag's row has the account, when it was opened and closed, and what people made of
it; a suppression's row has its scope and key. Files of earlier releases have the first three columns alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.decide.again import Then, Words, said_on
from batchscore.flag import DECIDED, FlagState
from batchscore.keys import ACCOUNT_ID, MOMENT, positions
from batchscore.policy import CoolDown
from batchscore.ports import PastFlag, Suppression

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_FLAGS_AT_ONCE: Final = 20_000
_OF_FLAGS: Final = (
    "opened_at", "closed_at", "run_id", "as_of", "state", "score", "reason_codes", "decided_at", "margin", "second_reviewer",
)  # fmt: skip
_READ_AT: Final = b"batchscore.read_at"
_OF_SUPPRESSIONS: Final = ("scope", "key", "owner", "why", "ended")


class Withheld(StrEnum):
    """Why an account that would be flagged is not."""

    OPEN = "open"  # a flag of it stands
    SUPPRESSED = "suppressed"
    COOL_DOWN = "cool_down"
    UNMOVED = "unmoved"  # cleared, and nothing moved since
    TIER = "tier"  # the budget of a tier it is in is used up


def memory_schema(id_type: pa.DataType) -> pa.Schema:
    """One row per flag (``scope`` is null) and per suppression (``account_id`` is null, opened and closed are from and until).

    ``ended``: the suppression had ended when memory was read.
    """
    return pa.schema(
        [
            (ACCOUNT_ID, id_type),
            ("opened_at", MOMENT),
            ("closed_at", MOMENT),
            ("run_id", pa.string()),
            ("as_of", MOMENT),
            ("state", pa.string()),
            ("score", pa.float64()),
            ("reason_codes", pa.list_(pa.string())),
            ("decided_at", MOMENT),
            ("margin", pa.float64()),
            ("second_reviewer", pa.bool_()),
            ("scope", pa.string()),
            ("key", pa.string()),
            ("owner", pa.string()),
            ("why", pa.string()),
            ("ended", pa.bool_()),
        ]
    )


def remember(
    past_flags: Iterable[PastFlag], suppressions: Iterable[Suppression], id_type: pa.DataType, read_at: datetime | None = None
) -> pa.Table:
    """Past flags and suppressions of one queue as a table of `memory_schema`; what ended by ``read_at`` is ``ended``."""
    schema = memory_schema(id_type)
    flags, held = iter(past_flags), list(suppressions)
    tables = [_of_flags(part, schema) for part in iter(lambda: list(islice(flags, _FLAGS_AT_ONCE)), [])]
    of_suppressions = {name: [getattr(one, name) for one in held] for name in _OF_SUPPRESSIONS[:-1]}
    of_suppressions |= {
        "opened_at": _times([one.begins_at for one in held]),
        "closed_at": _times([one.until for one in held]),
        "ended": [read_at is not None and one.until <= read_at for one in held],
    }
    table = pa.concat_tables([*tables, _with_nulls(of_suppressions, len(held), schema)]).combine_chunks()
    return table if read_at is None else table.replace_schema_metadata({_READ_AT: read_at.isoformat().encode()})


def read_at(schema: pa.Schema) -> datetime | None:
    """When the memory of that schema was read; None: it does not say, as those of earlier releases."""
    held = (schema.metadata or {}).get(_READ_AT)
    return None if held is None else datetime.fromisoformat(held.decode())


def _of_flags(flags: Sequence[PastFlag], schema: pa.Schema) -> pa.Table:
    columns = dict(zip(PastFlag._fields, zip(*flags, strict=True), strict=True))
    held = {name: columns[name] for name in (ACCOUNT_ID, *_OF_FLAGS)}
    held |= {name: _times(held[name]) for name in _OF_FLAGS if schema.field(name).type == MOMENT}
    return _with_nulls(held, len(flags), schema)


def _times(moments: Iterable[datetime | None]) -> pa.Array:
    """As `MOMENT`; by way of integers, since Arrow asks each for its offset, which takes ten times as long."""
    whole_us = [None if at is None else (at - _EPOCH) // _MICROSECOND for at in moments]
    return pa.array(whole_us, pa.int64()).cast(MOMENT)


def _with_nulls(columns: Mapping[str, Any], n_rows: int, schema: pa.Schema) -> pa.Table:
    """A table of ``schema``, null in the columns that are not given."""
    nothing = {name: pa.nulls(n_rows, schema.field(name).type) for name in schema.names if name not in columns}
    return pa.table({name: {**columns, **nothing}[name] for name in schema.names}, schema=schema)


def whole(memory: pa.Table) -> pa.Table:
    """The memory with all columns; null where an earlier release did not know them."""
    schema = memory_schema(memory.schema.field(ACCOUNT_ID).type)
    held = {name: memory[name] for name in memory.column_names}
    nothing = {name: pa.nulls(len(memory), schema.field(name).type) for name in schema.names if name not in held}
    return pa.table(nothing | held).select(schema.names).cast(schema)


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """When memory is asked. ``released``: for the reviewers now, and not for a simulated date of the past.

    A simulated date sees what was so before it. The released one sees whatever was known when memory was read; how long ago it
    was is measured to its as-of, since decide has no clock.
    """

    as_of: datetime
    released: bool


class Memory:
    """A memory's table, asked at one moment."""

    def __init__(self, memory: pa.Table, at: Moment) -> None:
        self._at = at
        table = whole(memory)
        self._flags = table.filter(pc.is_null(table["scope"]))
        self._suppressions = table.filter(pc.is_valid(table["scope"])).to_pylist()
        self._latest: pa.Table | None = None

    def open_accounts(self) -> pa.Array:
        """Accounts with a flag that stands then, each once, of the memory's id type."""
        standing = pc.is_null(self._flags["closed_at"])
        if not self._at.released:
            moment = pa.scalar(self._at.as_of, MOMENT)
            standing = pc.and_(
                pc.less(self._flags["opened_at"], moment),
                pc.or_kleene(standing, pc.greater_equal(self._flags["closed_at"], moment)),
            )
        return _distinct(self._flags.filter(standing)[ACCOUNT_ID])

    def newest_evidence(self) -> pa.Table:
        """The newest evidence on each flag that stands now: account_id, as_of, score, margin, reason_codes, second_reviewer.

        Not of a memory that an earlier release froze: it holds no margins.
        """
        known = pc.and_(pc.is_null(self._flags["closed_at"]), pc.is_valid(self._flags["margin"]))
        columns = [ACCOUNT_ID, "as_of", "score", "margin", "reason_codes", "second_reviewer"]
        return self._flags.filter(known).select(columns)

    def decided(self) -> pa.Table:
        """The newest decision on each account known then: account_id, state, score, reason_codes, as_of, decided_at."""
        if self._latest is None:
            flags = self._flags
            known = pc.and_(pc.is_in(flags["state"], value_set=pa.array(sorted(DECIDED))), pc.is_valid(flags["decided_at"]))
            if not self._at.released:
                before = pc.less(flags["decided_at"], pa.scalar(self._at.as_of, MOMENT))
                known = pc.and_(known, pc.fill_null(before, fill_value=False))
            columns = [ACCOUNT_ID, "state", "score", "reason_codes", "as_of", "decided_at", "opened_at"]
            found = flags.filter(known).select(columns)
            found = found.sort_by([(name, "ascending") for name in (ACCOUNT_ID, "decided_at", "opened_at")])
            ids = _array(found[ACCOUNT_ID])
            is_last = np.ones(len(found), np.bool_)
            if len(found) > 1:
                is_last[:-1] = pc.not_equal(ids[:-1], ids[1:]).to_numpy(zero_copy_only=False)
            self._latest = found.filter(pa.array(is_last)).drop_columns(["opened_at"])
        return self._latest

    def cleared_after(self, cool_down: CoolDown) -> pa.Table:
        """Of `decided`, those that were cleared, and whose cool-down is over."""
        latest = self.decided()
        found = latest.filter(pc.equal(latest["state"], FlagState.CLEARED))
        if not cool_down.cleared:
            return found
        return found.filter(pc.less_equal(found["decided_at"], pa.scalar(self._at.as_of - cool_down.cleared, MOMENT)))

    def suppressions(self) -> list[dict[str, Any]]:
        """Those that hold then; for the reviewers now, those that had not ended when memory was read."""
        as_of, released = self._at.as_of, self._at.released
        return [
            held
            for held in self._suppressions
            if held["closed_at"] > as_of and (not held["ended"] if released else held["opened_at"] <= as_of)
        ]


@dataclass(frozen=True, slots=True)
class Judged:
    """Of each candidate: why it is withheld (None: it is not), that in words, and what moved since it was cleared, in words.

    ``suppressed``: where a suppression holds, beside whatever else withholds the candidate.
    """

    kinds: list[Withheld | None]
    whys: list[str | None]
    since: list[str | None]
    suppressed: list[bool]


def judge(
    candidates: pa.Table,
    memory: Memory,
    cool_down: CoolDown,
    groups: Mapping[str, str | None],
    moved: Words,
    at: Moment,
) -> Judged:
    """What memory says of candidates (account_id, score, and the groups they are in).

    Args:
        candidates: Accounts, each once.
        memory: Asked at ``at``.
        cool_down: Of the policy.
        groups: ``domain`` and ``segment`` → the column that holds it; None: none does.
        moved: Whether an account that was cleared has moved since, and how.
        at: The moment.
    """
    ids = _array(candidates[ACCOUNT_ID])
    judged = Judged([None] * len(ids), [None] * len(ids), [None] * len(ids), [False] * len(ids))

    def withhold(places: Iterable[int], kind: Withheld, why: str) -> None:
        for place in places:
            if judged.kinds[place] is None:
                judged.kinds[place], judged.whys[place] = kind, why

    withhold(_places(ids, memory.open_accounts()), Withheld.OPEN, "a flag of it stands")
    for held in memory.suppressions():
        column = ids.cast(pa.string()) if held["scope"] == "account" else _column(candidates, groups.get(held["scope"]))
        why = f"{held['scope']} suppressed until {said_on(held['closed_at'])} by {held['owner']}: {held['why']}"
        places = [] if column is None else _places(column, pa.array([held["key"]]))
        withhold(places, Withheld.SUPPRESSED, why)
        for place in places:
            judged.suppressed[place] = True
    latest = memory.decided()
    at_latest = positions(ids, _array(latest[ACCOUNT_ID]))
    free = [place for place in np.flatnonzero(at_latest >= 0).tolist() if judged.kinds[place] is None]
    for first in range(0, len(free), _FLAGS_AT_ONCE):
        part = free[first : first + _FLAGS_AT_ONCE]
        for place, row in zip(part, latest.take(at_latest[part]).to_pylist(), strict=True):
            then = Then.of(row)
            rest = cool_down_of(cool_down, then.state)
            until = then.decided_at + rest
            if rest and until > at.as_of:
                why = f"{then.state} {said_on(then.decided_at)}: not before {said_on(until)}"
                withhold([place], Withheld.COOL_DOWN, why)
            elif then.state == FlagState.CLEARED:
                is_free, words = moved(ids[place].as_py(), float(candidates["score"][place].as_py()), then)
                withhold([] if is_free else [place], Withheld.UNMOVED, words)
                judged.since[place] = words if is_free else None
    return judged


def cool_down_of(cool_down: CoolDown, state: str) -> timedelta:
    """How long nothing is flagged after that decision."""
    held: timedelta = getattr(cool_down, state)
    return held


def _column(candidates: pa.Table, name: str | None) -> pa.Array | None:
    return None if name is None or name not in candidates.column_names else _array(candidates[name])


def _places(values: pa.Array, among: pa.Array) -> list[int]:
    """Where values stand that are ``among`` those."""
    found: list[int] = np.flatnonzero(pc.is_in(values, value_set=among).to_numpy(zero_copy_only=False)).tolist()
    return found


def _array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _distinct(ids: pa.ChunkedArray) -> pa.Array:
    return _array(pc.unique(ids))

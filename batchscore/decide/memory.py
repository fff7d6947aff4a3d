"""Memory: what decide knows of earlier flags and of suppressions, and whom of the accounts it keeps from being flagged. Pure.

It is one table, frozen with the decision. A flag's row has the account, when it was opened and closed, and what people made of
it; a suppression's row has its scope and key. Files of earlier releases have the first three columns alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from itertools import chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.decide.again import Then, Words, said_on
from batchscore.flag import DECIDED, FlagState
from batchscore.keys import ACCOUNT_ID, MOMENT, positions
from batchscore.policy import CoolDown
from batchscore.ports import PastColumns, Suppression

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_FLAGS_AT_ONCE: Final = 20_000
_READ_AT: Final = b"batchscore.read_at"
_OF_SUPPRESSIONS: Final = ("scope", "key", "owner", "why", "ended")

Objects = npt.NDArray[np.object_]
Places = npt.NDArray[np.int64]


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
    past: Iterable[PastColumns], suppressions: Iterable[Suppression], id_type: pa.DataType, read_at: datetime | None = None
) -> pa.Table:
    """Past flags and suppressions of one queue as a table of `memory_schema`; what ended by ``read_at`` is ``ended``."""
    schema = memory_schema(id_type)
    held = list(suppressions)
    tables = [_of_flags(columns, schema) for columns in past]
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


def _of_flags(flags: PastColumns, schema: pa.Schema) -> pa.Table:
    held: dict[str, Any] = flags._asdict()
    held |= {name: pa.array(held[name], pa.int64()).cast(MOMENT) for name in held if schema.field(name).type == MOMENT}
    held["reason_codes"] = _lists(flags.reason_codes)
    return _with_nulls(held, len(flags.account_id), schema)


def _lists(codes: Sequence[Sequence[str]]) -> pa.ListArray:
    """From all of them in a row and how many each has: Arrow takes ten times as long over nested sequences."""
    ends = np.cumsum([0, *map(len, codes)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(chain.from_iterable(codes), pa.string()))


def _times(moments: Iterable[datetime]) -> pa.Array:
    return pa.array([(at - _EPOCH) // _MICROSECOND for at in moments], pa.int64()).cast(MOMENT)


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

    @cached_property
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

    @cached_property
    def newest_evidence(self) -> pa.Table:
        """The newest evidence on each flag that stands now: account_id, as_of, margin, second_reviewer.

        Not of a memory that an earlier release froze: it holds no margins.
        """
        known = pc.and_(pc.is_null(self._flags["closed_at"]), pc.is_valid(self._flags["margin"]))
        return self._flags.select([ACCOUNT_ID, "as_of", "margin", "second_reviewer"]).filter(known)

    @cached_property
    def decided(self) -> pa.Table:
        """The newest decision on each account known then: account_id, state, score, reason_codes, as_of, decided_at."""
        flags = self._flags
        known = pc.and_(pc.is_in(flags["state"], value_set=pa.array(sorted(DECIDED))), pc.is_valid(flags["decided_at"]))
        if not self._at.released:
            before = pc.less(flags["decided_at"], pa.scalar(self._at.as_of, MOMENT))
            known = pc.and_(known, pc.fill_null(before, fill_value=False))
        columns = [ACCOUNT_ID, "state", "score", "reason_codes", "as_of", "decided_at", "opened_at"]
        found = flags.select(columns).filter(known)
        found = found.sort_by([(name, "ascending") for name in (ACCOUNT_ID, "decided_at", "opened_at")])
        ids = _array(found[ACCOUNT_ID])
        is_last = np.ones(len(found), np.bool_)
        if len(found) > 1:
            is_last[:-1] = pc.not_equal(ids[:-1], ids[1:]).to_numpy(zero_copy_only=False)
        return found.filter(pa.array(is_last)).drop_columns(["opened_at"])

    def cleared_after(self, cool_down: CoolDown) -> pa.Table:
        """Of `decided`, those that were cleared, and whose cool-down is over."""
        latest = self.decided
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
    """Of n candidates: why each is withheld (`Withheld`; None: it is not), that in words, and what moved since it was cleared.

    Arrays (n,) of objects. ``suppressed``, bool (n,): where a suppression holds, beside whatever else withholds the candidate.
    """

    kinds: Objects
    whys: Objects
    since: Objects
    suppressed: npt.NDArray[np.bool_]

    @classmethod
    def of_nothing(cls, n: int) -> Judged:
        """Nobody is withheld."""
        kinds, whys, since = (np.full(n, None, object) for _ in range(3))
        return cls(kinds, whys, since, np.zeros(n, np.bool_))

    @property
    def is_withheld(self) -> npt.NDArray[np.bool_]:
        """Of each candidate, whatever withholds it, bool (n,)."""
        return self.kinds.astype(np.bool_)  # None alone is false

    def withhold(self, places: Places, kind: Withheld, why: str | Objects) -> None:
        """Those at these places whom nothing withholds yet. ``why``: of all of them, or of each."""
        is_free = ~self.is_withheld[places]
        self.kinds[places[is_free]] = kind
        self.whys[places[is_free]] = why if isinstance(why, str) else why[is_free]


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
    judged = Judged.of_nothing(len(ids))
    judged.withhold(_places(ids, memory.open_accounts), Withheld.OPEN, "a flag of it stands")
    for held in memory.suppressions():
        column = ids.cast(pa.string()) if held["scope"] == "account" else _column(candidates, groups.get(held["scope"]))
        if column is None:
            continue
        why = f"{held['scope']} suppressed until {said_on(held['closed_at'])} by {held['owner']}: {held['why']}"
        places = _places(column, pa.array([held["key"]]))
        judged.withhold(places, Withheld.SUPPRESSED, why)
        judged.suppressed[places] = True
    latest = memory.decided
    at_latest = positions(ids, _array(latest[ACCOUNT_ID]))
    free = np.flatnonzero((at_latest >= 0) & ~judged.is_withheld)
    then = latest.take(pa.array(at_latest[free]))
    whys = _resting(then, cool_down, at)
    rests = whys.astype(np.bool_)
    judged.withhold(free[rests], Withheld.COOL_DOWN, whys[rests])
    was_cleared = pc.equal(then["state"], FlagState.CLEARED).to_numpy() & ~rests
    _look_again(judged, candidates, free[was_cleared], then.filter(pa.array(was_cleared)), moved)
    return judged


def _resting(then: pa.Table, cool_down: CoolDown, at: Moment) -> Objects:
    """Of each decision, in words, until when its account is left alone; None where that is over."""
    whys = np.full(len(then), None, object)
    for state in sorted(DECIDED):
        rest = cool_down_of(cool_down, state)
        places = np.flatnonzero(pc.equal(then["state"], state).to_numpy()) if rest else np.empty(0, np.int64)
        for place, decided_at in zip(places, then["decided_at"].take(pa.array(places)).to_pylist(), strict=True):
            until = decided_at + rest
            if until > at.as_of:
                whys[place] = f"{state} {said_on(decided_at)}: not before {said_on(until)}"
    return whys


def _look_again(judged: Judged, candidates: pa.Table, places: Places, then: pa.Table, moved: Words) -> None:
    """Withhold those at these places who were cleared and have not moved since, and say of the others what moved."""
    for first in range(0, len(places), _FLAGS_AT_ONCE):
        part = places[first : first + _FLAGS_AT_ONCE]
        asked = candidates.select([ACCOUNT_ID, "score"]).take(pa.array(part)).to_pylist()
        for place, one, row in zip(part, asked, then.slice(first, _FLAGS_AT_ONCE).to_pylist(), strict=True):
            is_free, words = moved(one[ACCOUNT_ID], float(one["score"]), Then.of(row))
            if is_free:
                judged.since[place] = words
            else:
                judged.kinds[place], judged.whys[place] = Withheld.UNMOVED, words


def cool_down_of(cool_down: CoolDown, state: str) -> timedelta:
    """How long nothing is flagged after that decision."""
    held: timedelta = getattr(cool_down, state)
    return held


def _column(candidates: pa.Table, name: str | None) -> pa.Array | None:
    return None if name is None or name not in candidates.column_names else _array(candidates[name])


def _places(values: pa.Array, among: pa.Array) -> Places:
    """Where values stand that are ``among`` those."""
    return np.flatnonzero(pc.is_in(values, value_set=among).to_numpy(zero_copy_only=False))


def _array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _distinct(ids: pa.ChunkedArray) -> pa.Array:
    return _array(pc.unique(ids))

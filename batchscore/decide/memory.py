"""Memory: what decide knows of earlier flags and of suppressions, and whom of the accounts it keeps from being flagged. Pure.

It is one table, frozen with the decision. A flag's row has the account, when it was opened and closed, and what people made of
it; a suppression's row has its scope and key. Files of earlier releases have the first three columns alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from itertools import chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchscore.decide.again import Then, Words, said_on
from batchscore.decide.best import Places
from batchscore.flag import DECIDED, FlagState
from batchscore.keys import ACCOUNT_ID, MOMENT, positions
from batchscore.policy import CoolDown
from batchscore.ports import MemoryRead, PastColumns, Suppression

_FLAGS_AT_ONCE: Final = 20_000
_READ_AT: Final = b"batchscore.read_at"
_READ_EVENT: Final = b"batchscore.read_event"

Objects = npt.NDArray[np.object_]


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
    past: Iterable[PastColumns], suppressions: Iterable[Suppression], id_type: pa.DataType, read: MemoryRead | None = None
) -> pa.Table:
    """Past flags and suppressions of one queue as a table of `memory_schema`; ``ended``: by when they were ``read``."""
    schema = memory_schema(id_type)
    held = list(suppressions)
    tables = [_of_flags(columns, schema) for columns in past]
    of_suppressions: dict[str, Any] = {
        "opened_at": [one.begins_at for one in held],
        "closed_at": [one.until for one in held],
        "scope": [one.scope for one in held],
        "key": [one.key for one in held],
        "owner": [one.owner for one in held],
        "why": [one.why for one in held],
        "ended": [read is not None and one.until <= read.at for one in held],
    }
    table = pa.concat_tables([*tables, _with_nulls(of_suppressions, len(held), schema)]).combine_chunks()
    if read is None:
        return table
    said = {_READ_AT: read.at.isoformat().encode()}
    return table.replace_schema_metadata(said if read.event is None else said | {_READ_EVENT: str(read.event).encode()})


def read_of(schema: pa.Schema) -> MemoryRead | None:
    """When the memory of that schema was read; None: it does not say, as those of earlier releases."""
    held = schema.metadata or {}
    if _READ_AT not in held:
        return None
    event = held.get(_READ_EVENT)
    return MemoryRead(datetime.fromisoformat(held[_READ_AT].decode()), None if event is None else int(event))


def _of_flags(flags: PastColumns, schema: pa.Schema) -> pa.Table:
    held: dict[str, Any] = flags._asdict()
    held |= {name: pa.array(held[name], pa.int64()).cast(MOMENT) for name in held if schema.field(name).type == MOMENT}
    held["reason_codes"] = _lists(flags.reason_codes)
    return _with_nulls(held, len(flags.account_id), schema)


def _lists(codes: Sequence[Sequence[str]]) -> pa.ListArray:
    """From all of them in a row and how many each has: Arrow takes ten times as long over nested sequences."""
    ends = np.cumsum([0, *map(len, codes)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(chain.from_iterable(codes), pa.string()))


def _with_nulls(columns: Mapping[str, Any], n_rows: int, schema: pa.Schema) -> pa.Table:
    """A table of ``schema``, null in the columns that are not given."""
    held = {field.name: columns.get(field.name, pa.nulls(n_rows, field.type)) for field in schema}
    return pa.table(held, schema=schema)


def whole(memory: pa.Table) -> pa.Table:
    """The memory with all columns; null where an earlier release did not know them."""
    held = dict(zip(memory.column_names, memory.columns, strict=True))
    return _with_nulls(held, len(memory), memory_schema(memory.schema.field(ACCOUNT_ID).type))


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
        return pc.unique(self._flags.filter(standing)[ACCOUNT_ID])

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
    _suppress(judged, candidates, memory.suppressions(), groups)
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


def _suppress(
    judged: Judged, candidates: pa.Table, suppressions: Sequence[Mapping[str, Any]], groups: Mapping[str, str | None]
) -> None:
    """Withhold those of whom a suppression holds; of several the first says why. Each scope is looked up once."""
    first = np.full(len(candidates), len(suppressions))
    for scope in {held["scope"] for held in suppressions}:
        column = (
            _array(candidates[ACCOUNT_ID]).cast(pa.string()) if scope == "account" else _column(candidates, groups.get(scope))
        )
        if column is None:
            continue
        numbers: dict[str, int] = {}
        for number, held in enumerate(suppressions):
            if held["scope"] == scope:
                numbers.setdefault(held["key"], number)
        at = positions(column, pa.array(list(numbers), pa.string()))
        mine = np.append(np.fromiter(numbers.values(), np.int64), len(suppressions))  # the last is of whom no key names
        first = np.minimum(first, mine[at])
    places = np.flatnonzero(first < len(suppressions))
    judged.suppressed[places] = True
    whys = [
        f"{held['scope']} suppressed until {said_on(held['closed_at'])} by {held['owner']}: {held['why']}"
        for held in suppressions
    ]
    judged.withhold(places, Withheld.SUPPRESSED, np.array(whys, object)[first[places]])


def _resting(then: pa.Table, cool_down: CoolDown, at: Moment) -> Objects:
    """Of each decision, in words, until when its account is left alone; None where that is over."""
    whys = np.full(len(then), None, object)
    for state in sorted(DECIDED):
        rest: timedelta = getattr(cool_down, state)
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
        asked = candidates.select([ACCOUNT_ID, "score"]).take(pa.array(part)).to_pydict()
        seen = Then.of_rows(then.slice(first, _FLAGS_AT_ONCE))
        for place, account, score, one in zip(part, asked[ACCOUNT_ID], asked["score"], seen, strict=True):
            is_free, words = moved(account, float(score), one)
            if is_free:
                judged.since[place] = words
            else:
                judged.kinds[place], judged.whys[place] = Withheld.UNMOVED, words


def _column(candidates: pa.Table, name: str | None) -> pa.Array | None:
    return None if name is None or name not in candidates.column_names else _array(candidates[name])


def _places(values: pa.Array, among: pa.Array) -> Places:
    """Where values stand that are ``among`` those."""
    return np.flatnonzero(pc.is_in(values, value_set=among).to_numpy(zero_copy_only=False))


def _array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column

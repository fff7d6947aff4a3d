"""When an account that was cleared may be flagged again: what moved since, against what must, and in words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from batchscore.flag import FlagState
from batchscore.keys import ACCOUNT_ID, MOMENT
from batchscore.policy import Again

MOST_LOOKED_AT: Final = 2_000  # cleared accounts of an as-of whose features are made again; the best first
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MOST_NAMED: Final = 3


def said_on(day: datetime) -> str:
    """``3 May 2026``, whatever the locale."""
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Then:
    """The newest decision on an account, and the evidence that it spoke of."""

    state: FlagState
    decided_at: datetime
    as_of: datetime | None
    score: float
    reason_codes: tuple[str, ...]

    @classmethod
    def of_rows(cls, rows: pa.Table) -> Iterator[Then]:
        """From rows of `Memory.decided`. What many of them share is made once: moments are dear."""
        states, decided, as_ofs = (_shared(rows[name].combine_chunks()) for name in ("state", "decided_at", "as_of"))
        scores, codes = rows["score"].to_pylist(), iter(pc.list_flatten(rows["reason_codes"]).to_pylist())
        n_codes = pc.fill_null(pc.list_value_length(rows["reason_codes"]), 0).to_pylist()
        for state, decided_at, as_of, score, n in zip(states, decided, as_ofs, scores, n_codes, strict=True):
            yield cls(
                state=FlagState(state),
                decided_at=decided_at,
                as_of=as_of,
                score=score or 0.0,
                reason_codes=tuple(islice(codes, n)),
            )


def _shared(column: pa.Array) -> list[Any]:
    """The values of a column; equal ones are one."""
    encoded = column.dictionary_encode()
    values = encoded.dictionary.to_pylist()
    return [None if at is None else values[at] for at in encoded.indices.to_pylist()]


@dataclass(frozen=True, kw_only=True, slots=True)
class CloserLook:
    """A closer look at an account that was cleared: its reasons towards abuse now, and counts then and now, by feature."""

    codes: tuple[str, ...]
    then: Mapping[str, float]
    now: Mapping[str, float]


Words = Callable[[int | str, float, Then], tuple[bool, str]]  # account, score, then → (may be flagged, in words)


def closer_look_schema(id_type: pa.DataType) -> pa.Schema:
    """One row per cleared account that was looked at: ``names``, ``then`` and ``now`` of its counts are as long as each other."""
    return pa.schema(
        [
            ("as_of", MOMENT),
            (ACCOUNT_ID, id_type),
            ("codes", pa.list_(pa.string())),
            ("names", pa.list_(pa.string())),
            ("then", pa.list_(pa.float64())),
            ("now", pa.list_(pa.float64())),
        ]
    )


def closer_looks_in(table: pa.Table) -> dict[int | str, CloserLook]:
    """Account → its closer look, from rows of one as-of. NaN in a count is a feature without a value."""
    return {
        row[ACCOUNT_ID]: CloserLook(
            codes=tuple(row["codes"]),
            then=dict(zip(row["names"], row["then"], strict=True)),
            now=dict(zip(row["names"], row["now"], strict=True)),
        )
        for row in table.to_pylist()
    }


def moved_since(asked: Again | None, looks: Mapping[int | str, CloserLook]) -> Words:
    """Whether a cleared account has moved as ``asked``; None: once its cool-down is over it may be flagged as any."""

    def words(account: int | str, score: float, then: Then) -> tuple[bool, str]:
        on = f"cleared {said_on(then.decided_at)}"
        if asked is None:
            return True, on
        found = looks.get(account)
        moved = list(_moves(asked, score, then, found))
        if moved:
            return True, f"{on}; since then {', '.join(moved)}"
        unseen = asked.looks_closer and found is None
        why = "its score has not risen enough, and nobody looked closer" if unseen else "nothing moved enough since"
        return False, f"{on}; {why}"

    return words


def _moves(asked: Again, score: float, then: Then, found: CloserLook | None) -> list[str]:
    """What moved as far as it was asked for; what else moved is not told."""
    told: list[str] = []
    if found is not None:
        for name, least in sorted(asked.counts.items()):
            before, now = found.then.get(name, float("nan")), found.now.get(name, float("nan"))
            rise = now - (0.0 if before != before else before)  # noqa: PLR0124 (NaN: it had no value then)
            if rise >= least:
                told.append(f"{rise:,.10g} more {name}")
        new = [code for code in found.codes if code not in then.reason_codes]
        if asked.reasons is not None and len(new) >= asked.reasons:
            named = ", ".join(new[:_MOST_NAMED]) + (", …" if len(new) > _MOST_NAMED else "")
            told.append(f"{len(new)} new reason{'s' if len(new) > 1 else ''} ({named})")
    if asked.score is not None and score - then.score >= asked.score:
        told.append(f"score {then.score:.4f} → {score:.4f}")
    return told

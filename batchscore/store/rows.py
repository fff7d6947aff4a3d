"""Database rows to values and back: times, ids, plans, receipts, flags. No SQL is run here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, NamedTuple

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Engine, RowMapping, Select

from batchscore.database import is_mysql
from batchscore.driver import is_gone
from batchscore.errors import Damaged, Refused
from batchscore.flag import BEFORE_REVIEWERS, REASONS, AccountId, AnyFlag, Flag, FlagState, ReleasedAs
from batchscore.hold import Finding, HoldRow
from batchscore.plan import Partition, Plan, Reference
from batchscore.ports import FlagRow, HeldFlag, RunRow, Suppression
from batchscore.request import Request
from batchscore.settings import STRING_ID_BYTES

RowsOf = Callable[[Select[Any]], Sequence[RowMapping]]  # asks a database: in a transaction of its own, again while it stumbles

FINDINGS: Final = TypeAdapter(tuple[Finding, ...])
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
LARGEST_IN_SQLITE: Final = (1 << 63) - 1
LARGEST_IN_MYSQL: Final = (1 << 64) - 1


def moment(seconds: float | None) -> datetime | None:
    """Seconds since 1970 as an aware datetime."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def microseconds(at: datetime) -> int:
    """Whole microseconds since 1970."""
    return (at - EPOCH) // MICROSECOND


@lru_cache(maxsize=1_024)  # the flags of a release share theirs
def from_microseconds(us: int) -> datetime:
    """The inverse of `microseconds`."""
    return EPOCH + us * MICROSECOND


def stored_id(account_id: AccountId, largest: int) -> int | bytes:
    """An account id as the column holds it. ``largest``: the largest integer of the database.

    Raises:
        Refused: ``id_too_large`` (the id is not repeated).
    """
    if isinstance(account_id, str):
        held = account_id.encode()
        if len(held) > STRING_ID_BYTES:
            raise Refused(
                "id_too_large",
                f"an account id is longer than {STRING_ID_BYTES} bytes, which the review database cannot hold",
                where="flags",
                remedy="use a shorter key for the accounts",
            )
        return held
    if account_id > largest:
        raise Refused(
            "id_too_large",
            "an account id is larger than 2^63-1, which SQLite cannot hold",
            where="flags",
            remedy="keep the store on MySQL, or use account_id: string in the feature set",
        )
    return account_id


def largest_id(engine: Engine) -> int:
    """The largest integer account id that the database can hold."""
    return LARGEST_IN_MYSQL if is_mysql(engine) else LARGEST_IN_SQLITE


def id_if_any(account_id: AccountId, largest: int) -> int | bytes | None:
    """An account id as a column holds it; None for one that no flag of the database can have: not even asked for can it be."""
    try:
        return stored_id(account_id, largest)
    except Refused:
        return None


def account_id_of(stored: int | bytes) -> AccountId:
    """The inverse of `stored_id`."""
    return stored.decode() if isinstance(stored, bytes) else stored


def run_row(row: RowMapping) -> RunRow:
    """A row of `runs`."""
    created, updated = moment(row["created_at"]), moment(row["updated_at"])
    assert created is not None
    assert updated is not None
    return RunRow(
        run_id=row["run_id"],
        name=row["name"],
        plan_digest=row["plan_digest"],
        generation=row["generation"],
        state=row["state"],
        epoch=row["epoch"],
        plan=_plan_of(row),
        created_at=created,
        updated_at=updated,
        finished_at=moment(row["finished_at"]),
        decision=_reference(row["decision_path"], row["decision_sha256"]),
        memory=_reference(row["memory_path"], row["memory_sha256"]),
        released_at=moment(row["released_at"]),
        why=row["why"],
        executor=row["executor"],
        driver_gone=row["state"] == "running" and (bool(row.get("lapsed")) or is_gone(row["lease_owner"])),
        undo_begun_at=moment(row["undo_begun_at"]),
        undone_at=moment(row["undone_at"]),
        undone_by=row["undone_by"] or "",
        undone_why=row["undone_why"] or "",
        held_back_s=row["held_back_s"],
        worst_lag_s=row["worst_lag_s"],
        request=None if row["state"] == "finished" else request_of(row),
        deadline_at=moment(row["deadline_at"]),
        expected_at=moment(row["expected_at"]),
        late_since=moment(row["late_since"]),
        n_requests=row["request_number"],
    )


def _plan_of(row: RowMapping) -> Plan:
    try:
        return Plan.model_validate_json(row["plan"])
    except ValidationError:  # its text may quote the row
        raise Damaged(
            "row_damaged",
            "the plan of that run cannot be read: its row was changed by hand, or cut short",
            where=f"run {row['run_id']}",
            remedy="restore the row (runs.plan) from a backup of the store; until then no run of the store is told of",
        ) from None


def request_of(row: RowMapping) -> Request | None:
    """What is asked of the run of a row of `runs`."""
    at = moment(row["requested_at"])
    if not row["requested_state"] or at is None:
        return None
    return Request(
        wish=row["requested_state"],
        number=row["request_number"],
        by=row["requested_by"] or "",
        why=row["requested_why"] or "",
        at=at,
        seen_at=moment(row["request_seen_at"]),
        met_at=moment(row["request_met_at"]),
    )


def hold_row(row: RowMapping) -> HoldRow:
    """A row of `holds`."""
    held_at = moment(row["held_at"])
    assert held_at is not None
    return HoldRow(
        run_id=row["run_id"],
        subject=row["subject"],
        digest=row["digest"],
        findings=FINDINGS.validate_json(row["findings"]),
        held_at=held_at,
        approved_by=row["approved_by"],
        approved_because=row["approved_because"],
        approved_at=moment(row["approved_at"]),
    )


def _reference(path: str | None, sha256: str | None) -> Reference | None:
    return None if path is None or sha256 is None else Reference(path=path, sha256=sha256)


def partition_of(row: RowMapping) -> Partition:
    """A row of `partitions`."""
    return Partition.model_validate_json(row["work"])


class FlagsShare(NamedTuple):
    """What several flags of one release have in common; ``overtaken_by`` is None for those that open, or are suppressed."""

    overtaken_by: str | None
    released_as: ReleasedAs
    bundle_digest: str
    second_reviewer: bool


def flags_share(flag: AnyFlag, opened_at: int, shared: FlagsShare) -> dict[str, str | int | None]:
    """The columns of `flags` that those have in common."""
    is_open = shared.released_as in BEFORE_REVIEWERS
    return {
        "queue": flag.queue,
        "run_id": flag.run_id,
        "as_of": microseconds(flag.as_of),
        "state": (FlagState.OPEN if is_open else FlagState.OVERTAKEN).value,
        "open_marker": 1 if is_open else None,
        "opened_at": opened_at,
        "closed_at": None if is_open else opened_at,
        "overtaken_by": shared.overtaken_by,
        "released_as": shared.released_as.value,
        "bundle_digest": shared.bundle_digest,
        "second_reviewer": int(shared.second_reviewer),
    }


class FlagOwn(NamedTuple):
    """What a flag has to itself in `flags`; ``account_id`` as the column holds it, ``release_ordinal`` its place in the run."""

    account_id: int | bytes
    rank: int
    score: float
    margin: float
    reasons: str
    release_ordinal: int
    group_key: str
    since: str

    @property
    def n_chars(self) -> int:
        """Characters of what may be long."""
        return len(self.reasons) + len(self.group_key) + len(self.since)


FLAGS_OWN: Final = FlagOwn._fields


def flag_own(flag: AnyFlag, account_id: int | bytes, ordinal: int) -> FlagOwn:
    """The flag's own columns."""
    return FlagOwn(
        account_id=account_id,
        rank=flag.rank,
        score=flag.score,
        margin=flag.margin,
        reasons=flag.reasons_json,
        release_ordinal=ordinal,
        group_key=flag.group,
        since=flag.since,
    )


def flag_row(row: RowMapping) -> FlagRow:
    """A row of the view `review_queue`."""
    released_at = moment(row["released_at"])
    assert released_at is not None
    return FlagRow(flag=flag_of(row), state=row["state"], released_at=released_at)


def held_flag(row: RowMapping) -> HeldFlag:
    """A row of `flags`, whatever its state."""
    return HeldFlag(
        flag=flag_of(row),
        state=row["state"],
        is_open=row["open_marker"] == 1,
        opened_at=from_microseconds(row["opened_at"]),
        released_as=row["released_as"],
        ordinal=row["release_ordinal"],
        turns=row["turns"],
    )


def flag_of(row: RowMapping) -> Flag:
    """The flag of a row of `flags`."""
    return Flag(
        queue=row["queue"],
        account_id=account_id_of(row["account_id"]),
        run_id=row["run_id"],
        as_of=from_microseconds(row["as_of"]),
        rank=row["rank"],
        score=row["score"],
        margin=row["margin"],
        reasons=REASONS.validate_json(row["reasons"]),
        bundle_digest=row["bundle_digest"],
        group=row["group_key"],
        since=row["since"],
        second_reviewer=bool(row["second_reviewer"]),
    )


def suppression(row: RowMapping) -> Suppression:
    """A row of `suppressions`."""
    return Suppression(
        scope=row["scope"],
        key=row["subject"].decode(),
        owner=row["owner"],
        why=row["why"],
        begins_at=from_microseconds(row["begins_at"]),
        until=from_microseconds(row["until"]),
    )

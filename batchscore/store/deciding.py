"""Opinions become dispositions: each meets the flag as it stands under its lock, and all of a call stand or none."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from batchscore.command import whole_command
from batchscore.desk import DispositionRow, Happened, Opinion, Reviewed
from batchscore.effect import Effect, effect_of, refuse_other_page, show_command
from batchscore.errors import Problem, Refused, TryAgain
from batchscore.flag import DECIDED, STANDING, FlagState
from batchscore.store.claiming import Desk, What, record, set_state
from batchscore.store.reviewed import IDS_A_STATEMENT, Account, Key, accounts, claims, dispositions
from batchscore.store.rows import from_microseconds, microseconds, stored_id
from batchscore.store.told import opinion_digest


class Taken(NamedTuple):
    """An opinion that stands, the flag as it met it, and what it makes of that."""

    opinion: Opinion
    flag: Reviewed
    effect: Effect


class Part(NamedTuple):
    """Where a transaction's opinions stand among all of a call: the position of its first; what each is named in an error."""

    first: int
    name: Callable[[int], str]


def check(
    connection: sa.Connection, desk: Desk, opinions: Sequence[Opinion], *, locked: bool = False
) -> tuple[list[Taken], list[tuple[int, Refused]]]:
    """Take opinions in order, each on what those before it made of its flag: what stands, and what does not, by position.

    Two opinions of one flag in one call, say of both its reviewers, follow each other.
    """
    at, store = desk.clock(connection), desk.trail.folder
    held: dict[str, dict[Any, Account]] = {}
    by_queue: defaultdict[str, set[Any]] = defaultdict(set)
    mistakes: list[tuple[int, Refused]] = []
    ids: list[Any] = []
    for position, opinion in enumerate(opinions):
        try:
            ids.append(stored_id(opinion.account_id, desk.largest_id))
            by_queue[opinion.queue].add(ids[-1])
        except Refused as refusal:
            ids.append(None)
            mistakes.append((position, refusal))
    for queue, of_queue in sorted(by_queue.items()):
        held[queue] = accounts(connection, queue, sorted(of_queue), at, locked=locked)
    changed: dict[tuple[str, Key], Reviewed] = {}
    taken: list[Taken] = []
    for position, (opinion, account_id) in enumerate(zip(opinions, ids, strict=True)):
        if account_id is None:
            continue
        try:
            flag = _meant(opinion, held[opinion.queue].get(account_id), store)
            key = (opinion.queue, (account_id, flag.flag.run_id))
            flag = changed.get(key, flag)
            effect = effect_of(flag, opinion, from_microseconds(at), store)
            if effect.state is not None:
                refuse_other_page(opinion, flag, held[opinion.queue][account_id].flags.values(), store)
            if effect.state is FlagState.AWAITING and flag.state not in STANDING:
                account = held[opinion.queue][account_id]
                _refuse_second_flag(opinion, flag, account, store)
                held[opinion.queue][account_id] = replace(account, standing=flag.flag.run_id)
        except Refused as refusal:
            mistakes.append((position, refusal))
            continue
        taken.append(Taken(opinion, flag, effect))
        if effect.state is not None:
            changed[key] = _after(flag, opinion, effect, at)
    return taken, sorted(mistakes, key=lambda mistake: mistake[0])


def decide(connection: sa.Connection, desk: Desk, opinions: Sequence[Opinion], source: str, part: Part) -> list[Taken]:
    """Write opinions as dispositions, those that were said before left out. All of them, or none.

    Raises:
        Refused: the only opinion does not stand, or ``dispositions_invalid`` with each that does not, by its name.
    """
    taken, mistakes = check(connection, desk, opinions, locked=True)
    if mistakes:
        raise mistakes[0][1] if part.first == 0 and len(opinions) == 1 else _invalid(mistakes, part)
    at = desk.clock(connection)
    by_queue: defaultdict[str, list[Taken]] = defaultdict(list)
    for one in taken:
        if one.effect.state is not None:
            by_queue[one.opinion.queue].append(one)
    for queue, new in sorted(by_queue.items()):
        _write(connection, desk, queue, new, source, at)
    return taken


def _invalid(mistakes: Sequence[tuple[int, Refused]], part: Part) -> Refused:
    """All that does not stand, in one error, and how many were taken before it."""
    taken = f"the {part.first:,} before these stand, and no other was taken" if part.first else "none was taken"
    problems = tuple(
        Problem(
            where=part.name(part.first + position), what=f"{refusal.code} {refusal.reason}: {refusal.what}", remedy=refusal.remedy
        )
        for position, refusal in mistakes
    )
    return Refused("dispositions_invalid", f"{len(problems):,} decision(s) do not stand; {taken}", problems=problems)


def _refuse_second_flag(opinion: Opinion, flag: Reviewed, account: Account, store: Path) -> None:
    """A flag that left the queue comes back to await another opinion; not beside one that stands by now."""
    if account.standing not in {None, flag.flag.run_id}:
        raise Refused(
            "flag_changed",
            "this flag left the queue, and another flag of the account stands by now",
            where=f"queue {opinion.queue}",
            remedy=f"decide on that one: {show_command(opinion, store)} says of what run it is",
        )


def _meant(opinion: Opinion, account: Account | None, store: Path) -> Reviewed:
    run_id = opinion.run_id or (None if account is None else account.meant)
    found = None if account is None or run_id is None else account.flags.get(run_id)
    if found is None:
        raise Refused(
            "flag_absent",
            "no such flag was ever before the reviewers",
            where=f"queue {opinion.queue}",
            remedy=f"check the account id and the queue: {whole_command('queue list', store)}",
        )
    return found


def _after(flag: Reviewed, opinion: Opinion, effect: Effect, at: int) -> Reviewed:
    """The flag as the next opinion of the same call finds it."""
    assert effect.state is not None
    said = _said(flag, opinion, effect, at)
    return flag.model_copy(update={"state": effect.state, "decided": (*flag.decided, said), "claim": None})


def _said(flag: Reviewed, opinion: Opinion, effect: Effect, at: int) -> DispositionRow:
    assert effect.state is not None
    return DispositionRow(
        number=len(flag.decided) + 1,
        disposition=opinion.disposition,
        state=effect.state,
        by=opinion.by,
        decided_at=opinion.decided_at or from_microseconds(at),
        evidence=effect.evidence,
        why=opinion.why,
    )


def _write(connection: sa.Connection, desk: Desk, queue: str, new: Sequence[Taken], source: str, at: int) -> None:
    """People's rows first: the database itself lets a flag change only to what those say."""
    rows: list[dict[str, Any]] = []
    last: dict[Key, tuple[FlagState, bool]] = {}  # what each flag becomes, and whether it stood before
    times: Counter[Key] = Counter()
    told: defaultdict[tuple[int, str], list[tuple[Key, FlagState, str]]] = defaultdict(list)
    for opinion, flag, effect in new:
        said = _said(flag, opinion, effect, at)
        key = (stored_id(opinion.account_id, desk.largest_id), flag.flag.run_id)
        last[key] = said.state, last[key][1] if key in last else flag.state in STANDING
        rows.append(
            {
                "queue": queue, "account_id": key[0], "run_id": key[1], "number": said.number,
                "disposition": said.disposition.value, "state": said.state.value, "reviewer": said.by,
                "decided_at": microseconds(said.decided_at), "recorded_at": at, "evidence": said.evidence,
                "evidence_run": effect.evidence_run, "why": said.why, "source": source,
            }
        )  # fmt: skip
        told[times[key], said.by].append((key, said.state, opinion_digest(rows[-1])))
        times[key] += 1
    for first in range(0, len(rows), IDS_A_STATEMENT):
        connection.execute(dispositions.insert(), rows[first : first + IDS_A_STATEMENT])
    _end_claims(connection, queue, list(last), at)
    becoming: defaultdict[tuple[FlagState, bool], list[Key]] = defaultdict(list)
    for key, change in last.items():
        becoming[change].append(key)
    for (state, stood), keys in sorted(becoming.items()):
        moved: dict[str, Any] = {}
        if stood and state in DECIDED:
            moved = {"open_marker": None, "closed_at": at}
        elif not stood and state in STANDING:  # a late first opinion of two
            moved = {"open_marker": 1, "closed_at": None}
        try:
            set_state(connection, queue, keys, {"state": state.value, **moved})
        except sa.exc.IntegrityError:
            raise TryAgain("commit_conflict", "a release flagged such an account just now", where=f"queue {queue}") from None
    for (_, reviewer), of_reviewer in sorted(told.items()):  # of one flag in the order of the opinions: the last is what it is
        became = [(key, state) for key, state, _ in of_reviewer]
        record(connection, desk, What(Happened.DECIDED, reviewer, queue), became, at, [digest for *_, digest in of_reviewer])


def _end_claims(connection: sa.Connection, queue: str, keys: Sequence[Key], at: int) -> None:
    by_run: defaultdict[str, list[Any]] = defaultdict(list)
    for account_id, run_id in keys:
        by_run[run_id].append(account_id)
    for run_id, ids in sorted(by_run.items()):
        for first in range(0, len(ids), IDS_A_STATEMENT):
            part = claims.c.account_id.in_(ids[first : first + IDS_A_STATEMENT])
            alive = (claims.c.queue == queue) & (claims.c.run_id == run_id) & claims.c.ended_at.is_(None)
            connection.execute(claims.update().where(alive, part).values(ended_at=at))

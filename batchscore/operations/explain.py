"""Explains one account at one as-of of a run: everything is made again from frozen inputs, and compared to the bit. Reads only.

    rows → features → margin → contributions → reasons → decision → flag

What a run left is compared with what comes out now. A difference is a finding, and never a guess at what it should have been:
`Explanation.true` is false then, and pinned libraries that are other versions here are named beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.command import command
from batchscore.decide.table import as_earlier
from batchscore.decision import decided_by, question_of
from batchscore.errors import BatchscoreError, Refused
from batchscore.features.feature_set import FeatureSet
from batchscore.features.sentences import value_in_words
from batchscore.files import verified
from batchscore.flag import REASONS, AccountId, Reason
from batchscore.models.golden import differing_rows
from batchscore.models.loading import load_scorer
from batchscore.models.reasons import TOLERANCE, explain
from batchscore.operations.contributions import Contributions, codes_of, contributions_of
from batchscore.operations.for_a_person import told_to_a_person
from batchscore.operations.frozen_account import FrozenAccount, lies_in, unknown_account
from batchscore.operations.frozen_rows import frozen_rows
from batchscore.operations.remade import features_again
from batchscore.operations.selection import AccountAt, selection_of
from batchscore.plan import Reasons, Stage
from batchscore.ports import FlagRow, RunRow, StoreReader
from batchscore.report.explanation import Explanation, FeatureSaid, FrozenRow, MadeAgain, Outcome, Selection
from batchscore.settings import library_versions

_LIBRARY: Final = "library "
_SAYS: Final = {
    "rows": "its frozen rows are in files with the bytes that were committed",
    "outcome": "it stands as it stood: scored, or set aside for the same reason",
    "margin": "the margin made again has the bits that were scored",
    "score": "so has the score",
    "contributions": "contributions and base add up to the margin",
    "reasons": "the reasons made again are those that were kept, to the bit",
    "decision": "the policy, asked again of all scores and the frozen memory, says the same of it",
    "flag": "the flag in the queue is the one that was decided",
}


def flag_named(reader: StoreReader, queue: str, account_id: AccountId) -> FlagRow:
    """The newest flag of an account in a queue, in whatever state.

    Raises:
        Refused: ``flag_unknown``.
    """
    found = [row for row in reader.flags_of(account_id) if row.flag.queue == queue]
    if not found:
        remedy = "of an account that was not flagged: batchscore explain RUN --account -"
        raise Refused("flag_unknown", "no released run has a flag of that account in this queue", where=queue, remedy=remedy)
    return max(found, key=lambda row: (row.flag.as_of, row.released_at))


def explain_account(row: RunRow, reader: StoreReader, account_id: AccountId, as_of: datetime | None = None) -> Explanation:
    """Explain an account of a run that has decided, whether it was flagged or not.

    Args:
        row: The run.
        reader: Of its store.
        account_id: An id of the run's kind.
        as_of: One of the run's; by default the newest at which the run selected the account, else its last.

    Raises:
        Refused: ``run_unfinished``: it has not decided; ``account_unknown``: no such account was frozen, or its id is of another
            kind; ``spec_invalid``: ``as_of`` is none of the run's.
        Held: the run's decision is gone or damaged, so nothing can be said. All else that is, is told in the checks.
    """
    if row.decision is None or row.memory is None:
        remedy = command("resume", row.run_id, row.plan.spec.store)
        raise Refused("run_unfinished", f"{row.run_id} has not decided yet: it is {row.state}", remedy=remedy)
    with told_to_a_person():
        frozen = FrozenAccount.of(row, reader, account_id, as_of)
    checks = _Checks()
    rows = _rows(frozen, checks)
    made = _made_again(frozen, checks)
    scored = _scored(frozen, made, checks)
    reasons = _reasons(frozen, made, checks)
    selection = _selection(frozen, scored, checks)
    state = _flag_state(frozen, checks, made, scored)
    found = checks.in_order()
    return Explanation(
        run_id=row.run_id,
        spec=row.name,
        queue=row.plan.spec.policy.queue,
        account_id=account_id,
        as_of=frozen.as_of,
        outcome="scored" if scored is not None else made.outcome,
        code=made.code,
        margin=None if scored is None else float(scored[0]),
        score=None if scored is None else float(scored[1]),
        base=made.base,
        reasons=reasons,
        features=made.features,
        selection=selection,
        flag_state=state,
        rows=rows,
        partition=frozen.partition.number,
        address=frozen.partition.address,
        digests=_digests(row),
        differs=_other_libraries(row.plan.pinned),
        checks=found,
        true=not any(check.untrue for check in found),
    )


@dataclass(slots=True)
class _Checks:
    """What was compared so far."""

    made: dict[str, list[str]] = field(default_factory=dict)

    def at(self, name: str, *, true: bool, otherwise: str) -> None:
        """One comparison: true, or what differs."""
        self.made.setdefault(name, []).extend([] if true else [otherwise])

    @contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """What cannot be read is untrue. Foreign messages are left out: they may quote a row."""
        try:
            yield
        except BatchscoreError as error:
            if error.reason in {"database_away", "store_busy", "account_unknown"}:
                raise
            self.at(name, true=False, otherwise=f"{error.code} {error.what} [{error.where}]")
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            self.at(name, true=False, otherwise=f"cannot be read ({type(error).__name__})")

    def in_order(self) -> tuple[MadeAgain, ...]:
        """Each check that was made, from rows to flag."""
        return tuple(
            MadeAgain(name=name, says=says, untrue=tuple(self.made[name])) for name, says in _SAYS.items() if name in self.made
        )


def _rows(frozen: FrozenAccount, checks: _Checks) -> tuple[FrozenRow, ...]:
    rows: tuple[FrozenRow, ...] = ()
    with checks.reading("rows"):
        rows = tuple(frozen_rows(frozen.work, str(frozen.store), frozen.feature_set, frozen.account_id, frozen.as_of))
        if not any(row.table == frozen.feature_set.accounts.table for row in rows):
            raise unknown_account(frozen.feature_set.account_id)
        checks.at("rows", true=True, otherwise="")
    return rows


@dataclass(frozen=True, slots=True)
class _Made:
    """What came out now. ``outcome`` and ``code`` as the account stands now; the rest only where it can be scored.

    ``nothing``: something stood in the way, which a check tells; what hangs on it is not compared.
    """

    outcome: Outcome
    code: str | None = None
    margin: np.float32 | None = None
    score: np.float32 | None = None
    base: float | None = None
    reasons: tuple[Reason, ...] = ()
    features: tuple[FeatureSaid, ...] = ()
    nothing: bool = False


def _made_again(frozen: FrozenAccount, checks: _Checks) -> _Made:
    if frozen.receipt is None:
        aside = frozen.reader.quarantined(frozen.row.run_id)
        mine = (one.reason for one in aside if (one.stage, one.number) == (Stage.SCORE, frozen.partition.number))
        return _Made("quarantined", next(mine, None))
    with checks.reading("margin"):
        made = features_again(frozen.work, str(frozen.store), frozen.as_of, frozen.ids)
        values = {name: made.everyone[name][0].as_py() for name in frozen.feature_set.names} if len(made.everyone) else {}
        if not made.inside.all():
            return _Made("outside")
        if not made.covered(frozen.work, frozen.as_of).all():
            return _Made("unscoreable", features=_said(frozen.feature_set, values))
        scorer = load_scorer(frozen.work.bundle)
        found = contributions_of(made.everyone, scorer)
        code = _rejection(found)
        if code is not None:
            return _Made("rejected", code, features=_said(frozen.feature_set, values))
        reasons: tuple[Reason, ...] = ()
        with checks.reading("contributions"):
            (reasons,) = explain(scorer, found.frame, found.margin)
            gap = abs(float(found.by_feature.sum() + found.base[0]) - float(found.margin[0]))
            checks.at("contributions", true=gap <= TOLERANCE, otherwise=f"they are {gap:.3g} off")
        features = _said(frozen.feature_set, values, found, codes_of(scorer))
        return _Made("scored", None, found.margin[0], found.score[0], float(found.base[0]), reasons, features)
    return _Made("quarantined", nothing=True)


def _rejection(found: Contributions) -> str | None:
    """The code with which `attempt` sets the row aside, if it does."""
    if found.frame.nonfinite[0]:
        return "nonfinite_feature"
    if found.frame.unscorable[0]:
        return "unseen_category"
    return None if 0 <= float(found.score[0]) <= 1 else "score_invalid"


def _said(
    feature_set: FeatureSet, values: dict[str, Any], found: Contributions | None = None, codes: dict[str, str] | None = None
) -> tuple[FeatureSaid, ...]:
    """Every feature with its value in words; those of the model with what they gave, the largest first."""
    gave = {} if found is None else dict(zip(found.frame.names, found.by_feature[0].tolist(), strict=True))
    told = [
        FeatureSaid(
            name=name,
            value=None if isinstance(value, float) and not math.isfinite(value) else value,
            sentence=feature_set.describe(name).replace("{value}", _in_words(value)),
            code=(codes or {}).get(name),
            contribution=gave.get(name),
        )
        for name, value in values.items()
    ]
    return tuple(sorted(told, key=lambda one: (one.contribution is None, -abs(one.contribution or 0.0))))


def _in_words(value: Any) -> str:
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return value_in_words(None if missing else value if isinstance(value, str) else float(value))


def _scored(frozen: FrozenAccount, made: _Made, checks: _Checks) -> tuple[np.float32, np.float32] | None:
    """Margin and score as the run left them; what differs from what came out now is told."""
    if frozen.receipt is None:
        return None
    scored: tuple[np.float32, np.float32] | None = None
    with checks.reading("outcome"):
        scores, rejects = (frozen.of_me(frozen.receipt, role) for role in ("scores", "rejects"))
        left = "scored" if scores else f"rejected {rejects[0]['code']}" if rejects else "not scored"
        now = {"scored": "scored", "rejected": f"rejected {made.code}"}.get(made.outcome, "not scored")
        if not made.nothing:
            checks.at("outcome", true=left == now, otherwise=f"the run left it {left}; made again it is {now}")
        if scores:
            scored = np.float32(scores[0]["margin"]), np.float32(scores[0]["score"])
    if scored is not None and made.margin is not None and made.score is not None:
        for name, was, is_now in (("margin", scored[0], made.margin), ("score", scored[1], made.score)):
            differs = bool(differing_rows(np.array([was]), np.array([is_now]))[0])
            checks.at(name, true=not differs, otherwise=f"{was!s} was scored, {is_now!s} comes out now")
    return scored


def _reasons(frozen: FrozenAccount, made: _Made, checks: _Checks) -> tuple[Reason, ...]:
    """Those made again, compared with those that the run kept of the account at this as-of; else the ones that it kept."""
    with checks.reading("reasons"):
        receipts = {receipt.number: receipt for receipt in frozen.reader.receipts(frozen.row.run_id, Stage.REASONS)}
        for partition in frozen.reader.partitions(frozen.row.run_id, Stage.REASONS):
            work = partition.work
            mine = isinstance(work, Reasons) and frozen.as_of in work.score.as_ofs and lies_in(work.score.keys, frozen.ids)
            for kept in frozen.of_me(receipts[partition.number], "reasons") if mine and partition.number in receipts else ():
                reasons = REASONS.validate_json(kept["reasons"])
                if made.nothing:
                    return reasons
                otherwise = "other reasons, values or contributions were kept with the flag"
                checks.at("reasons", true=reasons == made.reasons, otherwise=otherwise)
    return made.reasons


def _selection(frozen: FrozenAccount, scored: tuple[np.float32, np.float32] | None, checks: _Checks) -> Selection | None:
    """Why the policy took it or not; and the decision, made again of everybody's scores."""
    row, definitions = frozen.row, frozen.definitions
    assert row.memory is not None, "written with the decision"
    assert row.decision is not None, "as the memory"
    with checks.reading("decision"):
        memory = pq.read_table(verified(row.memory.path, row.memory.sha256)).replace_schema_metadata(None)
        asked_again = question_of(row.plan, definitions, frozen.reader, row.run_id, memory)
        again = as_earlier(decided_by(row.plan, asked_again), pq.read_schema(row.decision.path))
        was, is_now = frozen.decision_row(frozen.decided), frozen.decision_row(again)
        checks.at("decision", true=was.equals(is_now), otherwise=f"it was {_taken(was)}, and would be {_taken(is_now)} now")
        score = None if scored is None else float(scored[1])
        asked = AccountAt(row.plan.spec, frozen.ids[0], frozen.as_of, score)
        return selection_of(asked, asked_again.scores(frozen.as_of), memory, frozen.decided)
    return None


def _taken(row: pa.Table) -> str:
    return f"a {row['standing'][0]} at rank {row['rank'][0]}" if len(row) and row["rank"][0].is_valid else "left"


def _flag_state(frozen: FrozenAccount, checks: _Checks, made: _Made, scored: tuple[np.float32, np.float32] | None) -> str | None:
    """The state of the run's flag of the account; compared with what was decided and what comes out now."""
    row = frozen.row
    mine = [
        held
        for held in frozen.reader.flags_of(frozen.account_id)
        if held.flag.run_id == row.run_id and held.flag.as_of == frozen.as_of
    ]
    if not mine:
        return None
    flag = mine[0].flag
    selected = frozen.decision_row(frozen.decided)
    same = (
        len(selected) == 1
        and scored is not None
        and (flag.rank, flag.score, flag.margin) == (selected["rank"][0].as_py(), float(scored[1]), float(scored[0]))
        and (made.nothing or flag.reasons == made.reasons)
        and flag.bundle_digest == frozen.definitions.bundle.sha256
    )
    checks.at("flag", true=same, otherwise="its rank, score, reasons or bundle are not those of the decision")
    return mine[0].state


def _digests(row: RunRow) -> dict[str, str]:
    """What the explanation rests on, by name: the plan, its pinned parts, decision and memory."""
    pinned = {name: value for name, value in sorted(row.plan.pinned.items()) if not name.startswith(_LIBRARY)}
    files = {name: file.sha256 for name, file in (("decision", row.decision), ("memory", row.memory)) if file is not None}
    return {"plan": row.plan.digest} | pinned | files


def _other_libraries(pinned: dict[str, str]) -> tuple[str, ...]:
    """Pinned libraries that are other versions here."""
    here = dict(library_versions())
    there = {name.removeprefix(_LIBRARY): version for name, version in pinned.items() if name.startswith(_LIBRARY)}
    return tuple(
        f"{name} was {version}, here it is {here.get(name, 'not installed')}"
        for name, version in sorted(there.items())
        if here.get(name) != version
    )

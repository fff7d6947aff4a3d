"""Proves a run once more from its files and rows alone, trusting no row that another can contradict. Reads only.

    rows → files → keys → decision → flags, and beside them the audit trail, and what it tells of people and of the outbox

Each check makes again what a row claims and compares. It finds what was changed since, by a fault or by a hand; who may write
all tables, all files and the trail's key can make another truth, and only a head of the trail kept outside tells.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.audit import Act
from batchscore.decide.table import as_earlier, whole
from batchscore.decision import decided_by, evidence_to_release, flags_of_rows, flags_to_release, question_of, reserve_of
from batchscore.digest import KeyDigest, digest_of, total
from batchscore.errors import BatchscoreError
from batchscore.files import file_sha256
from batchscore.flag import STANDING, AccountId, AnyFlag, Flag
from batchscore.hold import findings_digest
from batchscore.keys import ACCOUNT_ID, MOMENT, key_digest
from batchscore.layout import Definitions, scored_keys
from batchscore.operations.trail import RowsOfRun, Trail
from batchscore.operations.verified import Check, Verified
from batchscore.plan import Partition, Stage
from batchscore.ports import HeldFlag, RunRow, StoreReader
from batchscore.proving import prove_run
from batchscore.receipt import Output, Receipt
from batchscore.report.proof import ACCOUNTS, key_name

MAX_SHOWN: Final = 20
_SAYS: Final = {
    "rows": "the plan, its layout and a receipt for each partition stand as they were fixed",
    "files": "every file is there with the bytes it was committed with",
    "keys": "each account is accounted for once, by digests made again from the files",
    "decision": "the frozen decision is what the policy selects of these scores, given the frozen memory",
    "flags": "the flags are those of the decision, with its ranks, scores and reasons; they stand as people's own rows say",
    "audit": "the trail is an unbroken chain up to its head, and tells of the undo, acceptances and approvals as the rows do",
    "desk": "releases, decisions, claims, withdrawals, requests and events are those of which the trail tells",
}
_MOVES: Final = ("state", "epoch", "decision", "released_at", "undo_begun_at", "undone_at", "n_requests")
_ROUNDS: Final = 5  # how often a store that changes meanwhile is looked at again


class _Looked:
    """What one check looked at, and what was not true."""

    def __init__(self) -> None:
        self.n = 0
        self.untrue: list[str] = []

    def at(self, *, true: bool, otherwise: str) -> None:
        """One thing: true, or what is wrong."""
        self.n += 1
        if not true:
            self.untrue.append(otherwise)


def verify_run(row: RunRow, reader: StoreReader, folder: Path) -> Verified:
    """Make again and compare all that the run left so far. ``folder``: the store's.

    Raises:
        TryAgain: the database went away; nothing is said then.
    """
    found = _all_checked(_Run(row, reader, folder))
    for _ in range(_ROUNDS):
        seen, row = row, reader.run(row.run_id)
        if not any(check.n_untrue for check in found) or _as_before(seen, row):
            break
        # A driver, or an undo, went on meanwhile: what one check read was of before, what another did of after.
        found = _all_checked(_Run(row, reader, folder))
    number, head = reader.audit_head()
    return Verified(
        run_id=row.run_id, true=not any(check.n_untrue for check in found), checks=found, audit_number=number, audit_head=head
    )


def _all_checked(run: _Run) -> tuple[Check, ...]:
    checks: dict[str, Callable[[_Looked], None]] = {
        "rows": run.rows, "files": run.files, "keys": run.keys, "decision": run.decision, "flags": run.flags, "audit": run.audit,
        "desk": run.desk,
    }  # fmt: skip
    return tuple(_checked(name, check) for name, check in checks.items())


def _as_before(row: RunRow, later: RunRow) -> bool:
    """Whether nothing happened to the run that a check goes by."""
    return all(getattr(row, name) == getattr(later, name) for name in _MOVES)


def _checked(name: str, check: Callable[[_Looked], None]) -> Check:
    """A check that cannot come to its end has found something too. Foreign messages are left out: they may quote a row."""
    looked = _Looked()
    try:
        check(looked)
    except BatchscoreError as error:
        if error.reason in {"database_away", "store_busy"}:
            raise
        looked.at(true=False, otherwise=f"{error.what} [{error.where}]")
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        looked.at(true=False, otherwise=f"cannot be read ({type(error).__name__})")
    untrue = tuple(looked.untrue[:MAX_SHOWN])
    return Check(name=name, says=_SAYS[name], n_looked_at=looked.n, n_untrue=len(looked.untrue), untrue=untrue)


class _Run:
    """The run that is looked at; each method is a check."""

    def __init__(self, row: RunRow, reader: StoreReader, folder: Path) -> None:
        self._row, self._reader, self._folder = row, reader, folder
        self._definitions = Definitions.of(row.plan)
        self._trail: Trail | None = None

    @property
    def _read_trail(self) -> Trail:
        if self._trail is None:
            self._trail = Trail(self._reader, self._row.run_id)
        return self._trail

    def rows(self, looked: _Looked) -> None:
        """Rows against each other: nothing was deleted, added or edited."""
        row, reader = self._row, self._reader
        looked.at(true=row.plan.digest == row.plan_digest, otherwise="the plan of the run's row is not the one of its digest")
        finished = row.state == "finished"
        known = row.name == row.plan.spec.name and row.run_id == f"r-{row.plan_digest[:8]}-{row.generation}"
        looked.at(true=known, otherwise="the run's name, or its id, is not that of its plan")
        looked.at(true=finished == (row.finished_at is not None), otherwise="the run's state does not go with when it finished")
        looked.at(true=not finished or row.released_at is not None, otherwise="a finished run is not released")
        aside = Counter(partition.stage for partition in reader.quarantined(row.run_id))
        n_rows = {stage.stage: stage.n_rows for stage in reader.stages(row.run_id)} if finished else {}
        for stage in Stage:
            partitions, laid_out = self._laid_out(stage)
            places = tuple((partition.number, partition.address) for partition in partitions)
            layout = digest_of(places)
            again = row.plan.spec.policy.again
            asked_for = {Stage.SHADOW: bool(self._definitions.shadows), Stage.RECONSIDER: bool(again and again.looks_closer)}
            needed = finished and asked_for.get(stage, True)
            looked.at(
                true=layout == laid_out or (laid_out is None and not partitions and not needed),
                otherwise=f"{stage} is not laid out as it was fixed",
            )
            looked.at(
                true=not partitions or reader.places(row.run_id, stage) == places,  # none: it may have been laid out since
                otherwise=f"partitions of {stage} stand at other places than they were laid out at",
            )
            counted = n_rows.get(stage, 0) == sum(partition.n_rows for partition in partitions)
            looked.at(true=counted or not finished, otherwise=f"progress counts other rows of {stage} than were laid out")
            receipts = {receipt.number: receipt for receipt in reader.receipts(row.run_id, stage)}
            whole = len(receipts) + aside[stage] == len(partitions)
            looked.at(true=whole or not finished, otherwise=f"{stage} has partitions neither committed nor set aside")
            for partition in partitions:
                receipt = receipts.get(partition.number)
                otherwise = f"the receipt of {stage} {partition.number} is of another address"
                looked.at(true=receipt is None or _is_of(receipt, partition.address), otherwise=otherwise)

    def _laid_out(self, stage: Stage) -> tuple[tuple[Partition, ...], str | None]:
        """A stage's partitions and the digest of its layout, of one moment: both came in one transaction."""
        digest = self._reader.layouts(self._row.run_id).get(stage)
        partitions = self._reader.partitions(self._row.run_id, stage)
        if digest is None and partitions:
            digest = self._reader.layouts(self._row.run_id).get(stage)
        return partitions, digest

    def files(self, looked: _Looked) -> None:
        """Files against the receipts that name them, and those against the table of files."""
        receipted = self._receipted()
        held = {output.path: output for output in self._reader.outputs(self._row.run_id)}
        if held.keys() - receipted.keys():
            receipted = self._receipted()  # a driver may have committed some meanwhile: a receipt comes with its files
        for path in sorted(receipted.keys() | held.keys()):
            in_receipt, in_table = receipted.get(path), held.get(path)
            if (
                in_receipt is None
                or in_table is None
                or ((in_receipt.sha256, in_receipt.n_bytes) != (in_table.sha256, in_table.n_bytes))
            ):
                looked.at(true=False, otherwise=f"{path}: receipts and the table of files do not agree")
            else:
                looked.at(**_is_whole(self._folder / path, path, in_receipt.sha256))
        row, frozen = self._row, self._definitions.feature_set_file
        for name, file in (("decision", row.decision), ("memory", row.memory), ("feature set", frozen)):
            if file is not None:
                looked.at(**_is_whole(Path(file.path), name, file.sha256))

    def keys(self, looked: _Looked) -> None:
        """Key digests from the ids in the files, then the equation."""
        for receipt in self._reader.receipts(self._row.run_id, Stage.FREEZE):
            frozen = total(self._keys(output) for output in receipt.outputs if output.role == "snapshot")
            same = frozen == KeyDigest.parse(receipt.keys[ACCOUNTS])
            looked.at(true=same, otherwise=f"freeze {receipt.number}: other accounts than its receipt says")
        scored = (self._reader.receipts(self._row.run_id, stage) for stage in (Stage.SCORE, Stage.SHADOW))
        for receipt in chain.from_iterable(scored):
            held = scored_keys(self._definitions, receipt).keys
            said = {name: KeyDigest.parse(keys) for name, keys in held.items() if name.startswith("scored ")}
            made = self._scored(receipt)
            same = {name: keys for name, keys in said.items() if keys.n} == made
            looked.at(true=same, otherwise=f"{receipt.stage} {receipt.number}: other accounts than it says it scored")
        shadows = self._definitions.shadows if self._row.state == "finished" else ()
        for shadow in (None, *shadows) if self._row.decision is not None else ():
            proof = prove_run(self._row.plan, self._definitions, self._reader, self._row.run_id, shadow)
            for line in proof.as_ofs:
                looked.at(true=line.closes, otherwise=f"the proof as of {line.as_of:%Y-%m-%d} does not close")

    def decision(self, looked: _Looked) -> None:
        """Decide again, of the scores and the frozen memory."""
        row = self._row
        if row.decision is None or row.memory is None:
            looked.at(true=row.state != "finished", otherwise="a finished run has no decision")
            return
        memory, frozen = pq.read_table(row.memory.path), pq.read_table(row.decision.path)
        again = decided_by(row.plan, question_of(row.plan, self._definitions, self._reader, row.run_id, memory))
        again, frozen = as_earlier(again, frozen.schema), whole(frozen)
        looked.n += len(frozen)
        for as_of in row.plan.spec.as_ofs():
            was, would_be = (table.filter(pc.equal(table["as_of"], pa.scalar(as_of, MOMENT))) for table in (frozen, again))
            looked.at(true=was.equals(would_be), otherwise=f"as of {as_of:%Y-%m-%d} another selection was frozen")

    def flags(self, looked: _Looked) -> None:
        """The rows of the queue against the frozen decision; their states are people's and the engine's to change."""
        row = self._row
        # Before the receipts: a run that goes on meanwhile writes a flag only after all its reasons.
        n_held = 0 if row.state == "finished" else sum(1 for _ in self._reader.flags(row.run_id))
        explained = tuple(self._reader.receipts(row.run_id, Stage.REASONS))
        if not_yet := self._before_release(explained):
            looked.at(true=not n_held, otherwise=f"{n_held:,} flag(s) of a run that has not {not_yet}")
            return
        made = (flags_to_release, evidence_to_release) if row.plan.spec.release != "none" else ()
        written = heapq.merge(*(one(row, self._definitions, explained) for one in made), key=_place)
        expected = (flag.read() for flag in written)
        missing = changed = twisted = 0
        others: dict[tuple[str, AccountId], HeldFlag] = {}  # that the decision did not select
        for held, flag in _side_by_side(self._reader.flags(row.run_id), expected):
            looked.n += flag is not None
            missing += held is None and row.released_at is not None
            changed += held is not None and flag is not None and held.flag != flag
            twisted += held is not None and not _is_possible(held)
            if held is not None and flag is None:
                others[held.flag.queue, held.flag.account_id] = held
        for flag in self._reserve(explained) if others else ():  # what went of the reserve since, as it was kept
            found = others.pop((flag.queue, flag.account_id), None)
            looked.n += found is not None
            changed += found is not None and found.flag != flag
        for n, what in ((missing, "are gone"), (changed, "are not as they were decided"), (len(others), "were never decided")):
            if n:
                looked.untrue.append(f"{n:,} flag(s) {what}")
        looked.at(true=not twisted, otherwise=f"{twisted:,} flag(s) are open and closed at once")
        misstated = self._reader.misstated(row.run_id)
        looked.at(true=not misstated, otherwise=f"{misstated:,} flag(s) stand otherwise than people's own rows say")

    def _before_release(self, explained: Sequence[Receipt]) -> str:
        """What a run that was stopped has still to do before it may write any flag; nothing once it has, or is finished."""
        if self._row.decision is None:
            return "decided"
        partitions, digest = self._laid_out(Stage.REASONS)
        waits = self._row.state != "finished" and (digest is None or len(explained) < len(partitions))
        return "given its reasons" if waits else ""

    def _reserve(self, explained: Iterable[Receipt]) -> Iterator[Flag]:
        return (flag.read() for flag in flags_of_rows(reserve_of(self._row), self._row, self._definitions, explained))

    def audit(self, looked: _Looked) -> None:
        """The whole chain, then what it says of the run against the run's row."""
        trail = self._read_trail
        looked.n += trail.n
        looked.untrue += trail.broken
        looked.at(true=trail.ends_at_its_head, otherwise="the chain does not end at its head: entries were cut off, or added")
        row = self._row
        undone = (trail.acts[Act.UNDO_BEGUN], trail.acts[Act.UNDONE])
        claimed = (int(row.undo_begun_at is not None), int(row.undone_at is not None))
        looked.at(true=undone == claimed, otherwise="the run's row and the trail do not agree on its undo")
        held = [(one.by, one.entry) for one in self._reader.accepted(row.run_id)]
        looked.at(true=sorted(held) == sorted(trail.accepted), otherwise="what was accepted is not what the trail tells of it")
        holds = self._reader.holds(row.run_id)
        approved = [(one.approved_by or "", one.entry) for one in holds if one.approved_at is not None]
        looked.at(
            true=sorted(approved) == sorted(trail.approved), otherwise="what was approved is not what the trail tells of it"
        )
        as_found = all(one.digest == findings_digest(one.findings) for one in holds)
        looked.at(true=as_found, otherwise="what the run was held for is not what was found")

    def desk(self, looked: _Looked) -> None:
        """What the trail tells of the run's flags, against rows: they go on changing, so what differs is looked at again."""
        trail = self._read_trail
        rows = RowsOfRun(self._row, self._reader, trail)
        untrue = list(rows.contradictions())
        for _ in range(_ROUNDS):
            if not untrue or not trail.read_on():
                break
            rows = RowsOfRun(self._reader.run(self._row.run_id), self._reader, trail)
            untrue = list(rows.contradictions())
        looked.n += rows.n
        looked.untrue += untrue

    def _receipted(self) -> dict[str, Output]:
        return {output.path: output for receipt in self._receipts() for output in receipt.outputs}

    def _receipts(self) -> Iterator[Receipt]:
        for stage in Stage:
            yield from self._reader.receipts(self._row.run_id, stage)

    def _keys(self, output: Output) -> KeyDigest:
        return total(key_digest(ids) for ids in _columns(self._folder / output.path, [ACCOUNT_ID]))

    def _scored(self, receipt: Receipt) -> dict[str, KeyDigest]:
        """``scored <as-of>`` → the key digest of the accounts whose scores the files hold."""
        found: dict[str, KeyDigest] = {}
        for output in receipt.outputs:
            if output.role == "scores":
                table = pq.read_table(self._folder / output.path, columns=[ACCOUNT_ID, "as_of"], use_threads=False)
                for as_of in pc.unique(table["as_of"]).to_pylist():
                    ids = table.filter(pc.equal(table["as_of"], pa.scalar(as_of, MOMENT)))[ACCOUNT_ID]
                    name = key_name("scored", as_of)
                    found[name] = found.get(name, KeyDigest()) + key_digest(ids)
        return found


def _side_by_side(held: Iterator[HeldFlag], expected: Iterator[Flag]) -> Iterator[tuple[HeldFlag | None, Flag | None]]:
    """Both by queue and account id, which is how both come: each account once, with what each side has of it, none kept."""
    found, flag = next(held, None), next(expected, None)
    while found is not None or flag is not None:
        mine = found is not None and (flag is None or _place(found.flag) <= _place(flag))
        theirs = flag is not None and (found is None or _place(flag) <= _place(found.flag))
        yield found if mine else None, flag if theirs else None
        found = next(held, None) if mine else found
        flag = next(expected, None) if theirs else flag


def _place(flag: AnyFlag) -> tuple[str, Any]:
    return flag.queue, flag.account_id


def _is_of(receipt: Receipt, address: str) -> bool:
    """Whether a receipt, and each file it names, is of that address: files lie in a folder of its name."""
    return receipt.address == address and all(
        PurePosixPath(output.path).parent.as_posix() == address for output in receipt.outputs
    )


def _columns(path: Path, names: list[str]) -> Iterator[pa.Array]:
    """Columns of a Parquet file, a row group at a time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=names, use_threads=False):
            yield from batch.columns


def _is_whole(path: Path, name: str, sha256: str) -> dict[str, Any]:
    """A file's bytes against a digest; read anew, whatever this process remembers of it."""
    try:
        true, what = file_sha256(path) == sha256, "its bytes are not those that were committed"
    except OSError as error:
        true, what = False, f"cannot be read ({type(error).__name__})"
    return {"true": true, "otherwise": f"{name}: {what}"}


def _is_possible(held: HeldFlag) -> bool:
    """Whether a flag's state and its mark go together."""
    return held.is_open == (held.state in STANDING)

"""The Explorer: a finished run's frozen input and outputs as Dask DataFrames, other policies and other bundles on it.

Nothing is written, the client is never closed, and every file is checked against its digest before a row of it is seen. The
frames are lazy: one partition is one key range of the run, as it was scored, so divisions are known and a question about a
few columns or one as-of reads no more than these.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.attempt.scoring import rejects_schema, scores_schema
from batchscore.command import command
from batchscore.decide.table import flags_in
from batchscore.decide.top import decide_dates
from batchscore.decision import question_of
from batchscore.errors import Refused
from batchscore.explore.answers import Account, WhatIf, changes_of, dispositions_frame, flags_frame
from batchscore.explore.filters import Filters, expression_of
from batchscore.explore.parts import (
    Files,
    features_of,
    read_accounts,
    read_decision,
    read_events_of,
    read_features,
    read_files,
    read_flags,
    read_frozen_events,
    score_again,
    to_pandas,
)
from batchscore.features.feature_set import FeatureSet, open_feature_set
from batchscore.files import verified
from batchscore.key_index import KeyIndex, corrupt_told, open_index
from batchscore.keys import ACCOUNT_ID, ID_TYPES
from batchscore.layout import Definitions, decided_rows, frozen_events, score_work
from batchscore.models.bundle import read_manifest
from batchscore.plan import KeyRange, Reference, Score, Stage
from batchscore.policy import Policy
from batchscore.ports import RunRow
from batchscore.receipt import Output
from batchscore.shown import Showable, Shown
from batchscore.sources.freeze import empty_events
from batchscore.spec import RunSpec
from batchscore.store import open_reader
from batchscore.store.reader import Reader
from batchscore.values import format_duration

if TYPE_CHECKING:
    from distributed import Client


class Explorer(Showable):
    """Looks at one run. ``run`` is its row in the ledger, ``plan`` what it was made from."""

    def __init__(self, client: Client, run: str | RunRow | RunSpec, *, store: Path | str | None = None) -> None:
        """Open a run.

        Args:
            client: Whose workers compute the frames; they must read the store's folder. Dask sends a frame's ``compute()`` to its
                current client: where that is another, ask ``explorer.client.compute(frame)``. Never closed.
            run: A run id (with ``store``), a run's row, or a spec: then the newest finished run of its name.
            store: The folder of the store; a row or spec knows it.

        Raises:
            Refused: ``run_unknown``, ``run_id_invalid``; ``run_unfinished``: not all of its scores are there.
        """
        self.client = client
        self.run, self._reader = _opened(run, store)
        self.plan = self.run.plan
        self.store = Path(self.plan.spec.store)
        self._partitions = self._reader.partitions(self.run.run_id, Stage.SCORE)
        if not self._partitions or self.run.decision is None:
            raise Refused(
                "run_unfinished",
                f"{self.run.run_id} has not decided yet: it is {self.run.state}",
                remedy=command("resume", self.run.run_id, self.store),
            )
        self._works = [score_work(partition) for partition in self._partitions]
        self._ranges = [work for work in self._works if work.as_ofs == self._works[0].as_ofs]
        self.feature_set: FeatureSet = open_feature_set(self._works[0].feature_set)

    @property
    def as_ofs(self) -> tuple[datetime, ...]:
        """The as-of dates of the run, in order."""
        return self.plan.spec.as_ofs()

    def shown(self) -> Shown:
        """The run, and the frames there are."""
        run = self.run.shown()
        frames = [
            ("accounts()", f"{self._snapshots.n_rows:,} frozen rows, {len(self._ranges):,} partitions"),
            *((f"events({events.table!r})", self._event_files(events.table)) for events in self.feature_set.events),
            (
                "features(as_of)",
                f"{len(self.feature_set.names):,} features, of any whole {format_duration(self.feature_set.grain)}",
            ),
            ("scores(), rejects()", f"{len(self.as_ofs):,} as-ofs, {len(self._partitions):,} files of each at most"),
            ("decisions(), flags()", f"queue {self.plan.spec.policy.queue}"),
        ]
        return Shown(f"explorer of {run.title}", [*run.facts, *frames])

    def _event_files(self, table: str) -> str:
        live = self.plan.spec.sources[table].sql is not None
        return "frozen of a live table" if live else f"{len(self.plan.inputs[table]):,} files"

    # Frames. A selection of columns is pushed down to the files by Dask: ``explorer.accounts()[["plan"]]`` reads two columns.
    # So are ``filters``, as of `dd.read_parquet`: ``explorer.scores(filters=[("score", ">=", 0.9)])``.

    def accounts(self, *, filters: Filters | None = None) -> dd.DataFrame:
        """The frozen accounts (all, whenever they were created) by account id, with the columns that the feature set reads.

        Raises:
            TypeError: ``filters`` compare an account id with what is no id of its kind.
        """
        return self._by_range(read_accounts, self._snapshots.schema, **self._filtered(filters))

    def events(self, table: str | None = None, *, filters: Filters | None = None) -> dd.DataFrame:
        """The events of a table (to be named where there are several) as they are rolled up.

        A partition is a file, of the input or, of a live table, of the freeze.

        In the order of the files: accounts are mixed, so divisions are unknown.

        Raises:
            Refused: ``spec_invalid``: no such table.
        """
        tables = [events.table for events in self.feature_set.events]
        name = tables[0] if table is None and len(tables) == 1 else table
        if name not in tables:
            raise Refused("spec_invalid", f"tables of events: {', '.join(tables) or 'none'}", where="events(table)")
        held = self._works[0].feature_set
        if self.plan.spec.sources[name].sql is not None:
            run_id, read = self.run.run_id, self._reader
            froze = frozen_events(read.partitions(run_id, Stage.FREEZE), read.receipts(run_id, Stage.FREEZE))
            parts = [Files(store=str(self.store), outputs=(output,)) for output in froze[name]]
            with corrupt_told(self.store / parts[0].outputs[0].path):
                schema = pq.read_schema(self.store / parts[0].outputs[0].path)
            meta = to_pandas(schema.remove_metadata().empty_table())
            return _from_map(read_frozen_events, parts, meta=meta, **self._filtered(filters))
        files = self.plan.inputs[name]
        meta = to_pandas(empty_events(files[0], name, self.feature_set))
        return _from_map(read_events_of, list(files), meta=meta, table=name, feature_set=held, **self._filtered(filters))

    def features(self, as_of: datetime | None = None, *, fraction: float = 1.0) -> dd.DataFrame:
        """The features of every account that existed at ``as_of``, by account id: by default at the run's last.

        Any as-of can be asked for, also one that was not scored: features are made of the run's rollups, to the bit as a run
        makes them. ``fraction`` of the accounts, chosen by a hash of their ids, so always the same.

        Raises:
            Refused: ``spec_invalid``: ``as_of`` is not a whole number of the feature set's grain in UTC.
            ValueError: ``fraction`` is not above 0 and at most 1.
        """
        _require_fraction(fraction)
        moment = self._whole(as_of)
        meta = read_features(self._nobody(), str(self.store), moment)
        return self._mapped(read_features, meta, as_of=moment, fraction=fraction)

    def scores(self, as_of: datetime | None = None, *, filters: Filters | None = None) -> dd.DataFrame:
        """Margin and score of every scored account by account id; one row for each as-of, or for ``as_of`` alone."""
        return self._of_outputs("scores", scores_schema(self._id_type), as_of, filters)

    def rejects(self, *, filters: Filters | None = None) -> dd.DataFrame:
        """Accounts that could not be scored, as-of and code, by account id (rows of input: ``batchscore rejects``)."""
        return self._of_outputs("rejects", rejects_schema(self._id_type), None, filters)

    def decisions(self, *, filters: Filters | None = None) -> dd.DataFrame:
        """What the run selected at each as-of, released or simulated: as_of, rank, score, margin, release, by account id."""
        meta = to_pandas(decided_rows(self._decision).replace_schema_metadata(None).slice(0, 0))
        return _from_map(read_decision, [self._decision], meta=meta, **self._filtered(filters))

    def flags(self) -> dd.DataFrame:
        """What the run explained, best rank first: a decision's columns, reasons (JSON) and segment, by account id."""
        receipts = self._reader.receipts(self.run.run_id, Stage.REASONS)
        files = Files(str(self.store), tuple(output for receipt in receipts for output in receipt.outputs))
        meta = read_flags(Files(files.store, ()), self._decision).iloc[:0]
        return _from_map(read_flags, [files], meta=meta, decision=self._decision)

    # Questions.

    def account(self, account_id: int | str) -> Account:
        """One account: its scores and features at each as-of, and its flags of every run in the store.

        Raises:
            Refused: ``account_unknown``: it is not among the frozen accounts.
        """
        here = self._range_of(account_id)
        among = pa.array([] if here is None else [account_id], self._id_type)
        if here is None or not len(self._snapshots.read(here.keys, columns=[ACCOUNT_ID], among=among)):
            what = f"no such account was frozen for this run; ids are {self.feature_set.account_id}"
            raise Refused("account_unknown", what, where="account_id", remedy="look at the ids: explorer.accounts().head()")
        number = self._ranges.index(here)
        scores = self.scores().get_partition(number).compute(scheduler="synchronous")
        features = [features_of(here, str(self.store), as_of, among).assign(as_of=as_of) for as_of in self.as_ofs]
        return Account(
            account_id=account_id,
            scores=scores.loc[scores.index == account_id].set_index("as_of"),
            features=pd.concat(features).set_index("as_of"),
            flags=flags_frame(flags := self._reader.flags_of(account_id)),
            dispositions=dispositions_frame(
                reviewed
                for queue in dict.fromkeys(row.flag.queue for row in flags)
                for reviewed in self._reader.account_flags(queue, account_id)
            ),
        )

    def what_if(self, policy: Policy) -> WhatIf:
        """Decide again under another policy, with the run's scores and the memory it had frozen; nothing is scored.

        Like a backfill, each as-of is simulated with what was open then; the last sees real flags where the run released it.
        """
        assert self.run.memory is not None, "written with the decision"
        memory = pq.read_table(verified(self.run.memory.path, self.run.memory.sha256))
        asked = question_of(self.plan, Definitions.of(self.plan), self._reader, self.run.run_id, memory, policy)
        dates = decide_dates(asked, self.as_ofs, release=self.plan.spec.release)
        selected = pa.concat_tables([flags_in(decided.table) for _, decided in dates])
        before = decided_rows(self._decision)
        return WhatIf(policy=policy, flags=to_pandas(selected), changes=changes_of(self.as_ofs, before, selected))

    def score(self, bundle: Path | str, as_of: datetime | None = None, *, fraction: float = 1.0) -> dd.DataFrame:
        """Margin and score that another bundle gives at ``as_of`` (by default the last), on the run's frozen input.

        Every worker checks the bundle as in a run: digests, first load in a child process, golden rows to the bit. Accounts it
        cannot score are NaN.

        Args:
            bundle: A bundle's folder or zip, where the workers can read it; made for the run's feature set.
            as_of: A whole number of grains.
            fraction: Of the accounts, chosen by a hash of their ids: the same for every bundle.

        Raises:
            Refused: what reading a bundle refuses; ``feature_contract``: it was made for another feature set.
            ValueError: ``fraction`` is not above 0 and at most 1.
        """
        _require_fraction(fraction)
        opened = read_manifest(Path(bundle))
        if opened.manifest.feature_set_digest != self.feature_set.digest:
            raise Refused(
                "feature_contract",
                "the bundle was made for another feature set than the run's",
                where=opened.manifest.name,
                remedy="compare them: batchscore bundle show, batchscore features show",
            )
        moment = self._whole(as_of)
        schema = pa.schema([(ACCOUNT_ID, self._id_type), ("margin", pa.float32()), ("score", pa.float32())])
        return self._by_range(score_again, schema, as_of=moment, bundle=opened.reference, fraction=fraction)

    # How.

    @property
    def _decision(self) -> Reference:
        assert self.run.decision is not None, "asked for when it was opened"
        return self.run.decision

    @property
    def _id_type(self) -> pa.DataType:
        return ID_TYPES[self.feature_set.account_id]

    @property
    def _snapshots(self) -> KeyIndex:
        return open_index(str(self.store), self.feature_set.account_id, self._works[0].snapshots)

    def _whole(self, as_of: datetime | None) -> datetime:
        moment = self.as_ofs[-1] if as_of is None else as_of
        if not self.feature_set.is_whole(moment):
            what = f"{moment.isoformat()} is not a whole number of the feature set's grain in UTC"
            raise Refused("spec_invalid", what, where="as_of", remedy=f"name a multiple of {self.feature_set.grain}")
        return moment

    def _range_of(self, account_id: int | str) -> Score | None:
        """The work whose key range holds the id; None for what is no id of this kind. Text goes by its bytes, as everywhere."""
        if self.feature_set.account_id == "string" and isinstance(account_id, str):
            lows = [str(work.keys.low).encode() for work in self._ranges[1:]]
            return self._ranges[bisect_right(lows, account_id.encode())]
        if self.feature_set.account_id == "integer" and isinstance(account_id, int) and 0 <= account_id < 1 << 64:
            return self._ranges[bisect_right([int(work.keys.low or 0) for work in self._ranges[1:]], account_id)]
        return None

    def _nobody(self) -> Score:
        """A work without accounts: what it reads has types and no rows."""
        lowest = 0 if self.feature_set.account_id == "integer" else ""
        return self._works[0].model_copy(update={"keys": KeyRange(low=lowest, high=lowest)})

    def _by_range(self, read: Callable[..., pd.DataFrame], schema: pa.Schema, **given: object) -> dd.DataFrame:
        return self._mapped(read, to_pandas(schema.empty_table()), **given)

    def _mapped(self, read: Callable[..., pd.DataFrame], meta: pd.DataFrame, **given: object) -> dd.DataFrame:
        return _from_map(read, self._ranges, meta=meta, divisions=self._divisions(), store=str(self.store), **given)

    def _filtered(self, filters: Filters | None) -> dict[str, Any]:
        """What a read is given for filters; they are looked at now, and not first on a worker."""
        return {} if expression_of(filters, self._id_type) is None else {"filters": filters}

    def _of_outputs(self, role: str, schema: pa.Schema, as_of: datetime | None, filters: Filters | None) -> dd.DataFrame:
        """Rows of score files: a partition for each key range, from the files of all groups of as-ofs or of the one asked for."""
        if as_of is not None and as_of not in self.as_ofs:
            raise Refused("spec_invalid", f"{as_of.isoformat()} is none of the run's as-ofs", where="as_of")
        files: dict[KeyRange, tuple[Output, ...]] = {work.keys: () for work in self._ranges}
        outputs = {receipt.number: receipt.outputs for receipt in self._reader.receipts(self.run.run_id, Stage.SCORE)}
        for partition, work in zip(self._partitions, self._works, strict=True):
            if as_of is None or as_of in work.as_ofs:
                files[work.keys] += tuple(output for output in outputs.get(partition.number, ()) if output.role == role)
        held = [Files(str(self.store), found) for found in files.values()]
        meta = to_pandas(schema.empty_table())
        return _from_map(
            read_files, held, meta=meta, divisions=self._divisions(), schema=schema, as_of=as_of, **self._filtered(filters)
        )

    def _divisions(self) -> tuple[Any, ...]:
        """The least id, where each further range begins, and the greatest id; unknown when there are no accounts."""
        entries = self._snapshots.entries
        if not len(entries):
            return (None,) * (len(self._ranges) + 1)
        least, greatest = min(entries["low"].to_pylist()), max(entries["high"].to_pylist())
        return (least, *(work.keys.low for work in self._ranges[1:]), greatest)


def _from_map(read: Callable[..., pd.DataFrame], parts: Sequence[object], **given: Any) -> dd.DataFrame:
    """`dd.from_map`, which has no types."""
    made: dd.DataFrame = dd.from_map(read, parts, **given)
    return made


def _require_fraction(fraction: float) -> None:
    if not 0 < fraction <= 1:
        msg = f"fraction is {fraction} → above 0, and 1 for all accounts"
        raise ValueError(msg)


def _opened(run: str | RunRow | RunSpec, store: Path | str | None) -> tuple[RunRow, Reader]:
    if isinstance(run, str):
        if store is None:
            msg = "a run id is looked for in a store → Explorer(client, run_id, store=…)"
            raise ValueError(msg)
        reader = open_reader(Path(store))
        return reader.run(run), reader
    if isinstance(run, RunRow):
        reader = open_reader(Path(run.plan.spec.store))
        return reader.run(run.run_id), reader
    reader = open_reader(Path(run.store))
    newest = reader.newest_finished(run.name)
    if newest is None:
        raise Refused("run_unknown", f"no run of {run.name!r} has finished in this store", remedy="batchscore run SPEC")
    return newest, reader

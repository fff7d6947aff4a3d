"""The Explorer shows what a run read and wrote, exactly, and changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dask
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import Client

import batchscore
from batchscore.desk import Opinion
from batchscore.errors import Interrupted, Refused
from batchscore.events import Event, PartitionCommitted
from batchscore.explore.explorer import Explorer
from batchscore.explore.parts import Files, read_accounts, read_files
from batchscore.files import file_sha256
from batchscore.flag import Disposition
from batchscore.key_index import KeyIndex
from batchscore.keys import ID_TYPES, IdKind
from batchscore.models.bundle import read_manifest
from batchscore.plan import InputFile, KeyRange, Reference, Stage
from batchscore.policy import Policy
from batchscore.ports import RunRow
from batchscore.receipt import Output
from batchscore.sampling import sample_features
from batchscore.sources.parquet import read_batches
from batchscore.store import open_desk, open_reader
from tests.run_digest import run_digest
from tests.small_world import SmallWorld, make_small_world
from tests.unit.report.test_page_of_a_report import Seen
from tests.whole_runs import Heard, walk


@pytest.fixture(autouse=True)
def current(client: Client) -> Iterator[None]:
    """Frames are computed by Dask's current client."""
    with client.as_current():
        yield


@pytest.fixture(scope="module", params=["integer", "string"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    kind: IdKind = request.param
    made = make_small_world(tmp_path_factory.mktemp(kind), n_accounts=200, kind=kind)
    batchscore.run(made.spec(), inline=True)
    return made


@pytest.fixture
def row(world: SmallWorld) -> RunRow:
    (found,) = open_reader(world.store).runs()
    return found


@pytest.fixture
def explorer(world: SmallWorld, row: RunRow, client: Client) -> Explorer:
    return Explorer(client, row)


def written(world: SmallWorld, row: RunRow, role: str) -> pd.DataFrame:
    receipts = open_reader(world.store).receipts(row.run_id, Stage.SCORE)
    paths = [world.store / output.path for receipt in receipts for output in receipt.outputs if output.role == role]
    frames: list[pd.DataFrame] = [pq.read_table(path).to_pandas() for path in paths]
    return pd.concat(frames)


def test_scores_are_those_the_run_wrote_by_account_id(world: SmallWorld, row: RunRow, explorer: Explorer) -> None:
    found = explorer.scores().compute().reset_index()
    expected = written(world, row, "scores").sort_values(["account_id", "as_of"], ignore_index=True)
    expected["account_id"] = expected["account_id"].astype(found["account_id"].dtype)  # pandas has several for text
    pd.testing.assert_frame_equal(found[list(expected.columns)], expected)
    latest = explorer.scores(explorer.as_ofs[-1])
    assert latest.known_divisions
    assert len(latest) == (expected["as_of"] == explorer.as_ofs[-1]).sum()
    assert explorer.scores().npartitions == latest.npartitions > 1


def test_divisions_hold_and_ids_are_exact(world: SmallWorld, explorer: Explorer) -> None:
    accounts = explorer.accounts()
    ids = accounts.index.compute()
    assert len(ids) == world.n_accounts
    assert ids.is_monotonic_increasing
    if world.kind == "integer":
        assert {2**53 - 1, 2**53, 2**53 + 1} <= set(ids.tolist())
    for number in range(accounts.npartitions):
        part = accounts.get_partition(number).index.compute()
        low, high = accounts.divisions[number], accounts.divisions[number + 1]
        assert not len(part) or (low <= part.min() and part.max() <= high)


def test_a_selected_column_is_all_that_is_read(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    real = pq.ParquetFile.read_row_groups

    def counted(file: pq.ParquetFile, groups: list[int], columns: list[str]) -> object:
        asked.append(columns)
        return real(file, groups, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", counted)
    with dask.config.set(scheduler="synchronous"):
        explorer.accounts()["plan"].sum().compute()
    assert asked
    assert all(names == ["account_id", "plan"] for names in asked)


def test_features_of_any_date_are_those_of_a_run(world: SmallWorld, explorer: Explorer) -> None:
    as_of = explorer.as_ofs[0] + timedelta(days=3)  # not scored
    found = explorer.features(as_of).compute()
    _, expected = sample_features(world.spec(), as_of, 1_000)
    assert len(found) == len(expected)
    for name in expected.column_names[1:]:
        assert found[name].astype("float64").tolist() == pytest.approx(expected[name].to_pylist(), abs=0, nan_ok=True)
    assert explorer.features(as_of)["mails_7d"].compute().tolist() == found["mails_7d"].tolist()


def test_a_fraction_is_always_the_same_accounts(explorer: Explorer) -> None:
    some = set(explorer.features(fraction=0.3).index.compute())
    more = set(explorer.features(fraction=0.6).index.compute())
    assert 0 < len(some) < len(more) < len(explorer.features())
    assert some < more


def test_the_runs_own_bundle_gives_the_scores_of_the_run(world: SmallWorld, explorer: Explorer) -> None:
    again = explorer.score(world.folder / "bundle").compute()
    expected = explorer.scores(explorer.as_ofs[-1]).compute()
    pd.testing.assert_frame_equal(again.loc[expected.index, ["margin", "score"]], expected[["margin", "score"]])


def test_events_are_those_of_the_files(world: SmallWorld, explorer: Explorer) -> None:
    events = explorer.events()
    files = list((world.folder / "mails").rglob("*.parquet"))
    assert events.npartitions == len(files)
    assert len(events) == sum(pq.read_metadata(file).num_rows for file in files)
    assert str(events["event_at"].dtype) == "datetime64[us, UTC]"
    assert events["bytes"].sum().compute() == sum(sum(pq.read_table(file)["bytes"].to_pylist()) for file in files)


def test_decisions_and_flags_are_those_of_the_run(world: SmallWorld, row: RunRow, explorer: Explorer) -> None:
    assert row.decision is not None
    decided = pq.read_table(row.decision.path).to_pandas()
    assert len(explorer.decisions()) == len(decided) > 0
    flags = explorer.flags().compute()
    assert set(flags.index) == set(decided["account_id"])
    assert flags["reasons"].str.len().min() > 2
    assert list(explorer.flags().head()["rank"]) == list(flags["rank"][:5])
    assert len(explorer.rejects().compute()) == 0


def test_the_same_policy_changes_nothing_and_a_smaller_budget_keeps_the_best(explorer: Explorer) -> None:
    policy = explorer.plan.spec.policy
    same = explorer.what_if(policy)
    assert same.changes[["new", "dropped"]].to_numpy().sum() == 0
    assert len(same.flags) == len(explorer.decisions())
    fewer = explorer.what_if(Policy(queue=policy.queue, threshold=policy.threshold, budget=2))
    assert fewer.flags.groupby("as_of").size().max() <= 2
    assert fewer.changes["dropped"].sum() > 0


def test_an_account_is_told_whole(row: RunRow, explorer: Explorer) -> None:
    flagged = explorer.flags().head(1).index[0]
    flagged = flagged.item() if hasattr(flagged, "item") else flagged
    account = explorer.account(flagged)
    scores = explorer.scores().compute().loc[[flagged]]
    assert account.scores["score"].tolist() == scores["score"].tolist()
    assert list(account.features.columns) == list(explorer.feature_set.names)
    assert set(account.flags["run_id"]) <= {row.run_id}
    assert len(account.dispositions) == 0


def test_what_people_decided_on_an_account_is_told(row: RunRow, world: SmallWorld, explorer: Explorer) -> None:
    flag = open_reader(world.store).queue("abuse", limit=1)[0].flag
    said = Opinion(queue="abuse", account_id=flag.account_id, disposition=Disposition.CLEARED, by="ada", why="a newsletter")
    open_desk(world.store).decide([said])
    account = explorer.account(flag.account_id)
    (decided,) = account.dispositions.reset_index().to_dict("records")
    assert (decided["disposition"], decided["by"], decided["why"]) == ("cleared", "ada", "a newsletter")
    assert (decided["run_id"], decided["queue"]) == (row.run_id, "abuse")
    assert account.flags["state"].tolist()[-1] == "cleared"
    compared = batchscore.compare(row.run_id, row.run_id, store=world.store)
    assert compared.precision_a.n_decided == compared.precision_b.n_decided == 1
    assert compared.precision_a.precision == 0


def test_what_is_not_there_is_refused(world: SmallWorld, explorer: Explorer, client: Client) -> None:
    for nobody in (12345, "nobody", 2**70, -1):
        with pytest.raises(Refused, match="no such account"):
            explorer.account(nobody)
    with pytest.raises(Refused, match="whole number"):
        explorer.features(explorer.as_ofs[0] + timedelta(hours=1))
    with pytest.raises(Refused, match="none of the run's as-ofs"):
        explorer.scores(explorer.as_ofs[0] + timedelta(days=1))
    with pytest.raises(Refused, match="mails"):
        explorer.events("calls")
    with pytest.raises(Refused, match="has finished"):
        Explorer(client, world.spec(name="another"))
    for fraction in (0.0, -0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="fraction"):
            explorer.features(fraction=fraction)
    with pytest.raises(ValueError, match="store"):
        Explorer(client, "r-12345678-1")


def test_nothing_is_written_and_the_client_stays_open(world: SmallWorld, row: RunRow, explorer: Explorer, client: Client) -> None:
    before = run_digest(world.store, row.run_id), sorted(world.store.rglob("*"))
    Explorer(client, row.run_id, store=world.store).scores().compute()
    Explorer(client, world.spec()).what_if(Policy(queue="abuse", budget=1))
    assert (run_digest(world.store, row.run_id), sorted(world.store.rglob("*"))) == before
    assert client.status == "running"


def test_a_closed_client_computes_nothing_and_what_needs_no_worker_is_still_answered(row: RunRow, explorer: Explorer) -> None:
    with Client(explorer.client.cluster, set_as_default=False) as own:
        opened = Explorer(own, row)
    with pytest.raises(Exception, match=r"(?i)closed"):
        own.compute(opened.scores()).result()
    flagged = opened.flags().head(1).index[0]
    assert len(opened.account(flagged.item() if hasattr(flagged, "item") else flagged).scores) > 0
    assert len(opened.what_if(Policy(queue="abuse", budget=1)).flags) > 0
    assert explorer.client.status == "running"


def test_filters_let_through_what_pandas_would_and_ids_are_compared_exactly(world: SmallWorld, explorer: Explorer) -> None:
    everyone = explorer.scores().compute()
    high = explorer.scores(explorer.as_ofs[-1], filters=[("score", ">=", 0.5)]).compute()
    expected = everyone[(everyone["as_of"] == explorer.as_ofs[-1]) & (everyone["score"] >= 0.5)]
    pd.testing.assert_frame_equal(high, expected)
    accounts = explorer.accounts().compute()
    either = explorer.accounts(filters=[[("plan", "==", 0)], [("plan", "==", 2)]])
    pd.testing.assert_frame_equal(either.compute(), accounts[accounts["plan"].isin([0, 2])])
    some = accounts.index[:3].tolist()
    assert explorer.accounts(filters=[("account_id", "in", some)]).compute().index.tolist() == some
    if world.kind == "integer":
        one = explorer.accounts(filters=[("account_id", "==", 2**53 + 1)])
        assert one.compute().index.tolist() == [2**53 + 1]
    for no_id in (1.5, float(2**53), True):
        with pytest.raises(TypeError, match="account ids"):
            explorer.scores(filters=[("account_id", "==", no_id)])
    decided = explorer.decisions(filters=[("rank", "<=", 2)]).compute()
    assert decided["rank"].max() == 2
    assert len(explorer.rejects(filters=[("code", "==", "score_invalid")]).compute()) == 0


def test_of_events_only_the_columns_are_read_that_are_asked_for_or_filtered(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    real = read_batches

    def counted(file: InputFile, columns: list[str]) -> object:
        asked.append(columns)
        return real(file, columns)

    monkeypatch.setattr("batchscore.sources.freeze.read_batches", counted)
    large = explorer.events(filters=[("bytes", ">", 90_000)])["event_at"]
    with dask.config.set(scheduler="synchronous"):
        found = large.compute()
    assert {tuple(sorted(columns)) for columns in asked} == {("at", "bytes", "id", "known")}
    everything = explorer.events().compute()
    assert len(found) == (everything["bytes"] > 90_000).sum() > 0


def test_filters_pass_over_row_groups_whose_footers_say_that_no_row_is_wanted(explorer: Explorer, tmp_path: Path) -> None:
    kind = explorer.feature_set.account_id
    rows = pa.Table.from_pandas(explorer.accounts().compute().reset_index(), preserve_index=False)
    half = len(rows) // 2
    rows = rows.set_column(rows.schema.get_field_index("plan"), "plan", pa.array([0] * half + [200] * (len(rows) - half)))
    rows = rows.set_column(0, "account_id", rows["account_id"].cast(ID_TYPES[kind]))
    path = tmp_path / "half.parquet"
    pq.write_table(rows, path, row_group_size=half, compression="zstd")
    second = pq.read_metadata(path).row_group(1).column(0)
    with path.open("r+b") as file:  # whoever reads a value of the second half fails: what is not read cannot be seen otherwise
        file.seek(second.dictionary_page_offset or second.data_page_offset)
        file.write(bytes(second.total_compressed_size))
    held = Reference(path=path.name, sha256=file_sha256(path))
    index = KeyIndex.build(tmp_path, kind, [held]).save(tmp_path)
    work = explorer._ranges[0].model_copy(update={"snapshots": index, "keys": KeyRange()})  # noqa: SLF001 (a range of this file)
    sound = read_accounts(work, str(tmp_path), filters=[("plan", "<", 100)])
    assert sound.index.tolist() == rows["account_id"].to_pylist()[:half]
    assert list(sound.columns) == list(explorer.accounts().columns)
    nothing = read_accounts(work, str(tmp_path), filters=[("plan", ">", 300)])
    assert len(nothing) == 0
    files = Files(str(tmp_path), (Output(role="snapshot", path=path.name, sha256=held.sha256, n_rows=len(rows), n_bytes=1),))
    assert len(read_files(files, rows.schema, filters=[("plan", "<", 100)])) == half
    for touched in ([("plan", ">", 100)], [("plan", ">=", 0)]):
        with pytest.raises((OSError, pa.ArrowException)):
            read_accounts(work, str(tmp_path), filters=touched)
        with pytest.raises((OSError, pa.ArrowException)):
            read_files(files, rows.schema, filters=touched)


def test_what_a_notebook_shows_is_escaped_and_short(world: SmallWorld, row: RunRow, explorer: Explorer) -> None:
    bundle = read_manifest(world.folder / "bundle")
    flagged = open_reader(world.store).queue("abuse", limit=1)[0].flag
    told = batchscore.explain(flagged.run_id, flagged.account_id, store=world.store)
    beside = batchscore.compare(row.run_id, row.run_id, store=world.store)
    for value, says in (
        (row, row.run_id),
        (row.plan, row.plan.digest),
        (bundle, bundle.digest),
        (explorer.feature_set, explorer.feature_set.digest),
        (explorer, "features(as_of)"),
        (told, "the same to the bit"),
        (beside, "equal budget"),
    ):
        html, text = value._repr_html_(), repr(value)
        assert says in html
        assert says in text
        assert Seen(html).open == []
        assert "http" not in html
        assert len(text) < 3_000


def test_a_run_that_has_not_decided_is_not_explored_and_told_how_to_go_on(tmp_path: Path, client: Client) -> None:
    world = make_small_world(tmp_path)
    stop = threading.Event()

    class AtTheFirstScore(Heard):
        def __call__(self, event: Event) -> None:
            if isinstance(event, PartitionCommitted) and event.stage == Stage.SCORE:
                stop.set()

    with pytest.raises(Interrupted):
        walk(world, heard=AtTheFirstScore(), stop=stop)
    (undecided,) = open_reader(world.store).runs()
    with pytest.raises(Refused, match=f"(?s)has not decided yet.*batchscore resume {undecided.run_id}") as refused:
        Explorer(client, undecided)
    assert refused.value.reason == "run_unfinished"

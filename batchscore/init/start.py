"""Writes a beginning: the texts, their schemas, and where no data was named a sample with a bundle trained on it.

All of it is made in a hidden folder, read as `check` will read it, and then moved to its place. Nothing is ever written over.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchscore.demo.training import train_bundle
from batchscore.demo.truth import Truth
from batchscore.demo.world import trained_as_of, write_world
from batchscore.errors import Problem, Refused
from batchscore.features.feature_set import read_feature_set
from batchscore.init.columns import Column, columns_of_files, columns_of_table
from batchscore.init.guess import NamedColumns, guess_accounts, guess_events
from batchscore.init.started import Guessed, Started
from batchscore.init.text import FEATURES_SCHEMA, SPEC_SCHEMA, TRAIN, Beginning, features_text, quoted, spec_text, table_name
from batchscore.planner.agreement import refuse_mismatch
from batchscore.planner.inputs import read_inputs
from batchscore.spec import RunSpec, Source, SqlSource, read_spec

_SAMPLE_ACCOUNTS: Final = 600
_SAMPLE_DAYS: Final = 35
_SAMPLE_SEED: Final = 1
_TRAIN_BEFORE: Final = timedelta(days=14)  # so long before the as-of a model is trained: what came since is not known to it


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnData:
    """Where the operator's data are (a table, or paths of Parquet), and which columns were named."""

    accounts: SqlSource | Path
    events: Path | None = None
    said: NamedColumns = field(default_factory=NamedColumns)


def start(folder: Path, asked: OwnData | None, schemas: Mapping[str, str], today: datetime) -> Started:
    """Write a beginning into ``folder`` (made if need be); ``asked`` None: with the sample.

    Args:
        folder: Where to.
        asked: The operator's data, which are only looked at.
        schemas: The texts of the schema files, by `SPEC_SCHEMA` and `FEATURES_SCHEMA`.
        today: Midnight; the as-of where no statistics tell how far the events reach.

    Raises:
        Refused: ``file_exists`` with every name that is taken; ``column_unclear`` or ``column_missing``; what is wrong with
            the inputs. Nothing is left behind.
    """
    names = ["spec.yaml", "features.yaml", SPEC_SCHEMA, FEATURES_SCHEMA, "train.py"]
    names += ["accounts", "mails", "labels.parquet", "bundle"] if asked is None else []
    _refuse_taken(folder, names)
    with _made(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".batchscore-init-") as hidden:
        unfinished = Path(hidden)
        if asked is None:
            _write_sample(unfinished)
        data = asked or OwnData(accounts=unfinished / "accounts", events=unfinished / "mails")
        beginning, sources = _begin(data, today, folder, unfinished)
        for name, text in {**schemas, "spec.yaml": spec_text(beginning), "features.yaml": features_text(beginning)}.items():
            (unfinished / name).write_text(text, encoding="utf-8")
        (unfinished / "train.py").write_text(TRAIN, encoding="utf-8")
        spec = read_spec(unfinished / "spec.yaml").model_copy(update={"sources": sources})
        _refuse_unusable(spec)
        if asked is None:
            _train_sample(spec, unfinished)
        _move(unfinished, folder, names)
    following = _next_of_sample() if asked is None else _next_of_own(beginning)
    return Started(
        folder=str(folder),
        sample=asked is None,
        written=tuple(names),
        guessed=beginning.guessed,
        next=(*_enter(folder), *following),
    )


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """The folder, made if need be, and gone again if it was made in vain."""
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if new:
            folder.rmdir()
        raise


def _refuse_taken(folder: Path, names: Iterable[str]) -> None:
    taken = tuple(Problem(where=name, what="is there already") for name in names if os.path.lexists(folder / name))
    if taken or (folder.exists() and not folder.is_dir()):
        raise Refused(
            "file_exists",
            "init writes over nothing",
            where=str(folder),
            problems=taken,
            remedy="name another folder: batchscore init FOLDER",
        )


def _begin(data: OwnData, today: datetime, folder: Path, unfinished: Path) -> tuple[Beginning, dict[str, Source]]:
    """What the texts will say; and the sources with absolute paths, as long as the texts do not lie where theirs start."""
    if isinstance(data.accounts, SqlSource):
        columns, table = columns_of_table(data.accounts), table_name(data.accounts.table, "accounts")
        text = f"{{sql: {{url: {data.accounts.url}, table: {quoted(data.accounts.table)}}}}}"
        source = Source(sql=data.accounts)
    else:
        columns, table = columns_of_files(data.accounts), table_name(data.accounts.stem, "accounts")
        text, source = _parquet(data.accounts, folder, unfinished)
    accounts, guessed = guess_accounts(columns, data.said)
    texts, sources = {table: text}, {table: source}
    events, events_table = None, ""
    seen: tuple[Column, ...] = ()
    if data.events is not None:
        events_table = table_name(data.events.stem, "events")
        events_table = events_table if events_table != table else f"{table}_events"
        seen = columns_of_files(data.events)
        events, more = guess_events(seen, accounts, data.said)
        guessed += more
        texts[events_table], sources[events_table] = _parquet(data.events, folder, unfinished)
    elif accounts.created_at is None:
        raise Refused(
            "column_unclear",
            "there is nothing to make a feature of: no events, and no time at which accounts were created",
            where="accounts",
            remedy="name the events: --events PATH, or the column: --created-at COLUMN",
        )
    beginning = Beginning(
        accounts_table=table,
        events_table=events_table,
        sources=texts,
        accounts=accounts,
        events=events,
        guessed=guessed,
        as_of=_as_of(seen, guessed, today),
        release="latest" if data.accounts == unfinished / "accounts" else "none",
    )
    return beginning, sources


def _parquet(path: Path, folder: Path, unfinished: Path) -> tuple[str, Source]:
    """A path as the spec says it, from its own folder where it lies below it; and as it is."""
    absolute = path.absolute()
    for above in (unfinished.absolute(), folder.absolute()):
        if absolute.is_relative_to(above):
            said = absolute.relative_to(above).as_posix()
            break
    else:
        said = str(absolute)
    return f"{{parquet: {{path: {quoted(said)}}}}}", Source.model_validate({"parquet": {"path": str(absolute)}})


def _as_of(seen: Iterable[Column], guessed: Iterable[Guessed], today: datetime) -> datetime:
    """The day up to which events reach, as far as statistics tell; a later day than today tells nothing."""
    event_at = next((guess.column for guess in guessed if guess.of == "events.event_at"), None)
    latest = next((column.latest for column in seen if column.name == event_at), None)
    if latest is None or latest > today:
        return today
    return latest.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _refuse_unusable(spec: RunSpec) -> None:
    """Raise what `check` would find, but for the bundle."""
    feature_set = read_feature_set(Path(spec.feature_set))
    refuse_mismatch(spec, feature_set, ())
    read_inputs(spec, feature_set)


def _write_sample(folder: Path) -> None:
    """Accounts, mails, and what reviewers would have found by the date of training."""
    write_world(folder, accounts=_SAMPLE_ACCOUNTS, days=_SAMPLE_DAYS, seed=_SAMPLE_SEED)
    truth = pq.read_table(folder / "truth.parquet")
    known = pc.fill_null(pc.less(truth["since"], pa.scalar(trained_as_of(_SAMPLE_DAYS), truth["since"].type)), fill_value=False)
    labels = pa.table({"account_id": truth["account_id"], "label": known.cast(pa.int8())})
    pq.write_table(labels, folder / "labels.parquet")


def _train_sample(spec: RunSpec, folder: Path) -> None:
    train_bundle(spec, Truth(folder / "truth.parquet"), trained_as_of(_SAMPLE_DAYS))


def _move(unfinished: Path, folder: Path, names: Iterable[str]) -> None:
    """Each to its place; a name that was taken meanwhile stays as it is, and what was moved so far is taken back."""
    moved: list[Path] = []
    try:
        for name in names:
            place = folder / name
            if os.path.lexists(place):
                _refuse_taken(folder, [name])
            (unfinished / name).rename(place)
            moved.append(place)
    except BaseException:
        for place in moved:
            shutil.rmtree(place) if place.is_dir() else place.unlink()
        raise


def _enter(folder: Path) -> tuple[str, ...]:
    return () if folder.absolute() == Path.cwd() else (f"cd {shlex.quote(str(folder))}",)


def _next_of_sample() -> tuple[str, ...]:
    return ("batchscore check spec.yaml", "batchscore run spec.yaml", "batchscore queue")


def _next_of_own(beginning: Beginning) -> tuple[str, ...]:
    as_of = f"{beginning.as_of - _TRAIN_BEFORE:%Y-%m-%d}"
    return (
        f"batchscore features build spec.yaml --as-of {as_of} --labels labels.parquet --out frame.parquet",
        "python train.py",
        f"batchscore bundle pack model.ubj --features features.yaml --golden golden.parquet --trained-as-of {as_of} --out bundle",
        "batchscore check spec.yaml",
        "batchscore run spec.yaml",
    )

"""The texts that `init` writes: a feature set, a run spec and a training script, commented for whoever edits them next. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from batchscore.features.feature_set import RESERVED
from batchscore.features.tables import TimeColumn
from batchscore.init.columns import Column
from batchscore.init.guess import GuessedAccounts, GuessedEvents
from batchscore.init.started import Guessed

SPEC_SCHEMA: Final = "spec.schema.json"
FEATURES_SCHEMA: Final = "feature-set.schema.json"
MAX_COLUMNS: Final = 20
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_YAML_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"})
_NAMES_SOMETHING: Final = re.compile(
    r"(^|_)(id|ids|ip|net|network|host|domain|hash|token|session|address|mailbox|recipient|sender|country|asn|agent)(_|$)"
)
_COUNTS_SOMETHING: Final = re.compile(r"^(n|num|count|nr|total)_")


@dataclass(frozen=True, kw_only=True, slots=True)
class Beginning:
    """All that the texts say. ``sources``: table → its YAML; ``events_table`` is empty where there are no events."""

    accounts_table: str
    events_table: str
    sources: dict[str, str]
    accounts: GuessedAccounts
    events: GuessedEvents | None
    guessed: tuple[Guessed, ...]
    as_of: datetime
    release: str


def quoted(text: str) -> str:
    """``text`` as a YAML scalar that is read as that text, whatever is in it."""
    if _PLAIN.fullmatch(text) and text.casefold() not in _YAML_WORDS:
        return text
    return '"' + "".join(char if char.isprintable() and char not in '"\\' else f"\\U{ord(char):08x}" for char in text) + '"'


def table_name(text: str, otherwise: str) -> str:
    """A name for a table from the name of its file or folder, if one can be made of it."""
    name = re.sub(r"[^a-z0-9_]+", "_", text.casefold()).strip("_")
    return name if re.match(r"^[a-z][a-z0-9_]{0,40}$", name) and name not in _YAML_WORDS else otherwise


def spec_text(beginning: Beginning) -> str:
    """The run spec."""
    sources = "\n".join(f"  {table}: {where}" for table, where in beginning.sources.items())
    said = (
        "the flags of the last as-of go before reviewers; none: they are only simulated"
        if beginning.release == "latest"
        else "nobody sees a flag yet; latest puts those of the last as-of before reviewers"
    )
    return f"""\
# yaml-language-server: $schema={SPEC_SCHEMA}
# What a run is to do. `batchscore plan spec.yaml` shows it first, and writes nothing.
name: {beginning.accounts_table}
feature_set: features.yaml

# Where each table of the feature set is. A database is named, never spelled out: its URL is in the environment.
sources:
{sources}

bundles: [bundle]             # the model, packed with all that scoring it needs
as_of: {beginning.as_of:%Y-%m-%d}             # only what was known before this moment counts

# At most so many flags per as-of: reviewers have that many hours and no more. `threshold: 0.5` would add a least score.
policy: {{queue: review, budget: 20}}
release: {beginning.release:<21}# {said}
store: store                  # runs, scores and flags; made by the first run
"""


def features_text(beginning: Beginning) -> str:
    """The feature set."""
    accounts = beginning.accounts
    lines = [
        f"# yaml-language-server: $schema={FEATURES_SCHEMA}",
        "# The features of an account: what is known of it before a date. Reviewed text, versioned; its digest is in every plan.",
        "# `batchscore init` made it from names and types of columns. It guessed, so look:",
        *(f"#   {_guess_said(guess)}" for guess in beginning.guessed),
        f"feature_set: {beginning.accounts_table}",
        "version: 1",
        f"account_id: {accounts.kind:<18}# exact, never a float"
        + (": compared by its bytes" if accounts.kind == "string" else ""),
        "",
        *_accounts_lines(beginning),
        "",
        *_events_lines(beginning),
        "features:",
        *(f"  {line}" for line in _feature_lines(beginning)),
    ]
    return "\n".join(lines) + "\n"


def _guess_said(guess: Guessed) -> str:
    return f"{guess.of}: {quoted(guess.column) if guess.column else 'none'} ({guess.why})"


def _accounts_lines(beginning: Beginning) -> Iterator[str]:
    accounts = beginning.accounts
    yield "# One row per account. `created_at` says from when an account exists: no as-of before it scores the account."
    yield "accounts:"
    yield f"  table: {beginning.accounts_table}"
    yield f"  key: {quoted(accounts.key)}"
    if accounts.created_at is not None:
        yield f"  created_at: {_time(accounts.created_at)}"
    numbers = [quoted(column.name) for column in accounts.others if column.kind in {"integer", "float", "bool"}]
    yield "  # A column that never changes may be a feature: others would carry today's value into the past. Found: " + (
        ", ".join(numbers[:MAX_COLUMNS]) or "no number"
    )
    yield "  immutable: []"
    yield from _verdict_lines(accounts.verdict)


def _events_lines(beginning: Beginning) -> Iterator[str]:
    events = beginning.events
    if events is None:
        return
    yield "# One row per event. `known_at` is when a row became visible to us: a late one counts from then on, and not before."
    yield "events:"
    yield f"  - table: {beginning.events_table}"
    yield f"    key: {quoted(events.key)}"
    yield f"    event_at: {_time(events.event_at)}"
    yield f"    known_at: {_time(events.known_at) if events.known_at else 'event_at'}"
    yield from (f"  {line}" for line in _verdict_lines(events.verdict))
    yield ""


def _verdict_lines(verdict: Sequence[str]) -> Iterator[str]:
    if verdict:
        yield "  # What a filter or a reviewer said. A model that learns from it repeats it: these are refused as features."
        yield f"  verdict: [{', '.join(map(quoted, verdict))}]"


def _time(time: TimeColumn) -> str:
    if time.unit is None and time.zone is None:
        return quoted(time.column)
    more = f"unit: {time.unit}" if time.unit else f"zone: {time.zone}"
    return f"{{column: {quoted(time.column)}, {more}}}"


def _feature_lines(beginning: Beginning) -> Iterator[str]:
    """Features over the columns found; `say` is what a reviewer reads."""
    if beginning.accounts.created_at is not None:
        yield 'age_days: {age: created_at, say: "the account is {value} days old"}'
    table, events = beginning.events_table, beginning.events
    if events is None:
        return
    yield f'{table}_7d: {{count: {table}, window: 7d, say: "{{value}} {table} in 7 days"}}'
    yield f'{table}_28d: {{count: {table}, window: 28d, say: "{{value}} {table} in 28 days"}}'
    yield f'{table}_burst: {{ratio: [{table}_7d, {table}_28d], say: "share of 28 days\' {table} in the last 7: {{value}}"}}'
    yield f'{table}_active_28d: {{days_active: {table}, window: 28d, say: "active on {{value}} of the last 28 days"}}'
    yield f'{table}_quiet_28d: {{time_since: {table}, window: 28d, say: "last active {{value}} days before"}}'
    taken = {f"{table}_{what}" for what in ("7d", "28d", "burst", "active_28d", "quiet_28d")} | {"age_days", *RESERVED}
    for column in events.others[:MAX_COLUMNS]:
        for name, definition in _of_column(table, column):
            if name not in taken:
                taken.add(name)
                yield f"{name}: {{{definition}}}"
    if left := events.others[MAX_COLUMNS:]:
        yield f"# left out: {', '.join(quoted(column.name) for column in left)}"


def _of_column(table: str, column: Column) -> Iterator[tuple[str, str]]:
    """Distinct values of what names something; sums, means and extremes of what counts or measures."""
    stem = table_name(column.name, "")
    if not stem:
        return
    of = quoted(f"{table}.{column.name}") if not _PLAIN.fullmatch(column.name) else f"{table}.{column.name}"
    named = _NAMES_SOMETHING.search(stem) is not None and _COUNTS_SOMETHING.match(stem) is None
    match column.kind:
        case "text" | "integer" if named or column.kind == "text":
            yield f"{stem}_distinct_28d", f'distinct: {of}, window: 28d, say: "{{value}} different {stem} in 28 days"'
        case "bool":
            yield f"{stem}_7d", f'sum: {of}, window: 7d, say: "{{value}} {table} with {stem} in 7 days"'
        case "integer":
            yield f"{stem}_7d", f'sum: {of}, window: 7d, say: "{stem} of 7 days adds up to {{value}}"'
            yield f"{stem}_mean_28d", f'mean: {of}, window: 28d, say: "{stem} is {{value}} on average over 28 days"'
            yield f"{stem}_max_28d", f'max: {of}, window: 28d, say: "{stem} was at most {{value}} in 28 days"'
        case "float":
            yield f"{stem}_min_28d", f'min: {of}, window: 28d, say: "{stem} was at least {{value}} in 28 days"'
            yield f"{stem}_max_28d", f'max: {of}, window: 28d, say: "{stem} was at most {{value}} in 28 days"'


TRAIN: Final = '''\
"""Trains a model on frame.parquet and writes model.ubj, and golden.parquet: rows that prove it scores elsewhere as it does here.

A start. Features are features.yaml's, labels are yours; how the model is trained is up to you.
"""

import pandas as pd
import xgboost as xgb

frame = pd.read_parquet("frame.parquet")  # batchscore features build spec.yaml --as-of DATE --labels FILE --out frame.parquet
known = frame[frame["label"].notna()]
if known["label"].nunique() < 2:
    raise SystemExit("the labels of these accounts are all alike: nothing can be learnt from them")
features = known.drop(columns=["account_id", "as_of", "label", "weight"], errors="ignore")
kinds = {name: "category" if pd.api.types.is_string_dtype(features[name]) else "float32" for name in features}
features = features.astype(kinds)  # text is {category: column} in features.yaml: the model learns its values
label, weight = known["label"].astype("int32"), known.get("weight")
matrix = xgb.DMatrix(features, label=label, weight=weight, enable_categorical=True)
how = {"objective": "binary:logistic", "max_depth": 4, "eta": 0.1, "tree_method": "hist", "seed": 0}
booster = xgb.train(how, matrix, num_boost_round=120)
booster.save_model("model.ubj")
features.sample(min(256, len(features)), random_state=0).to_parquet("golden.parquet", index=False)
print(f"trained on {len(features)} accounts, {int(known['label'].sum())} of them labelled 1")
'''

"""The simulated world: accounts and mails of any size with planted abuse, and the truth kept apart.

Everything follows from the seed. Accounts are drawn in blocks of `BLOCK`, always whole, each from a generator seeded by (seed,
block), and a block's mails of a day from one seeded by (seed, block, day). So memory is bounded, a world is the beginning of any
larger one of its days and seed, and how many blocks share a file changes no row.

Kinds (`KINDS`): ``normal``; ``newsletter``, honest and loud, the bait for a careless model; and five kinds of abuse:
``burst`` (a new account that mails masses within days), ``drip`` (many recipients, slowly), ``takeover`` (a long honest
history, then a spammer's), ``farm`` (many accounts signed up in one hour from one network), and ``scout`` (a farm's accounts
that probe with few mails). About 3 % of mails become known one to five days late, and lie with the day they were known.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
KINDS: Final = ("normal", "newsletter", "burst", "drip", "takeover", "farm", "scout")
CAVEAT: Final = (
    "This world is simulated: abuse was planted where the features look, so its precision tells that the run works, and nothing "
    "of how a model would do on real accounts."
)
_SHARES: Final = (0.965, 0.005, 0.008, 0.006, 0.006, 0.006, 0.004)
BLOCK: Final = 4_096  # accounts; part of what a world is
BLOCKS_PER_FILE: Final = 16
_ORDINARY_MAILS: Final = 14.0  # of a normal account over all days, on average; the loud few bring the mean of all to about 20
_PARETO: Final = 1.6  # a few normal accounts send most of the mail
_LATE: Final = 0.03
_MAX_LATE_DAYS: Final = 5
_DAY_US: Final = 86_400_000_000
_MOMENT: Final = pa.timestamp("us", tz="UTC")
_STRANGERS: Final = 1 << 40  # recipients outside our own accounts

TRUTH: Final = pa.schema([("account_id", pa.uint64()), ("is_abuse", pa.bool_()), ("since", _MOMENT), ("kind", pa.string())])
_MAILS: Final = pa.schema(
    [
        ("account_id", pa.uint64()),
        ("event_at", _MOMENT),
        ("known_at", _MOMENT),
        ("bytes", pa.int64()),
        ("n_rcpt", pa.int64()),
        ("recipient", pa.int64()),
        ("client_net", pa.int64()),
        ("has_link", pa.int64()),
        ("late_days", pa.int64()),
    ]
)

Ints = npt.NDArray[np.int64]


def trained_as_of(days: int) -> datetime:
    """The date up to which the demo's model may look: three fifths of the world's days."""
    return START + timedelta(days=days * 3 // 5)


def write_world(folder: Path, *, accounts: int, days: int, seed: int, blocks_per_file: int = BLOCKS_PER_FILE) -> None:
    """Write ``accounts/``, ``mails/day=…/``, ``truth.parquet``, ``features.yaml`` and ``spec.yaml`` into ``folder``."""
    (folder / "accounts").mkdir(parents=True)
    with pq.ParquetWriter(folder / "truth.parquet", TRUTH) as truth:
        for number, blocks in enumerate(_groups(accounts, days, seed, blocks_per_file)):
            part = f"part-{number:05d}.parquet"
            pq.write_table(pa.concat_tables(block.accounts() for block in blocks), folder / "accounts" / part)
            truth.write_table(pa.concat_tables(block.truth() for block in blocks))
            _write_mails(folder / "mails", part, blocks, days)
    (folder / "features.yaml").write_text(FEATURES, encoding="utf-8")
    first, last = trained_as_of(days) + timedelta(days=1), START + timedelta(days=days)
    spec = SPEC.format(
        first=first.date(), last=last.date(), every=max(1, (last - first).days // 4), budget=max(25, accounts // 1_000)
    )
    (folder / "spec.yaml").write_text(spec, encoding="utf-8")


class _Block:
    """`BLOCK` accounts: who they are and how they mail. Only the first ``n_kept`` are in the world."""

    def __init__(self, number: int, n_kept: int, days: int, seed: int) -> None:
        n = BLOCK
        chance = np.random.default_rng([seed, number])
        self.number, self.n_kept, self.days, self.seed = number, n_kept, days, seed
        # Ids are sparse and random in their order, and reach beyond 2^53, where a float would lose them.
        serial = np.arange(number * BLOCK, number * BLOCK + n, dtype=np.uint64)
        self.ids = (serial + np.uint64(1)) * np.uint64(1_000_003) + chance.integers(0, 1_000_003, n).astype(np.uint64)
        self.ids[serial % np.uint64(10) == np.uint64(7)] += np.uint64(1 << 60)
        self.kind = chance.choice(len(KINDS), n, p=_SHARES)
        self.created = chance.integers(-3 * 365, days, n) * _DAY_US + chance.integers(0, _DAY_US, n)
        self.plan = chance.choice(3, n, p=(0.8, 0.15, 0.05)).astype(np.int8)
        self.network = chance.zipf(1.3, n) % 50_000
        self.rate = np.minimum(chance.pareto(_PARETO, n) * (_PARETO - 1) * _ORDINARY_MAILS / days, 200.0)
        self.since = np.full(n, -1, np.int64)  # the day abuse begins
        self._plant(chance)

    def _plant(self, chance: np.random.Generator) -> None:
        """Give the abusive kinds their sign-up, their networks and their first day."""
        for name in ("burst", "drip", "takeover", "farm", "scout"):
            who = np.flatnonzero(self._is(name))
            begin = chance.integers(0, self.days, len(who))
            self.since[who] = begin
            if name == "takeover":
                self.created[who] = -chance.integers(200, 1_000, len(who)) * _DAY_US
            elif name in {"farm", "scout"}:
                hours = chance.integers(0, self.days * 24, max(1, len(who) // 40))
                hour = hours[chance.integers(0, len(hours), len(who))]
                self.created[who] = hour * (_DAY_US // 24) + chance.integers(0, _DAY_US // 24, len(who))
                self.network[who] = 60_000 + hour % 97
                self.since[who] = np.minimum(hour // 24 + chance.integers(0, 4, len(who)), self.days - 1)
            else:
                self.created[who] = begin * _DAY_US - chance.integers(0, 2 * _DAY_US, len(who))
        self.rate[self._is("newsletter")] = 15 + 10 * chance.random(int(self._is("newsletter").sum()))

    def _is(self, name: str) -> npt.NDArray[np.bool_]:
        found: npt.NDArray[np.bool_] = self.kind == KINDS.index(name)
        return found

    def accounts(self) -> pa.Table:
        """The block's rows of the accounts table."""
        return pa.table(
            {
                "account_id": self.ids,
                "created_at": _moments(self.created),
                "plan": self.plan,
                "signup_network": self.network.astype(np.int32),
            }
        ).slice(0, self.n_kept)

    def truth(self) -> pa.Table:
        """What a reviewer would find: kind, and since when."""
        bad = self.since >= 0
        since = pa.array(np.maximum(self.since, 0) * _DAY_US, mask=~bad)
        kinds = pa.array([KINDS[kind] for kind in self.kind])
        columns = {"account_id": self.ids, "is_abuse": bad, "since": _moments_of(since), "kind": kinds}
        return pa.table(columns, schema=TRUTH).slice(0, self.n_kept)

    def mails(self, day: int) -> pa.Table:
        """The mails its accounts send on ``day``, by account, with ``late_days`` beside the columns of the input."""
        drawn = self._draw(day)
        n = int(np.searchsorted(drawn.pop("place"), self.n_kept))
        held: dict[str, Any] = {name: values[:n] for name, values in drawn.items()}
        known_at = _moments(held["event_at"] + held["late_days"] * _DAY_US)
        return pa.table(held | {"event_at": _moments(held["event_at"]), "known_at": known_at}, schema=_MAILS)

    def _draw(self, day: int) -> dict[str, npt.NDArray[Any]]:
        """Mails of the whole block, sorted by ``place``: which of its accounts each is of."""
        chance = np.random.default_rng([self.seed, self.number, day])
        n = chance.poisson(np.where(self._alive(day), self._rate_on(day), 0.0))
        who = np.repeat(np.arange(len(n)), n)
        bad = (self.since[who] >= 0) & (self.since[who] <= day)
        loud = bad & (self.kind[who] != KINDS.index("scout"))
        at = day * _DAY_US + chance.integers(0, _DAY_US, len(who))
        late = (chance.random(len(who)) < _LATE) * chance.integers(1, _MAX_LATE_DAYS + 1, len(who))
        friends = (self.ids[who].astype(np.int64) % 9_973) * 16 + chance.integers(0, 16, len(who)) ** 2 // 16
        strangers = _STRANGERS + chance.integers(0, 1 << 30, len(who))
        newsletter = self.kind[who] == KINDS.index("newsletter")
        sizes = np.exp(chance.normal(8.5, 1.1, len(who))).astype(np.int64) + 200
        return {
            "place": who,
            "account_id": self.ids[who],
            "event_at": np.maximum(at, self.created[who]),
            "late_days": late,
            "bytes": np.where(loud, 900 + sizes // 20, np.minimum(sizes, 25_000_000)),
            "n_rcpt": np.where(loud, chance.integers(5, 60, len(who)), chance.geometric(0.7, len(who))),
            "recipient": np.where(loud | newsletter, strangers, friends),
            "client_net": np.where(
                bad & (chance.random(len(who)) < 0.6), chance.integers(70_000, 90_000, len(who)), self.network[who]
            ),
            "has_link": (chance.random(len(who)) < np.where(loud, 0.9, np.where(newsletter, 0.95, 0.25))).astype(np.int64),
        }

    def _alive(self, day: int) -> npt.NDArray[np.bool_]:
        alive: npt.NDArray[np.bool_] = self.created < (day + 1) * _DAY_US
        return alive

    def _rate_on(self, day: int) -> npt.NDArray[np.float64]:
        """Mails a day each account is expected to send on ``day``."""
        rate = self.rate.copy()
        running = (self.since >= 0) & (self.since <= day)
        for name, loudness, lasts in (
            ("burst", 60.0, 4),
            ("drip", 4.0, 10_000),
            ("takeover", 45.0, 6),
            ("farm", 12.0, 10),
            ("scout", 0.7, 10_000),
        ):
            rate[running & self._is(name)] = 0.2
            rate[running & self._is(name) & (self.since + lasts > day)] = loudness
        return rate


def _groups(accounts: int, days: int, seed: int, size: int) -> Iterator[list[_Block]]:
    """The world's blocks, ``size`` at a time."""
    starts = range(0, accounts, BLOCK)
    for group in range(0, len(starts), size):
        yield [_Block(start // BLOCK, min(BLOCK, accounts - start), days, seed) for start in starts[group : group + size]]


def _write_mails(folder: Path, part: str, blocks: list[_Block], days: int) -> None:
    """Of each day the mails that became known on it: those of the day in time, and late ones of the days before."""
    waiting: dict[int, list[pa.Table]] = {day: [] for day in range(days + _MAX_LATE_DAYS)}
    for day in range(days):
        for block in blocks:
            mails = block.mails(day)
            for late in range(_MAX_LATE_DAYS + 1):
                waiting[day + late].append(mails.filter(pc.equal(mails["late_days"], late)).drop_columns("late_days"))
        known = pa.concat_tables(waiting.pop(day)).sort_by([("account_id", "ascending"), ("event_at", "ascending")])
        of_day = folder / f"day={(START + timedelta(days=day)):%Y-%m-%d}"
        of_day.mkdir(parents=True, exist_ok=True)
        pq.write_table(known, of_day / part)


def _moments(us: Ints) -> pa.Array:
    return _moments_of(pa.array(us))


def _moments_of(us: pa.Array) -> pa.Array:
    start = int((START - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))
    return pa.array(us.fill_null(0).to_numpy() + start, mask=us.is_null().to_numpy(zero_copy_only=False)).cast(_MOMENT)


FEATURES: Final = """\
# The features of an account of the simulated world.
feature_set: accounts
version: 1
account_id: integer
accounts: {table: accounts, key: account_id, created_at: created_at, immutable: [signup_network]}
events:
  # known_at says when a mail became visible to us: a late one counts from then on, and not before.
  - {table: mails, key: account_id, event_at: event_at, known_at: known_at}
features:
  mails_1d:       {count: mails, window: 1d}
  mails_7d:       {count: mails, window: 7d}
  mails_28d:      {count: mails, window: 28d}
  active_28d:     {days_active: mails, window: 28d, say: "wrote on {value} of the last 28 days"}
  quiet_days:     {time_since: mails, say: "last wrote {value} days before"}
  age_days:       {age: created_at}
  burst:          {ratio: [mails_7d, mails_28d], say: "share of the last 28 days' mails sent in the last 7: {value}"}
  rcpt_7d:        {sum: mails.n_rcpt, window: 7d, say: "named {value} recipients in 7 days"}
  rcpt_mean_7d:   {mean: mails.n_rcpt, window: 7d, say: "{value} recipients per mail in 7 days"}
  rcpt_max_28d:   {max: mails.n_rcpt, window: 28d, say: "a mail named {value} recipients"}
  bytes_mean_7d:  {mean: mails.bytes, window: 7d, say: "mails of {value} bytes on average in 7 days"}
  bytes_min_28d:  {min: mails.bytes, window: 28d, say: "shortest mail of 28 days: {value} bytes"}
  recipients_7d:  {distinct: mails.recipient, window: 7d, say: "wrote to {value} different recipients in 7 days"}
  recipients_28d: {distinct: mails.recipient, window: 28d, say: "wrote to {value} different recipients in 28 days"}
  networks_7d:    {distinct: mails.client_net, window: 7d, say: "wrote from {value} different networks in 7 days"}
  links_7d:       {sum: mails.has_link, window: 7d, say: "{value} mails with links in 7 days"}
  link_share:     {ratio: [links_7d, mails_7d], say: "share of mails with links: {value}"}
  spread:         {ratio: [recipients_7d, mails_7d], say: "{value} different recipients per mail"}
  signup_network: {column: signup_network, say: "signed up from network {value}"}
"""

SPEC: Final = """\
# A backfill over the simulated world; the model was trained on the days before.
name: world-backfill
feature_set: features.yaml
sources:
  accounts: {{parquet: {{path: accounts}}}}
  mails: {{parquet: {{path: mails}}}}
bundles: [bundle]
as_of: {{from: {first}, to: {last}, every: {every}d}}
policy: {{queue: accounts, threshold: 0.5, budget: {budget}}}
release: latest
store: store
partition_rows: 25000
"""

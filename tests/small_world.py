"""A small world for tests of whole runs: accounts, two weeks of mail, a tiny model, a spec. Made the same way every time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from batchscore.features.feature_set import read_feature_set
from batchscore.keys import IdKind
from batchscore.models.bundle import ReasonTemplate
from batchscore.models.pack import About, pack_bundle
from batchscore.models.training import train
from batchscore.spec import RunSpec, read_spec

Column = npt.NDArray[np.float32]
START = datetime(2026, 1, 1, tzinfo=UTC)
N_DAYS = 14
FEATURES = """\
feature_set: small
version: 1
account_id: {kind}
accounts: {{table: accounts, key: id, created_at: created_at, immutable: [plan]}}
events:
  - {{table: mails, key: id, event_at: at, known_at: known, skew: 1d, verdict: [label]}}
features:
  mails_7d: {{count: mails, window: 7d}}
  bytes_7d: {{sum: mails.bytes, window: 7d}}
  recipients: {{distinct: mails.recipient, window: 14d}}
  active: {{days_active: mails, window: 14d}}
  quiet: {{time_since: mails}}
  plan: {{column: plan}}
  age: {{age: created_at}}
  burst: {{ratio: [mails_7d, active]}}
"""
NAMES = ["mails_7d", "bytes_7d", "recipients", "active", "quiet", "plan", "age", "burst"]


@dataclass(frozen=True, kw_only=True)
class SmallWorld:
    """Where it lies. ``spec`` may be read again with `respec` after editing fields."""

    folder: Path
    n_accounts: int
    kind: IdKind
    text: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def spec_path(self) -> Path:
        return self.folder / "spec.yaml"

    def spec(self, **changes: str) -> RunSpec:
        """The spec, with some of its top-level lines replaced (kept in the file too)."""
        lines = self.text | changes
        self.spec_path.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
        return read_spec(self.spec_path)


def make_small_world(folder: Path, *, n_accounts: int = 300, kind: IdKind = "integer", seed: int = 1) -> SmallWorld:
    """Write the world below ``folder`` (made if need be). Ids reach beyond 2^53 so that a float on the way would show."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    ids = _ids(rng, n_accounts, kind)
    created = [START - timedelta(days=int(days)) for days in rng.integers(-N_DAYS, 400, n_accounts)]
    accounts = pa.table(
        {"id": ids, "created_at": pa.array(created, pa.timestamp("us", "UTC")), "plan": rng.integers(0, 3, n_accounts)}
    )
    (folder / "accounts").mkdir(exist_ok=True)
    order = rng.permutation(n_accounts)
    for number, part in enumerate(np.array_split(order, 3)):
        pq.write_table(accounts.take(pa.array(part)), folder / "accounts" / f"part-{number}.parquet")
    for day in range(N_DAYS):
        _write_mails(folder / "mails" / f"day={(START + timedelta(days=day)):%Y-%m-%d}", rng, ids, day)
    (folder / "features.yaml").write_text(FEATURES.format(kind=kind))
    pack(folder, rng)
    text = {
        "name": "small",
        "feature_set": "features.yaml",
        "sources": "{accounts: {parquet: {path: accounts}}, mails: {parquet: {path: mails}}}",
        "bundles": "[bundle]",
        "as_of": "{from: 2026-01-08, to: 2026-01-15, every: 7d}",
        "policy": "{queue: abuse, threshold: 0.2, budget: 20}",
        "release": "latest",
        "store": "store",
        "partition_rows": "50",
    }
    world = SmallWorld(folder=folder, n_accounts=n_accounts, kind=kind, text=text)
    world.spec()
    return world


def _ids(rng: np.random.Generator, n: int, kind: IdKind) -> pa.Array:
    numbers = np.unique(rng.integers(0, 2**63 - 1, 2 * n, dtype=np.int64))[:n]
    numbers[:4] = [0, 2**53 - 1, 2**53, 2**53 + 1]
    if kind == "integer":
        return pa.array(numbers, pa.int64())
    return pa.array([f"{'Ä é'[number % 3]}0{number}" for number in numbers.tolist()], pa.string())


def _write_mails(folder: Path, rng: np.random.Generator, ids: pa.Array, day: int) -> None:
    n = 200
    start = START + timedelta(days=day)
    who = rng.zipf(1.3, n) % len(ids)
    late = rng.random(n) < 0.1
    at = [
        start + timedelta(seconds=int(s)) - timedelta(days=int(d))
        for s, d in zip(rng.integers(0, 86_400, n), late * 2, strict=True)
    ]
    known = [moment + timedelta(days=int(d)) for moment, d in zip(at, late * 2, strict=True)]
    mails = pa.table(
        {
            "id": ids.take(pa.array(who)),
            "at": pa.array(at, pa.timestamp("us", "UTC")),
            "known": pa.array(known, pa.timestamp("us", "UTC")),
            "bytes": rng.integers(100, 100_000, n),
            "recipient": pa.array([f"r{number}" for number in rng.integers(0, 500, n)]),
            "label": pa.array(["ham"] * n),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(mails, folder / "part.parquet")


def pack(  # noqa: PLR0913 (one for each way in which bundles differ)
    folder: Path,
    rng: np.random.Generator,
    *,
    name: str = "small",
    place: str = "bundle",
    quiet: bool = False,
    bad: Callable[[dict[str, Column]], npt.NDArray[np.bool_]] | None = None,
    reference: pa.Table | None = None,
) -> None:
    """Pack a bundle for the feature set as it stands, with the features of `NAMES`. It lies at ``place``.

    It learned that accounts with much mail are bad, or ``quiet``, that those are which have been silent for long; or those that
    ``bad`` says of features by name, where plans are 0, 1 and 2 as in the world.
    """
    features = rng.gamma(1.5, 4.0, (500 if bad is None else 4_000, len(NAMES))).astype(np.float32)
    if bad is None:
        said = features[:, NAMES.index("quiet")] > 6 if quiet else features[:, 0] * features[:, 2] > 60
    else:
        features[:, NAMES.index("plan")] = rng.integers(0, 3, len(features))
        said = bad(dict(zip(NAMES, features.T, strict=True)))
    labels = said.astype(np.int32)
    booster = train(features, labels, NAMES, n_trees=20, depth=3)
    pack_bundle(
        booster,
        folder / place,
        features=NAMES,
        feature_set_digest=read_feature_set(folder / "features.yaml").digest,
        golden=pa.table({name: features[:32, place] for place, name in enumerate(NAMES)}),
        about=About(name=name, reasons={name: _sentence(name) for name in NAMES}),
        reference=reference,
    )


def _sentence(name: str) -> ReasonTemplate:
    return ReasonTemplate(code=name, sentence=f"{name.replace('_', ' ')} is {{value}}")

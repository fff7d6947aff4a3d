"""Bundles whose model file is damaged at random, with a manifest repaired so that its digests pass; and what became of them."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Literal

import numpy as np

from batchscore.errors import Refused
from batchscore.models.bundle import MANIFEST, read_manifest
from batchscore.models.contract import Frame, Matrix
from batchscore.models.loading import load_scorer
from batchscore.models.model_file import read_model_facts
from batchscore.plan import Reference

Repair = Literal["file", "all"]  # the digest of the model's file; or everything the manifest says of the model
N_ROWS = 4_000
N_EXPLAINED = 300  # so many that tables are made
WORKER_DIED, SILENT, EQUAL = "worker died", "silent", "scored, equal to the bit"


def damage(payload: bytes, chance: np.random.Generator) -> bytes:
    """One to eight flipped bits, a cut, a run of equal bytes, a moved block, or a doubled one."""
    damaged = bytearray(payload)
    kind, at = chance.random(), int(chance.integers(0, len(payload)))
    length = int(chance.integers(1, 64))
    if kind < 0.7:
        for place in chance.integers(0, len(payload), int(chance.integers(1, 9))).tolist():
            damaged[place] ^= 1 << int(chance.integers(0, 8))
    elif kind < 0.8:
        del damaged[at:]
    elif kind < 0.9:
        damaged[at : at + length] = bytes([int(chance.choice([0, 0x7F, 0xFF]))]) * len(damaged[at : at + length])
    elif kind < 0.95:
        del damaged[at : at + length]
    else:
        damaged[at:at] = damaged[at : at + length]
    return bytes(damaged)


def damaged_bundle(whole: Path, folder: Path, seed: int, repair: Repair) -> Reference:
    """A copy of ``whole`` in ``folder`` with a damaged model, and a manifest that does not show it."""
    shutil.copytree(whole, folder)
    entry = read_manifest(whole).manifest.model
    payload = damage((whole / entry.path).read_bytes(), np.random.default_rng(seed))
    (folder / entry.path).write_bytes(payload)
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["model"] |= {"sha256": hashlib.sha256(payload).hexdigest(), "n_bytes": len(payload)}
    if repair == "all":
        try:
            facts = read_model_facts(payload, where="damaged")
            manifest |= {"forest_digest": facts.forest_digest, "base_score": facts.base_score, "written_by": facts.version_text}
        except Refused:
            pass
    text = json.dumps(manifest).encode()
    (folder / MANIFEST).write_bytes(text)
    return Reference(path=str(folder / MANIFEST), sha256=hashlib.sha256(text).hexdigest())


def rows_of(n_features: int) -> Matrix:
    """Rows that no golden row is among."""
    chance = np.random.default_rng(99)
    rows = chance.normal(size=(N_ROWS, n_features)).astype(np.float32) * np.float32(50)
    rows[chance.random(rows.shape) < 0.1] = np.nan
    return rows


def _margins(reference: Reference) -> Matrix:
    """By the compiled code where it passes; a few hundred rows are explained too, with the bits of XGBoost."""
    scorer, reference_scorer = load_scorer(reference), load_scorer(reference, route="xgboost")
    rows = rows_of(len(scorer.names))
    few = Frame(scorer.names, rows[:N_EXPLAINED], np.zeros(N_EXPLAINED, np.bool_))
    explained = scorer.contributions(few)
    assert explained.tobytes() == reference_scorer.contributions(few).tobytes()
    return scorer.margin(Frame(scorer.names, rows, np.zeros(len(rows), np.bool_)))


def _became(whole: Path, folder: Path, seed: int, repair: Repair, expected: bytes) -> str:
    """On a worker: what loading and scoring one damaged bundle came to."""
    reference = damaged_bundle(whole, folder, seed, repair)
    try:
        return EQUAL if _margins(reference).tobytes() == expected else SILENT
    except Refused as error:
        return f"refused {error.reason}"
    finally:
        shutil.rmtree(folder)


def outcomes(whole: Path, scratch: Path, n: int, repair: Repair, *, first_seed: int = 0) -> Counter[str]:
    """What became of ``n`` damaged bundles, each loaded by a worker that scores with it if it may."""
    expected = _margins(read_manifest(whole).reference).tobytes()
    found: Counter[str] = Counter()
    pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    for seed in range(first_seed, first_seed + n):
        try:
            found[pool.submit(_became, whole, scratch / f"damaged-{seed}", seed, repair, expected).result()] += 1
        except BrokenProcessPool:
            found[WORKER_DIED] += 1
            pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    pool.shutdown()
    return found

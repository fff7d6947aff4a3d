"""``make bench``: runs the benchmarks, prints a table, writes ``build/bench.json``.

Every figure is a ratio of two things measured in this run, interleaved, because machines differ and are noisy; a figure
that falls short of its floor makes the exit code 1. ``make bench ARGS='ledger score'`` runs those whose names hold a word.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

from batchscore.settings import library_versions
from tests.benchmarks import (
    bench_bundle,
    bench_cli,
    bench_compiled,
    bench_decide,
    bench_durability,
    bench_engine,
    bench_explorer,
    bench_features,
    bench_mysql,
    bench_reasons,
    bench_score,
)
from tests.benchmarks.figure import Figure

BENCHMARKS: dict[str, Callable[[Path], Iterator[Figure]]] = {
    "score parquet": bench_score.score_parquet,
    "frame": bench_score.frame,
    "compiled scorer": bench_compiled.compiled_scorer,
    "compiled scorer rows that differ": bench_compiled.equal_bits,
    "reasons": bench_reasons.reasons,
    "bundle corrupted": bench_bundle.corrupted,
    "bundle first load": bench_bundle.first_load,
    "memory": bench_score.memory,
    "freeze": bench_mysql.freeze,
    "release": bench_mysql.release,
    "decide and release": bench_decide.decide_and_release,
    "ledger overhead": bench_engine.ledger_overhead,
    "durability sqlite": bench_durability.on_sqlite,
    "durability mysql": bench_durability.on_mysql,
    "driver time": bench_engine.driver_time,
    "resume finished": bench_engine.resume_finished,
    "cli help": bench_cli.help_time,
    "explorer": bench_explorer.explorer,
    "cli status": bench_cli.status_time,
    "rollup vs pyarrow": bench_features.rollup_vs_pyarrow,
    "rollup peak": bench_features.rollup_memory,
    "backfill 30 dates": bench_features.backfill_30_dates,
    "sweep next day": bench_features.sweep_next_day,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only benchmarks whose name holds one of these")
    parser.add_argument("--data", type=Path, default=Path("build/bench-data"), help="where inputs are kept between calls")
    wanted = parser.parse_args()
    wanted.data = wanted.data.absolute()
    wanted.data.mkdir(parents=True, exist_ok=True)
    figures: list[Figure] = []
    for name, benchmark in BENCHMARKS.items():
        if not wanted.words or any(word in name for word in wanted.words):
            for figure in benchmark(wanted.data):
                figures.append(figure)
                print(figure.line(), flush=True)
    versions = dict(library_versions()) | {"machine": platform.machine()}
    out = Path("build/bench.json")
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps([figure.as_json(versions) for figure in figures], indent=2) + "\n")
    print(f"written: {out}")
    return int(not all(figure.holds for figure in figures))


if __name__ == "__main__":  # workers are spawned: they import this module
    raise SystemExit(main())

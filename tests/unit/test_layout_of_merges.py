"""What the merge stage brought together is read in its place, and nothing else is lost."""

from __future__ import annotations

from batchscore.layout import with_merged
from batchscore.plan import Merge, Partition, Reference
from batchscore.receipt import Output


def output(name: str, sha256: str = "0" * 64) -> Output:
    return Output(role="rollup", path=f"rollup/x/{name}.parquet", sha256=sha256, n_rows=1, n_bytes=1)


def test_merged_files_stand_in_the_place_of_theirs_and_equal_bytes_of_another_table_stay() -> None:
    held = tuple(Reference(path=f"/store/rollup/x/{name}.parquet", sha256="0" * 64) for name in ("a", "b"))
    work = Merge(table="mails", feature_set=Reference(path="/f", sha256="1" * 64), rollups=held)
    merge = Partition.of(work, number=0, n_rows=2, reads={})
    rollups = {"mails": [output("a"), output("b"), output("c")], "logins": [output("d"), output("e")]}
    merged = {"mails": [output("m", "2" * 64)]}
    read = {table: [held.path[-9] for held in outputs] for table, outputs in with_merged(rollups, [merge], merged).items()}
    assert read == {"mails": ["c", "m"], "logins": ["d", "e"]}

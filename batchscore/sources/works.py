"""Groups input files into works: what one attempt freezes, or rolls up. Looks at names and sizes, and reads nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from batchscore.plan import FreezeParquet, InputFile, Reference, Rollup

GROUP_BYTES: Final = 32 << 20  # small enough that the last of a few partitions keeps no worker waiting long
GROUP_FILES: Final = 512


def freeze_works(
    files: Sequence[InputFile], table: str, feature_set: Reference, *, segment: str | None = None, groups: tuple[str, ...] = ()
) -> tuple[FreezeParquet, ...]:
    """Works that bring the accounts of ``files`` into snapshots, with a spec's ``segment`` and ``groups``."""
    work = FreezeParquet(table=table, feature_set=feature_set, files=(), segment=segment, groups=groups)
    return tuple(work.model_copy(update={"files": together}) for together in group_files(files))


def rollup_works(files: Sequence[InputFile], table: str, feature_set: Reference, *, by: str | None = None) -> tuple[Rollup, ...]:
    """Works that roll the events of ``files`` up, and count them by the column ``by`` if a spec's gate names one."""
    return tuple(Rollup(table=table, feature_set=feature_set, files=group, by=by) for group in group_files(files))


def group_files(files: Sequence[InputFile]) -> Iterator[tuple[InputFile, ...]]:
    """Small files together, in path order, so that a file appended at the end changes the last group only."""
    group: list[InputFile] = []
    for file in files:
        if group and (len(group) == GROUP_FILES or sum(member.n_bytes for member in group) + file.n_bytes > GROUP_BYTES):
            yield tuple(group)
            group = []
        group.append(file)
    if group:
        yield tuple(group)

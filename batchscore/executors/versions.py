"""Whether driver, scheduler and workers run the same versions, asked in Dask's own words: nothing of ours is unpickled there.

A worker of another version may not even be able to read a function of ours, and Dask tells nobody: it loses the connection,
and the task waits for ever. So versions are compared before a first task, and again for every worker that joins later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from distributed import Client
from distributed.versions import get_package_info

from batchscore.errors import Problem, Refused
from batchscore.executors.stalls import ask_scheduler
from batchscore.settings import PINNED_LIBRARIES

ASK_WITHIN_S: Final = 10
_ASKED: Final = (*PINNED_LIBRARIES, "dask", "distributed")
_TWICE: Final = {"xgboost": "xgboost-cpu"}  # one module, two distributions: either may be installed, never both
_PACKAGES: Final = [*_ASKED, *_TWICE.values()]
_OF_SCHEDULER: Final = ("python", "dask", "distributed")  # it scores nothing


def refuse_version_skew(client: Client, workers: Sequence[str] | None = None) -> None:
    """Compare this driver with the scheduler and its workers, or with those ``workers`` of it alone.

    Raises:
        Refused: ``version_skew``, with every difference.
    """
    mine = _of(get_package_info(_PACKAGES))
    problems: list[Problem] = []
    if workers is None:
        answer = ask_scheduler(client, "versions", packages=_PACKAGES, within_s=ASK_WITHIN_S)
        theirs = _of(answer["packages"])
        problems += _differences("scheduler", {name: mine[name] for name in _OF_SCHEDULER}, theirs)
    message = {"op": "versions", "packages": _PACKAGES}
    answers: dict[str, Any] = ask_scheduler(
        client, "broadcast", msg=message, workers=workers, on_error="return", within_s=ASK_WITHIN_S
    )
    for worker, answered in sorted(answers.items()):
        if isinstance(answered, dict):  # else it has just gone, and nothing runs there
            problems += _differences(worker, mine, _of(answered["packages"]))
    if problems:
        raise Refused(
            "version_skew",
            "driver, scheduler and workers differ in what decides the bits of a score, or in how they talk",
            problems=tuple(problems),
            remedy="install the same lock file on every host",
        )


def _of(packages: Mapping[str, str | None]) -> dict[str, str]:
    """Name → version of everything compared, whatever distribution it came in."""
    found = {name: packages.get(name) or packages.get(_TWICE.get(name, name)) or "absent" for name in _ASKED}
    return found | {"python": (packages.get("python") or "").removesuffix(".final.0")}


def _differences(where: str, mine: Mapping[str, str], theirs: Mapping[str, str]) -> list[Problem]:
    return [
        Problem(where=where, what=f"{name} {theirs[name]}, the driver has {version}")
        for name, version in sorted(mine.items())
        if theirs[name] != version
    ]

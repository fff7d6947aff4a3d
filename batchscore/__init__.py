"""batchscore: a run is a reviewable change to the review queue: planned, applied, proven, undoable.

The names below are the public ones; each is loaded when it is first used, so that importing batchscore costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchscore.api import (
        RunSpec,
        approve,
        cancel,
        compare,
        continue_,
        explain,
        make_plan,
        open_reader,
        pause,
        read_spec,
        resume,
        run,
    )
    from batchscore.explore.explorer import Explorer

__all__ = [
    "Explorer",
    "RunSpec",
    "approve",
    "cancel",
    "compare",
    "continue_",
    "explain",
    "make_plan",
    "open_reader",
    "pause",
    "read_spec",
    "resume",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    if name == "Explorer":
        from batchscore.explore.explorer import Explorer  # noqa: PLC0415 (brings Dask and pandas, which a run does without)

        return Explorer
    from batchscore import api  # noqa: PLC0415 (that is the point: what nobody uses is not loaded)

    return getattr(api, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]

"""What the first attempt in a process would otherwise wait for: its imports, and the scorer's machine code."""

from __future__ import annotations

import gc
import importlib
from typing import Final

# In this order: pyarrow imports pandas at the first array it makes of NumPy's. The last two need the extra `fast`.
_NEEDED: Final = (
    "pandas",
    "batchscore.attempt",
    "batchscore.models.probe",
    "batchscore.models.compiled_scorer",
    "batchscore.models.compiled_explainer",
)


def get_ready() -> None:
    """Import what attempts import when they come to it, and compile the kernel. Done again, it costs nothing.

    Raises:
        ImportError, or what LLVM raises where it can make no code: an attempt meets the same, and has an answer to it.
    """
    gc.disable()  # all of this stays: looking through it for garbage, again and again as it grows, costs a tenth of the time
    try:
        for name in _NEEDED:
            importlib.import_module(name)
    finally:
        gc.enable()
        gc.freeze()
    from batchscore.models.kernel import compile_ahead  # noqa: PLC0415 (drivers import this module for its name alone)

    compile_ahead()

"""The machine at hand, as a bundle records it: bits of floats are promised for an architecture, and a refusal names the CPU."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

from batchscore.models.bundle import Machine

_UNKNOWN = "unknown CPU"


@cache
def this_machine() -> Machine:
    """Architecture and CPU model of this process's machine."""
    return Machine(architecture=platform.machine() or "unknown", cpu=_cpu_model())


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return _UNKNOWN
    said = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    names = {key.strip(): value.strip() for key, value in said.items()}
    name = names.get("model name") or names.get("CPU part") or _UNKNOWN  # ARM kernels give a part number
    return "".join(letter for letter in name if letter.isprintable())[:100]

"""The compose file's own command lines, as processes of this machine: places, names and ports of its containers are put here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from tests.deploy.units import ROOT, Command, Host

COMPOSE: Final = ROOT / "cluster/docker/compose.yaml"


def read_compose() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return read


def command_of(service: str, host: Host, secrets: Path) -> Command:
    """What the container would run: its secrets lie in ``secrets``, and of the network's hosts all are this one."""
    read = read_compose()["services"][service]

    def here(text: str) -> str:
        if text == "/tmp":  # noqa: S108 (the container's)
            return str(host.root / "tmp")
        text = text.replace("/run/secrets", str(secrets))
        text = text.replace("//scheduler:", "//127.0.0.1:").replace("0.0.0.0", "127.0.0.1")  # noqa: S104 (what it replaces)
        return host.here(text)

    program, *rest = read["command"]
    environment = {name: here(value) for name, value in read.get("environment", {}).items()}
    environment |= {"DASK_CONFIG": str(ROOT / "cluster/dask.yaml"), "OMP_NUM_THREADS": "1"}  # as the Dockerfile says
    return Command(words=[str(host.programs / program), *map(here, rest)], environment=environment)

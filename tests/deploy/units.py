"""systemd units read as systemd reads them, as far as ours go: what a unit would execute, with which environment and credentials.

Nothing here starts systemd: what it adds beyond a command line (limits, hardening, credentials' modes) `systemd-analyze` judges.
"""

from __future__ import annotations

import re
import shlex
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
UNITS: Final = sorted([*(ROOT / "cluster/systemd").iterdir(), *(ROOT / "jobs/systemd").iterdir()])
SERVICES: Final = [unit for unit in UNITS if unit.suffix == ".service"]


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A unit's settings in order, with lines joined; an instance's name where it is a template."""

    path: Path
    settings: tuple[tuple[str, str], ...]
    instance: str = ""

    def all(self, key: str) -> list[str]:
        return [value for name, value in self.settings if name == key]

    def one(self, key: str) -> str:
        (value,) = self.all(key)
        return value


def read_unit(path: Path, instance: str = "") -> Unit:
    text = re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and line[0] not in "#;["]
    settings = [(key.strip(), value.strip()) for key, _, value in (line.partition("=") for line in lines)]
    return Unit(path=path, settings=tuple(settings), instance=instance)


@dataclass(frozen=True, kw_only=True)
class Host:
    """Where a unit's absolute places lie in a test: below ``root``, with this environment's programs for /opt/batchscore/bin."""

    root: Path
    programs: Path
    ports: dict[int, int]  # as the units say → free ones here

    def here(self, text: str) -> str:
        text = text.replace("/opt/batchscore/bin", str(self.programs))
        text = re.sub(r"(?<![\w./-])/(?=(etc|srv|var)/)", f"{self.root}/", text)
        return re.sub(r"(?:(?<=:)|^)\d{4}$", lambda found: str(self.ports.get(int(found[0]), found[0])), text)


@dataclass(frozen=True, kw_only=True)
class Command:
    """What systemd would execute: the words, and the environment that it adds."""

    words: list[str]
    environment: dict[str, str]


def command_of(unit: Unit, host: Host) -> Command:
    """The unit's command on ``host``; its credentials are copied as systemd would, a missing one without a path is left out."""
    credentials = _loaded(unit, host)
    specifiers = {
        "%d": str(credentials), "%i": unit.instance, "%n": f"{unit.path.stem}{unit.instance}.service", "%l": socket.gethostname(),
        "%C": str(host.root / "var/cache"), "%%": "%",
    }  # fmt: skip

    def specified(text: str) -> str:
        return re.sub(r"%.", lambda found: specifiers[found[0]], text)

    pairs = [pair for line in unit.all("Environment") for pair in shlex.split(host.here(specified(line)))]
    for named in unit.all("EnvironmentFile"):
        file = host.root / named.removeprefix("-").removeprefix("/")
        pairs += file.read_text().splitlines() if file.exists() else []
    environment = dict(pair.split("=", 1) for pair in pairs)
    for cache in unit.all("CacheDirectory"):
        (host.root / "var/cache" / specified(cache)).mkdir(parents=True, exist_ok=True)

    def expanded(word: str) -> str:
        found = re.sub(r"(?<!\$)\$\{(\w+)\}", lambda named: environment[named[1]], specified(word))
        return host.here(found.replace("$$", "$"))

    return Command(words=[expanded(word) for word in shlex.split(unit.one("ExecStart"))], environment=environment)


def _loaded(unit: Unit, host: Host) -> Path:
    """The folder of the unit's credentials, as systemd would fill it."""
    credentials = host.root / "run/credentials" / f"{unit.path.stem}{unit.instance}"
    credentials.mkdir(parents=True, exist_ok=True)
    for loaded in unit.all("LoadCredential"):
        name, _, place = loaded.partition(":")
        source = host.root / (place.removeprefix("/") or f"etc/credstore/{name}")
        if place or source.exists():
            shutil.copy(source, credentials / name)
    return credentials

"""What programs can check: style, types, layers, and what the wheel and the lock hold. `make lint` runs the first four."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.commands import succeeded

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


def passes(*command: str) -> None:
    """Run a program of this environment at the root; its output is the message when it fails."""
    done = subprocess.run(
        [BIN / command[0], *command[1:]],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "130", "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"{shlex.join(command)} → exit {done.returncode}\n{done.stdout}", pytrace=False)


def locked() -> dict[str, list[str]]:
    """Return the lock's versions by package; a package has several where Pythons need different ones."""
    versions: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE):
        versions.setdefault(name, []).append(version)
    return versions


def test_ruff_has_nothing_to_say() -> None:
    passes("ruff", "check", "--output-format", "concise")


def test_every_file_is_formatted() -> None:
    passes("ruff", "format", "--check", "--output-format", "concise")


@pytest.mark.slow
@pytest.mark.timeout(600)  # a first run reads the types of every library
def test_types_hold() -> None:
    passes("mypy")


def test_a_layer_imports_only_lower_layers() -> None:
    passes("lint-imports")


def test_wheel_holds_the_whole_package_and_nothing_else(tmp_path: Path) -> None:
    passes("python", "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path))
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        packed = {name for name in opened.namelist() if ".dist-info/" not in name}
    package = (path for path in (ROOT / "batchscore").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert packed == {path.relative_to(ROOT).as_posix() for path in package}


def test_lock_names_no_registry_and_no_place_on_a_disk() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert [line for line in lines if re.search(r"://|file:| @ |^-|find-links|index-url", line)] == []


def test_lock_has_xgboost_without_the_cuda_package() -> None:
    names = locked().keys()
    assert "xgboost-cpu" in names
    assert "xgboost" not in names
    assert [name for name in names if name.startswith("nvidia-")] == []


def test_lock_meets_every_core_dependency() -> None:
    versions = locked()
    versions["xgboost"] = versions["xgboost-cpu"]  # the same module
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for dependency in map(Requirement, project["dependencies"]):
        found = versions.get(canonicalize_name(dependency.name), [])
        assert found, f"{dependency.name} is not in requirements.lock → make lock"
        assert all(map(dependency.specifier.contains, found)), f"{dependency} but locked {found} → make lock"


def test_a_worker_starts_without_sqlalchemy() -> None:
    """It costs a quarter of a second of each worker's first attempt, and only those that read a live table need it."""
    asked = "import sys, batchscore.attempt; sys.exit(', '.join({'sqlalchemy', 'distributed'} & set(sys.modules)) or 0)"
    succeeded(sys.executable, "-c", asked, cwd=ROOT)


def test_a_store_is_read_without_numpy_and_pyarrow() -> None:
    asked = "import sys, batchscore.store; sys.exit(', '.join({'numpy', 'pyarrow', 'pandas'} & set(sys.modules)) or 0)"
    succeeded(sys.executable, "-c", asked)


def test_make_chaos_collects_every_file_that_it_names() -> None:
    """A file that stands in a folder named beside it, is dropped by pytest when its name is no test's: `matrix.py` was."""
    surroundings = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    recipe = succeeded("make", "-n", "chaos", cwd=ROOT, env=surroundings)
    named = set(re.findall(r"(?<=\s)tests/\S+", recipe))
    asked = [BIN / "pytest", "--collect-only", "--quiet", "-p", "no:cacheprovider", *sorted(named)]
    collected = succeeded(*asked, cwd=ROOT, env=surroundings)
    assert "tests/chaos/matrix.py" in named
    assert named <= {line.partition("::")[0] for line in collected.splitlines()}


def test_a_room_of_ten_modules_has_a_table_and_a_table_names_each_module_once_and_no_other() -> None:
    for room in sorted((ROOT / "batchscore").rglob("__init__.py")):
        rows = re.findall(r"^\| (`.*?) \|", room.read_text(), re.MULTILINE)
        named = sorted(name for row in rows for name in re.findall(r"`(\w+)`", row))
        there = {path.stem for path in room.parent.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
        if rows or (len(there) > 10 and room.parent != ROOT / "batchscore"):  # the layers are the table of the house
            assert named == sorted(there - {"__init__"}), room.relative_to(ROOT)


def test_the_layers_of_the_design_are_those_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (checked,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    drawn = (ROOT / "batchscore" / "DESIGN.md").read_text().partition("## Rooms and layers")[2].split("```")[1]
    assert drawn.strip().splitlines() == checked

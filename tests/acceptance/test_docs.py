"""Every fenced block of README and jobs/ is a command that runs, a file that a command reads, or marked with why it does not run.

A ``console`` block holds commands (``$ …``) and what they print, loosely: ``…`` stands for anything, white space counts once. A
block under ``<!-- file: NAME -->`` is written into the folder before the first command. ``<!-- not run: why -->`` takes one out.
A command fails exactly where the text shows an error (``BS-…``).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "jobs").rglob("*.md"))]
BLOCK = re.compile(r"(?:^<!-- (?P<mark>.*?) -->\n)?^```(?P<kind>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block, the mark above it, and its line."""

    mark: str
    kind: str
    body: str
    line: int


def blocks(document: str) -> list[Block]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return [
        Block(mark=found["mark"] or "", kind=found["kind"], body=found["body"], line=text.count("\n", 0, found.start("body")))
        for found in BLOCK.finditer(text)
    ]


def steps(body: str) -> Iterator[tuple[str, str]]:
    """(command, what it prints) of a console block."""
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        yield command, printed


def shows(printed: str, expected: str) -> bool:
    """Whether the lines ``expected`` stand in what was ``printed``."""
    pattern = r".*".join(re.escape(" ".join(part.split())) for part in expected.split("…"))
    return re.search(pattern, " ".join(printed.split())) is not None


@pytest.mark.parametrize("document", DOCS)
def test_every_block_runs_or_says_why_not(document: str) -> None:
    for block in blocks(document):
        known = block.kind == "console" or re.fullmatch(r"file: [\w.]+|not run: .{15,}", block.mark)
        assert known, f"{document}:{block.line}: a block is neither a console, nor a file, nor marked `not run: why`"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "document", [document for document in DOCS if any(block.kind == "console" for block in blocks(document))]
)
def test_commands_print_what_the_text_shows(document: str, tmp_path: Path) -> None:
    found = blocks(document)
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    for block in found:
        if block.mark.startswith("file: "):
            (tmp_path / block.mark.removeprefix("file: ")).write_text(block.body, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BATCHSCORE_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    exports = ""
    for block in found:
        for command, expected in steps(block.body) if block.kind == "console" and not block.mark else ():
            if command.startswith("export "):
                exports += f"{command}\n"
            done = subprocess.run(
                ["bash", "-ec", exports + command],
                cwd=tmp_path,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            place = f"{document}, the block at line {block.line}: $ {command}\n{done.stdout}"
            assert (done.returncode != 0) == ("BS-" in expected), f"exit {done.returncode} at {place}"
            assert shows(done.stdout, expected), f"{expected}\nis not what was printed at {place}"


def test_expected_lines_are_found_loosely_and_in_order() -> None:
    assert shows("plan 1a2b of users:\n  freeze   3\n score 7", "plan … of users:…freeze 3")
    assert not shows("score 7 freeze 3", "freeze…score")

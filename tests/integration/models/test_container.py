"""A bundle in a zip: as good as its folder, and harmless whatever it claims."""

from __future__ import annotations

import stat
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import xgboost as xgb

from batchscore.errors import Refused
from batchscore.models.bundle import GOLDEN, MANIFEST, manifest_of, read_checked, read_manifest
from batchscore.models.container import MAX_MEMBERS, read_part
from batchscore.models.loading import load_scorer
from batchscore.plan import Reference
from tests.commands import succeeded
from tests.integration.models.refusals import reason

NAMES = (MANIFEST, GOLDEN, "model.ubj")


def zipped(folder: Path, path: Path, prefix: str = "", **changes: object) -> Path:
    """A zip of a bundle's folder; ``changes``: an extra member, its bytes or its type."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in NAMES:
            archive.write(folder / name, f"{prefix}{name}")
        if "extra" in changes:
            member = zipfile.ZipInfo(str(changes["extra"]))
            member.external_attr = int(str(changes.get("kind", stat.S_IFREG | 0o644))) << 16
            archive.writestr(member, "x")
    return path


@pytest.mark.parametrize("prefix", ["", "bundle/"])
def test_a_zip_of_a_bundle_is_the_same_bundle(bundle: Path, tmp_path: Path, prefix: str) -> None:
    path = zipped(bundle, tmp_path / "b.zip", prefix)
    found = read_manifest(path)
    assert found.digest == read_manifest(bundle).digest
    assert load_scorer(found.reference, nthread=3).bundle_digest == found.digest
    assert manifest_of(found.reference) == found.manifest


def test_packing_into_a_zip_gives_the_folders_digest_and_always_the_same_bytes(
    pack: Callable[..., Reference], booster: xgb.Booster, tmp_path: Path
) -> None:
    a, b = pack(booster, tmp_path / "a.zip"), pack(booster, tmp_path / "b.zip")
    assert a.sha256 == b.sha256 == pack(booster, tmp_path / "folder").sha256
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert read_checked(a).bundle.digest == a.sha256
    assert reason(lambda: pack(booster, tmp_path / "a.zip")) == "bundle_invalid"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "b.zip", "folder"]


@pytest.mark.parametrize(
    ("extra", "kind"),
    [
        ("../evil", stat.S_IFREG),
        ("/etc/evil", stat.S_IFREG),
        ("a/../../evil", stat.S_IFREG),
        ("..\\evil", stat.S_IFREG),
        ("C:evil", stat.S_IFREG),
        ("link", stat.S_IFLNK),
        ("pipe", stat.S_IFIFO),
        ("deeper/manifest.json", stat.S_IFREG),
    ],
)
def test_a_zip_with_a_way_out_a_link_or_a_second_manifest_is_refused(bundle: Path, tmp_path: Path, extra: str, kind: int) -> None:
    path = zipped(bundle, tmp_path / "b.zip", extra=extra, kind=kind)
    assert reason(lambda: read_manifest(path)) == "bundle_invalid"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b.zip", "bundle"]


def test_a_bomb_is_read_up_to_the_limit_and_no_further(tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(MANIFEST, "w") as member:
        for _ in range(200):
            member.write(bytes(1 << 20))
    program = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from batchscore.errors import Refused\n"
        "from batchscore.models.bundle import read_manifest\n"
        "try: read_manifest(Path(sys.argv[1]))\n"
        "except Refused as error: print(error.reason, *re.findall(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text()))"
    )
    found, kilobytes = succeeded(sys.executable, "-c", program, path).split()
    assert found == "bundle_invalid"
    assert int(kilobytes) < 200 << 10


def test_a_list_of_thousands_of_members_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(MAX_MEMBERS + 1):
            archive.writestr(f"m{number}", "")
    assert reason(lambda: read_part(path, MANIFEST, 10)) == "bundle_invalid"


def test_an_encrypted_a_zip64_and_a_commented_zip_are_refused(bundle: Path, tmp_path: Path) -> None:
    path = zipped(bundle, tmp_path / "b.zip")
    whole = path.read_bytes()
    first = whole.index(b"PK\x01\x02")
    encrypted = bytearray(whole)
    encrypted[6] |= 1
    encrypted[first + 8] |= 1
    with_zip64 = whole[:-22] + b"PK\x06\x07" + bytes(16) + whole[-22:]
    commented = whole[:-2] + struct.pack("<H", 1) + b"!"
    for payload in (bytes(encrypted), with_zip64, commented, whole[:-30], b"", b"PK", b"no zip at all, but long enough"):
        path.write_bytes(payload)
        assert reason(lambda: read_manifest(path)) == "bundle_invalid"


def test_a_flipped_bit_anywhere_in_a_zip_is_refused_or_harmless(bundle: Path, tmp_path: Path) -> None:
    path = zipped(bundle, tmp_path / "b.zip")
    digest, whole = read_manifest(path).reference.sha256, path.read_bytes()
    n_refused = 0
    for place in range(0, len(whole), max(1, len(whole) // 300)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        try:
            assert read_manifest(path).digest == digest, "what is let pass is the bundle, to the bit"
        except Refused:
            n_refused += 1
    assert n_refused > 200

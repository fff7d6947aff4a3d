"""Where a bundle's parts lie: in a folder, or in a zip of one. A zip is read part by part into memory, and never unpacked.

A zip comes from outside and may lie about everything. So its list of members is bounded before `zipfile` reads it, no part
is read beyond its limit whatever size it claims, and one member with a way out (``..``, an absolute path, a link) refuses all.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from batchscore.errors import Refused

MAX_MEMBERS: Final = 64
_MAX_LIST_BYTES: Final = 64 << 10
_END: Final = struct.Struct(
    "<4s4H2LH"
)  # end of central directory: signature, disks, members here and in all, size, offset, comment
_LOCATOR_BYTES: Final = 20  # of zip64, which no bundle needs
_REPACK: Final = "make it again: batchscore bundle pack … --out NAME.zip, or zip -r NAME.zip FOLDER"
_DAMAGE: Final = (zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RuntimeError, EOFError, ValueError, KeyError)


def read_part(bundle: Path, name: str, limit: int) -> bytes:
    """The bytes of the part ``name`` of the bundle at ``bundle``, a folder or a zip; at most ``limit`` of them.

    Raises:
        Refused: ``file_missing``, or ``bundle_invalid``: a larger part, or a zip that is damaged or not plain.
    """
    if not bundle.is_file():
        return read_limited(bundle / name, limit)
    try:
        with bundle.open("rb") as stream:
            _require_short_list(stream, bundle.name)
            with zipfile.ZipFile(stream) as archive, archive.open(_member(archive, name, bundle.name)) as content:
                payload = content.read(limit + 1)
    except _DAMAGE as error:
        raise Refused("bundle_invalid", "the zip is damaged or not a plain one", where=bundle.name, remedy=_REPACK) from error
    except OSError as error:
        raise _unreadable(bundle, error) from None
    return _within(payload, limit, f"{bundle.name}/{name}")


def read_limited(path: Path, limit: int) -> bytes:
    """The bytes of a file of at most ``limit`` bytes.

    Raises:
        Refused: ``file_missing``, or ``bundle_invalid`` for a larger one.
    """
    try:
        with path.open("rb") as stream:
            payload = stream.read(limit + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    return _within(payload, limit, path.name)


def write_zip(files: Mapping[str, bytes], path: Path) -> None:
    """Write a zip that must not exist yet; equal files give equal bytes.

    Raises:
        OSError: it could not be written whole.
    """
    with path.open("xb") as stream:
        with zipfile.ZipFile(stream, "w") as archive:
            for name, payload in sorted(files.items()):
                member = zipfile.ZipInfo(name)  # of 1980, so that no clock is in the bytes
                member.compress_type = zipfile.ZIP_DEFLATED
                member.external_attr = (stat.S_IFREG | 0o644) << 16
                archive.writestr(member, payload)
        stream.flush()
        os.fsync(stream.fileno())


def _require_short_list(stream: BinaryIO, where: str) -> None:
    """Refuse a list of members that `zipfile` would read at length; it must end the file, without a comment or zip64."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - _END.size - _LOCATOR_BYTES))
    tail = stream.read()
    if len(tail) < _END.size:
        raise zipfile.BadZipFile
    signature, *_, n_members, n_bytes, _, n_comment = _END.unpack(tail[-_END.size :])
    if signature != b"PK\x05\x06" or n_comment or tail.startswith(b"PK\x06\x07"):
        raise zipfile.BadZipFile
    if n_members > MAX_MEMBERS or n_bytes > _MAX_LIST_BYTES:
        raise Refused("bundle_invalid", f"the zip holds more than {MAX_MEMBERS} members", where=where, remedy=_REPACK)
    stream.seek(0)


def _member(archive: zipfile.ZipFile, name: str, where: str) -> zipfile.ZipInfo:
    """The one member of that name, at the top or in the one folder that was zipped."""
    members = archive.infolist()
    for member in members:
        path, kind = PurePosixPath(member.filename), stat.S_IFMT(member.external_attr >> 16)
        outside = path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in member.filename
        if outside or kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
            raise Refused("bundle_invalid", "a member of the zip is a link or leads out of it", where=where, remedy=_REPACK)
    named = [member for member in members if PurePosixPath(member.filename).name == name and not member.is_dir()]
    if not named:
        raise Refused("file_missing", f"the zip holds no {name}", where=where, remedy=_REPACK)
    if len(named) > 1 or len(PurePosixPath(named[0].filename).parts) > 2:
        raise Refused("bundle_invalid", f"the zip holds {name} twice, or too deep", where=where, remedy=_REPACK)
    return named[0]


def _within(payload: bytes, limit: int, where: str) -> bytes:
    if len(payload) > limit:
        raise Refused("bundle_invalid", f"the file is larger than {limit} bytes", where=where, remedy="name a bundle or a model")
    return payload


def _unreadable(path: Path, error: OSError) -> Refused:
    what = f"cannot be read: {error.strerror}"
    return Refused("file_missing", what, where=str(path), remedy="name the folder or zip that batchscore bundle pack wrote")

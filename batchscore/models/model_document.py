"""Reads the two text-free forms of an XGBoost model, UBJSON and JSON, as plain values, without XGBoost.

XGBoost does not check what it loads: a size that lies makes it read past the end or never return. Here every size is
compared with the bytes that are left before anything is made, nesting is bounded, a key may not stand twice, and nothing
may follow the document. Knows nothing of what the values mean: that is `model_file`.

Format: https://ubjson.org, in the dialect of `src/common/json.cc` of XGBoost (counted arrays, `[$type#count` typed arrays).
"""

from __future__ import annotations

import json
import struct
from typing import Any, Final

import numpy as np

MAX_DEPTH: Final = 32

_INTEGERS: Final = {
    marker: struct.Struct(layout) for marker, layout in ((b"i", ">b"), (b"U", ">B"), (b"I", ">h"), (b"l", ">i"), (b"L", ">q"))
}
_NUMBERS: Final = {**_INTEGERS, b"d": struct.Struct(">f"), b"D": struct.Struct(">d")}
_CONSTANTS: Final[dict[bytes, Any]] = {b"T": True, b"F": False, b"Z": None}


class NotReadable(ValueError):
    """The bytes are not one whole document; the message says where, and never quotes them."""


def read_json(payload: bytes) -> Any:
    """A JSON document as plain values.

    Raises:
        NotReadable: it is not one UTF-8 JSON document, is nested too deeply, or a key stands twice.
    """
    try:
        return json.loads(payload.decode("utf-8"), object_pairs_hook=_distinct)
    except RecursionError:
        msg = "nested too deeply"
        raise NotReadable(msg) from None
    except UnicodeDecodeError:
        msg = "not UTF-8 text"
        raise NotReadable(msg) from None
    except json.JSONDecodeError as error:
        msg = f"not JSON at line {error.lineno}"
        raise NotReadable(msg) from None
    except NotReadable:
        raise
    except ValueError:
        msg = "a number with thousands of digits"
        raise NotReadable(msg) from None


def read_ubjson(payload: bytes) -> Any:
    """A UBJSON document as plain values; typed arrays become NumPy arrays of native byte order.

    Raises:
        NotReadable: it is cut short, a size points past the end, a marker is unknown, or bytes follow the document.
    """
    reader = _Reader(payload)
    value = reader.value(reader.take(1), 0)
    if reader.at != len(payload):
        msg = f"{len(payload) - reader.at} bytes follow the document"
        raise NotReadable(msg)
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        msg = "a key stands twice in one object"
        raise NotReadable(msg)
    return found


class _Reader:
    """A position in the bytes, which only moves forward."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.n_bytes = len(payload)
        self.at = 0

    def take(self, n_bytes: int) -> bytes:
        if not 0 <= n_bytes <= self.n_bytes - self.at:
            msg = f"cut short, or a size that lies, at byte {self.at}"
            raise NotReadable(msg)
        start, self.at = self.at, self.at + n_bytes
        return self.payload[start : self.at]

    def number(self, layout: struct.Struct) -> int | float:
        value: int | float = layout.unpack(self.take(layout.size))[0]
        return value

    def size(self) -> int:
        """A length or count: an integer of any width, not more than the bytes left (an element takes at least one)."""
        marker = self.take(1)
        if marker not in _INTEGERS:
            msg = f"a size is expected at byte {self.at}"
            raise NotReadable(msg)
        size = int(self.number(_INTEGERS[marker]))
        if not 0 <= size <= self.n_bytes - self.at:
            msg = f"a size that lies at byte {self.at}"
            raise NotReadable(msg)
        return size

    def text(self) -> str:
        try:
            return self.take(self.size()).decode("utf-8")
        except UnicodeDecodeError:
            msg = f"text that is not UTF-8 before byte {self.at}"
            raise NotReadable(msg) from None

    def value(self, marker: bytes, depth: int) -> Any:
        if depth > MAX_DEPTH:
            msg = f"nested too deeply at byte {self.at}"
            raise NotReadable(msg)
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        if marker in _NUMBERS:
            return self.number(_NUMBERS[marker])
        if marker == b"S":
            return self.text()
        if marker == b"[":
            return self.array(depth)
        if marker == b"{":
            return self.mapping(depth)
        msg = f"an unknown marker at byte {self.at - 1}"
        raise NotReadable(msg)

    def mapping(self, depth: int) -> dict[str, Any]:
        pairs: list[tuple[str, Any]] = []
        while self.peek() != b"}":
            pairs.append((self.text(), self.value(self.take(1), depth + 1)))
        self.take(1)
        return _distinct(pairs)

    def array(self, depth: int) -> Any:
        if self.peek() == b"$":
            return self.typed_array()
        if self.peek() == b"#":
            self.take(1)
            return [self.value(self.take(1), depth + 1) for _ in range(self.size())]
        values = []
        while self.peek() != b"]":
            values.append(self.value(self.take(1), depth + 1))
        self.take(1)
        return values

    def typed_array(self) -> Any:
        self.take(1)
        marker = self.take(1)
        if marker not in _NUMBERS or self.take(1) != b"#":
            msg = f"a typed array of an unknown form at byte {self.at}"
            raise NotReadable(msg)
        layout = np.dtype(_NUMBERS[marker].format)
        return np.frombuffer(self.take(self.size() * layout.itemsize), dtype=layout).astype(layout.newbyteorder("="))

    def peek(self) -> bytes:
        """The next byte, still to be taken; empty at the end, where the next `take` then refuses."""
        return self.payload[self.at : self.at + 1]

"""Text for terminals: names from outside (files, columns, mail) show as text, never as terminal commands."""

from __future__ import annotations


def plain(text: str) -> str:
    """``text`` with every control character but the line feed shown as an escape, so that nothing moves the cursor."""
    return "".join(char if char == "\n" or char.isprintable() else f"\\x{ord(char):02x}" for char in text)

"""Imported by the process that the kit forks from, and by nothing else: it ends with the tests, and so do its children.

Left to itself it would not: each of its children holds the pipe by which it learns of the end.
"""

from __future__ import annotations

from tests.orphans import killed_with_parent

killed_with_parent()

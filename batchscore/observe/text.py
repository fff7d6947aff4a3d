"""Text for terminals: names from outside (files, columns, mail) show as text, never as terminal commands."""

from __future__ import annotations

from batchscore.shown import plain as plain  # noqa: PLC0414 (its place for whoever writes to a terminal)


def shown_id(account_id: int | str) -> str:
    """An account id on one line, told from every other: in quotes, with escapes, where it would not show as it is."""
    if isinstance(account_id, int):
        return str(account_id)
    as_it_is = account_id and account_id == account_id.strip() and account_id.isprintable() and account_id[0] not in "'\""
    return account_id if as_it_is else repr(account_id)

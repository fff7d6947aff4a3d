"""An account id as a person or a file writes it, as the store has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchscore.flag import AccountId

if TYPE_CHECKING:
    from batchscore.keys import IdKind  # brings numpy and pyarrow, which one id does without


def account_id_from(value: object, kind: IdKind) -> AccountId:
    """An account id as the store has it, from text, a whole number or bytes; never from a float.

    Raises:
        ValueError: it is none. The value is not repeated.
    """
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise ValueError("account_id is not UTF-8") from None
    if kind == "string":
        if not isinstance(value, str):
            raise ValueError("account_id is no text, and this store's ids are text")
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError("account_id is no whole number, and this store's ids are")

"""What a verification found, as a value. No account id stands in it."""

from __future__ import annotations

from batchscore.values import Value


class Check(Value):
    """One thing that was made again and compared. ``untrue``: the first few of ``n_untrue`` findings, in words."""

    name: str
    says: str
    n_looked_at: int
    n_untrue: int
    untrue: tuple[str, ...]


class Verified(Value):
    """What `batchscore verify RUN` found; the head is for comparing with a copy outside."""

    run_id: str
    true: bool
    checks: tuple[Check, ...]
    audit_number: int
    audit_head: str

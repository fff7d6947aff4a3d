"""When nothing moves: which attempts are stuck, and what the cluster has to say about them. Nobody waits for ever for an answer.

What is kept for people are lines of code and names of tasks, workers and states: no argument, no variable, no row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, Final

from distributed import Client

STALL_S: Final = 600.0  # an attempt takes seconds; one that takes minutes needs smaller partitions, or a larger limit
ANSWER_WITHIN_S: Final = 5.0  # of whoever may be stuck itself
MAX_KEYS: Final = 4  # whose story is told
MAX_LINES: Final = 60


def ask_scheduler(client: Client, operation: str, *, within_s: float = ANSWER_WITHIN_S, **arguments: Any) -> Any:
    """The scheduler's answer. Raises TimeoutError when there is none in time, OSError when the connection is lost."""
    scheduler: Any = client.scheduler
    return client.sync(getattr(scheduler, operation), callback_timeout=within_s, **arguments)


def answers(client: Client) -> bool:
    """Whether the scheduler does."""
    try:
        ask_scheduler(client, "identity", n_workers=0)
    except (TimeoutError, OSError):
        return False
    return True


def evidence(client: Client, keys: Iterable[str], *, stall_s: float) -> tuple[str, ...]:
    """What workers are doing for those tasks (innermost frames last), and what the scheduler did with them; as lines.

    No answer is waited for longer than a quarter of the stall limit: what is stuck is told within twice of it.
    """
    within_s = min(ANSWER_WITHIN_S, stall_s / 4)
    keys = list(keys)[:MAX_KEYS]
    lines: list[str] = []
    with contextlib.suppress(Exception):  # a diagnosis must not be in the way of the cure
        where = ask_scheduler(client, "processing", within_s=within_s)
        lines += [f"assigned to {worker}: {key}" for worker, held in sorted(where.items()) for key in held if key in keys]
        under_way = [key for held in where.values() for key in held if key in keys]
        stacks = ask_scheduler(client, "call_stack", keys=under_way, within_s=within_s) if under_way else {}
        for worker, tasks in sorted(stacks.items()):
            for key, frames in tasks.items():
                lines += [f"{worker} is at {key}:", *_code(frames)]
    with contextlib.suppress(Exception):
        story = ask_scheduler(client, "get_story", keys_or_stimuli=keys, within_s=within_s)
        lines += [f"scheduler: {_step(step)}" for step in story]
    return tuple(lines[-MAX_LINES:]) or ("neither scheduler nor workers answer",)


def _code(frames: Iterable[str]) -> list[str]:
    return [f"  {line.strip()}" for frame in frames for line in frame.splitlines() if line.strip()]


def _step(step: Any) -> str:
    """One transition: the key, from which state to which."""
    return " ".join(str(part) for part in tuple(step)[:3])

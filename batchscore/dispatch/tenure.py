"""A driver's time with its run: the lease is kept while it lasts, and the run is given back in a state that says how it ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from batchscore.command import command
from batchscore.dispatch.requests import LOOK_EVERY_S, Requests
from batchscore.errors import (
    BatchscoreError,
    Cancelled,
    CommitUnknown,
    DatabaseFailed,
    Fenced,
    Held,
    Interrupted,
    Paused,
    TryAgain,
    type_and_place,
)
from batchscore.plan import Plan
from batchscore.ports import RunHandle, Store

RENEW_EVERY_S: Final = 5.0


@contextmanager
def tenure(plan: Plan, store: Store, handle: RunHandle, requests: Requests) -> Iterator[None]:
    """The block in which a driver has the run. Errors leave it as they are, but for what they say to do next."""
    with _lease_kept(store, handle, requests), _closed_properly(plan, store, handle):
        yield


@contextmanager
def _lease_kept(store: Store, handle: RunHandle, requests: Requests) -> Iterator[None]:
    """Renew the lease, and look at what people ask, in the background: a driver busy with a long step is alive, and hears.

    The fence is the epoch, not the lease.
    """
    over = threading.Event()

    def keep() -> None:
        renewed_at = time.monotonic()
        while not over.wait(LOOK_EVERY_S):
            try:
                requests.look()
                if time.monotonic() - renewed_at >= RENEW_EVERY_S:
                    store.renew(handle)
                    renewed_at = time.monotonic()
            except Fenced:
                return  # the next write of the walk says so
            except BatchscoreError:
                continue  # the database is away: it may come back before the lease runs out

    thread = threading.Thread(target=keep, name="batchscore-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _closed_properly(plan: Plan, store: Store, handle: RunHandle) -> Iterator[None]:
    """Leave the run in the state that tells the next driver, and the next person, what happened."""
    try:
        yield
    except (Fenced, Held):
        raise  # somebody else's run now; or given back already, with what it is held for
    except (TryAgain, CommitUnknown) as error:  # the database is away: there is nobody to tell, and the lease runs out by itself
        resume = command("resume", handle.run_id, plan.spec.store)
        raise Interrupted(error.reason, error.what, where=f"run {handle.run_id}", remedy=f"once it is back: {resume}") from error
    except (Cancelled, DatabaseFailed, Interrupted, Paused) as error:
        with suppress(BatchscoreError):  # a full disk may keep the ledger from hearing of it: then the driver is gone
            store.close(handle, _state_after(error), str(error))
        first = f"{error.remedy}; then: " if error.remedy else ""
        if error.reason == "run_paused":
            first = f"{command('continue', handle.run_id, plan.spec.store)}; then: "
        resume = command("resume", handle.run_id, plan.spec.store)
        kind = type(error) if isinstance(error, Cancelled | Paused) else Interrupted
        raise kind(error.reason, error.what, where=f"run {handle.run_id}", remedy=f"{first}{resume}") from error
    except KeyboardInterrupt as error:  # at once, whatever was under way: the lease need not be waited for
        with suppress(BatchscoreError):
            store.close(handle, "interrupted", "stopped at once")
        resume = command("resume", handle.run_id, plan.spec.store)
        what = "stopped at once; everything committed is kept"
        raise Interrupted("interrupted", what, where=f"run {handle.run_id}", remedy=resume) from error
    except BatchscoreError as error:
        store.close(handle, "failed", str(error))
        raise
    except Exception as error:
        with suppress(BatchscoreError):  # what went wrong first is what is told
            store.close(handle, "failed", type_and_place(error))
        raise


def _state_after(error: BatchscoreError) -> str:
    if isinstance(error, Cancelled):
        return "cancelled"
    if isinstance(error, Paused):
        return "paused" if error.reason == "run_paused" else "held"
    return "interrupted"

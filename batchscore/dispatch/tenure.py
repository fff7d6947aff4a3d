"""A driver's time with its run: the lease is kept while it lasts, and the run is given back in a state that says how it ended."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from batchscore.errors import (
    BatchscoreError,
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
def tenure(plan: Plan, store: Store, handle: RunHandle) -> Iterator[None]:
    """The block in which a driver has the run. Errors leave it as they are, but for what they say to do next."""
    with _lease_kept(store, handle), _closed_properly(plan, store, handle):
        yield


@contextmanager
def _lease_kept(store: Store, handle: RunHandle) -> Iterator[None]:
    """Renew the lease in the background: a driver busy with a long step is alive. The fence is the epoch, not the lease."""
    over = threading.Event()

    def renew() -> None:
        while not over.wait(RENEW_EVERY_S):
            try:
                store.renew(handle)
            except Fenced:
                return  # the next write of the walk says so
            except BatchscoreError:
                continue  # the database is away: it may come back before the lease runs out

    thread = threading.Thread(target=renew, name="batchscore-lease", daemon=True)
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
        resume = f"batchscore resume {handle.run_id} --store {plan.spec.store}"
        raise Interrupted(error.reason, error.what, where=f"run {handle.run_id}", remedy=f"once it is back: {resume}") from error
    except (DatabaseFailed, Interrupted, Paused) as error:
        paused = isinstance(error, Paused)
        with suppress(BatchscoreError):  # a full disk may keep the ledger from hearing of it: then the driver is gone
            store.close(handle, "held" if paused else "interrupted", str(error))
        first = f"{error.remedy}; then: " if error.remedy else ""
        resume = f"batchscore resume {handle.run_id} --store {plan.spec.store}"
        kind = Paused if paused else Interrupted
        raise kind(error.reason, error.what, where=f"run {handle.run_id}", remedy=f"{first}{resume}") from error
    except BatchscoreError as error:
        store.close(handle, "failed", str(error))
        raise
    except Exception as error:
        with suppress(BatchscoreError):  # what went wrong first is what is told
            store.close(handle, "failed", type_and_place(error))
        raise

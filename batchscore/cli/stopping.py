"""A stop asked for from outside: Ctrl-C and SIGTERM become a wish that a driver hears, and a second one an end at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

AT_ONCE_AFTER_S = 20.0  # supervisors kill after 30


class Stop(threading.Event):
    """Set by Ctrl-C and SIGTERM: what is in flight is drained. A second Ctrl-C stops at once.

    So does a driver that has not looked after `AT_ONCE_AFTER_S`: it is inside something long of its own, such as to decide.
    """

    def __init__(self) -> None:
        super().__init__()
        main = threading.main_thread().ident or 0
        self._at_once = threading.Timer(AT_ONCE_AFTER_S, lambda: signal.pthread_kill(main, signal.SIGINT))
        self._at_once.daemon = True

    def ask(self, _signal: int, _frame: object) -> None:
        """Handle a signal."""
        if self.is_set():
            raise KeyboardInterrupt
        self.set()
        self._at_once.start()

    def ended(self) -> None:
        """The walk is over, and has said how: only what it opened is still to be closed."""
        self._at_once.cancel()


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """A stop that Ctrl-C and SIGTERM ask for within the block."""
    stop = Stop()
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        stop.ended()
        for number, handler in before.items():
            signal.signal(number, handler)

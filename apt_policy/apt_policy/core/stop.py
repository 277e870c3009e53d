"""SIGINT and SIGTERM as one request that a program looks at when it is ready to end.

Knows nothing of what is being ended, and imports nothing heavy: it stands before anything else is loaded. A program
with it initialises ``rclpy`` without handlers of its own, so that its context stays valid until all is put away.
"""

import _thread
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LOOK_S = 1.0
"""How long a wait goes without looking at the count: where no thread can be started, nothing else says it."""


class StopRequest(threading.Event):
    """An event that signals set, at any instant and any number of times."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        """How often it was asked for."""
        self.on_request: Callable[[], None] | None = None
        """Called by the signal handler each time, after it was counted; may raise, which interrupts the main thread."""

    def request_stop(self, *_: object) -> None:
        """As a signal handler."""
        self.count += 1
        # The interrupted code may be holding the event's own lock in wait(): setting it here could wait for ever.
        with suppress(RuntimeError):
            _thread.start_new_thread(self.set, ())
        if self.on_request is not None:
            self.on_request()

    def is_set(self) -> bool:
        """Whether it was asked for, from the signal on."""
        return self.count > 0 or super().is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is asked for, at most ``timeout`` [s]; whether it was."""
        end_s = math.inf if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            left_s = end_s - time.monotonic()
            super().wait(max(0.0, min(_LOOK_S, left_s)))
            if left_s <= _LOOK_S:
                break
        return self.is_set()


def handle_stop_signals() -> StopRequest:
    """Have SIGINT and SIGTERM handled until the process ends; main thread only."""
    stop = StopRequest()
    for number in _SIGNALS:
        signal.signal(number, stop.request_stop)
    return stop


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Have both signals handled within the block; main thread only."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield handle_stop_signals()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_interrupts() -> StopRequest:
    """In a process that works for another one: Ctrl-C reaches the whole group, but the parent decides, with SIGTERM."""
    stop = StopRequest()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop.request_stop)
    return stop

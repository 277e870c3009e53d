"""SIGINT and SIGTERM as one stop request that a program polls.

This module imports nothing heavy, so that handlers are installed before anything else is loaded. A program that uses it
initialises ``rclpy`` without signal handlers, so that its context stays valid during the shutdown.
"""

import _thread
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_POLL_S = 1.0
"""Period at which a wait polls the count [s], for the case that the handler could not start a thread."""


class StopRequest(threading.Event):
    """Event that signals set, at any instant and any number of times."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        """Number of requests so far."""
        self.on_request: Callable[[], None] | None = None
        """Callback of the signal handler, called after each request was counted; raising interrupts the main thread."""

    def request_stop(self, *_: object) -> None:
        """Count a request and set the event; usable as a signal handler."""
        self.count += 1
        # The interrupted code may hold the event's lock in wait(), so setting the event here could deadlock.
        with suppress(RuntimeError):
            _thread.start_new_thread(self.set, ())
        if self.on_request is not None:
            self.on_request()

    def is_set(self) -> bool:
        """Return whether a stop was requested; True from the signal on."""
        return self.count > 0 or super().is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for a stop request, at most ``timeout`` [s]; return whether there was one."""
        end_s = math.inf if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            left_s = end_s - time.monotonic()
            super().wait(max(0.0, min(_POLL_S, left_s)))
            if left_s <= _POLL_S:
                break
        return self.is_set()


def handle_stop_signals() -> StopRequest:
    """Handle SIGINT and SIGTERM until the process ends; call it in the main thread."""
    stop = StopRequest()
    for number in _SIGNALS:
        signal.signal(number, stop.request_stop)
    return stop


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Handle both signals within the block; call it in the main thread."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield handle_stop_signals()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_interrupts() -> StopRequest:
    """Ignore SIGINT and handle SIGTERM, for a worker process whose parent decides when it ends.

    Ctrl-C reaches the whole process group.
    """
    stop = StopRequest()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop.request_stop)
    return stop

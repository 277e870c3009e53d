"""SIGINT and SIGTERM as one event that a program looks at when it is ready to end.

Knows nothing of what is being ended. With it, ``rclpy`` is initialised without handlers of its own,
so its context stays valid until the program has put everything away.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that either signal sets, any number of times; main thread only."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set())
              for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Wall-clock time of a run by activity."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Stopwatch that adds up wall-clock time by activity."""

    def __init__(self) -> None:
        """Start with no measured time."""
        self.spent_s: defaultdict[str, float] = defaultdict(float)
        """Measured time by activity [s]."""

    @contextmanager
    def measure(self, activity: str) -> Iterator[None]:
        """Add the duration of the ``with`` block to ``activity``."""
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self.spent_s[activity] += time.perf_counter() - began_s

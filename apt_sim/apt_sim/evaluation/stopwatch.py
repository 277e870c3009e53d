"""Where the time of a run goes."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up wall-clock time by what it was spent on."""

    def __init__(self) -> None:
        self.spent_s: defaultdict[str, float] = defaultdict(float)
        """By name [s]."""

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """The time of this block goes to ``what``."""
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self.spent_s[what] += time.perf_counter() - began_s

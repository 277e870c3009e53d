"""Where passes come from: the port that the trainer reads, and the watch on what stands behind it.

Episodes, mixtures and collation are :mod:`apt_training.data`'s.
"""

import time
from collections.abc import Mapping
from typing import Any, Protocol

from apt_policy.core.errors import UserError
from apt_training.train.objective import Work


class FeedError(UserError, RuntimeError):
    """No batch came; the message names the data it should have come from."""


class Feed(Protocol):
    """An endless row of passes for one process."""

    def next(self) -> Work:
        """The next one.

        Raises:
            FeedError: a loading process died, or none came in time.
        """

    def state(self) -> dict[str, Any]:
        """Plain JSON: how to go on behind what :meth:`next` gave last, the same on every process."""

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, before the first :meth:`next`.

        Raises:
            FeedError: the state belongs to other data.
        """

    def close(self) -> None:
        """End loading processes."""


class WatchedFeed:
    """A feed that knows how long the trainer waited for it."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self.waited_s = 0.0

    def next(self) -> Work:
        """See :class:`Feed`."""
        began = time.perf_counter()
        work = self._feed.next()
        self.waited_s += time.perf_counter() - began
        return work

    def take_wait(self) -> float:
        """Seconds waited since the last call."""
        waited, self.waited_s = self.waited_s, 0.0
        return waited

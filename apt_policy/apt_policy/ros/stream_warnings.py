"""Warnings about streams, which are logged once and added to the holds that they explain.

Middleware events and refused messages occur once or in bursts, while the hold that they
cause lasts. They are logged at their start and stored, so that the hold's detail can repeat them.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from apt_policy.inference.ports import Clock, SteadyClock

EPISODE_S = 5.0
"""Time after which a transient warning that was not repeated ends [s]."""


@dataclass(frozen=True, kw_only=True)
class _Warning:
    text: str
    until_s: float


class StreamWarnings:
    """Store of one warning per topic. Not thread-safe; used by the callbacks' thread."""

    def __init__(self, log: Callable[[str], None], clock: Clock | None = None) -> None:
        """Create the store; ``log`` is called with the first warning of each episode."""
        self._log = log
        self._clock = clock or SteadyClock()
        self._warnings: dict[str, _Warning] = {}

    def report_transient(self, topic: str, text: str) -> None:
        """Report a transient warning, such as a refused message; it ends unless it is repeated."""
        self._put(topic, text, self._now_s() + EPISODE_S)

    def report_persistent(self, topic: str, text: str) -> None:
        """Report a persistent warning, such as a refused prompt; it lasts until :meth:`clear`."""
        self._put(topic, text, math.inf)

    def clear(self, topic: str) -> None:
        """Remove the warning about a topic."""
        self._warnings.pop(topic, None)

    def active(self, topics: Iterable[str]) -> tuple[str, ...]:
        """Return the active warnings about ``topics``, in their order."""
        now_s = self._now_s()
        return tuple(self._warnings[topic].text for topic in topics
                     if topic in self._warnings and self._warnings[topic].until_s > now_s)

    def _put(self, topic: str, text: str, until_s: float) -> None:
        if not self.active((topic,)):
            self._log(text)
        self._warnings[topic] = _Warning(text=text, until_s=until_s)

    def _now_s(self) -> float:
        return self._clock.now_ns() / 1e9

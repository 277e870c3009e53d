"""What the user should know about a stream, kept beside the holds that it explains.

Events of the middleware and refused messages come once or in floods, while the hold that
they cause lasts. So they are logged when they begin, and remembered to be told with the
hold's reason. It knows neither nodes nor messages.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from apt_policy.inference.ports import Clock, SteadyClock

EPISODE_S = 5.0
"""A momentary remark that was not repeated for this long is over [s]."""


@dataclass(frozen=True, kw_only=True)
class _Note:
    text: str
    until_s: float


class StreamWarnings:
    """One sentence per topic. For one thread: that of the callbacks."""

    def __init__(self, log: Callable[[str], None], clock: Clock | None = None) -> None:
        """``log`` is given the first sentence of each episode."""
        self._log = log
        self._clock = clock or SteadyClock()
        self._warnings: dict[str, _Note] = {}

    def report_transient(self, topic: str, text: str) -> None:
        """Something that is over unless it comes again, like a message that was refused."""
        self._put(topic, text, self._now_s() + EPISODE_S)

    def report_persistent(self, topic: str, text: str) -> None:
        """Something that is reported once and lasts, like incompatible ends of a topic."""
        self._put(topic, text, math.inf)

    def clear(self, topic: str) -> None:
        """The topic is well again."""
        self._warnings.pop(topic, None)

    def active(self, topics: Iterable[str]) -> tuple[str, ...]:
        """What is on record about ``topics``, in their order."""
        now_s = self._now_s()
        return tuple(self._warnings[topic].text for topic in topics
                     if topic in self._warnings and self._warnings[topic].until_s > now_s)

    def _put(self, topic: str, text: str, until_s: float) -> None:
        if not self.active((topic,)):
            self._log(text)
        self._warnings[topic] = _Note(text=text, until_s=until_s)

    def _now_s(self) -> float:
        return self._clock.now_ns() / 1e9

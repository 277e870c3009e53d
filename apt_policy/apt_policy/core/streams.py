"""One stream of stamped values: the newest that is not after an instant, its age, its rate.

Stamps come from outside, so the same class serves a live robot, a simulation and a bag.
What the values are is not known here. Not thread-safe: its owner locks.
"""

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from itertools import islice
from typing import Generic, TypeVar

Value = TypeVar('Value')

JUMP_NS = 500_000_000
"""Stamps that step back by more than this mean that the clock jumped, not that two messages overtook."""

WINDOW_NS = 2_000_000_000
"""Rates are counted over this long."""

MIN_RATE_FRACTION = 0.8
"""A stream slower than this share of its expected rate is reported as not ok."""


class TimeBase(Enum):
    """Which clock reading stands for the instant of a message."""

    HEADER = 'header'
    """The stamp in the message."""
    RECEIVE = 'receive'
    """When it arrived: for drivers whose stamps lag or are missing."""


class Arrival(Enum):
    """What became of a message."""

    STORED = auto()
    UNSTAMPED = auto()
    """Refused: its stamp is zero."""
    OUT_OF_ORDER = auto()
    """Refused: not newer than the newest."""
    CLOCK_JUMP = auto()
    """Stored, after everything before was forgotten: the clock stepped back."""


@dataclass(frozen=True, slots=True)
class Stamped(Generic[Value]):
    """A value and the instant that it belongs to."""

    stamp_ns: int
    value: Value


@dataclass(frozen=True, kw_only=True)
class StreamReport:
    """How one stream is doing."""

    stream: str
    age_s: float
    """Of its newest value; -1 if there is none."""
    max_age_s: float
    rate_hz: float
    expected_hz: float
    """0 where no rate is expected."""
    ok: bool


class Stream(Generic[Value]):
    """The last ``depth`` values by stamp, oldest first."""

    def __init__(self, depth: int) -> None:
        self._kept: deque[Stamped[Value]] = deque(maxlen=depth)
        self._recent: deque[int] = deque()
        self._first_ns = 0
        self.unstamped = 0
        """Messages refused because their stamp is zero."""

    def push(self, stamp_ns: int, value: Value) -> Arrival:
        """Store a value newer than all before; see :class:`Arrival` for the other outcomes."""
        if stamp_ns <= 0:
            self.unstamped += 1
            return Arrival.UNSTAMPED
        outcome = Arrival.STORED
        if self._kept and stamp_ns <= self._kept[-1].stamp_ns:
            if self._kept[-1].stamp_ns - stamp_ns <= JUMP_NS:
                return Arrival.OUT_OF_ORDER
            self.clear()
            outcome = Arrival.CLOCK_JUMP
        self._kept.append(Stamped(stamp_ns, value))
        while self._recent and self._recent[0] <= stamp_ns - WINDOW_NS:
            self._recent.popleft()
        if not self._recent:
            self._first_ns = stamp_ns
        self._recent.append(stamp_ns)
        return outcome

    def clear(self) -> None:
        """Forget all values and the rate."""
        self._kept.clear()
        self._recent.clear()

    def until(self, tick_ns: int) -> tuple[Stamped[Value], ...]:
        """The values not newer than ``tick_ns``, newest first."""
        return tuple(entry for entry in reversed(self._kept) if entry.stamp_ns <= tick_ns)

    def around(self, stamp_ns: int) -> tuple[Stamped[Value] | None, Stamped[Value] | None]:
        """The neighbours of an instant: the newest not after it, the oldest after it."""
        place = bisect_right(self._kept, stamp_ns, key=lambda entry: entry.stamp_ns)
        before = self._kept[place - 1] if place else None
        return before, next(islice(self._kept, place, None), None)

    @property
    def newest_ns(self) -> int | None:
        """Stamp of the newest value."""
        return self._kept[-1].stamp_ns if self._kept else None

    def rate_hz(self, tick_ns: int) -> float:
        """Values per second over the window that ends at ``tick_ns``."""
        count = bisect_right(self._recent, tick_ns) - bisect_right(self._recent, tick_ns - WINDOW_NS)
        since_first = tick_ns - self._first_ns
        if since_first >= WINDOW_NS:
            return count * 1e9 / WINDOW_NS
        return (count - 1) * 1e9 / since_first if count > 1 else 0.0

    def report(self, name: str, tick_ns: int, *, max_age_s: float, expected_hz: float) -> StreamReport:
        """Age and rate at ``tick_ns`` beside what is expected of them."""
        age_s = -1.0 if self.newest_ns is None else max(0, tick_ns - self.newest_ns) / 1e9
        rate = self.rate_hz(tick_ns)
        ok = 0.0 <= age_s <= max_age_s and rate >= MIN_RATE_FRACTION * expected_hz
        return StreamReport(stream=name, age_s=age_s, max_age_s=max_age_s, rate_hz=rate,
                            expected_hz=expected_hz, ok=ok)

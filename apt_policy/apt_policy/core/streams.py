"""Buffer of stamped values with age and rate.

All stamps are arguments, so the same class serves a live robot, a simulation and a bag.
"""

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from itertools import islice
from typing import Generic, TypeVar

Value = TypeVar('Value')

JUMP_NS = 500_000_000
"""Backward step of stamps above which the clock is taken to have jumped [ns]; below, messages are out of order."""

WINDOW_NS = 2_000_000_000
"""Window over which rates are measured [ns]."""

MIN_RATE_FRACTION = 0.8
"""Share of the expected rate below which a stream is reported as not ok."""


class TimeBase(Enum):
    """Source of a message's instant."""

    HEADER = 'header'
    """Stamp in the message header."""
    RECEIVE = 'receive'
    """Time of arrival, for drivers whose stamps lag or are missing."""


class Arrival(Enum):
    """Outcome of adding a message."""

    STORED = auto()
    UNSTAMPED = auto()
    """Refused: its stamp is zero."""
    OUT_OF_ORDER = auto()
    """Refused: not newer than the newest."""
    CLOCK_JUMP = auto()
    """Stored after all older data was dropped, because the clock stepped back."""


@dataclass(frozen=True, slots=True)
class Stamped(Generic[Value]):
    """Value with its stamp."""

    stamp_ns: int
    value: Value


@dataclass(frozen=True, kw_only=True)
class StreamReport:
    """Age and rate of one stream."""

    stream: str
    age_s: float
    """Age of the newest value [s]; -1 if there is none."""
    max_age_s: float
    rate_hz: float
    expected_hz: float
    """Expected rate [Hz]; 0 if none is expected."""
    ok: bool


class Stream(Generic[Value]):
    """Buffer of the last ``depth`` values by stamp, oldest first. Not thread-safe; its owner locks."""

    def __init__(self, depth: int) -> None:
        self._kept: deque[Stamped[Value]] = deque(maxlen=depth)
        self._recent: deque[int] = deque()
        self._first_ns = 0
        self.unstamped = 0
        """Number of messages refused because their stamp is zero."""

    def push(self, stamp_ns: int, value: Value) -> Arrival:
        """Store a value that is newer than all before; see :class:`Arrival` for the other outcomes."""
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
        """Drop all values and the rate."""
        self._kept.clear()
        self._recent.clear()

    def until(self, tick_ns: int) -> tuple[Stamped[Value], ...]:
        """Return the values not newer than ``tick_ns``, newest first."""
        return tuple(entry for entry in reversed(self._kept) if entry.stamp_ns <= tick_ns)

    def around(self, stamp_ns: int) -> tuple[Stamped[Value] | None, Stamped[Value] | None]:
        """Return the neighbours of an instant: the newest value not after it and the oldest one after it."""
        place = bisect_right(self._kept, stamp_ns, key=lambda entry: entry.stamp_ns)
        before = self._kept[place - 1] if place else None
        return before, next(islice(self._kept, place, None), None)

    @property
    def newest_ns(self) -> int | None:
        """Stamp of the newest value."""
        return self._kept[-1].stamp_ns if self._kept else None

    def rate_hz(self, tick_ns: int) -> float:
        """Compute the rate over the window that ends at ``tick_ns`` [Hz]."""
        count = bisect_right(self._recent, tick_ns) - bisect_right(self._recent, tick_ns - WINDOW_NS)
        since_first = tick_ns - self._first_ns
        if since_first >= WINDOW_NS:
            return count * 1e9 / WINDOW_NS
        return (count - 1) * 1e9 / since_first if count > 1 else 0.0

    def report(self, name: str, tick_ns: int, *, max_age_s: float, expected_hz: float) -> StreamReport:
        """Report age and rate at ``tick_ns`` against their limits."""
        age_s = -1.0 if self.newest_ns is None else max(0, tick_ns - self.newest_ns) / 1e9
        rate = self.rate_hz(tick_ns)
        ok = 0.0 <= age_s <= max_age_s and rate >= MIN_RATE_FRACTION * expected_hz
        return StreamReport(stream=name, age_s=age_s, max_age_s=max_age_s, rate_hz=rate,
                            expected_hz=expected_hz, ok=ok)

"""Counting what happens to the streams of one bag: rates, gaps, ages, lost frames, frozen images.

Told of messages and frames as they pass; sums up at the end. Decides nothing.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.sample import Hold
from apt_policy.core.streams import TimeBase
from apt_training.convert.source import StreamLine

_GAP_PERIODS = 2.5
"""Silence longer than this many usual periods is a gap."""
_NO_STREAM = 'no stream'


class StreamTally:
    """One stream."""

    def __init__(self, name: str, base: TimeBase | None) -> None:
        self.name, self._base = name, base
        self._instants: list[int] = []
        self._arrivals: list[int] = []
        self._last_image: tuple[int, bytes, bytes | memoryview] | None = None
        self.frozen = 0

    def saw(self, instant_ns: int, now_ns: int) -> None:
        """A message of that instant came, now."""
        self._instants.append(instant_ns)
        self._arrivals.append(now_ns)

    def saw_image(self, sketch: bytes, data: bytes | memoryview) -> None:
        """Its content; ``sketch`` is short, and differs where contents differ as a rule."""
        before, self._last_image = self._last_image, (len(data), sketch, data)
        if before is not None and before[:2] == self._last_image[:2] and bytes(before[2]) == bytes(data):
            self.frozen += 1

    def line(self, ticks: NDArray[np.int64], drops: int) -> StreamLine:
        """Sum up, given the instants of all frames [ns]."""
        instants = np.sort(np.array(self._instants, np.int64))
        periods = np.diff(instants) / 1e9
        usual = float(np.median(periods)) if len(periods) else 0.0
        ages = _ages_s(np.array(self._instants, np.int64), np.array(self._arrivals, np.int64), ticks)
        p50, p95 = np.percentile(ages, (50, 95)) if len(ages) else (np.nan, np.nan)
        span = float(periods.sum())
        return StreamLine(
            stream=self.name, messages=len(instants), rate_hz=len(periods) / span if span > 0 else 0.0,
            gaps=int((periods > _GAP_PERIODS * usual).sum()) if usual > 0 else 0,
            longest_gap_s=float(periods.max(initial=0.0)), age_p50_s=float(p50), age_p95_s=float(p95),
            drops=drops, frozen=self.frozen, time_base=self._base.value if self._base else '')


class DropTally:
    """Frames that were lost, by the stream that was to blame and why."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._first: dict[tuple[str, str], str] = {}

    def add(self, hold: Hold, at_s: float) -> None:
        """A frame is lost for the reason in ``hold``, ``at_s`` seconds into the bag."""
        key = (hold.stream or _NO_STREAM, hold.reason.name.lower())
        self.counts[key] += 1
        self._first.setdefault(key, f'at {at_s:.3f} s: {hold.detail}')

    def merge(self, other: 'DropTally') -> None:
        """Add the counts of another one."""
        self.counts += other.counts
        self._first = {**other._first, **self._first}

    def of_stream(self, stream: str) -> int:
        """Frames lost for the sake of one stream."""
        return sum(count for (name, _), count in self.counts.items() if name == stream)

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.counts.values())

    def by_reason(self) -> Mapping[str, int]:
        """Counts by ``stream: reason``, most first."""
        return {f'{stream}: {reason}': count for (stream, reason), count in self.counts.most_common()}

    def explained(self) -> str:
        """A sentence with the first case of each reason."""
        return '; '.join(f'{stream} {reason} {count} times, first {self._first[stream, reason]}'
                         for (stream, reason), count in self.counts.most_common())


def _ages_s(instants: NDArray[np.int64], arrivals: NDArray[np.int64], ticks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of what had arrived last by each tick; ticks before the first arrival have none."""
    place = np.searchsorted(arrivals, ticks, side='right')
    known = place > 0
    return (ticks[known] - instants[place[known] - 1]) / 1e9

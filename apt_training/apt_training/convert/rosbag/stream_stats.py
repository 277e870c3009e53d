"""Statistics of the streams of one bag: rates, gaps, ages, dropped frames, frozen images."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.sample import Hold
from apt_policy.core.streams import TimeBase
from apt_training.convert.source import StreamStats

_GAP_PERIODS = 2.5
"""Number of median periods above which an interval is a gap."""
_NO_STREAM = 'no stream'
"""Name in reports for frames dropped for another reason."""


class StreamStatsCollector:
    """Collector of the statistics of one stream."""

    def __init__(self, name: str, base: TimeBase | None) -> None:
        self.name, self._base = name, base
        self._instants: list[int] = []
        self._arrivals: list[int] = []
        self._last_image: tuple[int, bytes, bytes | memoryview] | None = None
        self.frozen = 0

    def record_message(self, instant_ns: int, now_ns: int) -> None:
        """Record a message.

        Args:
            instant_ns: time that the message belongs to [ns].
            now_ns: time of its arrival [ns].
        """
        self._instants.append(instant_ns)
        self._arrivals.append(now_ns)

    def record_image(self, fingerprint: bytes, data: bytes | memoryview) -> None:
        """Compare an image with the one before.

        Args:
            fingerprint: short part of the data; different images rarely share it.
            data: all bytes.
        """
        before, self._last_image = self._last_image, (len(data), fingerprint, data)
        if before is not None and before[:2] == self._last_image[:2] and bytes(before[2]) == bytes(data):
            self.frozen += 1

    def summarize(self, ticks: NDArray[np.int64], drops: int) -> StreamStats:
        """Return the statistics.

        Args:
            ticks: (N,) times of all frames [ns].
            drops: number of frames dropped because of this stream.
        """
        instants = np.sort(np.array(self._instants, np.int64))
        periods = np.diff(instants) / 1e9
        median_s = float(np.median(periods)) if len(periods) else 0.0
        ages = _ages_s(np.array(self._instants, np.int64), np.array(self._arrivals, np.int64), ticks)
        p50, p95 = np.percentile(ages, (50, 95)) if len(ages) else (np.nan, np.nan)
        span = float(periods.sum())
        return StreamStats(
            stream=self.name, messages=len(instants), rate_hz=len(periods) / span if span > 0 else 0.0,
            gaps=int((periods > _GAP_PERIODS * median_s).sum()) if median_s > 0 else 0,
            longest_gap_s=float(periods.max(initial=0.0)), age_p50_s=float(p50), age_p95_s=float(p95),
            drops=drops, frozen=self.frozen, time_base=self._base.value if self._base else '')


class DropCounter:
    """Counts of dropped frames, by stream and reason."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._first: dict[tuple[str, str], str] = {}

    def record(self, hold: Hold, at_s: float) -> None:
        """Count a dropped frame.

        Args:
            hold: reason.
            at_s: time since the beginning of the bag [s].
        """
        key = (hold.stream or _NO_STREAM, hold.reason.name.lower())
        self.counts[key] += 1
        self._first.setdefault(key, f'at {at_s:.3f} s: {hold.detail}')

    def merge(self, other: 'DropCounter') -> None:
        """Add the counts of a later counter."""
        self.counts += other.counts
        self._first = {**other._first, **self._first}

    def count_of_stream(self, stream: str) -> int:
        """Return the number of frames dropped because of a stream."""
        return sum(count for (name, _), count in self.counts.items() if name == stream)

    @property
    def total(self) -> int:
        """Number of all dropped frames."""
        return sum(self.counts.values())

    def by_reason(self) -> Mapping[str, int]:
        """Return the counts by ``stream: reason``, largest first."""
        return {f'{stream}: {reason}': count for (stream, reason), count in self.counts.most_common()}

    def describe(self) -> str:
        """Return a sentence with the first case of each reason."""
        return '; '.join(f'{stream} {reason} {count} times, first {self._first[stream, reason]}'
                         for (stream, reason), count in self.counts.most_common())


def _ages_s(instants: NDArray[np.int64], arrivals: NDArray[np.int64], ticks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the age of the newest arrival at each tick [s], without ticks before the first arrival."""
    place = np.searchsorted(arrivals, ticks, side='right')
    known = place > 0
    return (ticks[known] - instants[place[known] - 1]) / 1e9

"""What the loop counts: targets, chunks, holds by reason, times.

Not thread-safe; the loop's lock guards it.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apt_policy.core.sample import Hold, HoldReason, Target

WINDOW = 200
USUAL = 0.9


@dataclass(frozen=True, kw_only=True)
class Quantiles:
    """Median and 95th percentile of a window of times [s]; NaN while nothing was measured."""

    p50_s: float
    p95_s: float


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Everything since the loop was made, and the quantiles of the newest :data:`WINDOW` times."""

    targets_sent: int
    chunks: int
    """Chunks taken over; those of an older epoch are not."""
    chunks_dropped: int
    """Late, or of an older epoch."""
    holds: tuple[int, ...]
    """Control ticks that held, by :class:`HoldReason`."""
    inference: Quantiles
    """As the planner reports it, wall clock."""
    latency: Quantiles
    """From an observation's stamp to the first target of its chunk, clock of the stamps."""


class Counters:
    """Collects what :class:`Counts` reports."""

    def __init__(self) -> None:
        """Start from nothing."""
        self.targets_sent = 0
        self.chunks = 0
        self.chunks_dropped = 0
        self._holds = [0] * len(HoldReason)
        self._inference_s: deque[float] = deque(maxlen=WINDOW)
        self._latency_s: deque[float] = deque(maxlen=WINDOW)
        # Short, since what inference takes now is what the next plan must bridge.
        self._delays_ns: deque[int] = deque(maxlen=20)

    def count_tick(self, outcome: Target | Hold) -> None:
        """One control tick."""
        if isinstance(outcome, Hold):
            self._holds[outcome.reason] += 1
        else:
            self.targets_sent += 1

    def count_chunk(self, *, inference_s: float, delay_ns: int) -> None:
        """A chunk was taken over, ``delay_ns`` after its observation."""
        self.chunks += 1
        self._inference_s.append(inference_s)
        self._delays_ns.append(delay_ns)

    def usual_delay_ns(self) -> int:
        """What inference takes nearly always, from an observation to its chunk; 0 if unknown."""
        return math.ceil(np.quantile(self._delays_ns, USUAL)) if self._delays_ns else 0

    def count_dropped(self) -> None:
        """A chunk came too late to be of use."""
        self.chunks_dropped += 1

    def count_latency(self, latency_s: float) -> None:
        """A chunk's first target went out."""
        self._latency_s.append(latency_s)

    def report(self) -> Counts:
        """All of it now."""
        return Counts(targets_sent=self.targets_sent, chunks=self.chunks,
                      chunks_dropped=self.chunks_dropped, holds=tuple(self._holds),
                      inference=_quantiles(self._inference_s), latency=_quantiles(self._latency_s))


def _quantiles(values_s: Sequence[float]) -> Quantiles:
    if not values_s:
        return Quantiles(p50_s=float('nan'), p95_s=float('nan'))
    middle, high = np.quantile(np.asarray(values_s), (0.5, 0.95))
    return Quantiles(p50_s=float(middle), p95_s=float(high))

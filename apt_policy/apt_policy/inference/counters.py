"""Counters of the policy loop: targets, chunks, holds by reason, times."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apt_policy.core.sample import Hold, HoldReason, Target

WINDOW = 200
"""Number of times in a window of quantiles."""
USUAL = 0.9
"""Quantile of the inference delay that the next chunk's prefix must cover."""


@dataclass(frozen=True, kw_only=True)
class Quantiles:
    """Median and 95th percentile of a window of times [s]; NaN while nothing was measured."""

    p50_s: float
    p95_s: float


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Counts since the start of the loop, and quantiles of the newest :data:`WINDOW` times."""

    targets_sent: int
    chunks: int
    """Number of accepted chunks."""
    chunks_dropped: int
    """Number of chunks that were late or of an older epoch."""
    holds: tuple[int, ...]
    """Number of control ticks without target, by :class:`HoldReason`."""
    inference: Quantiles
    """Inference time that the planner reports, wall clock."""
    latency: Quantiles
    """Time from an observation's stamp to the first target of its chunk, on the clock of the stamps."""


class Counters:
    """Collector of :class:`Counts`. Not thread-safe; the loop's lock guards it."""

    def __init__(self) -> None:
        """Start at zero."""
        self.targets_sent = 0
        self.chunks = 0
        self.chunks_dropped = 0
        self._holds = [0] * len(HoldReason)
        self._inference_s: deque[float] = deque(maxlen=WINDOW)
        self._latency_s: deque[float] = deque(maxlen=WINDOW)
        # A short window, because the next prefix must cover the present inference time.
        self._delays_ns: deque[int] = deque(maxlen=20)

    def count_tick(self, outcome: Target | Hold) -> None:
        """Count one control tick."""
        if isinstance(outcome, Hold):
            self._holds[outcome.reason] += 1
        else:
            self.targets_sent += 1

    def count_chunk(self, *, inference_s: float, delay_ns: int) -> None:
        """Count a chunk that was accepted ``delay_ns`` after its observation."""
        self.chunks += 1
        self._inference_s.append(inference_s)
        self._delays_ns.append(delay_ns)

    def usual_delay_ns(self) -> int:
        """Return the :data:`USUAL` quantile of the delay from an observation to its chunk [ns]; 0 without a chunk."""
        return math.ceil(np.quantile(self._delays_ns, USUAL)) if self._delays_ns else 0

    def count_dropped(self) -> None:
        """Count a chunk that was dropped."""
        self.chunks_dropped += 1

    def count_latency(self, latency_s: float) -> None:
        """Record the latency of a chunk's first target [s]."""
        self._latency_s.append(latency_s)

    def report(self) -> Counts:
        """Return the present counts."""
        return Counts(targets_sent=self.targets_sent, chunks=self.chunks,
                      chunks_dropped=self.chunks_dropped, holds=tuple(self._holds),
                      inference=_quantiles(self._inference_s), latency=_quantiles(self._latency_s))


def _quantiles(values_s: Sequence[float]) -> Quantiles:
    if not values_s:
        return Quantiles(p50_s=float('nan'), p95_s=float('nan'))
    middle, high = np.quantile(np.asarray(values_s), (0.5, 0.95))
    return Quantiles(p50_s=float(middle), p95_s=float(high))

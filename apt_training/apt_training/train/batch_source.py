"""Interface between the trainer and its data, and the measurement of the time that the trainer waits for data.

Episodes, mixtures and collation are in :mod:`apt_training.data`.
"""

import time
from collections.abc import Mapping
from typing import Any, Protocol

from apt_training.train.objective import MicroBatch


class BatchSource(Protocol):
    """Endless stream of micro-batches for one rank."""

    def next_batch(self) -> MicroBatch:
        """Return the next micro-batch.

        Raises:
            DataLoadingError: a loading process died, or no batch arrived in time.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return the position behind the last micro-batch as plain JSON, the same on every rank."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved position; call it before the first :meth:`next_batch`.

        Raises:
            DataLoadingError: the state belongs to other data.
        """

    def close(self) -> None:
        """Stop the loading processes."""


class TimedBatchSource:
    """Batch source that measures how long the trainer waits for data."""

    def __init__(self, batches: BatchSource) -> None:
        self._batches = batches
        self._waited_s = 0.0

    def next_batch(self) -> MicroBatch:
        """Return the next micro-batch and add the time that it took."""
        started = time.perf_counter()
        micro_batch = self._batches.next_batch()
        self._waited_s += time.perf_counter() - started
        return micro_batch

    def pop_wait_s(self) -> float:
        """Return the time waited since the last call [s], and reset it."""
        waited_s, self._waited_s = self._waited_s, 0.0
        return waited_s

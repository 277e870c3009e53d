"""Protocols of inference (planner, clock, source of observations) and the values that they exchange."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from apt_policy.core.sample import ArmState, Chunk, Hold, Observation
from apt_policy.core.streams import StreamReport


@dataclass(frozen=True, kw_only=True, eq=False)
class ChunkPrefix:
    """Prefix of the next chunk: actions that will be executed while the chunk is inferred.

    Row k is due at ``observation.stamp_ns + (k + 1) * step_ns``, like the rows of a chunk, so
    it replaces row k of the plan. Real-time chunking keeps these rows fixed while it denoises.
    """

    world_from_ee: NDArray[np.float64]
    """(K, A, 4, 4)."""
    gripper: NDArray[np.float64]
    """(K, A), 0 closed .. 1 open."""
    valid_arms: NDArray[np.bool_]
    """(A,); arms whose rows are kept fixed. Rows of other arms are undefined."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlanRequest:
    """Request of one chunk."""

    observation: Observation
    epoch: int
    prefix: ChunkPrefix | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class PlannedChunk:
    """Chunk with the request that it answers."""

    request: PlanRequest
    chunk: Chunk


@dataclass(frozen=True, kw_only=True)
class PlanFailure:
    """Failure of a request or of the planner."""

    message: str
    """One line for the user."""
    trace: str = ''
    """Traceback of the planner; empty if it raised none."""


class Planner(Protocol):
    """Planner of one chunk per observation. Used by one thread at a time."""

    def warm_up(self) -> None:
        """Plan once with real shapes, so that the first plan is as fast as the others."""

    def plan(self, observation: Observation, *, epoch: int, prefix: ChunkPrefix | None) -> Chunk:
        """Plan from ``observation``; the chunk has its stamp and prompt, and ``epoch``.

        Args:
            observation: input of the policy.
            epoch: value to copy into the chunk.
            prefix: rows to keep fixed; None plans freely.
        """

    def close(self) -> None:
        """Release memory and devices; called at most once."""


PlannerFactory = Callable[[], Planner]
"""Factory that is called in the worker; picklable (a top-level function or a ``functools.partial``)."""


class Clock(Protocol):
    """Source of time."""

    def now_ns(self) -> int:
        """Return the present time [ns]."""


class ObservationSource(Protocol):
    """Interface of ``core.align.ObservationAssembler`` that the loop uses; methods are thread-safe."""

    def snapshot(self, tick_ns: int, prompt: str) -> Observation | Hold:
        """Return the observation as of ``tick_ns``, or a hold for the missing, stale or bad stream."""

    def ages(self, tick_ns: int) -> Sequence[StreamReport]:
        """Report age and rate of every stream; fast enough for every control tick."""

    def arm_states(self, stamp_ns: int) -> tuple[ArmState, ...] | Hold:
        """Return the state of every arm without decoding images; fast enough for every control tick."""

    def clear(self) -> None:
        """Drop all received data after a jump of the stamps' clock."""


class SteadyClock:
    """Monotonic clock, for watchdogs."""

    def now_ns(self) -> int:
        """Return the monotonic time [ns]."""
        return time.monotonic_ns()

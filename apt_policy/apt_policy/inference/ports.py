"""What inference asks of the outside: a planner, a clock, a source of observations.

Protocols and the values that cross them; no behaviour but the steady clock. Nothing here knows ROS, torch,
threads or processes.
"""

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
    """The head of the next chunk that the robot will execute whatever the planner says.

    Row k is due at ``observation.stamp_ns + (k + 1) * step_ns``, like the rows of a chunk, so
    it replaces row k of the plan. Real-time chunking holds these rows fixed while it denoises.
    """

    world_from_ee: NDArray[np.float64]
    """(K, A, 4, 4)."""
    gripper: NDArray[np.float64]
    """(K, A), 0 closed .. 1 open."""
    valid_arms: NDArray[np.bool_]
    """(A,); rows of the other arms mean nothing and are not to be held fixed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlanRequest:
    """One order to the planner."""

    observation: Observation
    epoch: int
    prefix: ChunkPrefix | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class PlannedChunk:
    """A chunk and the request that it answers."""

    request: PlanRequest
    chunk: Chunk


@dataclass(frozen=True, kw_only=True)
class PlanFailure:
    """Why a request got no chunk."""

    message: str
    """One line for the user."""
    trace: str = ''
    """The planner's traceback, where it raised one."""


class Planner(Protocol):
    """Turns one observation into one chunk. Used by one thread at a time."""

    def warm_up(self) -> None:
        """Run once with real shapes, so that the first plan is as quick as the others."""

    def plan(self, observation: Observation, *, epoch: int, prefix: ChunkPrefix | None) -> Chunk:
        """Plan from ``observation``; the chunk carries its stamp, its prompt and ``epoch``."""

    def close(self) -> None:
        """Give back memory and devices; called at most once."""


PlannerFactory = Callable[[], Planner]
"""Builds the planner where it will run; picklable (a top-level function or a ``functools.partial``)."""


class Clock(Protocol):
    """A source of time."""

    def now_ns(self) -> int:
        """Now [ns]."""


class ObservationSource(Protocol):
    """What the loop sees of ``core.align.ObservationAssembler``; its methods are thread-safe."""

    def snapshot(self, tick_ns: int, prompt: str) -> Observation | Hold:
        """Everything known at ``tick_ns``, or the stream that is missing, stale or bad."""

    def ages(self, tick_ns: int) -> Sequence[StreamReport]:
        """How every stream is doing; cheap enough for every control tick."""

    def arm_states(self, stamp_ns: int) -> tuple[ArmState, ...] | Hold:
        """Where every arm is, without looking at images; as cheap."""

    def clear(self) -> None:
        """Forget everything received: the clock of the stamps jumped."""


class SteadyClock:
    """Time that never jumps, for watchdogs of processes and people."""

    def now_ns(self) -> int:
        """Now [ns], from an arbitrary zero."""
        return time.monotonic_ns()

"""Protocol, states and configuration of inference workers.

A worker runs one planner beside the control tick. A submitted request replaces the one
that waits (there is no queue: only the newest observation is used), and results are polled,
so the tick never waits. The implementations are ``thread_worker`` and ``process_worker``.
"""

import traceback
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from apt_policy.core.errors import UserError
from apt_policy.inference.ports import PlanFailure, PlannedChunk, Planner, PlanRequest


class WorkerKind(Enum):
    """Place of the planner: a thread or a process."""

    THREAD = 'thread'
    PROCESS = 'process'


class WorkerState(Enum):
    """State of a worker."""

    STARTING = 'starting'
    """Building or warming up the planner; a request waits."""
    IDLE = 'idle'
    BUSY = 'busy'
    DEAD = 'dead'
    """Crashed, hung or closed; there are no further outcomes."""


class WorkerError(UserError, RuntimeError):
    """Error of a planner that could not be built or warmed up; the message is the planner's."""


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """Timeouts, threads and restarts of a worker."""

    start_timeout_s: float = 300.0
    """Longest time to build and warm up the planner [s]."""
    plan_timeout_s: float = 20.0
    """Duration after which a plan counts as hung [s]."""
    torch_threads: int | None = None
    """Threads of numeric libraries in a worker process; None for all cores but one."""
    nice: int = 0
    """Increment of the niceness of a worker process, 0..19."""
    restarts: int = 0
    """Number of times that a worker process that died or hung is started again."""

    def __post_init__(self) -> None:
        """Check the ranges; raises ValueError."""
        if not (self.start_timeout_s > 0 and self.plan_timeout_s > 0):
            raise ValueError(f'worker timeouts are {self.start_timeout_s} s and {self.plan_timeout_s} s; '
                             'both must be above 0')
        if self.torch_threads is not None and self.torch_threads < 1:
            raise ValueError(f'torch_threads is {self.torch_threads}; expected at least 1, or None')
        if not 0 <= self.nice <= 19:
            raise ValueError(f'nice is {self.nice}; expected 0..19')
        if self.restarts < 0:
            raise ValueError(f'restarts is {self.restarts}; expected at least 0')


class Worker(Protocol):
    """Worker that runs a planner beside the control tick. Thread-safe; only :meth:`warm_up` and :meth:`close` wait."""

    @property
    def state(self) -> WorkerState:
        """Present state."""

    def warm_up(self) -> None:
        """Build the planner and run it once; waits up to ``start_timeout_s``.

        Raises:
            WorkerError: the planner failed or timed out; the message is the planner's or says how it ended.
        """

    def submit(self, request: PlanRequest) -> None:
        """Submit ``request``; it replaces one that still waits."""

    def poll(self) -> PlannedChunk | PlanFailure | None:
        """Return the next outcome, None if there is none."""

    def close(self, timeout_s: float = 2.0) -> None:
        """End the planner, by force after ``timeout_s``; a second call does nothing."""


def run_plan(planner: Planner, request: PlanRequest) -> PlannedChunk | PlanFailure:
    """Plan one request; an exception of the planner becomes a failure."""
    try:
        chunk = planner.plan(request.observation, epoch=request.epoch, prefix=request.prefix)
    except Exception as error:
        return failure_from_exception(error)
    return PlannedChunk(request=request, chunk=chunk)


def failure_from_exception(error: Exception) -> PlanFailure:
    """Convert an exception to a failure, which can be sent to another process."""
    trace = ''.join(traceback.format_exception(type(error), error, error.__traceback__))
    return PlanFailure(message=f'{type(error).__name__}: {error}', trace=trace)


def timeout_failure(waited_s: float, config: WorkerConfig) -> PlanFailure:
    """Return the failure of a planner that exceeded its time limit."""
    return PlanFailure(message=f'the planner hangs: no answer for {waited_s:.1f} s '
                           f'(limit {config.plan_timeout_s:g} s)')

"""What every inference worker is: the protocol, its states and its settings.

A worker runs one planner away from the control tick. A submitted request replaces the one
that waits (never a queue: the newest observation wins), and results are collected by polling,
so the tick never waits. The two implementations are ``thread_worker`` and ``process_worker``.
"""

import traceback
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from apt_policy.core.errors import UserError
from apt_policy.inference.ports import Failure, Planned, Planner, Request


class WorkerKind(Enum):
    """Where the planner runs."""

    THREAD = 'thread'
    PROCESS = 'process'


class WorkerState(Enum):
    """What a worker is doing."""

    STARTING = 'starting'
    """Building or warming up the planner; a request waits."""
    IDLE = 'idle'
    BUSY = 'busy'
    DEAD = 'dead'
    """Crashed, hung or closed; nothing comes any more."""


class WorkerError(UserError, RuntimeError):
    """The planner could not be made ready; the message is the planner's own."""


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """How a worker treats its planner."""

    start_timeout_s: float = 300.0
    """Longest time to build and warm up the planner [s]."""
    plan_timeout_s: float = 20.0
    """A plan that takes longer counts as hung [s]."""
    torch_threads: int | None = None
    """Threads of numeric libraries in a worker process; None leaves one core to the others."""
    nice: int = 0
    """Added to the niceness of a worker process, 0..19."""
    restarts: int = 0
    """How often a worker process that died or hung is started again."""

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
    """Runs a planner beside the control tick. Thread-safe; only :meth:`warm_up` and :meth:`close` wait."""

    @property
    def state(self) -> WorkerState:
        """What it does now."""

    def warm_up(self) -> None:
        """Build the planner and run it once; waits up to ``start_timeout_s``.

        Raises:
            WorkerError: with the planner's own message, or what happened to it.
        """

    def submit(self, request: Request) -> None:
        """Have ``request`` planned next, instead of one that still waits."""

    def poll(self) -> Planned | Failure | None:
        """The next thing that happened, None if nothing did."""

    def close(self, timeout_s: float = 2.0) -> None:
        """End the planner, by force after ``timeout_s``; a second call does nothing."""


def answer(planner: Planner, request: Request) -> Planned | Failure:
    """Have ``planner`` plan; whatever it raises becomes a failure."""
    try:
        chunk = planner.plan(request.observation, epoch=request.epoch, committed=request.committed)
    except Exception as error:
        return failure_of(error)
    return Planned(request=request, chunk=chunk)


def failure_of(error: Exception) -> Failure:
    """An exception as a value that can leave its process."""
    trace = ''.join(traceback.format_exception(type(error), error, error.__traceback__))
    return Failure(message=f'{type(error).__name__}: {error}', trace=trace)


def hung(waited_s: float, settings: WorkerSettings) -> Failure:
    """A planner that does not answer."""
    return Failure(message=f'the planner hangs: no answer for {waited_s:.1f} s '
                           f'(limit {settings.plan_timeout_s:g} s)')

"""Worker with the planner in a thread of this process: no copies, but the GIL is shared.

A hung planner can only be abandoned here; ``process_worker`` can kill it.
"""

import threading
import time
from collections import deque

from apt_policy.inference.ports import PlanFailure, PlannedChunk, PlannerFactory, PlanRequest
from apt_policy.inference.worker.worker import (
    WorkerConfig,
    WorkerError,
    WorkerState,
    failure_from_exception,
    run_plan,
    timeout_failure,
)


class ThreadWorker:
    """Worker thread; see :class:`apt_policy.inference.worker.worker.Worker`."""

    def __init__(self, factory: PlannerFactory, *, config: WorkerConfig | None = None) -> None:
        """Start the thread, which begins to build the planner at once."""
        self._factory = factory
        self._config = config or WorkerConfig()
        self._changed = threading.Condition()
        self._state = WorkerState.STARTING
        self._pending: PlanRequest | None = None
        self._busy_since_s = time.monotonic()
        self._outcomes: deque[PlannedChunk | PlanFailure] = deque()
        self._start_error: PlanFailure | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name='apt_planner', daemon=True)
        self._thread.start()

    @property
    def state(self) -> WorkerState:
        """Present state."""
        with self._changed:
            return self._state

    def warm_up(self) -> None:
        """Wait until the planner is built and warm; raise WorkerError with its message if it fails."""
        limit_s = self._config.start_timeout_s
        with self._changed:
            self._changed.wait_for(lambda: self._state is not WorkerState.STARTING, limit_s)
            if self._state is WorkerState.STARTING:
                self._give_up()
                raise WorkerError(f'the planner was not ready after {limit_s:.0f} s')
            if self._state is WorkerState.DEAD:
                raise WorkerError(self._start_error.message if self._start_error else 'the worker is closed')

    def submit(self, request: PlanRequest) -> None:
        """Submit ``request``; it replaces one that still waits."""
        with self._changed:
            if self._state is WorkerState.DEAD:
                return
            self._pending = request
            if self._state is WorkerState.IDLE:
                self._begin()
            self._changed.notify_all()

    def poll(self) -> PlannedChunk | PlanFailure | None:
        """Return the next outcome, None if there is none."""
        with self._changed:
            if self._outcomes:
                return self._outcomes.popleft()
            if self._state is not WorkerState.BUSY:
                return None
            if not self._thread.is_alive():
                self._give_up()
                return PlanFailure(message='the planner ended its own thread')
            waited_s = time.monotonic() - self._busy_since_s
            if waited_s > self._config.plan_timeout_s:
                self._give_up()
                return timeout_failure(waited_s, self._config)
            return None

    def close(self, timeout_s: float = 2.0) -> None:
        """End the thread; one that does not end in ``timeout_s`` is left behind as a daemon."""
        with self._changed:
            self._give_up()
            self._outcomes.clear()
        self._thread.join(timeout_s)

    def _give_up(self) -> None:
        self._closing = True
        self._pending = None
        self._state = WorkerState.DEAD
        self._changed.notify_all()

    def _begin(self) -> None:
        self._state = WorkerState.BUSY
        self._busy_since_s = time.monotonic()

    def _run(self) -> None:
        try:
            planner = self._factory()
            planner.warm_up()
        except Exception as error:
            with self._changed:
                self._start_error = failure_from_exception(error)
                self._outcomes.append(self._start_error)
                self._give_up()
            return
        self._finish(None)
        while (request := self._take()) is not None:
            self._finish(run_plan(planner, request))
        planner.close()

    def _take(self) -> PlanRequest | None:
        with self._changed:
            self._changed.wait_for(lambda: self._pending is not None or self._closing)
            request, self._pending = self._pending, None
            return request

    def _finish(self, outcome: PlannedChunk | PlanFailure | None) -> None:
        with self._changed:
            if self._closing:
                return
            if outcome is not None:
                self._outcomes.append(outcome)
            self._state = WorkerState.IDLE
            if self._pending is not None:
                self._begin()
            self._changed.notify_all()

"""Worker with the planner in its own process, isolated from the GIL and from crashes.

Images are passed through anonymous shared memory, which leaves nothing behind however either side
ends, the rest through a pipe. A hung planner is killed. The parent needs no thread:
:meth:`ProcessWorker.poll` does the work without waiting.
"""

import multiprocessing
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import resource_tracker

from apt_policy.core.sample import Chunk
from apt_policy.inference.ports import PlanFailure, PlannedChunk, PlannerFactory, PlanRequest
from apt_policy.inference.worker import child
from apt_policy.inference.worker.shared_frames import SharedFrames, block_size
from apt_policy.inference.worker.thread_worker import ThreadWorker
from apt_policy.inference.worker.worker import (
    Worker,
    WorkerConfig,
    WorkerError,
    WorkerKind,
    WorkerState,
    failure_from_exception,
    timeout_failure,
)

_JOIN_S = 0.2
_POLL_S = 0.02


class ProcessWorker:
    """Worker process; see :class:`apt_policy.inference.worker.worker.Worker`."""

    def __init__(self, factory: PlannerFactory, *, cameras: int, image_size: int,
                 config: WorkerConfig | None = None) -> None:
        """Start the process, which begins to build the planner at once.

        Args:
            factory: picklable planner factory, called in the child.
            cameras: largest number of views in an observation.
            image_size: side of their images [px].
            config: timeouts, threads, restarts; None for the defaults.
        """
        self._config = config or WorkerConfig()
        self._restarts_left = self._config.restarts
        self._context = multiprocessing.get_context('spawn')
        # RawArray is anonymous shared memory: SharedMemory's named blocks outlive a killed node.
        self._block = self._context.RawArray('B', block_size(cameras, image_size))
        self._frames = SharedFrames(self._block, cameras, image_size)
        self._child_args = (self._block, cameras, image_size, pickle.dumps(factory), self._config)
        self._lock = threading.RLock()
        self._pending: PlanRequest | None = None
        self._running: PlanRequest | None = None
        self._outcomes: deque[PlannedChunk | PlanFailure] = deque()
        self._start_error: PlanFailure | None = None
        self._closed = False
        self._state = WorkerState.STARTING
        self._start()

    @property
    def state(self) -> WorkerState:
        """Present state."""
        with self._lock:
            self._advance()
            return self._state

    @property
    def pid(self) -> int | None:
        """Process id of the planner."""
        return self._process.pid

    def warm_up(self) -> None:
        """Wait until the planner is built and warm; raise WorkerError with its message if it fails."""
        while self.state is WorkerState.STARTING:
            time.sleep(_POLL_S)
        with self._lock:
            if self._state is WorkerState.DEAD:
                failure = self._start_error
                raise WorkerError(failure.message if failure else 'the worker is closed')

    def submit(self, request: PlanRequest) -> None:
        """Submit ``request``; it replaces one that still waits."""
        with self._lock:
            if self._state is WorkerState.DEAD:
                return
            self._pending = request
            self._dispatch()

    def poll(self) -> PlannedChunk | PlanFailure | None:
        """Return the next outcome, None if there is none."""
        with self._lock:
            self._advance()
            return self._outcomes.popleft() if self._outcomes else None

    def close(self, timeout_s: float = 2.0) -> None:
        """End the process; kill it after ``timeout_s``."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._state is not WorkerState.DEAD:
                self._send(child.Stop())
                self._process.join(timeout_s)
            self._state = WorkerState.DEAD
            self._outcomes.clear()
            self._end_process()
            self._process.join(timeout_s)

    def _start(self) -> None:
        self._connection, far_end = self._context.Pipe()
        self._process = self._context.Process(target=child.main, args=(far_end, *self._child_args),
                                              name='apt_planner', daemon=True)
        with _sigint_blocked():
            self._process.start()
        far_end.close()
        self._enter(WorkerState.STARTING)

    def _enter(self, state: WorkerState) -> None:
        self._state = state
        self._since_s = time.monotonic()

    def _advance(self) -> None:
        """Receive the child's messages, detect its end, and send the next request."""
        if self._state is WorkerState.DEAD:
            return
        try:
            while self._state is not WorkerState.DEAD and self._connection.poll():
                self._receive(self._connection.recv())
        except (EOFError, OSError):
            self._handle_death(_exit_failure(self._process))
            return
        self._check_timeouts()
        self._dispatch()

    def _receive(self, message: child.ToParent) -> None:
        if isinstance(message, child.StartFailed):
            self._restarts_left = 0
            self._handle_death(message.failure)
            return
        if isinstance(message, Chunk) and self._running is not None:
            self._outcomes.append(PlannedChunk(request=self._running, chunk=message))
        elif isinstance(message, PlanFailure):
            self._outcomes.append(message)
        self._running = None
        self._enter(WorkerState.IDLE)

    def _check_timeouts(self) -> None:
        waited_s = time.monotonic() - self._since_s
        if self._state is WorkerState.BUSY and waited_s > self._config.plan_timeout_s:
            self._handle_death(timeout_failure(waited_s, self._config))
        elif self._state is WorkerState.STARTING and waited_s > self._config.start_timeout_s:
            self._handle_death(PlanFailure(message=f'the planner was not ready after {waited_s:.0f} s'))

    def _dispatch(self) -> None:
        if self._state is not WorkerState.IDLE or self._pending is None:
            return
        request, self._pending = self._pending, None
        try:
            observation = self._frames.store(request.observation)
        except ValueError as error:
            self._outcomes.append(failure_from_exception(error))
            return
        self._running = request
        self._enter(WorkerState.BUSY)
        self._send(replace(request, observation=observation))

    def _send(self, message: PlanRequest | child.Stop) -> None:
        try:
            self._connection.send(message)
        except OSError:
            # The child has ended; the next poll reads the end of the pipe and reports the exit code.
            pass

    def _handle_death(self, failure: PlanFailure) -> None:
        self._start_error = failure
        self._outcomes.append(failure)
        self._running = self._pending = None
        self._end_process()
        self._enter(WorkerState.DEAD)
        if self._restarts_left > 0:
            self._restarts_left -= 1
            self._start()

    def _end_process(self) -> None:
        self._process.kill()
        self._process.join(_JOIN_S)
        self._connection.close()


def start_worker(kind: WorkerKind, factory: PlannerFactory, *, cameras: int, image_size: int,
                 config: WorkerConfig | None = None) -> Worker:
    """Start a worker of ``kind``, which begins to build the planner; :meth:`Worker.warm_up` waits for it.

    Args:
        kind: thread or process.
        factory: planner factory; must be picklable for :attr:`WorkerKind.PROCESS`.
        cameras: largest number of views in an observation.
        image_size: side of their images [px].
        config: timeouts, threads, restarts; None for the defaults.
    """
    if kind is WorkerKind.THREAD:
        return ThreadWorker(factory, config=config)
    return ProcessWorker(factory, cameras=cameras, image_size=image_size, config=config)


def _exit_failure(process: multiprocessing.process.BaseProcess) -> PlanFailure:
    process.join(_JOIN_S)
    code = process.exitcode
    if code is not None and code < 0:
        hint = '; is the machine out of memory?' if -code == signal.SIGKILL else ''
        return PlanFailure(message=f'the planner process was ended by {signal.Signals(-code).name}{hint}')
    return PlanFailure(message=f'the planner process ended with exit code {code}')


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Block SIGINT while the child starts; it inherits the mask, so that on Ctrl-C the parent ends it."""
    # Starting a process also starts the resource tracker if there is none yet, which unblocks the signal.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

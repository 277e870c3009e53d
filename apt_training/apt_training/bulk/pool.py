"""Process pool of the suite for numbered jobs; a process that dies costs one job only.

Results come as they are ready, in any order. Each process is a ``pebble`` pool of its own, so that a process that dies
takes no job, lock or pipe of another with it. loky would break the whole pool, report the exit code only as text, and
end processes with SIGKILL, which leaves half-written files.
"""

import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import ModuleType
from typing import Any

from apt_policy.core.errors import UserError
from apt_training.bulk.process import (
    WorkerFactory,
    WorkerFailure,
    WorkerReady,
    build_worker,
    error_text,
    init_process,
    run_job,
)
from apt_training.environment import environment_variables

ProgressCallback = Callable[[int, Any], None]
"""Function of a job's number and its progress; see :func:`apt_training.bulk.process.report_progress`."""

ONE_THREAD = {'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1', 'LP_NUM_THREADS': '0'}
"""Environment of a process that uses one core; llvmpipe counts threads beside the one that draws."""
# A job whose process died runs once more.
_ATTEMPTS = 2
# Time from SIGTERM to SIGKILL: a busy machine closes the file of an episode in less.
_END_S = 10.0
# Period of progress reports; results wake the pool at once.
_PROGRESS_PERIOD_S = 0.1


class WorkerPoolError(UserError, RuntimeError):
    """Error of a pool: no worker can be built, or a worker raised an exception."""


@dataclass(frozen=True, kw_only=True)
class JobDone:
    """Result of a job."""

    number: int
    result: Any
    """Return value of the worker."""


@dataclass(frozen=True, kw_only=True)
class JobFailed:
    """Job whose process ended at each attempt."""

    number: int
    reason: str
    """Sentence for the user."""
    pids: tuple[int, ...]
    """Process ids of the processes that ended."""


@dataclass(frozen=True, kw_only=True)
class _ProcessExit:
    """Exit of a process during a job."""

    status: int | None
    """Exit status; None if unknown."""


class _JobQueue:
    """Jobs to run; the next number is requested only when a process is free for it."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers, self._again = iter(numbers), deque[int]()
        self._ended: dict[int, tuple[int, ...]] = {}

    def next(self) -> int | None:
        """Return the next job; None if there is none."""
        return self._again.popleft() if self._again else next(self._numbers, None)

    def on_worker_exit(self, number: int, pid: int, exit_: _ProcessExit) -> JobFailed | None:
        """Queue the job of a process that ended again, or return its failure after the last attempt."""
        pids = self._ended[number] = (*self._ended.get(number, ()), pid)
        if len(pids) < _ATTEMPTS:
            self._again.append(number)
            return None
        return JobFailed(number=number, reason=f'its process {_exit_text(exit_)}, {len(pids)} times', pids=pids)


class WorkerPool:
    """Pool of ``size`` processes; a context manager that ends them."""

    def __init__(self, factory: WorkerFactory, size: int, *, environment: Mapping[str, str] | None = None,
                 on_progress: ProgressCallback | None = None) -> None:
        """Start no process yet.

        Args:
            factory: builds a worker in each process.
            size: number of processes.
            environment: environment variables to add in the processes, which have one thread each.
            on_progress: called with the progress reports of jobs.
        """
        self._factory, self._size = factory, size
        self._environment = {**ONE_THREAD, **(environment or {})}
        self._on_progress = on_progress or (lambda number, progress: None)
        self._workers: list[_WorkerProcess] = []
        self._answered: SimpleQueue[_WorkerProcess] = SimpleQueue()

    def __enter__(self) -> 'WorkerPool':
        """Check that pebble is installed.

        Raises:
            WorkerPoolError: pebble is not installed.
        """
        _library().CONSTS.term_timeout = _END_S
        return self

    def __exit__(self, *_: object) -> None:
        workers, self._workers = self._workers, []
        # In parallel: each may take seconds to close files.
        with ThreadPoolExecutor(max(1, len(workers))) as executor:
            list(executor.map(_WorkerProcess.end, workers))

    def run(self, jobs: Iterable[int]) -> Iterator[JobDone | JobFailed]:
        """Run jobs and yield their results as they are ready.

        Args:
            jobs: numbers of the jobs, requested when a process is free.

        Raises:
            WorkerPoolError: a worker raised an exception; jobs in other processes are dropped.
        """
        todo = _JobQueue(jobs)
        self._assign(todo)
        while any(worker.job is not None for worker in self._workers):
            outcome = self._outcome(self._next_answered(), todo)
            if outcome is not None:
                yield outcome
            # After the caller handled the outcome, which may end the iterable of jobs.
            self._assign(todo)

    def _assign(self, todo: _JobQueue) -> None:
        for worker in [worker for worker in self._workers if worker.job is None]:
            if (number := todo.next()) is None:
                return
            worker.run(number)
        while len(self._workers) < self._size and (number := todo.next()) is not None:
            worker = _WorkerProcess(self._answered.put)
            # Before the start, so that a half-started process ends with the block.
            self._workers.append(worker)
            with environment_variables(self._environment):
                worker.start(self._factory, number)

    def _next_answered(self) -> '_WorkerProcess':
        """Wait for an answer, and pass on progress; the progress of a job comes before its result."""
        while True:
            try:
                answered = self._answered.get(timeout=_PROGRESS_PERIOD_S)
            except Empty:
                answered = None
            for worker in self._workers:
                for progress in worker.progress_reports():
                    if worker.job is not None:
                        self._on_progress(worker.job, progress)
            if answered is not None:
                return answered

    def _outcome(self, worker: '_WorkerProcess', todo: _JobQueue) -> JobDone | JobFailed | None:
        """Return the outcome of the process's job; None if the job has not ended."""
        answer, number = worker.answer(), worker.job
        assert number is not None, 'only a process with a job answers'
        if isinstance(answer, WorkerFailure):
            raise WorkerPoolError(answer.message) from RuntimeError(answer.trace)
        if isinstance(answer, WorkerReady):
            worker.pid = answer.pid
            worker.run(number)
            return None
        if not isinstance(answer, _ProcessExit):
            worker.job = None
            return JobDone(number=number, result=answer)
        self._workers.remove(worker)
        worker.end()
        if worker.pid is None:
            raise WorkerPoolError(f'a worker process {_exit_text(answer)} before its worker was built')
        return todo.on_worker_exit(number, worker.pid, answer)


class _WorkerProcess:
    """Process, its pipe, and its present job."""

    def __init__(self, answered: Callable[['_WorkerProcess'], None]) -> None:
        """Create the pool of one process.

        Args:
            answered: called from another thread when the process answered.
        """
        context = multiprocessing.get_context('spawn')
        self._receiver, self._sender = context.Pipe(duplex=False)
        self._pebble = _library()
        self._pool = self._pebble.ProcessPool(max_workers=1, initializer=init_process, initargs=(self._sender,),
                                              context=context)
        self._answered = answered
        self.job: int | None = None
        self.pid: int | None = None
        """Process id; None until the worker is built."""

    def start(self, factory: WorkerFactory, job: int) -> None:
        """Start the process and build its worker, for a first job."""
        self.job = job
        self._schedule(build_worker, factory)

    def run(self, job: int) -> None:
        """Start a job."""
        self.job = job
        self._schedule(run_job, job)

    def answer(self) -> Any:
        """Return the answer of the process, or its exit."""
        try:
            return self._future.result()
        except self._pebble.ProcessExpired as error:
            return _ProcessExit(status=error.exitcode)
        # The process ended before pebble knew that it had started.
        except BrokenProcessPool:
            return _ProcessExit(status=None)
        # A factory or a result that cannot be pickled.
        except Exception as error:
            return WorkerFailure(message=error_text(error), trace=traceback.format_exc())

    def progress_reports(self) -> Iterator[Any]:
        """Yield the progress reports since the last call."""
        while self._receiver.poll():
            yield self._receiver.recv()

    def end(self) -> None:
        """End the process: SIGTERM, and SIGKILL if it takes too long."""
        # First, so that the process does not block on a full pipe.
        self._receiver.close()
        self._pool.stop()
        self._pool.join()
        self._sender.close()

    def _schedule(self, function: Callable[..., Any], argument: Any) -> None:
        try:
            self._future: Future[Any] = self._pool.schedule(function, args=(argument,))
        # The process was killed while it had no job.
        except RuntimeError as error:
            self._future = Future()
            self._future.set_exception(BrokenProcessPool(str(error)))
        self._future.add_done_callback(lambda _: self._answered(self))


def _library() -> ModuleType:
    # Imported late: everything but the pool works without pebble.
    try:
        import pebble
    except ImportError as error:
        raise WorkerPoolError('worker processes need pebble: pip install -r requirements/python.txt') from error
    return pebble


def _exit_text(exit_: _ProcessExit) -> str:
    if exit_.status is None:
        return 'ended'
    if exit_.status < 0:
        return f'was killed by signal {-exit_.status} ({signal.Signals(-exit_.status).name})'
    return f'ended with status {exit_.status}'

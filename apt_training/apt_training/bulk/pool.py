"""The suite's one process pool: numbered jobs, one each at a time, and a lost process costs one job.

What a job is, and what becomes of its result, is the caller's matter. Results come as they are ready, in any
order. Each process is a ``pebble`` pool of its own, so that a process that dies takes no other's job, lock or
pipe with it; pebble and not loky, which breaks the whole pool, tells the exit code in prose only, and ends
processes with SIGKILL, which leaves half-written files.
"""

import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import ModuleType
from typing import Any

from apt_policy.core.errors import UserError
from apt_training.bulk.process import Failed, Ready, WorkerFactory, begin, build, do, words_of

OnNews = Callable[[int, Any], None]
"""Takes what a worker told of the job of a number; see :func:`apt_training.bulk.process.tell`."""

ONE_THREAD = {'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1', 'LP_NUM_THREADS': '0'}
"""Environment of a process that keeps to one core; llvmpipe counts threads beside the one that draws."""
_TRIES = 2
# From SIGTERM to SIGKILL: an episode's file is closed in less, on a busy machine too.
_END_S = 10.0
# News are looked at so often; results wake the pool.
_TICK_S = 0.1


class CrewError(UserError, RuntimeError):
    """No worker can be built, or all of them would fail alike; the message is the worker's own."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """A job that was done."""

    number: int
    result: Any


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A job whose process ended, again and again."""

    number: int
    reason: str
    pids: tuple[int, ...]
    """Of the processes that ended."""


@dataclass(frozen=True, kw_only=True)
class _Ended:
    """A process ended that had something to do."""

    status: int | None
    """None if it cannot be known."""


class _Jobs:
    """What is to be done still; asks for the next number only when a process is free for it."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers, self._again = iter(numbers), deque[int]()
        self._ended: dict[int, tuple[int, ...]] = {}

    def next(self) -> int | None:
        """Give the next job away; None if there is none."""
        return self._again.popleft() if self._again else next(self._numbers, None)

    def mourn(self, number: int, pid: int, ended: _Ended) -> Lost | None:
        """Have the job of a process that ended done by another; or give it up."""
        pids = self._ended[number] = (*self._ended.get(number, ()), pid)
        if len(pids) < _TRIES:
            self._again.append(number)
            return None
        return Lost(number=number, reason=f'its process {_ending(ended)}, {len(pids)} times', pids=pids)


class Crew:
    """A context manager over ``size`` processes; they end with the block, however it is left."""

    def __init__(self, factory: WorkerFactory, size: int, *, environment: Mapping[str, str] | None = None,
                 on_news: OnNews | None = None) -> None:
        """``environment`` is added to that of the processes, which have one thread each."""
        self._factory, self._size = factory, size
        self._environment = {**ONE_THREAD, **(environment or {})}
        self._on_news = on_news or (lambda number, news: None)
        self._members: list[_Member] = []
        self._answered: SimpleQueue[_Member] = SimpleQueue()

    def __enter__(self) -> 'Crew':
        """Start nothing yet.

        Raises:
            CrewError: pebble is not installed.
        """
        _library().CONSTS.term_timeout = _END_S
        return self

    def __exit__(self, *_: object) -> None:
        members, self._members = self._members, []
        # All at once: each may take its time to close files.
        with ThreadPoolExecutor(max(1, len(members))) as ending:
            list(ending.map(_Member.end, members))

    def do(self, jobs: Iterable[int]) -> Iterator[Done | Lost]:
        """Every job of ``jobs`` once.

        Raises:
            CrewError: a worker raised; what the others had begun is dropped.
        """
        todo = _Jobs(jobs)
        self._hand_out(todo)
        while any(member.job is not None for member in self._members):
            outcome = self._outcome(self._next_answered(), todo)
            if outcome is not None:
                yield outcome
            # After the caller saw the outcome, which may be that there is nothing more to do.
            self._hand_out(todo)

    def _hand_out(self, todo: _Jobs) -> None:
        for member in [member for member in self._members if member.job is None]:
            if (number := todo.next()) is None:
                return
            member.begin(number)
        while len(self._members) < self._size and (number := todo.next()) is not None:
            member = _Member(self._answered.put)
            # First, so that it ends with the block even if it is only half started.
            self._members.append(member)
            with _environment(self._environment):
                member.start(self._factory, number)

    def _next_answered(self) -> '_Member':
        """Wait for an answer; news are passed on meanwhile, those of a job before its result."""
        while True:
            try:
                answered = self._answered.get(timeout=_TICK_S)
            except Empty:
                answered = None
            for member in self._members:
                for news in member.news():
                    if member.job is not None:
                        self._on_news(member.job, news)
            if answered is not None:
                return answered

    def _outcome(self, member: '_Member', todo: _Jobs) -> Done | Lost | None:
        """What became of the member's job; None if it is not at its end."""
        answer, number = member.answer(), member.job
        assert number is not None, 'only what has a job answers'
        if isinstance(answer, Failed):
            raise CrewError(answer.message) from RuntimeError(answer.trace)
        if isinstance(answer, Ready):
            member.pid = answer.pid
            member.begin(number)
            return None
        if not isinstance(answer, _Ended):
            member.job = None
            return Done(number=number, result=answer)
        self._members.remove(member)
        member.end()
        if member.pid is None:
            raise CrewError(f'a worker process {_ending(answer)} before it was ready')
        return todo.mourn(number, member.pid, answer)


class _Member:
    """A process, the road to it, and what it does."""

    def __init__(self, answered: Callable[['_Member'], None]) -> None:
        """``answered`` is called from another thread."""
        context = multiprocessing.get_context('spawn')
        self._hears, self._tells = context.Pipe(duplex=False)
        self._pebble = _library()
        self._pool = self._pebble.ProcessPool(max_workers=1, initializer=begin, initargs=(self._tells,),
                                              context=context)
        self._answered = answered
        self.job: int | None = None
        self.pid: int | None = None
        """Known when the worker is built."""

    def start(self, factory: WorkerFactory, job: int) -> None:
        """Start the process and have its worker built, for a first job."""
        self.job = job
        self._schedule(build, factory)

    def begin(self, job: int) -> None:
        """Have a job done."""
        self.job = job
        self._schedule(do, job)

    def answer(self) -> Any:
        """What the process answered, or that it did not."""
        try:
            return self._future.result()
        except self._pebble.ProcessExpired as error:
            return _Ended(status=error.exitcode)
        # The process was gone before pebble heard that it had begun.
        except BrokenProcessPool:
            return _Ended(status=None)
        # A factory or a result that cannot be pickled.
        except Exception as error:
            return Failed(message=words_of(error), trace=traceback.format_exc())

    def news(self) -> Iterator[Any]:
        """What the process told since the last time."""
        while self._hears.poll():
            yield self._hears.recv()

    def end(self) -> None:
        """End the process: SIGTERM, and SIGKILL if it takes too long."""
        # First, so that it does not wait for news to be heard.
        self._hears.close()
        self._pool.stop()
        self._pool.join()
        self._tells.close()

    def _schedule(self, function: Callable[..., Any], argument: Any) -> None:
        try:
            self._future: Future[Any] = self._pool.schedule(function, args=(argument,))
        # The process was killed while it had nothing to do.
        except RuntimeError as error:
            self._future = Future()
            self._future.set_exception(BrokenProcessPool(str(error)))
        self._future.add_done_callback(lambda _: self._answered(self))


def _library() -> ModuleType:
    # Here, so that all that needs no processes works without it.
    try:
        import pebble
    except ImportError as error:
        raise CrewError('work in processes needs pebble: pip install -r requirements/python.txt') from error
    return pebble


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Add to the environment of the processes that are started within the block: numpy reads it on import."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _ending(ended: _Ended) -> str:
    if ended.status is None:
        return 'ended'
    if ended.status < 0:
        return f'was ended by signal {-ended.status} ({signal.Signals(-ended.status).name})'
    return f'ended with status {ended.status}'

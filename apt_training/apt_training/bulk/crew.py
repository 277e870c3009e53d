"""Processes that do numbered jobs: one job each at a time, and a lost process costs one job.

What a job is, and what becomes of its result, is the caller's matter. Results come as they are ready, in any
order.
"""

import multiprocessing
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from apt_policy.core.stop import heed_parent_only

Worker = Callable[[int], Any]
"""Does the job of a number; one that has ``close`` is closed in the end."""
WorkerFactory = Callable[[], Worker]
"""Builds a worker where it will run; picklable."""

ONE_THREAD = {'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1', 'LP_NUM_THREADS': '0'}
"""Environment of a process that keeps to one core; llvmpipe counts threads beside the one that draws."""
_TRIES = 2
_END_S = 5.0


class CrewError(RuntimeError):
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
class _Failed:
    """An exception of a worker."""

    message: str
    trace: str


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """A worker is built."""


class Crew:
    """A context manager over ``size`` processes; they end with the block, however it is left."""

    def __init__(self, factory: WorkerFactory, size: int, *, environment: Mapping[str, str] | None = None) -> None:
        """``environment`` is added to that of the processes, which have one thread each."""
        self._factory, self._size = factory, size
        self._environment = {**ONE_THREAD, **(environment or {})}
        self._members: list[_Member] = []

    def __enter__(self) -> 'Crew':
        return self

    def __exit__(self, *_: object) -> None:
        for member in self._members:
            member.process.terminate()
        for member in self._members:
            member.process.join(_END_S)
            if member.process.is_alive():
                member.process.kill()

    def do(self, jobs: Iterable[int]) -> Iterator[Done | Lost]:
        """Every job of ``jobs`` once.

        Raises:
            CrewError: a worker raised; what the others had begun is dropped.
        """
        todo, ended = deque(jobs), dict[int, tuple[int, ...]]()
        self._members = [self._start() for _ in range(min(self._size, len(todo)))]
        while todo or any(member.job is not None for member in self._members):
            wait([member.connection for member in self._members])
            for member in [member for member in self._members if member.connection.poll()]:
                answer = self._answer_of(member)
                if isinstance(answer, _Failed):
                    raise CrewError(answer.message) from RuntimeError(answer.trace)
                member.is_ready = member.is_ready or answer is not None
                job, member.job = member.job, None
                if answer is None:
                    self._members.remove(member)
                    ended, lost = self._mourn(member, job, todo, ended)
                    if lost is not None:
                        yield lost
                    if todo:
                        self._members.append(self._start())
                    continue
                if todo:
                    member.send(todo.popleft())
                if job is not None:
                    yield Done(number=job, result=answer)

    def _mourn(self, member: '_Member', job: int | None, todo: deque[int],
               ended: dict[int, tuple[int, ...]]) -> tuple[dict[int, tuple[int, ...]], Lost | None]:
        """Have the job of a process that ended done by another; or give it up."""
        member.process.join(_END_S)
        reason = _ending(member.process.exitcode)
        if job is None and not member.is_ready:
            raise CrewError(f'a worker process {reason} before it was ready')
        if job is None:
            return ended, None
        pids = (*ended.get(job, ()), int(member.process.pid or 0))
        if len(pids) < _TRIES:
            todo.appendleft(job)
            return {**ended, job: pids}, None
        return ended, Lost(number=job, reason=f'its process {reason}, {len(pids)} times', pids=pids)

    @staticmethod
    def _answer_of(member: '_Member') -> Any:
        try:
            return member.connection.recv()
        except (EOFError, OSError):
            return None

    def _start(self) -> '_Member':
        context = multiprocessing.get_context('spawn')
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, self._factory), daemon=True)
        before = {name: os.environ.get(name) for name in self._environment}
        os.environ.update(self._environment)
        try:
            process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        there.close()
        return _Member(process, here)


class _Member:
    """A process, the road to it, and what it does."""

    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        self.process, self.connection = process, connection
        self.job: int | None = None
        self.is_ready = False

    def send(self, job: int) -> None:
        """Give it a job; one that has ended is found out at its next answer."""
        self.job = job
        with suppress(OSError):
            self.connection.send(job)


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f'was ended by signal {-code} ({signal.Signals(-code).name})'
    return f'ended with status {code}'


def _serve(connection: Connection, factory: WorkerFactory) -> None:
    """In the process: build the worker, then do one job after the other."""
    heed_parent_only().on_request = partial(sys.exit, 0)
    with ExitStack() as stack:
        _work(connection, factory, stack)


def _work(connection: Connection, factory: WorkerFactory, stack: ExitStack) -> None:
    try:
        worker = factory()
        stack.callback(getattr(worker, 'close', lambda: None))
        connection.send(_Ready())
        while True:
            connection.send(worker(connection.recv()))
    except (EOFError, BrokenPipeError):
        return
    # Whatever it is, its words are the best that the user can be told.
    except Exception as error:
        with suppress(OSError):
            connection.send(_Failed(message=_words(error), trace=traceback.format_exc()))


def _words(error: Exception) -> str:
    known = type(error).__module__.startswith('apt_') or isinstance(error, OSError)
    return str(error) if known else f'{type(error).__name__}: {error}'

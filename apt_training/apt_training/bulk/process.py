"""Functions that run in a process of the pool: it builds a worker, then runs one job after the other."""

import atexit
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from apt_policy import console
from apt_policy.core.errors import UserError
from apt_policy.core.stop import ignore_interrupts

JobWorker = Callable[[int], Any]
"""Function that runs the job of a number; its ``close`` is called at the end, if it has one."""
WorkerFactory = Callable[[], JobWorker]
"""Picklable function that builds a worker in its process."""

_TERMINATED = 128 + signal.SIGTERM
"""Exit status after SIGTERM, as shells report it: pebble ignores a process that ends with 0."""


@dataclass(frozen=True, kw_only=True)
class WorkerFailure:
    """Exception of a worker."""

    message: str
    """Error text for the user."""
    trace: str
    """Traceback."""


@dataclass(frozen=True, kw_only=True)
class WorkerReady:
    """Report of a process that its worker is built."""

    pid: int
    """Process id."""


class _ProcessState:
    """Worker and progress pipe of this process."""

    worker: JobWorker
    progress: Connection


def report_progress(progress: Any) -> None:
    """Send a small object from within a job to the ``on_progress`` of the pool."""
    # Writes of up to 4096 bytes (PIPE_BUF) are atomic, even if the process dies in the middle.
    _ProcessState.progress.send(progress)


def init_process(progress: Connection) -> None:
    """Prepare the process, which reports progress through ``progress``."""
    _ProcessState.progress = progress
    ignore_interrupts().on_request = partial(sys.exit, _TERMINATED)


def build_worker(factory: WorkerFactory) -> WorkerReady | WorkerFailure:
    """Build the worker of this process."""
    def build() -> WorkerReady:
        _ProcessState.worker = factory()
        atexit.register(_close)
        return WorkerReady(pid=os.getpid())

    return _run_guarded(build)


def run_job(number: int) -> Any:
    """Run one job and return the result of the worker, or a :class:`WorkerFailure`."""
    return _run_guarded(partial(_ProcessState.worker, number))


def error_text(error: Exception) -> str:
    """Return the text of an error for the user, with the class name of an unexpected one."""
    known = isinstance(error, (UserError, OSError))
    return console.error_text(error) if known else f'{type(error).__name__}: {error}'


def _run_guarded(function: Callable[[], Any]) -> Any:
    try:
        return function()
    # pebble would treat it as a result and continue.
    except SystemExit as exit_request:
        _close()
        os._exit(exit_request.code if isinstance(exit_request.code, int) and exit_request.code else _TERMINATED)
    # A worker may raise anything; the pool reports it to the user.
    except Exception as error:
        return WorkerFailure(message=error_text(error), trace=traceback.format_exc())


def _close() -> None:
    getattr(getattr(_ProcessState, 'worker', None), 'close', lambda: None)()

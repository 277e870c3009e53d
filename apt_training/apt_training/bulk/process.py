"""What runs in a process of the pool: it builds a worker, then does one job after the other."""

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

from apt_policy.core.stop import heed_parent_only

Worker = Callable[[int], Any]
"""Does the job of a number; one that has ``close`` is closed in the end."""
WorkerFactory = Callable[[], Worker]
"""Builds a worker where it will run; picklable."""

_TERMINATED = 128 + signal.SIGTERM
"""Exit status after SIGTERM, as shells have it: pebble takes no notice of a process that ends with 0."""


@dataclass(frozen=True, kw_only=True)
class Failed:
    """An exception of a worker."""

    message: str
    trace: str


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A worker is built."""

    pid: int


class _Here:
    """What this process works with."""

    worker: Worker
    tells: Connection


def tell(news: Any) -> None:
    """From within a job: send something small to the pool's ``on_news``, such as how far the job is."""
    # A pipe passes a message of up to 4096 bytes on whole or not at all, even if the process dies in the middle.
    _Here.tells.send(news)


def begin(tells: Connection) -> None:
    """Prepare the process, which sends its news through ``tells``."""
    _Here.tells = tells
    heed_parent_only().on_request = partial(sys.exit, _TERMINATED)


def build(factory: WorkerFactory) -> Ready | Failed:
    """Build the worker of this process."""
    def built() -> Ready:
        _Here.worker = factory()
        atexit.register(_close)
        return Ready(pid=os.getpid())

    return _guarded(built)


def do(number: int) -> Any:
    """Do one job; the worker's result, or how it failed."""
    return _guarded(partial(_Here.worker, number))


def words_of(error: Exception) -> str:
    """What the user is told of an error."""
    known = type(error).__module__.startswith('apt_') or isinstance(error, OSError)
    return str(error) if known else f'{type(error).__name__}: {error}'


def _guarded(work: Callable[[], Any]) -> Any:
    try:
        return work()
    # pebble would take it for a result, and go on.
    except SystemExit as left:
        _close()
        os._exit(left.code if isinstance(left.code, int) and left.code else _TERMINATED)
    # Whatever it is, its words are the best that the user can be told.
    except Exception as error:
        return Failed(message=words_of(error), trace=traceback.format_exc())


def _close() -> None:
    getattr(getattr(_Here, 'worker', None), 'close', lambda: None)()

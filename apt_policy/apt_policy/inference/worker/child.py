"""Planner process of ``process_worker``.

It sets the thread count of numeric libraries, builds the planner, plans one request at
a time, always the newest, and ends when its parent does. It imports nothing heavy itself.
"""

import os
import pickle
import threading
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

from apt_policy.core.sample import Chunk
from apt_policy.inference.ports import PlanFailure, PlanRequest
from apt_policy.inference.worker.shared_frames import SharedFrames
from apt_policy.inference.worker.worker import WorkerConfig, failure_from_exception, run_plan

_THREAD_VARIABLES = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS')


@dataclass(frozen=True, kw_only=True)
class PlannerReady:
    """Message to the parent: the planner is built and warm."""


@dataclass(frozen=True, kw_only=True)
class StartFailed:
    """Message to the parent: the planner could not be built or warmed up."""

    failure: PlanFailure


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Message to the child: end the process."""


ToParent = PlannerReady | StartFailed | Chunk | PlanFailure


def main(connection: Connection, block: Any, cameras: int, image_size: int, factory: bytes,
         config: WorkerConfig) -> None:
    """Plan requests until a :class:`Stop` arrives.

    Ctrl-C has no effect, because the parent starts this process with SIGINT blocked.

    Args:
        connection: pipe to the parent.
        block: shared memory of the images.
        cameras: largest number of views in an observation.
        image_size: side of their images [px].
        factory: pickled planner factory, so that its imports happen after the thread count is set.
        config: threads and niceness.
    """
    _limit_resources(config)
    inbox = _Inbox(connection)
    frames = SharedFrames(block, cameras, image_size)
    try:
        planner = pickle.loads(factory)()
        planner.warm_up()
    except Exception as error:
        connection.send(StartFailed(failure=failure_from_exception(error)))
        return
    connection.send(PlannerReady())
    while (request := inbox.next_request()) is not None:
        outcome = run_plan(planner, replace(request, observation=frames.restore(request.observation)))
        connection.send(outcome if isinstance(outcome, PlanFailure) else outcome.chunk)
    planner.close()


def threads_beside_control() -> int:
    """Return the number of available cores minus one for the control tick, at least 1."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


def _limit_resources(config: WorkerConfig) -> None:
    threads = config.torch_threads or threads_beside_control()
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(threads)))
    os.nice(config.nice)


class _Inbox:
    """Inbox that reads requests in a thread, so that the parent never waits, and keeps the newest."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._changed = threading.Condition()
        self._newest: PlanRequest | Stop | None = None
        threading.Thread(target=self._read, name='apt_inbox', daemon=True).start()

    def next_request(self) -> PlanRequest | None:
        """Wait for a request; return None after a :class:`Stop`."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None)
            message, self._newest = self._newest, None
        return message if isinstance(message, PlanRequest) else None

    def _read(self) -> None:
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                # The parent has ended: no result is needed, and a running plan may take long.
                os._exit(0)
            with self._changed:
                self._newest = message
                self._changed.notify()

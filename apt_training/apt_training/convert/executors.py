"""Converting many units at once: in this process, in several on this machine, or on a Ray cluster.

Each takes units and yields what became of them, as they finish. A process that dies takes
nothing with it but the unit that it was at.
"""

import logging
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import cv2

from apt_policy.core.stop import heed_parent_only
from apt_training.convert.source import ConvertError, Unit
from apt_training.convert.write_unit import Output, UnitOutcome, convert_unit

Progress = Callable[[str, float, int], None]
"""Told a unit's name, the share of it that was read, and how many frames came out."""

_STOP_S = 10.0
"""How long a process may take to leave when told to."""


def run_here(units: Sequence[Unit], output: Output, progress: Progress) -> Iterator[UnitOutcome]:
    """One after the other, in this process."""
    for unit in units:
        outcome = convert_unit(unit, output, partial(progress, unit.name))
        yield outcome
        if outcome.disk_full:
            return


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    """A process at work."""

    unit: Unit
    process: BaseProcess
    connection: Connection


def run_processes(units: Sequence[Unit], output: Output, progress: Progress, *, jobs: int) -> Iterator[UnitOutcome]:
    """In up to ``jobs`` processes at once, each unit in one of its own."""
    context = multiprocessing.get_context('forkserver')
    # So that a unit does not wait for imports.
    context.set_forkserver_preload([__name__])
    waiting, running = deque(units), list[_Job]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_started(context, waiting.popleft(), output))
            ready = set(wait([job.connection for job in running]))
            for job in [job for job in running if job.connection in ready]:
                outcome = _heard(job, progress)
                if outcome is None:
                    continue
                running.remove(job)
                yield outcome
                if outcome.disk_full:
                    waiting.clear()
    finally:
        _stop(running)


def run_ray(units: Sequence[Unit], output: Output, progress: Progress, *, address: str | None,
            workers: int | None) -> Iterator[UnitOutcome]:
    """On a Ray cluster whose machines see the same files; a unit is one task on one processor.

    Args:
        units: what to convert.
        output: where to, as the machines of the cluster see it.
        progress: is told when a unit is done.
        address: of the cluster; None joins the one that the environment names, or starts one here.
        workers: processors of a cluster that is started here; None: all.

    Raises:
        ConvertError: Ray is not installed, or the cluster cannot be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise ConvertError("--executor ray needs Ray: pip install 'ray[default]', or leave the flag out") from error
    own = not ray.is_initialized()
    if own:
        here = address is None and not os.environ.get('RAY_ADDRESS')
        try:
            ray.init(address=address, num_cpus=workers if here else None, include_dashboard=False if here else None,
                     log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConvertError(f'the Ray cluster at {address or "this machine"} cannot be reached: {error}') from error
    try:
        # A unit that killed its worker would kill the next one too.
        task = ray.remote(num_cpus=1, max_retries=0)(_on_ray)
        tasks: dict[Any, Unit] = {task.remote(unit, output): unit for unit in units}
        while tasks:
            (done, *_), _ = ray.wait(list(tasks))
            unit = tasks.pop(done)
            try:
                outcome = ray.get(done)
            except ray.exceptions.RayError as error:
                outcome = _lost(unit, f'its Ray worker failed: {str(error).strip().splitlines()[0]}')
            progress(unit.name, 1.0, outcome.frames)
            yield outcome
    finally:
        if own:
            ray.shutdown()


def _on_ray(unit: Unit, output: Output) -> UnitOutcome:
    cv2.setNumThreads(1)
    return convert_unit(unit, output, lambda share, frames: None)


def _started(context: Any, unit: Unit, output: Output) -> _Job:
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(unit, output, sending), name=f'apt-convert {unit.name}', daemon=True)
    process.start()
    # The parent's end must not keep the pipe open when the process dies.
    sending.close()
    return _Job(unit=unit, process=process, connection=receiving)


def _work(unit: Unit, output: Output, sending: Connection) -> None:
    """What a process does."""
    stop = heed_parent_only()
    cv2.setNumThreads(1)

    def tell(share: float, frames: int) -> None:
        # Here, not in the handler: a file that is just being opened must not be left behind.
        if stop.is_set():
            raise SystemExit(1)
        sending.send((share, frames))

    try:
        outcome = convert_unit(unit, output, tell)
    except Exception as error:
        outcome = _lost(unit, f'{type(error).__name__}: {error}')
    sending.send(outcome)


def _heard(job: _Job, progress: Progress) -> UnitOutcome | None:
    """What a process says; None if it goes on."""
    try:
        said = job.connection.recv()
    except (EOFError, OSError):
        job.process.join()
        code = job.process.exitcode or 0
        how = f'was killed by {signal.Signals(-code).name}' if code < 0 else f'ended with status {code}'
        return _lost(job.unit, f'the process that converted it {how}; its whole episodes are kept: run the same '
                               'command again to go on (out of memory? fewer --jobs)')
    if isinstance(said, UnitOutcome):
        progress(job.unit.name, 1.0, said.frames)
        job.process.join()
        return said
    progress(job.unit.name, *said)
    return None


def _stop(running: Sequence[_Job]) -> None:
    for job in running:
        job.process.terminate()
    for job in running:
        job.process.join(_STOP_S)
        if job.process.is_alive():
            job.process.kill()
            job.process.join()


def _lost(unit: Unit, why: str) -> UnitOutcome:
    return UnitOutcome(name=unit.name, path=unit.path, error=f'{unit.path}: {why}')

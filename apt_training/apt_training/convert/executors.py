"""Converting many units at once: in this process, in several on this machine, or on a Ray cluster.

Each takes units and yields what became of them, as they finish. A process that dies takes
nothing with it but the unit that it was at, and another goes on with that once.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

import cv2

from apt_policy.core.stop import heed_parent_only
from apt_training.bulk.pool import JobDone, WorkerPool, WorkerPoolError
from apt_training.bulk.process import tell
from apt_training.convert.source import ConvertError, Unit
from apt_training.convert.write_unit import Output, UnitOutcome, convert_unit

Progress = Callable[[str, float, int], None]
"""Told a unit's name, the share of it that was read, and how many frames came out."""


def run_here(units: Sequence[Unit], output: Output, progress: Progress) -> Iterator[UnitOutcome]:
    """One after the other, in this process."""
    for unit in units:
        outcome = convert_unit(unit, output, partial(progress, unit.name))
        yield outcome
        if outcome.disk_full:
            return


def run_processes(units: Sequence[Unit], output: Output, progress: Progress, *, jobs: int) -> Iterator[UnitOutcome]:
    """In up to ``jobs`` processes at once.

    Raises:
        ConvertError: no process can convert anything.
    """
    full: list[UnitOutcome] = []

    def pass_on(number: int, news: tuple[float, int]) -> None:
        progress(units[number].name, *news)

    try:
        with WorkerPool(partial(_Converter, units, output), jobs, on_progress=pass_on) as pool:
            for outcome in pool.run(takewhile(lambda _: not full, range(len(units)))):
                converted = outcome.result if isinstance(outcome, JobDone) else _lost(
                    units[outcome.number], f'{outcome.reason}; its whole episodes are kept: run the same command again '
                                           'to go on (out of memory? fewer --jobs)')
                progress(converted.name, 1.0, converted.frames)
                if converted.disk_full:
                    full.append(converted)
                yield converted
    except WorkerPoolError as error:
        raise ConvertError(str(error)) from error


class _Converter:
    """Converts units in a process of the pool."""

    def __init__(self, units: Sequence[Unit], output: Output) -> None:
        self._units, self._output = units, output
        cv2.setNumThreads(1)
        self._stop = heed_parent_only()

    def __call__(self, number: int) -> UnitOutcome:
        unit = self._units[number]
        try:
            return convert_unit(unit, self._output, self._tell)
        # It is this unit's, and the others can be converted.
        except Exception as error:
            return _lost(unit, f'{type(error).__name__}: {error}')

    def _tell(self, share: float, frames: int) -> None:
        # Here, not in the handler: a file that is just being opened must not be left behind.
        if self._stop.is_set():
            raise SystemExit(1)
        tell((share, frames))


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


def _lost(unit: Unit, why: str) -> UnitOutcome:
    return UnitOutcome(name=unit.name, path=unit.path, error=f'{unit.path}: {why}')

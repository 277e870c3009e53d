"""Executors of conversion jobs: this process, several processes of this machine, or a Ray cluster.

Each takes jobs and yields their results as they finish. A process that dies loses only its present job, which another
process runs once more.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

import cv2

from apt_policy.core.stop import ignore_interrupts
from apt_training.bulk.pool import JobDone, WorkerPool, WorkerPoolError
from apt_training.bulk.process import error_text, report_progress
from apt_training.convert.job_runner import ConversionResult, OutputConfig, run_conversion_job
from apt_training.convert.source import ConversionJob, ConvertError

ProgressCallback = Callable[[str, float, int], None]
"""Function of a job's name, the fraction of its input that was read, and the number of its frames."""


def run_in_process(jobs: Sequence[ConversionJob], output: OutputConfig, progress: ProgressCallback
                   ) -> Iterator[ConversionResult]:
    """Run jobs one after the other in this process."""
    for job in jobs:
        outcome = run_conversion_job(job, output, partial(progress, job.name))
        yield outcome
        if outcome.disk_full:
            return


def run_in_pool(jobs: Sequence[ConversionJob], output: OutputConfig, progress: ProgressCallback, *, workers: int
                ) -> Iterator[ConversionResult]:
    """Run jobs in up to ``workers`` processes at once.

    Raises:
        ConvertError: the processes cannot run.
    """
    full: list[ConversionResult] = []

    def on_progress(number: int, so_far: tuple[float, int]) -> None:
        progress(jobs[number].name, *so_far)

    try:
        with WorkerPool(partial(_Converter, jobs, output), workers, on_progress=on_progress) as pool:
            for outcome in pool.run(takewhile(lambda _: not full, range(len(jobs)))):
                converted = outcome.result if isinstance(outcome, JobDone) else _failed(
                    jobs[outcome.number], f'{outcome.reason}; its complete episodes are kept: run the same command '
                                           'again to continue, with fewer --workers if memory was full')
                progress(converted.name, 1.0, converted.frames)
                if converted.disk_full:
                    full.append(converted)
                yield converted
    except WorkerPoolError as error:
        raise ConvertError(str(error)) from error


class _Converter:
    """Worker that converts jobs in a process of the pool."""

    def __init__(self, jobs: Sequence[ConversionJob], output: OutputConfig) -> None:
        self._jobs, self._output = jobs, output
        cv2.setNumThreads(1)
        self._stop = ignore_interrupts()

    def __call__(self, number: int) -> ConversionResult:
        job = self._jobs[number]
        try:
            return run_conversion_job(job, self._output, self._on_progress)
        # The error belongs to this job; the others can be converted.
        except Exception as error:
            return _failed(job, error_text(error))

    def _on_progress(self, share: float, frames: int) -> None:
        # Not in the signal handler: a file that is being opened would be left behind.
        if self._stop.is_set():
            raise SystemExit(1)
        report_progress((share, frames))


def run_on_ray(jobs: Sequence[ConversionJob], output: OutputConfig, progress: ProgressCallback, *, address: str | None,
            workers: int | None) -> Iterator[ConversionResult]:
    """Run jobs on a Ray cluster whose machines share the input and output folders; each job is a task on one processor.

    Args:
        jobs: jobs to run.
        output: output folder, as the machines of the cluster see it.
        progress: called when a job is done.
        address: address of the cluster; None joins the one of ``RAY_ADDRESS``, or starts one on this machine.
        workers: processors of a cluster that is started on this machine; None: all.

    Raises:
        ConvertError: Ray is not installed, or the cluster cannot be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise ConvertError("--executor ray needs Ray: pip install 'ray[default]', or omit the flag") from error
    own = not ray.is_initialized()
    if own:
        here = address is None and not os.environ.get('RAY_ADDRESS')
        try:
            ray.init(address=address, num_cpus=workers if here else None, include_dashboard=False if here else None,
                     log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConvertError(f'cannot connect to the Ray cluster at {address or "this machine"}: {error}') from error
    try:
        # No retry: a job that killed its worker would kill the next one too.
        task = ray.remote(num_cpus=1, max_retries=0)(_on_ray)
        tasks: dict[Any, ConversionJob] = {task.remote(job, output): job for job in jobs}
        while tasks:
            (done, *_), _ = ray.wait(list(tasks))
            job = tasks.pop(done)
            try:
                outcome = ray.get(done)
            except ray.exceptions.RayError as error:
                outcome = _failed(job, f'the Ray worker failed: {str(error).strip().splitlines()[0]}')
            progress(job.name, 1.0, outcome.frames)
            yield outcome
    finally:
        if own:
            ray.shutdown()


def _on_ray(job: ConversionJob, output: OutputConfig) -> ConversionResult:
    cv2.setNumThreads(1)
    return run_conversion_job(job, output, lambda share, frames: None)


def _failed(job: ConversionJob, reason: str) -> ConversionResult:
    return ConversionResult(name=job.name, path=job.path, error=f'{job.path}: {reason}')

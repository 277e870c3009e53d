"""Conversion as the command line asks for it: chooses source and executor, and shows what happens."""

import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import cv2
from rich.console import Console

from apt_policy.console import INTERRUPTED_STATUS
from apt_policy.core.contract import load_contract
from apt_policy.core.stop import StopRequest, stop_requests
from apt_training.convert.arguments import ConvertArguments
from apt_training.convert.executors import ProgressCallback, run_in_pool, run_in_process, run_on_ray
from apt_training.convert.job_runner import ConversionResult, OutputConfig
from apt_training.convert.report import print_summary, show_progress
from apt_training.convert.source import ConversionJob, ConvertError, EpisodeSource
from apt_training.episodes.episode import ImageStorage
from apt_training.inspect.contact_sheet import draw_contact_sheet

SHEET = 'contact_sheet.png'
_PLAIN_WIDTH = 150
_SOURCES = {'rosbag': 'apt_training.convert.rosbag.source', 'lerobot': 'apt_training.convert.lerobot.source'}


def convert(arguments: ConvertArguments) -> int:
    """Convert all inputs; return the exit status of ``apt-convert``.

    Raises:
        ConvertError: an input, or a flag that does not fit it.
        ContractError: the contract cannot be used.
        OSError: a file cannot be read or written.
    """
    console = _console()
    cv2.setNumThreads(1)
    outcomes: list[ConversionResult] = []
    try:
        contract = load_contract(arguments.contract)
        units = list(_source(arguments.source).list_jobs(arguments, contract))
        output = OutputConfig(folder=arguments.out, storage=ImageStorage(arguments.storage),
                              jpeg_quality=arguments.jpeg_quality, force=arguments.force)
        output.folder.mkdir(parents=True, exist_ok=True)
        with _stopping(waits=_worker_count(arguments, units) <= 1) as stop, show_progress(
                console, len(units)) as progress:
            def update(name: str, share: float, frames: int) -> None:
                _raise_if_stopped(stop)
                progress.update(name, share, frames)

            for outcome in _outcomes(arguments, units, output, update):
                outcomes.append(outcome)
                _raise_if_stopped(stop)
    except OSError as error:
        if error.filename is not None:
            raise
        raise ConvertError(f'{arguments.out}: {error.strerror or error}') from error
    except KeyboardInterrupt:
        print_summary(console, outcomes, quiet=True)
        console.print('interrupted; whole episodes are kept, and the same command resumes', style='bold')
        return INTERRUPTED_STATUS
    outcomes.sort(key=lambda outcome: [unit.name for unit in units].index(outcome.name))
    print_summary(console, outcomes, quiet=arguments.quiet)
    _draw_sheet(console, arguments, outcomes)
    return _status(units, outcomes)


def _console() -> Console:
    terminal = Console(stderr=True)
    # Into a file or a pipe tables go whole.
    return terminal if terminal.is_terminal else Console(stderr=True, width=_PLAIN_WIDTH)


def _source(name: str) -> EpisodeSource:
    return cast(EpisodeSource, importlib.import_module(_SOURCES[name]))


def _outcomes(arguments: ConvertArguments, units: Sequence[ConversionJob], output: OutputConfig,
              progress: ProgressCallback) -> Iterator[ConversionResult]:
    if arguments.executor == 'ray':
        run: Any = partial(run_on_ray, address=arguments.ray_address, workers=arguments.workers or None)
    else:
        workers = _worker_count(arguments, units)
        run = run_in_process if workers <= 1 else partial(run_in_pool, workers=workers)
    return cast(Iterator[ConversionResult], run(units, output, progress))


def _worker_count(arguments: ConvertArguments, units: Sequence[ConversionJob]) -> int:
    """Return how many processes work at once; 1 is this process, and Ray's are not counted."""
    if arguments.executor == 'ray':
        return len(units) + 1
    return min(arguments.workers or len(os.sched_getaffinity(0)), len(units))


def _draw_sheet(console: Console, arguments: ConvertArguments, outcomes: Sequence[ConversionResult]) -> None:
    files = [arguments.out / name for outcome in outcomes for name in outcome.files]
    if not arguments.sheet or not files:
        return
    try:
        draw_contact_sheet(files, arguments.out / SHEET)
    # A picture is no reason to call the conversion failed.
    except (OSError, ValueError) as error:
        console.print(f'note: no {SHEET}: {error}', style='yellow', markup=False, soft_wrap=True)
        return
    console.print(f'{len(files)} episodes in {arguments.out}; see {arguments.out / SHEET}', markup=False,
                  soft_wrap=True)


def _status(units: Sequence[ConversionJob], outcomes: Sequence[ConversionResult]) -> int:
    whole = len(outcomes) == len(units) and not any(outcome.failed for outcome in outcomes)
    return 0 if whole and any(outcome.files for outcome in outcomes) else 1


def _raise_if_stopped(stop: StopRequest) -> None:
    if stop.is_set():
        raise KeyboardInterrupt


@contextmanager
def _stopping(*, waits: bool) -> Iterator[StopRequest]:
    """Let signals end the work in the block.

    Args:
        waits: end it only when the request is checked, because a file that is being opened must not be left behind; a
            second signal ends it at once.
    """
    with stop_requests() as stop:
        def interrupt() -> None:
            if stop.count > 1 or not waits:
                raise KeyboardInterrupt

        stop.on_request = interrupt
        yield stop
